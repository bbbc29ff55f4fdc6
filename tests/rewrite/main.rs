//! The rewrite of PipelineRuns as a pure function: no files but the golden ones, no cluster.

mod caches;
mod golden;
mod injected;
mod plan;
mod refusals;
mod ways;
