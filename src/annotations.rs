//! Our annotations and our label: their names, and those that say where a wrapped run came from. Only this program writes the
//! latter: values that a run, a Pipeline or a Task has under these names are overwritten or removed, since others trust them.

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

/// Annotations of a run with the values of params `target` and `base`.
pub const TARGET: &str = "tekton-wrap.dev/target";
pub const BASE: &str = "tekton-wrap.dev/base";

/// The label of wrapped runs, for dashboards and policies.
pub const WRAPPED: &str = "tekton-wrap.dev/wrapped";

/// Tekton's label with the Pipeline's name. For a run with an embedded pipeline Tekton sets it to the run's own name, unless it is
/// there already and the run's name is generated (Tekton: pipelinerun.go `storePipelineSpecAndMergeMeta`).
pub const TEKTON_PIPELINE: &str = "tekton.dev/pipeline";

/// The annotation of a wrapped run with the Pipeline's name, if it is not the run's own.
pub const PIPELINE: &str = "tekton-wrap.dev/pipeline";

/// The annotation of a wrapped run with the reference of a Pipeline that a resolver brought.
pub const PIPELINE_REF: &str = "tekton-wrap.dev/pipeline-ref";

/// The annotation of a wrapped run with the names of the wrapped workspaces, with commas.
pub const WORKSPACES: &str = "tekton-wrap.dev/workspaces";

/// The annotation of a rerun: the run that it goes on from.
pub const RERUN_OF: &str = "tekton-wrap.dev/rerun-of";

/// Annotations that say where a wrapped run came from.
const OF_A_RUN: [&str; 4] = [PIPELINE, WORKSPACES, PIPELINE_REF, "tekton-wrap.dev/pipeline-source"];

/// Annotations of an inlined Task.
const OF_A_TASK: [&str; 2] = ["tekton-wrap.dev/task-ref", "tekton-wrap.dev/task-source"];

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
    annotations.extend(name.map(|name| (PIPELINE.to_owned(), json!(name))));
    annotations.insert(WORKSPACES.to_owned(), json!(workspaces.join(",")));
    annotations
}

/// Whether only this program may write an annotation of this name.
pub fn is_provenance(name: &str) -> bool {
    is_provenance_of_run(name) || OF_A_TASK.contains(&name)
}

/// The same of a run.
pub fn is_provenance_of_run(name: &str) -> bool {
    OF_A_RUN.contains(&name)
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
