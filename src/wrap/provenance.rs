//! Annotations that say where a wrapped run came from. Only this program writes them: values that a run, a Pipeline or a Task
//! has under these names are overwritten or removed, since others trust them.

use serde_json::{Map, Value, json};

use crate::tekton::{
    fields::field_mut,
    reference::{Reference, source_text},
};

/// The prefix of all our annotations.
pub const PREFIX: &str = "tekton-wrap.dev/";

/// The annotation with which a run asks to be wrapped. It names the workspaces.
pub const WRAP: &str = "tekton-wrap.dev/wrap";

/// The annotation of a Task, or of an embedded one, with what it restores: patterns with commas.
pub const PATHS: &str = "tekton-wrap.dev/paths";

/// Annotations of the wrapped run.
const OF_A_RUN: [&str; 4] = ["pipeline", "workspaces", "pipeline-ref", "pipeline-source"];

/// Annotations of an inlined Task.
const OF_A_TASK: [&str; 2] = ["task-ref", "task-source"];

/// Where the inlined `kind`, a pipeline or a task, came from, if not from the run's namespace: Tekton keeps that in a run's
/// status only for what it resolves itself (Tekton: pipelinespec.go, taskspec.go).
pub fn origin(kind: &str, reference: &Reference, source: Option<&Value>) -> Map<String, Value> {
    let mut annotations = Map::new();
    if reference.resolver().is_some() {
        annotations.insert(format!("{PREFIX}{kind}-ref"), json!(reference.to_string()));
    }
    if let Some(source) = source {
        annotations.insert(format!("{PREFIX}{kind}-source"), json!(source_text(source)));
    }
    annotations
}

/// What a run says of its pipeline `name`, unless that is its own, and of the workspaces that are wrapped.
pub fn of_run(name: Option<&str>, workspaces: &[String]) -> Map<String, Value> {
    let mut annotations = Map::new();
    annotations.extend(name.map(|name| (format!("{PREFIX}pipeline"), json!(name))));
    annotations.insert(format!("{PREFIX}workspaces"), json!(workspaces.join(",")));
    annotations
}

/// Whether only this program may write an annotation of this name.
pub fn is_provenance(name: &str) -> bool {
    name.strip_prefix(PREFIX).is_some_and(|name| OF_A_RUN.iter().chain(&OF_A_TASK).any(|own| *own == name))
}

/// Whether it is one of ours at all: what a Pipeline or a Task has is not for its runs.
pub fn is_ours(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// Removes such annotations from the `metadata` of `holder`: a taskSpec, or an item of `taskRunSpecs`.
pub fn strip(holder: &mut Value) {
    let annotations = field_mut(holder, "metadata").and_then(|metadata| field_mut(metadata, "annotations"));
    if let Some(annotations) = annotations.and_then(Value::as_object_mut) {
        annotations.retain(|name, _| !is_provenance(name));
    }
}
