//! Which tasks may leave no snapshot.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

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
    /// Skipped by its own `when`, or failed with `onError: continue`: then the tasks after it still run. If it is skipped
    /// for any other reason, so are all of them, and nothing looks for its snapshot.
    passed_over: Vec<bool>,
    /// Skipped for any reason, or failed without ending the run.
    uncertain: Vec<bool>,
}

impl Absence {
    /// For the tasks of a graph; `fans` are the fan-outs of their matrices.
    pub fn new(tasks: &[&Value], graph: &Graph, fans: &[Option<Fan>]) -> Self {
        let mut passed_over = vec![false; tasks.len()];
        let mut uncertain = vec![false; tasks.len()];
        // Skipped in a way that skips all tasks after it too.
        let mut takes_along = vec![false; tasks.len()];
        for task in graph.in_order() {
            let guarded = !items(tasks[task], "when").is_empty();
            let may_fail = !matches!(text(tasks[task], "onError"), "" | "stopAndFail");
            passed_over[task] = guarded || may_fail;
            let no_result = graph.result_dependencies[task].iter().any(|&on| uncertain[on]);
            let empty = fans[task].is_some_and(|fan| fan.may_be_empty);
            let taken_along = graph.dependencies[task].iter().any(|&on| task < graph.dag_len && takes_along[on]);
            takes_along[task] = no_result || empty || taken_along;
            uncertain[task] = passed_over[task] || takes_along[task];
        }
        Self { dag_len: graph.dag_len, passed_over, uncertain }
    }

    /// Whether `task` may be skipped, or may fail without ending the run.
    pub fn may_be_absent(&self, task: usize) -> bool {
        self.uncertain[task]
    }

    /// Whether `ancestor` may have left no snapshot when `task` runs. A finally task runs whatever happened before.
    pub fn is_possible(&self, ancestor: usize, task: usize) -> bool {
        task >= self.dag_len || self.passed_over[ancestor]
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_guarded_task_may_take_others_along_all_the_same() {
        let when = json!([{"input": "a", "operator": "in", "values": ["b"]}]);
        let spec = json!({"tasks": [
            {"name": "a", "when": when},
            {"name": "b", "when": when, "params": [{"name": "p", "value": "$(tasks.a.results.r)"}]},
            {"name": "after-a", "runAfter": ["a"]},
            {"name": "after-b", "runAfter": ["b"]},
        ]});
        let graph = Graph::new(&spec).unwrap();
        let tasks: Vec<&Value> = items(&spec, "tasks").iter().collect();
        let absent = Absence::new(&tasks, &graph, &[None; 4]);
        assert_eq!([0, 1, 2, 3].map(|task| absent.may_be_absent(task)), [true, true, false, true]);
    }
}
