//! System calls on the tree of a workspace. Every path is taken name by name from an open directory.
//!
//! | module | contents |
//! |---|---|
//! | [`tree`] | open directories, attributes |
//! | [`access`] | ways to directories, also where modes are in the way |
//! | [`handle`] | one file, whatever happens to its name |
//! | [`walk`] | a walk through a tree, in tree order |
//! | [`extract`] | makes files and directories |
//! | [`mounts`] | mount points of other containers |
//! | [`sparse`] | files with holes |
//! | [`space`] | room on the volume |

pub mod access;
pub mod extract;
pub mod handle;
pub mod mounts;
pub mod space;
pub mod sparse;
pub mod tree;
pub mod walk;
