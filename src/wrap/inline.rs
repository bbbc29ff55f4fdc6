//! A task that refers to a Task becomes one with the Task's spec inlined, so that steps can be injected.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::refusal::{Refusal, TaskProblem};
use crate::{
    annotations::{PATHS, is_ours, origin},
    source::Found,
    tekton::{
        fields::{field, field_mut, items, items_mut, remove, text},
        reference::{Reference, is_object_name},
        run::Run,
        scope::{Scope, VariableError},
        workspaces::Use,
    },
};

/// Annotations about the object that they were on, not about what it does. `tekton.dev/v1beta1…` hold the parts of a v1beta1
/// Task that v1 can't express: on a Task with more steps they break its conversion back (Tekton: task_conversion.go).
const NOT_COPIED: [&str; 3] =
    ["kubectl.kubernetes.io/last-applied-configuration", "tekton.dev/v1beta1", "chains.tekton.dev/"];

/// Which Task a pipeline task refers to; none where it is embedded. `scope` has the values of variables in the reference.
pub fn referenced_task(pipeline_task: &Value, scope: &Scope<'_>) -> Result<Option<Reference>, Refusal> {
    referenced(pipeline_task, scope).map_err(|problem| {
        let workspace = items(pipeline_task, "workspaces").first();
        let workspace = workspace.map_or("", |used| match text(used, "workspace") {
            "" => text(used, "name"),
            name => name,
        });
        Refusal::Task { task: text(pipeline_task, "name").to_owned(), workspace: workspace.to_owned(), problem }
    })
}

fn referenced(pipeline_task: &Value, scope: &Scope<'_>) -> Result<Option<Reference>, TaskProblem> {
    if ["pipelineRef", "pipelineSpec"].iter().any(|name| field(pipeline_task, name).is_some()) {
        return Err(TaskProblem::PipelineInPipeline);
    }
    if let Some(spec) = field(pipeline_task, "taskSpec") {
        return match (text(spec, "apiVersion"), text(spec, "kind")) {
            ("", "") => Ok(None),
            (_, kind) => Err(TaskProblem::CustomSpec(kind.to_owned())),
        };
    }
    let reference = field(pipeline_task, "taskRef").ok_or(TaskProblem::NoTask)?;
    check_kind(reference)?;
    let reference = Reference::read(reference, &["apiVersion", "kind"])?;
    let unresolved = |error| match error {
        VariableError::Unknown(name) => TaskProblem::LateVariable(name),
        VariableError::TooLong(_) => TaskProblem::LongVariable(error),
    };
    match reference.resolved(scope).map_err(unresolved)? {
        Reference::Name(name) if !is_object_name(&name) => Err(TaskProblem::InvalidName(name)),
        reference => Ok(Some(reference)),
    }
}

/// Refuses a taskRef to anything but a Task. A name without a kind gets the kind Task before Tekton looks
/// (Tekton: taskref_types.go `IsCustomTask`, pipeline_defaults.go).
fn check_kind(reference: &Value) -> Result<(), TaskProblem> {
    let by_name = text(reference, "resolver").is_empty();
    match (text(reference, "apiVersion"), text(reference, "kind")) {
        ("", "" | "Task") => Ok(()),
        ("", "ClusterTask") => Err(TaskProblem::ClusterTask),
        ("", kind) => Err(TaskProblem::UnknownKind(kind.to_owned())),
        (_, "") if !by_name => Ok(()),
        (version, "" | "Task") if version.starts_with("tekton.dev/") => {
            Err(TaskProblem::ApiVersion(version.to_owned()))
        }
        (version, kind) => Err(TaskProblem::CustomRef { api_version: version.to_owned(), kind: kind.to_owned() }),
    }
}

/// Makes `pipeline_task` one with an embedded spec that binds and declares all wrapped workspaces that it uses. Returns
/// the name of the Task that was inlined.
pub fn inline(
    pipeline_task: &mut Value,
    used: &[Use],
    scope: &Scope<'_>,
    tasks: &HashMap<Reference, Found>,
) -> Result<Option<String>, Refusal> {
    let reference = referenced_task(pipeline_task, scope)?;
    let mut from = None;
    if let Some((reference, task)) = reference.and_then(|reference| tasks.get_key_value(&reference)) {
        let (name, spec) = embedded(reference, task)?;
        from = Some(name);
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
    Ok(from)
}

/// A pod is for Windows where its nodeSelector says so or a script is for it (Tekton: pkg/pod/pod.go, docs/windows.md): the
/// injected steps are Linux programs.
pub fn refuse_windows(pipeline_task: &Value, workspace: &str, run: Run<'_>) -> Result<(), Refusal> {
    let name = text(pipeline_task, "name");
    let selects = |template: &Value| {
        field(template, "nodeSelector").is_some_and(|selector| text(selector, "kubernetes.io/os") == "windows")
    };
    let mut templates = run.task_pod_template(name).into_iter().chain(run.pod_template());
    let steps = field(pipeline_task, "taskSpec").map_or(&[][..], |spec| items(spec, "steps"));
    let scripts = || steps.iter().any(|step| text(step, "script").starts_with("#!win"));
    if !templates.any(selects) && !scripts() {
        return Ok(());
    }
    Err(Refusal::Task { task: name.to_owned(), workspace: workspace.to_owned(), problem: TaskProblem::Windows })
}

/// The name of `task` and its spec as an embedded one, with the labels and annotations that Tekton would copy from a
/// referenced Task (Tekton: taskrun.go `storeTaskSpecAndMergeMeta`).
fn embedded(reference: &Reference, task: &Found) -> Result<(String, Value), Refusal> {
    let metadata = field(&task.object, "metadata").unwrap_or(&Value::Null);
    let name = match reference {
        Reference::Name(name) => name,
        Reference::Remote { .. } => text(metadata, "name"),
    };
    let incomplete = || Refusal::Incomplete { kind: "task", name: name.to_owned(), field: "spec" };
    let mut spec = field(&task.object, "spec").and_then(Value::as_object).ok_or_else(incomplete)?.clone();
    let mut labels = field(metadata, "labels").and_then(Value::as_object).cloned().unwrap_or_default();
    labels.insert("tekton.dev/task".to_owned(), json!(name));
    let mut copied = Map::new();
    copied.insert("labels".to_owned(), Value::Object(labels));
    let mut annotations = copied_annotations(metadata);
    let own = field(metadata, "annotations").and_then(|all| all.get(PATHS));
    annotations.extend(own.map(|paths| (PATHS.to_owned(), paths.clone())));
    annotations.extend(origin("task", reference, task.source.as_ref()));
    if !annotations.is_empty() {
        copied.insert("annotations".to_owned(), Value::Object(annotations));
    }
    spec.insert("metadata".to_owned(), Value::Object(copied));
    Ok((name.to_owned(), Value::Object(spec)))
}

/// The annotations of `metadata` that Tekton would copy to the objects created from it.
pub fn copied_annotations(metadata: &Value) -> Map<String, Value> {
    let mut annotations = field(metadata, "annotations").and_then(Value::as_object).cloned().unwrap_or_default();
    annotations.retain(|key, _| !NOT_COPIED.iter().any(|prefix| key.starts_with(prefix)) && !is_ours(key));
    annotations
}

/// Binds and declares a workspace that the task uses only through variables, so that the injected steps can mount it.
fn declare(pipeline_task: &mut Value, name: &str) {
    // Without `workspace` it is that of the same name, and Tekton does not ask whether an optional one is optional in the task
    // too, as it does not where a workspace is only propagated (Tekton: validate_dependencies.go).
    let binding = json!({"name": name});
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
