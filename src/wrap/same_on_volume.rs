//! Whether a pipeline could mean something else wrapped than on a volume.
//!
//! Without `failed: save` a task saves only if it succeeds. So if the run goes on after a task that failed, on a volume the tasks
//! after it see what it had written by then, and wrapped they don't. Whoever asks for a run to be wrapped knows that; a namespace
//! that has all its runs wrapped must not change what they do.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use serde_json::Value;

use super::refusal::Refusal;
use crate::tekton::{
    fields::{field, text},
    graph::Graph,
    tasks::all_tasks,
    workspaces::{Use, is_read_only},
};

/// Refuses a pipeline in which a task could see what a failed one wrote. `used` are the wrapped workspaces that each task uses.
pub fn check(spec: &Value, graph: &Graph, used: &[Vec<Use>]) -> Result<(), Refusal> {
    let tasks: Vec<&Value> = all_tasks(spec).collect();
    let writes = |task: usize, workspace: &str| {
        let is_read_only = |name: &str| field(tasks[task], "taskSpec").is_some_and(|spec| is_read_only(spec, name));
        used[task].iter().any(|used| used.pipeline == workspace && !is_read_only(&used.task))
    };
    let goes_on = |failed: usize, task: usize| {
        task >= graph.dag_len || !matches!(text(tasks[failed], "onError"), "" | "stopAndFail")
    };
    for (task, workspace) in used.iter().enumerate().flat_map(|(task, used)| used.iter().map(move |used| (task, used)))
    {
        let workspace = &workspace.pipeline;
        let failed = graph.ancestors[task].ones().find(|&failed| goes_on(failed, task) && writes(failed, workspace));
        if let Some(failed) = failed {
            return Err(Refusal::AfterFailure {
                task: graph.names[task].clone(),
                failed: graph.names[failed].clone(),
                workspace: workspace.clone(),
            });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tekton::workspaces::uses;

    #[test]
    fn who_could_see_what_a_failed_task_wrote() {
        let task = |name: &str, more: Value| {
            let mut task =
                json!({"name": name, "workspaces": [{"name": "w"}], "taskSpec": {"workspaces": [{"name": "w"}]}});
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            task
        };
        let read_only = json!({"taskSpec": {"workspaces": [{"name": "w", "readOnly": true}]}});
        let (a, b) = (task("a", json!({})), task("b", json!({"runAfter": ["a"]})));
        let unrelated = json!({"name": "c", "taskSpec": {}});
        for (spec, seen_by) in [
            (json!({"tasks": [a, b]}), None),
            (json!({"tasks": [a, b], "finally": [unrelated]}), None),
            (json!({"tasks": [a, b], "finally": [task("f", json!({}))]}), Some("f")),
            (json!({"tasks": [task("a", read_only)], "finally": [task("f", json!({}))]}), None),
            (json!({"tasks": [task("a", json!({"onError": "stopAndFail"})), b]}), None),
            (json!({"tasks": [task("a", json!({"onError": "continue"})), b]}), Some("b")),
        ] {
            let graph = Graph::new(&spec).unwrap();
            let used: Vec<Vec<Use>> = all_tasks(&spec).map(uses).collect();
            match (check(&spec, &graph, &used), seen_by) {
                (Ok(()), None) => {}
                (Err(Refusal::AfterFailure { task, failed, workspace }), Some(expected)) => {
                    assert_eq!((task.as_str(), failed.as_str(), workspace.as_str()), (expected, "a", "w"));
                }
                (result, _) => panic!("{spec}: {result:?}"),
            }
        }
    }
}
