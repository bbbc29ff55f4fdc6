//! The change of a run: as the JSON patch that the API server applies, and as the run that it must give.
//!
//! The wrapped pipeline is most of both. It is written once, into the patch, and then moved into the run.

use serde::{Serialize, ser::Error};
use serde_json::{Map, Value, json};

use super::{
    bindings::Binding, inline::copied_annotations, pipeline_name::Replacement, refusal::Refusal, request::Request,
};
use crate::{
    annotations::{self, TEKTON_PIPELINE, WRAPPED, is_provenance},
    source::Found,
    tekton::{fields::field, run::Run},
};

/// The field of a run's spec that holds its pipeline.
const PIPELINE_SPEC: &str = "pipelineSpec";

/// What has to change in a run.
pub struct Changes {
    /// The wrapped pipeline's spec.
    pub spec: Value,
    /// The bindings of the wrapped workspaces.
    pub bindings: Vec<Binding>,
    /// Values that are written out.
    pub values: Vec<Replacement>,
    /// All `taskRunSpecs`, if one of them changes.
    pub task_run_specs: Option<Value>,
}

/// A run that is patched.
pub struct PatchedRun {
    /// The patch, as JSON.
    pub patch: String,
    /// How many operations it has.
    pub operations: usize,
    /// What the patch must make of the run.
    pub run: Value,
    /// Bytes of that as JSON.
    pub size: usize,
}

/// The patch that turns `run` into the wrapped run of `pipeline`.
pub fn build(run: Run<'_>, pipeline: &Found, changes: Changes, request: &Request) -> Result<PatchedRun, Refusal> {
    let (labels, annotations) = metadata(pipeline, request);
    let mut edits = Vec::new();
    add_missing(&mut edits, run, "labels", labels);
    add_missing(&mut edits, run, "annotations", annotations);
    edits.extend(changes.values.into_iter().map(|Replacement { path, value }| Edit { path, value: Some(value) }));
    add_bindings(&mut edits, run, changes.bindings);
    edits.extend(changes.task_run_specs.map(|specs| set(&["spec", "taskRunSpecs"], specs)));
    if run.pipeline_ref().is_some() {
        edits.push(remove(&["spec", "pipelineRef"]));
    }

    let operations = edits.len().saturating_add(1);
    let (patch, spec_size) = write(&edits, &changes.spec).map_err(|error| Refusal::Patch(error.to_string()))?;
    edits.push(set(&["spec", PIPELINE_SPEC], Value::Null));
    let mut patched = without_pipeline_spec(run);
    for edit in edits {
        let place = edit.path.join(".");
        edit.apply(&mut patched).ok_or_else(|| Refusal::Patch(format!("{place} can't be set")))?;
    }
    let size = patched.to_string().len().saturating_sub("null".len()).saturating_add(spec_size);
    let place = patched.get_mut("spec").and_then(|spec| spec.get_mut(PIPELINE_SPEC));
    *place.ok_or_else(|| Refusal::Patch("it has no spec".to_owned()))? = changes.spec;
    Ok(PatchedRun { patch, operations, run: patched, size })
}

/// The JSON of the patch that does `edits` and sets the pipeline's `spec`, and how many bytes of it are that spec.
fn write(edits: &[Edit], spec: &Value) -> Result<(String, usize), serde_json::Error> {
    let mut patch = Vec::from(b"[");
    for edit in edits {
        serde_json::to_writer(&mut patch, &edit.operation())?;
        patch.push(b',');
    }
    patch.extend_from_slice(format!("{{\"op\":\"add\",\"path\":\"/spec/{PIPELINE_SPEC}\",\"value\":").as_bytes());
    let start = patch.len();
    serde_json::to_writer(&mut patch, spec)?;
    let spec_size = patch.len().saturating_sub(start);
    patch.extend_from_slice(b"}]");
    Ok((String::from_utf8(patch).map_err(serde_json::Error::custom)?, spec_size))
}

/// The labels and annotations that the run gets, unless it has them.
fn metadata(pipeline: &Found, request: &Request) -> (Map<String, Value>, Map<String, Value>) {
    let metadata = field(&pipeline.object, "metadata").unwrap_or(&Value::Null);
    let name = request.pipeline_name(&pipeline.object);
    let mut labels = field(metadata, "labels").and_then(Value::as_object).cloned().unwrap_or_default();
    let mut copied = copied_annotations(metadata);
    let referenced = request.pipeline.as_ref().map(|_| name);
    labels.extend(referenced.map(|name| (TEKTON_PIPELINE.to_owned(), json!(name))));
    labels.insert(WRAPPED.to_owned(), json!("true"));
    copied.extend(annotations::of_run(referenced, &request.workspaces));
    if let Some(reference) = &request.pipeline {
        copied.extend(annotations::origin("pipeline", reference, pipeline.source.as_ref()));
    }
    labels.retain(|_, value| value.as_str().is_some_and(|value| value.len() <= 63));
    (labels, copied)
}

