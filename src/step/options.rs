//! Params that reach the steps as they are.

use serde::{Deserialize, Serialize};

/// Param `conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// The join fails and lists the paths and both tasks.
    #[default]
    Fail,
    /// The later task in pipeline order wins.
    Last,
}

/// A rule of param `conflict`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConflictRule {
    /// Which paths of a workspace: a pattern as gitignore has them, see [`crate::globs::Glob`].
    pub paths: String,
    /// What becomes of them.
    pub then: OnConflict,
}

/// Param `compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `application/vnd.oci.image.layer.v1.tar+zstd`
    #[default]
    Zstd,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    Gzip,
    /// `application/vnd.oci.image.layer.v1.tar`
    None,
}

/// Param `keep`: what is left when the run is over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Keep {
    /// The target. Snapshots are for the run only: they may expire, and `prune` deletes them.
    #[default]
    Target,
    /// The snapshots too: they don't expire, and `prune` leaves them unless it is told to delete all.
    All,
    /// Nothing: no target is written.
    None,
}
