//! What is to become of one admission request.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use json_patch::{Patch, patch_unsafe};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::{
    capacity::Capacity,
    review::{ReviewError, ReviewRequest},
};
use crate::{
    annotations::{WORKSPACES, WRAP},
    limits::{Budget, Exceeded, MAX_SENT_BYTES, Weight},
    quote::Line,
    resolve::wrap_run_on,
    source::{Creation, OptInBy, Source, SourceError},
    tekton::reference::is_object_name,
    wrap::{Refusal, Rewrite, Settings},
};

/// After the deadline, the time to say what was not there by then.
const DEADLINE_GRACE: Duration = Duration::from_millis(250);

/// The longest sentence for a user, in characters: names of the user's own are in it.
const MAX_MESSAGE: usize = 4000;

/// A verdict, and the run that it is about.
#[derive(Debug)]
pub struct Judged {
    /// The verdict.
    pub verdict: Verdict,
    /// Name or `generateName` of the run; empty if it is not known.
    pub name: String,
}

/// The answer to a request, before it is put on the wire.
#[derive(Debug)]
pub enum Verdict {
    /// It is not for us.
    Untouched,
    /// It is for us, and is stored as it is.
    Passed {
        /// Why: CamelCase code for programs.
        reason: &'static str,
        /// Why: the sentence for the user.
        warning: String,
    },
    /// The run is stored wrapped.
    Wrapped(Patched),
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
pub struct Patched {
    /// A JSON patch.
    pub patch: Vec<u8>,
    /// How many operations it has.
    pub operations: usize,
    /// The names of the wrapped workspaces, with commas.
    pub workspaces: String,
    /// For the creator of the run.
    pub warnings: Vec<String>,
}

/// Decides about one request.
pub struct Judge<'a, S> {
    /// Where Pipelines and Tasks are found.
    pub source: &'a S,
    /// What the operator decided.
    pub settings: &'a Arc<Settings>,
    /// How much is done at a time.
    pub capacity: &'a Capacity,
    /// Who opts in.
    pub opt_in_by: OptInBy,
    /// When the answer has to be there.
    pub deadline: Instant,
}

impl<S: Source> Judge<'_, S> {
    /// Decides about `request`, and takes its object out of it: nothing of the body is held while a resolver is waited for. An
    /// error says why the review can't be read.
    pub async fn judge(&self, request: &mut ReviewRequest) -> Result<Judged, ReviewError> {
        if !request.creates_pipeline_run() {
            return Ok(Judged { verdict: Verdict::Untouched, name: String::new() });
        }
        let object = request.object.take().ok_or(ReviewError::NoObject)?;
        if !is_object_name(&request.namespace) {
            return Err(ReviewError::Namespace);
        }
        let mut name = String::new();
        let decided = self.decide(request, object, &mut name);
        #[allow(clippy::arithmetic_side_effects, reason = "a few seconds from now is a time")]
        let verdict = match timeout_at(self.deadline + DEADLINE_GRACE, decided).await {
            Ok(verdict) => verdict?,
            Err(_) => Verdict::Refused {
                code: 504,
                reason: SourceError::TIMEOUT,
                message: "the Pipeline and its Tasks could not all be read in time; create the PipelineRun again"
                    .to_owned(),
            },
        };
        let verdict = match self.opt_in_by {
            OptInBy::Run => verdict,
            OptInBy::Namespace => verdict.never_refused(),
        };
        Ok(Judged { verdict, name })
    }

    /// The same without a time limit. `name` becomes that of the run, as soon as it is known.
    async fn decide(&self, request: &ReviewRequest, object: Bytes, name: &mut String) -> Result<Verdict, ReviewError> {
        let capacity = self.capacity;
        let _permit = capacity.review().await;
        let budget = capacity.budget();
        if let Err(exceeded) = take(&budget, &object).await {
            let is_asked = self.opt_in_by == OptInBy::Namespace || asks(&object);
            return Ok(if is_asked { refused(exceeded.into()) } else { Verdict::Untouched });
        }
        let run: Value =
            capacity.work.run(move || serde_json::from_slice(&object)).await.map_err(ReviewError::Object)?;
        let run = Arc::new(run);
        *name = name_of(&run);
        let creation = Creation {
            opt_in_by: self.opt_in_by,
            namespace: &request.namespace,
            deadline: Some(self.deadline),
            dry_run: request.dry_run,
            budget: Some(&budget),
            nonce: Some(&request.uid),
        };
        Ok(match wrap_run_on(&capacity.work, self.source, run.clone(), creation, self.settings.clone()).await {
            Ok(None) => Verdict::Untouched,
            Ok(Some(rewrite)) => {
                let version = request.resource.version.clone();
                capacity.work.run(move || wrapped(&version, &run, rewrite)).await
            }
            Err(refusal) => refused(refusal),
        })
    }
}

