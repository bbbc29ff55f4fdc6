//! The rewrite of PipelineRuns as a pure function: no files but the golden ones, no cluster.

mod golden;
mod plan;
mod refusals;
mod ways;
