//! What a run may hold, so that one review takes a bounded share of memory and time. Each limit is far beyond what Pipelines
//! have, and a refusal names it.

/// The largest rewritten PipelineRun in bytes of JSON. Tekton stores the pipeline a second time in the run's status, and
/// etcd takes 1.5 MiB for the whole.
pub const MAX_RUN_BYTES: usize = 600 * 1024;

/// The most TaskRuns that a run may have, combinations of matrices counted: a step that joins all of them looks for a snapshot
/// of each.
pub const MAX_TASK_RUNS: u32 = 10_000;
