//! tekton-wrap runs a Tekton Pipeline without a PersistentVolumeClaim.
//!
//! The promise: change only the PipelineRun's `pipelineRef` to `resolver: wrap`, and every task sees exactly the files
//! that it would have seen on a volume on which its predecessors ran alone.
//!
//! | module | purpose |
//! |---|---|
//! | [`admission`] | the mutating admission webhook over HTTPS |
//! | [`render`] | the same rewrite over files, without a cluster |
//! | [`plugin`] | commands for people at a terminal, with their own kubeconfig: `tkn wrap …` |
//! | [`resolve`] | finds the objects that a run names, in a cluster |
//! | [`wrap`] | the rewrite itself: no I/O, no clock, no cluster |
//! | [`rerun`] | a run again, from the task that failed: pure too |
//! | [`source`] | the port between the two: what is asked for and what was found |
//! | `page` | an HTML page about runs, without I/O |
//! | [`inspect`], [`prune`] | show what an image of a run holds; delete what a run left beside its target |
//! | [`workspace`] | the data plane: a directory to a snapshot and back |
//! | [`step`] | the contract between the webhook and the steps that it injects |
//! | [`tekton`] | read-only views of Tekton's JSON |
//! | [`traces`] | spans of reviews, for a collector of OpenTelemetry |
//! | [`store`] | where snapshots are kept: a registry or a folder |
//! | [`target`], [`mirror`] | the parsed forms of the params `target` and `mirror` |
//! | [`yaml`], [`metrics`], [`health`], [`log`], [`digest`], [`limits`] | YAML as Kubernetes reads it; all metrics; readiness; the log on stderr; SHA-256 digests; what a run may hold |
//!
//! Dependencies point from the top of this table to its end; `tests/direction.rs` holds that, for the rooms inside too.
//! docs/architecture.md follows one run through all of it.

// No index, sum or cast that input reaches may panic or wrap: where one is allowed, its reason stands beside it. A test that panics fails.
#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

pub mod admission;
mod annotations;
mod arguments;
pub mod digest;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod globs;
pub mod health;
pub mod inspect;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod mirror;
mod page;
pub mod plugin;
pub mod prune;
mod quote;
mod redact;
pub mod render;
pub mod rerun;
pub mod resolve;
pub mod source;
pub mod step;
pub mod store;
pub mod target;
pub mod tekton;
pub mod traces;
mod units;
mod unread;
pub mod workspace;
pub mod wrap;
pub mod yaml;
