//! Turns `pipelineref` and taskRefs into objects.

use serde_json::{Value, json};

use crate::wrap::{Refusal, Rewrite, Settings};

pub mod cluster;

/// What can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A Tekton Pipeline.
    Pipeline,
    /// A Tekton Task.
    Task,
}

/// Why a [`Source`] can't say whether there is an object: one sentence that names it.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

/// Where Pipelines and Tasks are found: a cluster, or files.
pub trait Source: Sync {
    /// The object in its v1 form; none where there is none of that name.
    fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Value>, SourceError>> + Send;
}

/// The wrapped form of `run`, a PipelineRun about to be created in `namespace`; none where it is not for us.
pub async fn wrap_run<S: Source>(
    source: &S,
    run: &Value,
    namespace: &str,
    _settings: &Settings,
) -> Result<Option<Rewrite>, Refusal> {
    let reference = &run["spec"]["pipelineRef"];
    if reference["resolver"] != "wrap" {
        return Ok(None);
    }
    let params = reference["params"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = params.iter().find(|p| p["name"] == "pipelineref").and_then(|p| p["value"].as_str());
    let name = name.ok_or_else(|| Refusal("param pipelineref is missing".to_owned()))?;
    let pipeline = source.get(Kind::Pipeline, namespace, name).await.map_err(|e| Refusal(e.to_string()))?;
    let pipeline = pipeline.ok_or_else(|| Refusal(format!("no Pipeline {name:?} in namespace {namespace:?}")))?;
    let patch = serde_json::from_value(json!([
        {"op": "remove", "path": "/spec/pipelineRef"},
        {"op": "add", "path": "/spec/pipelineSpec", "value": pipeline["spec"]},
    ]));
    let patch: json_patch::Patch = patch.map_err(|e| Refusal(e.to_string()))?;
    let mut wrapped = run.clone();
    json_patch::patch(&mut wrapped, &patch).map_err(|e| Refusal(e.to_string()))?;
    Ok(Some(Rewrite { patch, warnings: Vec::new(), run: wrapped }))
}