/// Adds those of `wanted` that the run's metadata does not have: the run's own values win (Tekton: pipelinerun.go), except for
/// those that only this program may set.
fn add_missing(edits: &mut Vec<Edit>, run: Run<'_>, name: &str, mut wanted: Map<String, Value>) {
    match run.metadata(name).and_then(Value::as_object) {
        None => edits.push(set(&["metadata", name], Value::Object(wanted))),
        Some(present) => {
            let forged = present.keys().filter(|key| is_provenance(key));
            edits.extend(forged.map(|key| remove(&["metadata", name, key])));
            wanted.retain(|key, _| is_provenance(key) || !present.contains_key(key));
            edits.extend(wanted.into_iter().map(|(key, value)| set(&["metadata", name, &key], value)));
        }
    }
}

fn add_bindings(edits: &mut Vec<Edit>, run: Run<'_>, bindings: Vec<Binding>) {
    let mut exists = run.object().pointer("/spec/workspaces").is_some_and(Value::is_array);
    for binding in bindings {
        match binding {
            Binding::Set { index, empty_dir, replaces_template } => {
                let index = index.to_string();
                edits.extend(replaces_template.then(|| remove(&["spec", "workspaces", &index, "volumeClaimTemplate"])));
                edits.push(set(&["spec", "workspaces", &index, "emptyDir"], empty_dir));
            }
            Binding::Limit { index, size } => {
                edits.push(set(&["spec", "workspaces", &index.to_string(), "emptyDir", "sizeLimit"], json!(size)));
            }
            Binding::Add(binding) if exists => edits.push(set(&["spec", "workspaces", END], binding)),
            Binding::Add(binding) => {
                edits.push(set(&["spec", "workspaces"], json!([binding])));
                exists = true;
            }
        }
    }
}

/// The index behind the last item of an array (RFC 6901, 4).
const END: &str = "-";

/// A change of one field.
struct Edit {
    /// The field names and indexes that lead to it.
    path: Vec<String>,
    /// Its new value; none if it is removed.
    value: Option<Value>,
}

/// An operation of a JSON patch (RFC 6902).
#[derive(Serialize)]
struct PatchOperation<'a> {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<&'a Value>,
}

impl Edit {
    fn operation(&self) -> PatchOperation<'_> {
        let path = self.path.iter().map(|name| format!("/{}", name.replace('~', "~0").replace('/', "~1"))).collect();
        // "add" replaces what is there (RFC 6902, 4.1).
        let op = if self.value.is_some() { "add" } else { "remove" };
        PatchOperation { op, path, value: self.value.as_ref() }
    }

    /// Does the same to `run`; none if it has no such place.
    fn apply(mut self, run: &mut Value) -> Option<()> {
        let name = self.path.pop()?;
        let parent = self.path.iter().try_fold(run, |value, name| match value {
            Value::Array(items) => items.get_mut(name.parse::<usize>().ok()?),
            other => other.as_object_mut()?.get_mut(name),
        })?;
        match (parent, self.value) {
            (Value::Object(map), Some(value)) => drop(map.insert(name, value)),
            (Value::Object(map), None) => drop(map.remove(&name)?),
            (Value::Array(items), Some(value)) if name == END => items.push(value),
            _ => return None,
        }
        Some(())
    }
}

fn set(path: &[&str], value: Value) -> Edit {
    Edit { value: Some(value), ..remove(path) }
}

fn remove(path: &[&str]) -> Edit {
    Edit { path: path.iter().map(|name| (*name).to_owned()).collect(), value: None }
}

/// A copy of the run without its pipelineSpec, which the wrapped one replaces.
fn without_pipeline_spec(run: Run<'_>) -> Value {
    let without = |spec: &Map<String, Value>| {
        spec.iter()
            .map(|(name, value)| (name.clone(), if name == PIPELINE_SPEC { Value::Null } else { value.clone() }))
            .collect()
    };
    let fields = run.object().as_object().into_iter().flatten();
    let copied = fields.map(|(name, value)| match value {
        Value::Object(spec) if name == "spec" => (name.clone(), Value::Object(without(spec))),
        _ => (name.clone(), value.clone()),
    });
    Value::Object(copied.collect())
}
