//! The data plane: a directory to a snapshot in a store, and back.
//!
//! | module | contents |
//! |---|---|
//! | [`steps`], [`by_hand`] | the injected steps; the same by hand |
//! | [`restore`], [`save`], [`publish`] | the operations; making visible what was saved |
//! | [`baseline`], [`diff`], [`shard`] | what a workspace was after its restore; what changed since, in parts |
//! | [`base`] | unpacks the layers of a base image |
//! | [`selection`] | what of a workspace a task restores |
//! | [`cache`] | what of a workspace starts from a cache |
//! | [`snapshot`] | images of a run: manifests, lineages, merge, the image at the end |
//! | [`layer`] | the format of one layer |
//! | [`files`] | system calls on the tree |
//! | [`report`], [`failure`] | the log lines about results; what a save does after a failure of the task |
//! | [`path`], [`entry`], [`conflict`], [`error`], [`progress`], [`threads`] | words that all of them share |
//!
//! Dependencies point from the top of this table to its end. Threads and not async tasks: the work is bound by processors
//! and by system calls on files.

pub(crate) mod base;
mod baseline;
mod by_hand;
mod cache;
pub(crate) mod conflict;
mod diff;
pub(crate) mod entry;
mod error;
mod failure;
pub(crate) mod files;
pub(crate) mod layer;
pub(crate) mod path;
pub(crate) mod progress;
mod publish;
mod report;
mod restore;
mod save;
pub(crate) mod selection;
mod shard;
pub(crate) mod snapshot;
mod steps;
#[cfg(test)]
pub(crate) mod tests;
pub(crate) mod threads;

pub use self::{
    by_hand::{restore_image, save_dir},
    error::Error,
    progress::draw as draw_progress,
    steps::{restore_step, restore_task, save_step, save_task},
};
