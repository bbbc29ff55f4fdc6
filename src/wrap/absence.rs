//! Which tasks may leave no snapshot.

use serde_json::Value;

use crate::tekton::{
    fields::{items, text},
    graph::Graph,
    matrix::Fan,
};

/// Which tasks may leave no snapshot, and which may not run at all
/// (Tekton: pipelinerunresolution.go `skip`, docs/pipelines.md "Guard Task execution").
pub struct Absence {
    dag_len: usize,
    /// Skipped by its own `when`, or failed with `onError: continue`: then the tasks after it run all the same. A skip for
    /// any other reason takes all of them along, so that nobody misses the snapshot.
    passed_over: Vec<bool>,
    /// Skipped for whatever reason, or failed without an end to the run.
    uncertain: Vec<bool>,
}

impl Absence {
    /// For the tasks of a graph; `fans` tells of their matrices.
    pub fn new(tasks: &[&Value], graph: &Graph, fans: &[Option<Fan>]) -> Self {
        let mut passed_over = vec![false; tasks.len()];
        let mut uncertain = vec![false; tasks.len()];
        for task in graph.in_order() {
            let guarded = !items(tasks[task], "when").is_empty();
            let may_fail = !matches!(text(tasks[task], "onError"), "" | "stopAndFail");
            passed_over[task] = guarded || may_fail;
            let no_result = graph.result_dependencies[task].iter().any(|&on| uncertain[on]);
            let empty = fans[task].is_some_and(|fan| fan.may_be_empty);
            let taken_along =
                graph.dependencies[task].iter().any(|&on| task < graph.dag_len && uncertain[on] && !passed_over[on]);
            uncertain[task] = passed_over[task] || no_result || empty || taken_along;
        }
        Self { dag_len: graph.dag_len, passed_over, uncertain }
    }

    /// Whether `task` may not run, or fail without an end to the run.
    pub fn may_be_absent(&self, task: usize) -> bool {
        self.uncertain[task]
    }

    /// Whether `ancestor` may have left nothing when `task` runs. A finally task runs after whatever happened.
    pub fn of(&self, ancestor: usize, task: usize) -> bool {
        task >= self.dag_len || self.passed_over[ancestor]
    }
}
