//! Tasks that follow each other, for benchmarks of the creation of runs.

use serde_json::{Value, json};

use super::cluster::Namespace;

/// How many Tasks there are: `task-0` and so on.
const TASKS: usize = 10;

/// Stores the Tasks in `namespace`.
pub async fn make_tasks(namespace: &Namespace) {
    let step = json!({"name": "s", "image": "i", "script": "cd $(workspaces.source.path)\nmake all check\n"});
    let spec = json!({"workspaces": [{"name": "source"}], "steps": [step]});
    for index in 0..TASKS {
        namespace.accepts(&object("Task", &format!("task-{index}"), spec.clone())).await;
    }
}

/// The Pipeline `name` of the first `tasks` of them, each by name. Its workspace is `source`.
pub fn pipeline(name: &str, tasks: usize) -> Value {
    let task = |index: usize| {
        let after: Vec<String> = index.checked_sub(1).map(|before| format!("t{before}")).into_iter().collect();
        json!({"name": format!("t{index}"), "runAfter": after, "taskRef": {"name": format!("task-{index}")},
            "workspaces": [{"name": "source"}]})
    };
    let tasks: Vec<Value> = (0..tasks).map(task).collect();
    object("Pipeline", name, json!({"workspaces": [{"name": "source"}], "tasks": tasks}))
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec})
}
