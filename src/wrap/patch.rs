//! The answer as explicit JSON-patch operations.

use json_patch::{AddOperation, Patch, PatchOperation, RemoveOperation, ReplaceOperation, jsonptr::PointerBuf};
use serde_json::{Map, Value, json};

use super::{
    bindings::Binding,
    inline::copied_annotations,
    provenance::{self, is_provenance},
    refusal::Refusal,
    request::Request,
};
use crate::{
    source::Found,
    tekton::{fields::field, run::Run},
};

/// The label of wrapped runs, for dashboards and policies.
const WRAPPED: &str = "tekton-wrap.dev/wrapped";

/// What has to change in a run.
pub struct Changes {
    /// The wrapped pipeline's spec.
    pub spec: Value,
    /// The bindings of the wrapped workspaces.
    pub bindings: Vec<Binding>,
    /// Values, each with its path in the run.
    pub values: Vec<([String; 4], Value)>,
    /// All `taskRunSpecs`, if one of them changes.
    pub task_run_specs: Option<Value>,
}

/// The patch that turns `run` into the wrapped run, and the result of applying it.
pub fn build(run: Run<'_>, pipeline: &Found, changes: Changes, request: &Request) -> Result<(Patch, Value), Refusal> {
    let metadata = field(&pipeline.object, "metadata").unwrap_or(&Value::Null);
    let name = request.pipeline_name(&pipeline.object);
    let mut labels = field(metadata, "labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut annotations = copied_annotations(metadata);
    // The label that Tekton would set for a referenced pipeline; without it the run would be labelled with its own name.
    let referenced = request.pipeline.as_ref().map(|_| name);
    labels.extend(referenced.map(|name| ("tekton.dev/pipeline".to_owned(), json!(name))));
    labels.insert(WRAPPED.to_owned(), json!("true"));
    annotations.extend(provenance::of_run(referenced, &request.workspaces));
    if let Some(reference) = &request.pipeline {
        annotations.extend(provenance::origin("pipeline", reference, pipeline.source.as_ref()));
    }
    labels.retain(|_, value| value.as_str().is_some_and(|text| text.len() <= 63));

    let mut operations = Vec::new();
    add_missing(&mut operations, run, "labels", labels);
    add_missing(&mut operations, run, "annotations", annotations);
    for (path, value) in changes.values {
        let path = PointerBuf::from_tokens(path);
        operations.push(PatchOperation::Replace(ReplaceOperation { path, value }));
    }
    add_bindings(&mut operations, run, changes.bindings);
    operations.extend(changes.task_run_specs.map(|specs| add(&["spec", "taskRunSpecs"], specs)));
    if run.pipeline_ref().is_some() {
        operations.push(remove(&["spec", "pipelineRef"]));
    }
    // "add" replaces what is there (RFC 6902, 4.1).
    operations.push(add(&["spec", "pipelineSpec"], changes.spec));

    let patch = Patch(operations);
    let mut result = run.object().clone();
    json_patch::patch(&mut result, &patch).map_err(|error| Refusal::Patch(error.to_string()))?;
    Ok((patch, result))
}

/// Adds those of `wanted` that the run's metadata does not have: the run's own values win (Tekton: pipelinerun.go), except for
/// those that only this program may set.
fn add_missing(operations: &mut Vec<PatchOperation>, run: Run<'_>, name: &str, mut wanted: Map<String, Value>) {
    match run.metadata(name).and_then(Value::as_object) {
        None => operations.push(add(&["metadata", name], Value::Object(wanted))),
        Some(present) => {
            let forged = present.keys().filter(|key| is_provenance(key));
            operations.extend(forged.map(|key| remove(&["metadata", name, key])));
            wanted.retain(|key, _| is_provenance(key) || !present.contains_key(key));
            operations.extend(wanted.into_iter().map(|(key, value)| add(&["metadata", name, &key], value)));
        }
    }
}

fn add_bindings(operations: &mut Vec<PatchOperation>, run: Run<'_>, bindings: Vec<Binding>) {
    let mut exists = run.object().pointer("/spec/workspaces").is_some_and(Value::is_array);
    for binding in bindings {
        match binding {
            Binding::Set { index, empty_dir, replaces_template } => {
                let index = index.to_string();
                let template =
                    replaces_template.then(|| remove(&["spec", "workspaces", &index, "volumeClaimTemplate"]));
                operations.extend(template);
                operations.push(add(&["spec", "workspaces", &index, "emptyDir"], empty_dir));
            }
            Binding::Limit(index, size) => {
                let path = ["spec", "workspaces", &index.to_string(), "emptyDir", "sizeLimit"];
                operations.push(add(&path, json!(size)));
            }
            Binding::Add(binding) if exists => operations.push(add(&["spec", "workspaces", "-"], binding)),
            Binding::Add(binding) => {
                operations.push(add(&["spec", "workspaces"], json!([binding])));
                exists = true;
            }
        }
    }
}

fn add(path: &[&str], value: Value) -> PatchOperation {
    PatchOperation::Add(AddOperation { path: pointer(path), value })
}

fn remove(path: &[&str]) -> PatchOperation {
    PatchOperation::Remove(RemoveOperation { path: pointer(path) })
}

fn pointer(path: &[&str]) -> PointerBuf {
    PointerBuf::from_tokens(path.iter().copied())
}
