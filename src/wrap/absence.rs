//! Which tasks may leave no snapshot.

use serde_json::Value;

use crate::tekton::{
    fields::{items, text},
    graph::Graph,
    matrix::Fan,
};

/// Which tasks may leave no snapshot although the tasks after them run
/// (Tekton: pipelinerunresolution.go `skip`, docs/pipelines.md "Guard Task execution").
pub struct Absence {
    dag_len: usize,
    /// Skipped by `when`, skipped with a parent, or failed with `onError: continue`.
    may_be_absent: Vec<bool>,
}

impl Absence {
    /// For the tasks of a graph; `fans` tells of their matrices.
    pub fn new(tasks: &[&Value], graph: &Graph, fans: &[Option<Fan>]) -> Self {
        let mut may_be_absent = vec![false; tasks.len()];
        // A skip for any other reason than the task's own `when` takes the dependents along.
        let mut taken_along = vec![false; tasks.len()];
        for task in graph.in_order() {
            let result_missing = graph.result_dependencies[task].iter().any(|&on| may_be_absent[on]);
            let empty = fans[task].is_some_and(|fan| fan.may_be_empty);
            let parent_taken = graph.dependencies[task].iter().any(|&on| task < graph.dag_len && taken_along[on]);
            taken_along[task] = result_missing || parent_taken || empty;
            let guarded = !items(tasks[task], "when").is_empty();
            let may_fail = !matches!(text(tasks[task], "onError"), "" | "stopAndFail");
            may_be_absent[task] = taken_along[task] || guarded || may_fail;
        }
        Self { dag_len: graph.dag_len, may_be_absent }
    }

    /// Whether `task` may be skipped, or fail without an end to the run.
    pub fn may_be_absent(&self, task: usize) -> bool {
        self.may_be_absent[task]
    }

    /// Whether `ancestor` may be absent when `task` runs. A finally task runs after whatever happened.
    pub fn of(&self, ancestor: usize, task: usize) -> bool {
        task >= self.dag_len || self.may_be_absent[ancestor]
    }
}