impl Verdict {
    /// A run that did not ask for it is never refused: it is stored as it is, and its creator is told.
    fn never_refused(self) -> Self {
        match self {
            Self::Refused { reason, message, .. } => {
                Self::Passed { reason, warning: format!("not wrapped, as its namespace would have it: {message}") }
            }
            verdict => verdict,
        }
    }
}

/// Takes what a run holds of the budget of its review.
async fn take(budget: &Budget, object: &[u8]) -> Result<(), Exceeded> {
    Exceeded::check(object.len(), MAX_SENT_BYTES, "bytes", || "the PipelineRun".to_owned())?;
    budget.take(Weight::of(object)).await
}

/// Whether a run that is too large to be read asks to be wrapped, as far as can be seen.
fn asks(object: &[u8]) -> bool {
    str::from_utf8(object).is_ok_and(|object| object.contains("\"wrap") || object.contains(WRAP))
}

fn refused(refusal: Refusal) -> Verdict {
    // Names of the user's own, and of whoever wrote what a resolver brought, are in it: it goes to a terminal and into the log.
    let (reason, message) = (refusal.reason(), shortened(Line(&refusal.to_string()).to_string()));
    let code = match reason {
        SourceError::DRY_RUN => {
            let warning =
                format!("this dry run shows the PipelineRun as it was sent, not as it will be wrapped: {message}");
            return Verdict::Passed { reason, warning };
        }
        SourceError::TIMEOUT => 504,
        SourceError::UNAVAILABLE => 503,
        SourceError::MISCONFIGURED => 500,
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
    match check(run, &rewrite) {
        Ok(()) => {
            let workspaces = &rewrite.run["metadata"]["annotations"][WORKSPACES];
            let workspaces = workspaces.as_str().unwrap_or_default().to_owned();
            let Rewrite { patch, operations, warnings, .. } = rewrite;
            Verdict::Wrapped(Patched { patch: patch.into_bytes(), operations, workspaces, warnings })
        }
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
    #[error("its patch can't be read: {0}")]
    Unreadable(#[from] serde_json::Error),
}

/// Whether the patch turns `run` into what it is meant to: the apiserver applies a wrong patch without asking.
fn check(run: &Value, rewrite: &Rewrite) -> Result<(), CheckError> {
    let mut patched = run.clone();
    let patch: Patch = serde_json::from_str(&rewrite.patch)?;
    // "Unsafe" only in that a patch that fails leaves the copy half patched.
    patch_unsafe(&mut patched, &patch)?;
    if patched == rewrite.run { Ok(()) } else { Err(CheckError::OtherObject) }
}

fn name_of(run: &Value) -> String {
    let field = |name: &str| run["metadata"][name].as_str().filter(|name| !name.is_empty());
    let name = field("name").or_else(|| field("generateName")).unwrap_or_default();
    name.chars().take(MAX_MESSAGE).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wrap::explain::Explanation;

    #[test]
    fn a_wrong_patch_is_found() {
        let run = json!({"spec": {"pipelineRef": {"resolver": "wrap"}, "workspaces": []}});
        let meant = json!({"spec": {"pipelineSpec": {}, "workspaces": []}});
        let check = |patch| {
            let (patch, run_meant) = (Value::to_string(&patch), meant.clone());
            let explanation = Explanation::default();
            check(&run, &Rewrite { patch, operations: 0, warnings: Vec::new(), run: run_meant, explanation })
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
