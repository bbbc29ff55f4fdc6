//! What is to become of one admission request.

use std::time::Duration;

use json_patch::patch_unsafe;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::review::Request;
use crate::{
    resolve::wrap_run,
    source::{Creation, Source, SourceError},
    wrap::{Refusal, Rewrite, Settings},
};

/// After the deadline, the time to say what was not there by then.
const LAST_WORD: Duration = Duration::from_millis(250);

/// The answer to a request, before it is put on the wire.
#[derive(Debug)]
pub enum Verdict {
    /// It is not for us.
    Untouched,
    /// It is for us, but only tried, and to wrap it something would have to be created.
    Passed(String),
    /// The run is stored wrapped.
    Wrapped(Rewrite),
    /// The run is not stored.
    Refused {
        /// The HTTP status that the user's client gets.
        code: u16,
        /// CamelCase code for programs.
        reason: &'static str,
        /// The sentence for the user.
        message: String,
    },
}

/// Decides about `request` before `deadline`. An error says why the review can't be read.
pub async fn judge<S: Source>(
    source: &S,
    settings: &Settings,
    request: &Request<'_>,
    deadline: Instant,
) -> Result<Verdict, String> {
    if !request.creates_pipeline_run() {
        return Ok(Verdict::Untouched);
    }
    let object = request.object.ok_or("its request has no object")?;
    let run: Value = serde_json::from_str(object.get()).map_err(|e| format!("its object: {e}"))?;
    let creation = Creation { namespace: &request.namespace, deadline: Some(deadline), dry_run: request.dry_run };
    let late = deadline + LAST_WORD;
    let verdict = match timeout_at(late, wrap_run(source, &run, creation, settings)).await {
        Ok(Ok(None)) => return Ok(Verdict::Untouched),
        Ok(Err(Refusal::Source(error))) if error.reason == SourceError::DRY_RUN => Verdict::Passed(format!(
            "this dry run shows the PipelineRun as it was sent, not as it will be wrapped: {error}"
        )),
        Ok(Err(refusal @ Refusal::Source(SourceError { reason: SourceError::TIMEOUT, .. }))) => {
            Verdict::Refused { code: 504, reason: refusal.reason(), message: refusal.to_string() }
        }
        Ok(Ok(Some(rewrite))) => wrapped(request, &run, rewrite),
        Ok(Err(refusal)) => Verdict::Refused { code: 400, reason: refusal.reason(), message: refusal.to_string() },
        Err(_) => Verdict::Refused {
            code: 504,
            reason: "Timeout",
            message: "the Pipeline and its Tasks could not all be read in time; create the PipelineRun again"
                .to_owned(),
        },
    };
    log(request, &run, &verdict);
    Ok(verdict)
}

fn wrapped(request: &Request<'_>, run: &Value, rewrite: Rewrite) -> Verdict {
    let version = &request.resource.version;
    if version != "v1" {
        // Registered for v1 with matchPolicy Equivalent, the apiserver converts every version for us.
        return Verdict::Refused {
            code: 400,
            reason: "UnsupportedVersion",
            message: format!(
                "a PipelineRun of tekton.dev/{version} can't be wrapped; write it as tekton.dev/v1, or register the \
                 webhook for v1 with matchPolicy Equivalent"
            ),
        };
    }
    match check(run, &rewrite) {
        Ok(()) => Verdict::Wrapped(rewrite),
        Err(why) => Verdict::Refused {
            code: 500,
            reason: "SelfCheck",
            message: format!("the wrapped PipelineRun is not what it was meant to be: {why}; please report this"),
        },
    }
}

/// Whether the patch turns `run` into what it is meant to: the apiserver applies a wrong patch without asking.
fn check(run: &Value, rewrite: &Rewrite) -> Result<(), String> {
    let mut patched = run.clone();
    // "Unsafe" only in that a patch that fails leaves the copy half patched.
    patch_unsafe(&mut patched, &rewrite.patch).map_err(|e| format!("its patch does not apply: {e}"))?;
    if patched == rewrite.run { Ok(()) } else { Err("its patch gives another object".to_owned()) }
}

fn log(request: &Request<'_>, run: &Value, verdict: &Verdict) {
    let text = |field: &str| run["metadata"][field].as_str().filter(|text| !text.is_empty());
    let (uid, namespace, dry_run) = (&request.uid, &request.namespace, request.dry_run);
    let name = text("name").or_else(|| text("generateName")).unwrap_or_default();
    match verdict {
        Verdict::Untouched => {}
        Verdict::Passed(warning) => tracing::info!(uid, namespace, name, dry_run, "passed: {warning}"),
        Verdict::Wrapped(rewrite) => {
            let operations = rewrite.patch.len();
            tracing::info!(uid, namespace, name, dry_run, operations, "wrapped");
        }
        Verdict::Refused { code: 500.., reason, message } => {
            tracing::error!(uid, namespace, name, dry_run, reason, "refused: {message}");
        }
        Verdict::Refused { reason, message, .. } => {
            tracing::info!(uid, namespace, name, dry_run, reason, "refused: {message}");
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_wrong_patch_is_found() {
        let run = json!({"spec": {"pipelineRef": {"resolver": "wrap"}, "workspaces": []}});
        let meant = json!({"spec": {"pipelineSpec": {}, "workspaces": []}});
        let check = |patch| {
            let patch = serde_json::from_value(patch).unwrap();
            check(&run, &Rewrite { patch, warnings: Vec::new(), run: meant.clone(), notes: Vec::new() })
        };
        let remove = json!({"op": "remove", "path": "/spec/pipelineRef"});
        let add = json!({"op": "add", "path": "/spec/pipelineSpec", "value": {}});
        check(json!([remove, add])).unwrap();
        for (patch, why) in [
            (json!([add]), "another object"),
            (json!([remove, add, {"op": "add", "path": "/spec/x", "value": 1}]), "another object"),
            (json!([remove, add, remove]), "does not apply"),
            (json!([remove, add, {"op": "add", "path": "/spec/workspaces/3", "value": {}}]), "does not apply"),
        ] {
            let error = check(patch).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
