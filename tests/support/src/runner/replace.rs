//! Where Tekton replaces variables: in which fields of a pipeline's task and of a step.

use serde_json::Value;

use super::{
    json::{items, items_mut},
    vars::Vars,
};

/// Fields of steps, sidecars and stepTemplate (Tekton: pkg/container/container_replacements.go, step_replacements.go).
const CONTAINER: [&str; 12] = [
    "env",
    "envFrom",
    "image",
    "imagePullPolicy",
    "name",
    "onError",
    "params",
    "script",
    "stderrConfig",
    "stdoutConfig",
    "volumeMounts",
    "workingDir",
];

/// Replaces in a pipeline's task and, where its task is embedded, in that, where the params that it passes hide those of
/// the pipeline (Tekton: pipelinerun/resources/apply.go, ApplyReplacements).
pub fn in_pipeline_task(vars: &Vars, task: &mut Value) {
    in_references(vars, task);
    for workspace in items_mut(task, "workspaces") {
        deep(vars, workspace, "subPath");
    }
    let seen = vars.shadowed(items(task, "params"));
    if let Some(spec) = task.get_mut("taskSpec") {
        in_task(&seen, spec);
    }
}

/// Replaces in params, matrix, when and displayName of a pipeline's task only, never in an embedded task (Tekton:
/// ApplyPipelineTaskContexts, ApplyPipelineTaskStateContext).
pub fn in_references(vars: &Vars, task: &mut Value) {
    values(vars, task, "params");
    if let Some(reference) = task.get_mut("taskRef") {
        deep(vars, reference, "name");
        values(vars, reference, "params");
    }
    if let Some(matrix) = task.get_mut("matrix") {
        values(vars, matrix, "params");
        items_mut(matrix, "include").for_each(|include| values(vars, include, "params"));
    }
    for when in items_mut(task, "when") {
        in_when(vars, when);
    }
    deep(vars, task, "displayName");
}

/// Replaces in a task's spec (Tekton: taskrun/resources/apply.go, ApplyReplacements).
pub fn in_task(vars: &Vars, spec: &mut Value) {
    for key in ["steps", "sidecars"] {
        items_mut(spec, key).for_each(|container| in_container(vars, container));
    }
    if let Some(template) = spec.get_mut("stepTemplate") {
        in_container(vars, template);
    }
    items_mut(spec, "volumes").for_each(|volume| vars.deep(volume));
    items_mut(spec, "workspaces").for_each(|workspace| deep(vars, workspace, "mountPath"));
}

/// Replaces in one step.
pub fn in_container(vars: &Vars, container: &mut Value) {
    for key in CONTAINER {
        deep(vars, container, key);
    }
    for key in ["command", "args"] {
        list(vars, container, key);
    }
    for when in items_mut(container, "when") {
        in_when(vars, when);
    }
}

/// Replaces in one `when` expression.
fn in_when(vars: &Vars, when: &mut Value) {
    deep(vars, when, "input");
    deep(vars, when, "cel");
    list(vars, when, "values");
}

fn values(vars: &Vars, holder: &mut Value, key: &str) {
    for param in items_mut(holder, key) {
        param["value"] = vars.value(&param["value"]);
    }
}

fn list(vars: &Vars, holder: &mut Value, key: &str) {
    if let Some(Value::Array(items)) = holder.get_mut(key) {
        *items = vars.list(items);
    }
}

fn deep(vars: &Vars, holder: &mut Value, key: &str) {
    if let Some(value) = holder.get_mut(key) {
        vars.deep(value);
    }
}
