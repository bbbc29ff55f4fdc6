//! System calls on the tree of a workspace. Every path is taken name by name from an open directory.
//!
//! | module | contents |
//! |---|---|
//! | [`tree`] | open directories, attributes |
//! | [`access`] | ways to directories, also where modes are in the way |
//! | [`handle`] | one file, whatever happens to its name |
//! | [`descent`] | the directories down to one, of which few are held open |
//! | [`walk`] | a walk through a tree, in tree order |
//! | [`extract`] | makes files and directories |
//! | [`attributes`] | what files and directories get beside their content |
//! | [`mounts`] | mount points of other containers |
//! | [`sparse`] | files with holes |
//! | [`space`], [`room`] | room on the volume: whether files fit, and whether they take most of it |

pub mod access;
pub mod attributes;
pub mod descent;
pub mod extract;
pub mod handle;
pub mod mounts;
pub mod room;
pub mod space;
pub mod sparse;
pub mod tree;
pub mod walk;
