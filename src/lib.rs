//! tekton-wrap runs a Tekton Pipeline without a PersistentVolumeClaim.
//!
//! The promise: change only the PipelineRun's `pipelineRef` to `resolver: wrap`, and every task sees exactly the files
//! that it would have seen on a volume on which its predecessors ran alone.
//!
//! | module | what it is for |
//! |---|---|
//! | [`admission`] | serves the mutating admission webhook over HTTPS |
//! | [`prune`] | deletes what a run left beside its target |
//! | [`render`] | the same rewrite over files, without a cluster |
//! | [`resolve`] | turns `pipelineref` and taskRefs into objects |
//! | [`wrap`] | the rewrite itself: no I/O, no clock, no cluster |
//! | [`tekton`] | read-only views of Tekton's JSON |
//! | [`inspect`] | what a snapshot or a whole run holds |
//! | [`log`] | the log on stderr |
//! | [`step`] | what the webhook tells the injected steps |
//! | [`workspace`] | scan, layer, merge, extract: a directory to a snapshot and back |
//! | [`store`] | where snapshots are kept: a registry or a folder |
//! | [`target`] | the parsed form of param `target` |
//!
//! Dependencies point downward only: `admission`, `render` → `resolve`, `wrap` → `tekton`, `step`, `target`; `inspect`, `prune` → `workspace` → `store` → `target`.

pub mod admission;
pub mod digest;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod inspect;
pub mod log;
pub mod metrics;
pub mod prune;
pub mod render;
pub mod resolve;
pub mod source;
pub mod step;
pub mod store;
pub mod target;
pub mod tekton;
mod units;
pub mod workspace;
pub mod wrap;
pub mod yaml;
