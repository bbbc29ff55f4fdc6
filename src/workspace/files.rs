//! System calls on the tree of a workspace. Every path is taken name by name from an open directory.
//!
//! | module | contents |
//! |---|---|
//! | [`tree`] | open directories, attributes, access where modes are in the way |
//! | [`walk`] | a walk through a tree, in tree order |
//! | [`extract`] | makes files and directories |
//! | [`sparse`] | files with holes |
//! | [`space`], [`room`] | room on the volume: whether files fit, and whether they take most of it |

pub mod extract;
pub mod room;
pub mod space;
pub mod sparse;
pub mod tree;
pub mod walk;
