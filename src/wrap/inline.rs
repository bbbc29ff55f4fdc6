//! A task that refers to a Task becomes one with the Task's spec inlined, so that steps can be injected.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::Refusal;
use crate::tekton::{
    fields::{field, field_mut, items, items_mut, remove, set, text},
    workspaces::Use,
};

/// Annotations that describe the object they were on, not what it does. `tekton.dev/v1beta1…` hold the parts of a v1beta1
/// Task that v1 can't express: on a Task with more steps they break its conversion back (Tekton: task_conversion.go).
const NOT_COPIED: [&str; 3] =
    ["kubectl.kubernetes.io/last-applied-configuration", "tekton.dev/v1beta1", "chains.tekton.dev/"];

/// The name of the Task in the run's namespace that a pipeline task refers to; none where it is embedded.
pub fn referenced_task(pipeline_task: &Value) -> Result<Option<String>, Refusal> {
    let refuse = |problem: String| {
        let workspace = items(pipeline_task, "workspaces").first();
        let workspace = workspace.map_or("", |used| match text(used, "workspace") {
            "" => text(used, "name"),
            name => name,
        });
        Err(Refusal::Task { task: text(pipeline_task, "name").to_owned(), workspace: workspace.to_owned(), problem })
    };
    if ["pipelineRef", "pipelineSpec"].iter().any(|name| field(pipeline_task, name).is_some()) {
        return refuse(
            "it is a pipeline in a pipeline, whose run gets a volume of its own: wrap the inner pipeline instead"
                .into(),
        );
    }
    if let Some(spec) = field(pipeline_task, "taskSpec") {
        return match (text(spec, "apiVersion"), text(spec, "kind")) {
            ("", "") => Ok(None),
            (_, kind) => {
                refuse(format!("it is a custom task ({kind}), which has no steps: take the workspace out of it"))
            }
        };
    }
    let Some(reference) = field(pipeline_task, "taskRef") else {
        return refuse("it has neither taskRef nor taskSpec: add one".into());
    };
    match (text(reference, "apiVersion"), text(reference, "kind")) {
        ("" | "tekton.dev/v1" | "tekton.dev/v1beta1", "" | "Task") => {}
        (version, kind) => {
            return refuse(format!(
                "it refers to {version:?} kind {kind:?}, a custom task, which has no steps: take the workspace out of it"
            ));
        }
    }
    match (text(reference, "resolver"), text(reference, "name")) {
        ("", "") => refuse("its taskRef has no name: add one".into()),
        ("", name) if name.contains("$(") => {
            refuse(format!("its taskRef's name {name:?} is a variable, which is not supported yet: write the name"))
        }
        ("", name) => Ok(Some(name.to_owned())),
        (resolver, _) => refuse(format!(
            "its taskRef goes through resolver {resolver:?}, which is not supported yet: refer to a Task of the namespace"
        )),
    }
}

/// Makes `pipeline_task` one with an embedded spec that binds and declares all wrapped workspaces that it uses. Gives the
/// name of the Task that was inlined.
pub fn inline(
    pipeline_task: &mut Value,
    used: &[Use],
    tasks: &BTreeMap<String, Value>,
) -> Result<Option<String>, Refusal> {
    let name = referenced_task(pipeline_task)?;
    if let Some((name, task)) = name.as_ref().and_then(|name| Some((name, tasks.get(name)?))) {
        let spec = embedded(task, name)?;
        if let Some(map) = pipeline_task.as_object_mut() {
            remove(map, "taskRef");
            map.insert("taskSpec".to_owned(), spec);
        }
    }
    for used in used.iter().filter(|used| !used.bound) {
        declare(pipeline_task, &used.task);
    }
    let no_steps = field(pipeline_task, "taskSpec").is_none_or(|spec| items(spec, "steps").is_empty());
    if no_steps {
        let name = text(pipeline_task, "name").to_owned();
        return Err(Refusal::Incomplete { kind: "task", name, field: "steps" });
    }
    Ok(name)
}

/// A pod is for Windows where its nodeSelector says so or a script is for it (Tekton: pkg/pod/pod.go, docs/windows.md): the
/// injected steps are Linux programs.
pub fn refuse_windows(pipeline_task: &Value, workspace: &str, run: &Value) -> Result<(), Refusal> {
    let name = text(pipeline_task, "name");
    let spec = run.get("spec").unwrap_or(&Value::Null);
    let own = items(spec, "taskRunSpecs").iter().find(|own| text(own, "pipelineTaskName") == name);
    let selects = |holder: &Value| {
        let selector = field(holder, "podTemplate").and_then(|template| field(template, "nodeSelector"));
        selector.is_some_and(|selector| text(selector, "kubernetes.io/os") == "windows")
    };
    let steps = field(pipeline_task, "taskSpec").map_or(&[][..], |spec| items(spec, "steps"));
    let scripts = || steps.iter().any(|step| text(step, "script").starts_with("#!win"));
    if !own.into_iter().chain(field(spec, "taskRunTemplate")).any(selects) && !scripts() {
        return Ok(());
    }
    let problem = "it runs on Windows, where the injected steps can't run: take the workspace out of it".to_owned();
    Err(Refusal::Task { task: name.to_owned(), workspace: workspace.to_owned(), problem })
}

/// The spec of `task` as an embedded one, with the labels and annotations that Tekton would copy from a referenced Task.
fn embedded(task: &Value, name: &str) -> Result<Value, Refusal> {
    let incomplete = || Refusal::Incomplete { kind: "task", name: name.to_owned(), field: "spec" };
    let mut spec = field(task, "spec").and_then(Value::as_object).ok_or_else(incomplete)?.clone();
    let metadata = field(task, "metadata").unwrap_or(&Value::Null);
    let mut labels = field(metadata, "labels").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.insert("tekton.dev/task".to_owned(), json!(name));
    let mut copied = Map::new();
    copied.insert("labels".to_owned(), Value::Object(labels));
    let annotations = copied_annotations(metadata);
    if !annotations.is_empty() {
        copied.insert("annotations".to_owned(), Value::Object(annotations));
    }
    spec.insert("metadata".to_owned(), Value::Object(copied));
    Ok(Value::Object(spec))
}

/// The annotations of `metadata` that Tekton would copy to what is made from the object.
pub fn copied_annotations(metadata: &Value) -> Map<String, Value> {
    let mut annotations = field(metadata, "annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.iter().any(|prefix| key.starts_with(prefix)));
    annotations
}

/// Binds and declares a workspace that the task so far uses only through variables: then the injected steps can mount it.
fn declare(pipeline_task: &mut Value, name: &str) {
    let binding = json!({"name": name, "workspace": name});
    if let Some(bindings) = pipeline_task.as_object_mut().and_then(|map| items_mut(map, "workspaces")) {
        bindings.push(binding);
    }
    let Some(spec) = field_mut(pipeline_task, "taskSpec").and_then(Value::as_object_mut) else { return };
    if let Some(declared) = items_mut(spec, "workspaces")
        && !declared.iter().any(|declared| text(declared, "name") == name)
    {
        declared.push(json!({"name": name}));
    }
}

/// Gives every step without a name the one that Tekton would derive from its place, so that a step put in front of it does
/// not change it (Tekton: pkg/pod/entrypoint.go, `unnamed-<index>`).
pub fn name_steps(steps: &mut [Value]) {
    for (index, step) in steps.iter_mut().enumerate() {
        if text(step, "name").is_empty()
            && let Some(map) = step.as_object_mut()
        {
            set(map, "name", json!(format!("unnamed-{index}")));
        }
    }
}
