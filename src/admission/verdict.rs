//! What is to become of one admission request.

use std::{sync::Arc, time::Duration};

use json_patch::patch_unsafe;
use serde_json::{Value, value::RawValue};
use tokio::time::{Instant, timeout_at};

use super::{
    load::Load,
    review::{Request, ReviewError},
};
use crate::{
    limits::{Budget, Exceeded, MAX_SENT_BYTES, Weight},
    quote::Line,
    resolve::wrap_run_on,
    source::{Creation, Source, SourceError},
    tekton::reference::is_object_name,
    wrap::{Refusal, Rewrite, Settings},
};

/// After the deadline, the time to say what was not there by then.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// The longest sentence for a user, in characters: names of the user's own are in it.
const MAX_MESSAGE: usize = 4000;

/// The answer to a request, before it is put on the wire.
#[derive(Debug)]
pub enum Verdict {
    /// It is not for us.
    Untouched,
    /// It is for us, but only tried, and to wrap it something would have to be created.
    Passed(String),
    /// The run is stored wrapped.
    Wrapped(Wrapped),
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

/// How a run changes.
#[derive(Debug)]
pub struct Wrapped {
    /// A JSON patch.
    pub patch: Vec<u8>,
    /// How many operations it has.
    pub operations: usize,
    /// For the creator of the run.
    pub warnings: Vec<String>,
}

/// Decides about `request` before `deadline`. An error says why the review can't be read.
pub async fn judge<S: Source>(
    source: &S,
    settings: &Arc<Settings>,
    load: &Load,
    request: &Request<'_>,
    deadline: Instant,
) -> Result<Verdict, ReviewError> {
    if !request.creates_pipeline_run() {
        return Ok(Verdict::Untouched);
    }
    let object = request.object.ok_or(ReviewError::NoObject)?;
    if !is_object_name(&request.namespace) {
        return Err(ReviewError::Namespace);
    }
    let mut name = String::new();
    let decided = decide(source, settings, load, request, object, deadline, &mut name);
    let verdict = match timeout_at(deadline + DEADLINE_GRACE, decided).await {
        Ok(verdict) => verdict?,
        Err(_) => Verdict::Refused {
            code: 504,
            reason: SourceError::TIMEOUT,
            message: "the Pipeline and its Tasks could not all be read in time; create the PipelineRun again"
                .to_owned(),
        },
    };
    log(request, &name, &verdict);
    Ok(verdict)
}

/// The same without an end. `name` becomes that of the run, as soon as it is known.
async fn decide<S: Source>(
    source: &S,
    settings: &Arc<Settings>,
    load: &Load,
    request: &Request<'_>,
    object: &RawValue,
    deadline: Instant,
    name: &mut String,
) -> Result<Verdict, ReviewError> {
    let _place = load.review().await;
    let budget = load.budget();
    if let Err(exceeded) = take(&budget, object.get()).await {
        return Ok(if asks(object.get()) { refused(exceeded.into()) } else { Verdict::Untouched });
    }
    let text = object.get().to_owned();
    let run: Value = load.work.run(move || serde_json::from_str(&text)).await.map_err(ReviewError::Object)?;
    let run = Arc::new(run);
    *name = name_of(&run);
    let creation = Creation {
        namespace: &request.namespace,
        deadline: Some(deadline),
        dry_run: request.dry_run,
        budget: Some(&budget),
        nonce: Some(&request.uid),
    };
    Ok(match wrap_run_on(&load.work, source, run.clone(), creation, settings.clone()).await {
        Ok(None) => Verdict::Untouched,
        Ok(Some(rewrite)) => {
            let version = request.resource.version.clone();
            load.work.run(move || wrapped(&version, &run, rewrite)).await
        }
        Err(refusal) => refused(refusal),
    })
}

/// Takes what a run holds of the budget of its review.
async fn take(budget: &Budget, object: &str) -> Result<(), Exceeded> {
    Exceeded::check(object.len(), MAX_SENT_BYTES, "bytes", || "the PipelineRun".to_owned())?;
    budget.take(Weight::of(object.as_bytes())).await
}

/// Whether a run that is too large to be read asks to be wrapped, as far as can be seen.
fn asks(object: &str) -> bool {
    object.contains("\"wrap") || object.contains("tekton-wrap.dev/wrap")
}

fn refused(refusal: Refusal) -> Verdict {
    // Names of the user's own, and of whoever wrote what a resolver brought, are in it: it goes to a terminal and into the log.
    let (reason, message) = (refusal.reason(), shortened(Line(&refusal.to_string()).to_string()));
    let code = match reason {
        SourceError::DRY_RUN => {
            return Verdict::Passed(format!(
                "this dry run shows the PipelineRun as it was sent, not as it will be wrapped: {message}"
            ));
        }
        SourceError::TIMEOUT => 504,
        SourceError::UNAVAILABLE => 503,
        _ => 400,
    };
    Verdict::Refused { code, reason, message }
}

fn shortened(mut message: String) -> String {
    if let Some((end, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(end);
        message.push('…');
    }
    message
}

fn wrapped(version: &str, run: &Value, rewrite: Rewrite) -> Verdict {
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
    let patch = check(run, &rewrite).and_then(|()| serde_json::to_vec(&rewrite.patch).map_err(CheckError::Unwritable));
    match patch {
        Ok(patch) => Verdict::Wrapped(Wrapped { patch, operations: rewrite.patch.len(), warnings: rewrite.warnings }),
        Err(why) => Verdict::Refused {
            code: 500,
            reason: "SelfCheck",
            message: format!("the wrapped PipelineRun is not what it was meant to be: {why}; please report this"),
        },
    }
}

/// Why a patch is not sent.
#[derive(Debug, thiserror::Error)]
enum CheckError {
    #[error("its patch does not apply: {0}")]
    Patch(#[from] json_patch::PatchError),
    #[error("its patch gives another object")]
    OtherObject,
    #[error("its patch can't be written: {0}")]
    Unwritable(serde_json::Error),
}

/// Whether the patch turns `run` into what it is meant to: the apiserver applies a wrong patch without asking.
fn check(run: &Value, rewrite: &Rewrite) -> Result<(), CheckError> {
    let mut patched = run.clone();
    // "Unsafe" only in that a patch that fails leaves the copy half patched.
    patch_unsafe(&mut patched, &rewrite.patch)?;
    if patched == rewrite.run { Ok(()) } else { Err(CheckError::OtherObject) }
}

fn name_of(run: &Value) -> String {
    let field = |name: &str| run["metadata"][name].as_str().filter(|name| !name.is_empty());
    let name = field("name").or_else(|| field("generateName")).unwrap_or_default();
    name.chars().take(MAX_MESSAGE).collect()
}

fn log(request: &Request<'_>, name: &str, verdict: &Verdict) {
    let (uid, namespace, dry_run) = (&request.uid, &request.namespace, request.dry_run);
    match verdict {
        Verdict::Untouched => {}
        Verdict::Passed(warning) => tracing::info!(uid, namespace, name, dry_run, "passed: {warning}"),
        Verdict::Wrapped(wrapped) => {
            let operations = wrapped.operations;
            tracing::info!(uid, namespace, name, dry_run, operations, "wrapped");
        }
        Verdict::Refused { code: 500, reason, message } => {
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
            let error = check(patch).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
