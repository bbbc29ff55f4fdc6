//! The one table of the fields in which Tekton substitutes variables, and what a variable means in each. To support a
//! new field of Tekton's, add a line here. The tests' runner has a table of its own on purpose, to check this one.

use serde_json::Value;

use super::fields::{change_texts, field, items, texts};

/// A field with strings, or with arrays and objects of strings.
pub struct TextField {
    /// The path to it; `x[]` stands for every item of the array `x`.
    pub path: &'static [&'static str],
    /// Whether a result reference in it makes its task depend on the task that has the result
    /// (Tekton: pkg/apis/pipeline/v1/resultref.go `PipelineTaskResultRefs`, container_types.go
    /// `GetVarSubstitutionExpressions`).
    pub makes_edges: bool,
    /// Whether `$(workspaces.x…)` in it gives an embedded task the run's workspace x
    /// (Tekton: pkg/workspace/apply.go `FindWorkspacesUsedByTask`).
    pub propagates: bool,
}

const fn edges(path: &'static [&'static str]) -> TextField {
    TextField { path, makes_edges: true, propagates: false }
}

const fn edges_and_workspaces(path: &'static [&'static str]) -> TextField {
    TextField { path, makes_edges: true, propagates: true }
}

const fn workspaces(path: &'static [&'static str]) -> TextField {
    TextField { path, makes_edges: false, propagates: true }
}

/// Fields of a pipeline task outside of its embedded spec. References in `workspaces[].subPath`, `displayName` and `taskRef`
/// are substituted too, but make no edge.
pub const PIPELINE_TASK: [TextField; 6] = [
    edges(&["params[]", "value"]),
    edges(&["matrix", "params[]", "value"]),
    edges(&["matrix", "include[]", "params[]", "value"]),
    edges(&["when[]", "input"]),
    edges(&["when[]", "values"]),
    edges(&["when[]", "cel"]),
];

/// Fields of a step, a sidecar or a stepTemplate. A stepTemplate makes no edges.
pub const CONTAINER: [TextField; 13] = [
    edges(&["name"]),
    edges(&["image"]),
    edges(&["imagePullPolicy"]),
    edges_and_workspaces(&["script"]),
    edges_and_workspaces(&["workingDir"]),
    edges_and_workspaces(&["command"]),
    edges_and_workspaces(&["args"]),
    edges_and_workspaces(&["env[]", "value"]),
    edges(&["env[]", "valueFrom", "secretKeyRef", "key"]),
    edges(&["env[]", "valueFrom", "secretKeyRef", "name"]),
    edges(&["env[]", "valueFrom", "configMapKeyRef", "key"]),
    edges(&["env[]", "valueFrom", "configMapKeyRef", "name"]),
    workspaces(&["params[]", "value"]),
];

/// Fields of a task's spec that only describe it: Tekton substitutes nothing in them.
const DESCRIPTIONS: [&str; 3] = ["metadata", "description", "displayName"];

/// Calls `found` with every string of `task`, a task of a Pipeline, in which a result reference makes an edge.
pub fn edge_texts<'a>(task: &'a Value, found: &mut impl FnMut(&'a str)) {
    PIPELINE_TASK.iter().filter(|field| field.makes_edges).for_each(|field| visit(task, field.path, found));
    let Some(spec) = field(task, "taskSpec") else { return };
    for container in items(spec, "steps").iter().chain(items(spec, "sidecars")) {
        CONTAINER.iter().filter(|field| field.makes_edges).for_each(|field| visit(container, field.path, found));
    }
}

/// Calls `found` with every string of an embedded task's spec in which naming a workspace propagates it from the run.
pub fn propagating_texts<'a>(task_spec: &'a Value, found: &mut impl FnMut(&'a str)) {
    let containers = items(task_spec, "steps").iter().chain(items(task_spec, "sidecars"));
    for container in containers.chain(field(task_spec, "stepTemplate")) {
        CONTAINER.iter().filter(|field| field.propagates).for_each(|field| visit(container, field.path, found));
    }
}

/// Replaces every string of a task's spec in which Tekton substitutes variables and for which `change` returns another one:
/// all except those that only describe the task.
pub fn change_spec_texts(task_spec: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    change_but(task_spec, &DESCRIPTIONS, change);
}

/// The same for a task of a Pipeline, its embedded spec included. Its parent does not
/// substitute variables in a pipeline in a pipeline or in a custom task.
pub fn change_task_texts(task: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    change_but(task, &["taskSpec", "pipelineSpec", "pipelineRef", "description"], change);
    for (key, spec) in task.as_object_mut().into_iter().flatten() {
        let custom = ["apiVersion", "kind"].iter().any(|name| !super::fields::text(spec, name).is_empty());
        if key.eq_ignore_ascii_case("taskSpec") && !custom {
            change_spec_texts(spec, change);
        }
    }
}

fn change_but(object: &mut Value, left_out: &[&str], change: &mut impl FnMut(&str) -> Option<String>) {
    for (key, value) in object.as_object_mut().into_iter().flatten() {
        if !left_out.iter().any(|name| key.eq_ignore_ascii_case(name)) {
            change_texts(value, change);
        }
    }
}

fn visit<'a>(value: &'a Value, path: &[&str], found: &mut impl FnMut(&'a str)) {
    let Some((first, rest)) = path.split_first() else { return texts(value, found) };
    match first.strip_suffix("[]") {
        Some(list) => items(value, list).iter().for_each(|item| visit(item, rest, found)),
        None => {
            if let Some(value) = field(value, first) {
                visit(value, rest, found);
            }
        }
    }
}
