//! Which of the Pipeline's workspaces a task uses, and how.

use std::collections::{BTreeSet, HashSet};

use serde_json::Value;

use super::{
    fields::{field, flag, items, text},
    tasks::all_tasks,
    texts::propagating_texts,
    variables::{name_after, references},
};

/// One use of a Pipeline's workspace by a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Name of the workspace in the Pipeline and in the run.
    pub pipeline: String,
    /// Name of the workspace in the task.
    pub task: String,
    /// Whether the Pipeline's task binds it; else it is used only through `$(workspaces.x…)` in an embedded task.
    pub bound: bool,
}

/// The workspaces that a task of a Pipeline uses, in the order of its bindings; after them those that an embedded task
/// uses through variables alone (Tekton: pipelinerun.go `propagateWorkspaces`).
pub fn uses(pipeline_task: &Value) -> Vec<Use> {
    let mut uses: Vec<Use> = items(pipeline_task, "workspaces")
        .iter()
        .map(|binding| {
            let task = text(binding, "name").to_owned();
            let pipeline = match text(binding, "workspace") {
                "" => task.clone(),
                name => name.to_owned(),
            };
            Use { pipeline, task, bound: true }
        })
        .collect();
    let Some(spec) = field(pipeline_task, "taskSpec") else { return uses };
    let bound: HashSet<&str> = items(pipeline_task, "workspaces").iter().map(|binding| text(binding, "name")).collect();
    let propagated = propagated(spec).into_iter().filter(|name| !bound.contains(name));
    uses.extend(propagated.map(|name| Use { pipeline: name.to_owned(), task: name.to_owned(), bound: false }));
    uses
}

/// The workspaces of a Pipeline's spec, in the order of their declarations; behind them those that no declaration names, as
/// embedded tasks use them through variables alone: the run's binding reaches them all the same (Tekton: pipelinerun.go
/// `getTaskrunWorkspaces`).
pub fn workspaces(pipeline_spec: &Value) -> Vec<String> {
    let mut names: Vec<String> =
        items(pipeline_spec, "workspaces").iter().map(|declared| text(declared, "name").to_owned()).collect();
    let mut known: HashSet<String> = names.iter().cloned().collect();
    for task in all_tasks(pipeline_spec) {
        let propagated = uses(task).into_iter().filter(|used| !used.bound).map(|used| used.pipeline);
        names.extend(propagated.filter(|name| known.insert(name.clone())));
    }
    names
}

/// Whether a task declares the workspace `name` read-only.
pub fn is_read_only(task_spec: &Value, name: &str) -> bool {
    items(task_spec, "workspaces").iter().any(|declared| text(declared, "name") == name && flag(declared, "readOnly"))
}

/// Where a declared workspace is mounted (Tekton: workspace_types.go `GetMountPath`).
pub fn mount_path(declared: &Value) -> String {
    match text(declared, "mountPath") {
        "" => format!("/workspace/{}", text(declared, "name")),
        path => path.to_owned(),
    }
}

/// The workspaces that the strings of an embedded task name.
fn propagated(spec: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    propagating_texts(spec, &mut |text| {
        found.extend(references(text).filter_map(|reference| name_after(reference, "workspaces")));
    });
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn bound_and_propagated() {
        let task = json!({
            "name": "t",
            "workspaces": [{"name": "output", "workspace": "sources"}, {"name": "cache"}],
            "taskSpec": {
                "stepTemplate": {"env": [{"name": "E", "value": "$(workspaces.env.path)"}]},
                "steps": [{"script": "ls $(workspaces.output.path) $(workspaces[\"more\"].path)", "image": "$(workspaces.no.path)"}],
            },
        });
        let found: Vec<_> = uses(&task).into_iter().map(|u| (u.pipeline, u.task, u.bound)).collect();
        let expected =
            [("sources", "output", true), ("cache", "cache", true), ("env", "env", false), ("more", "more", false)];
        assert_eq!(found, expected.map(|(p, t, b)| (p.to_owned(), t.to_owned(), b)));
    }

    #[test]
    fn declared_or_only_used() {
        let script = |script: &str| json!({"name": "t", "taskSpec": {"steps": [{"script": script}]}});
        let spec = json!({
            "workspaces": [{"name": "b"}, {"name": "unused"}],
            "tasks": [script("ls $(workspaces.c.path) $(workspaces.b.path)")],
            "finally": [script("ls $(workspaces.a.path) $(workspaces.c.path)")],
        });
        assert_eq!(workspaces(&spec), ["b", "unused", "c", "a"]);
    }

    #[test]
    fn a_referenced_task_gets_only_what_is_bound() {
        let task = json!({"name": "t", "taskRef": {"name": "x"}, "workspaces": [{"name": "a"}]});
        assert_eq!(uses(&task).len(), 1);
    }
}
