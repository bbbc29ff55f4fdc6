//! An answer of Google Cloud Storage that is not what was hoped for, turned into one sentence (JSON API, "HTTP status and error
//! codes").

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde_json::Value;

use crate::{
    redact::redact,
    store::{
        bucket::{Asked, Said},
        layout::ObjectAction,
        net::retry::{Failure, retry_after},
    },
};

/// An answer, as far as it says something.
#[derive(Debug)]
pub struct GcsRefusal {
    pub status: StatusCode,
    reason: String,
    message: String,
    /// How long the server asks to wait.
    after: Option<Duration>,
    /// Whether the answer is a page for people.
    page: bool,
}

/// What a role has to allow.
fn rights(action: ObjectAction) -> &'static str {
    match action {
        ObjectAction::Find | ObjectAction::Read => "storage.objects.get",
        ObjectAction::Store => "storage.objects.create and storage.objects.delete",
        ObjectAction::List => "storage.objects.list",
        ObjectAction::Copy => "storage.objects.get, storage.objects.create and storage.objects.delete",
        ObjectAction::Delete => "storage.objects.delete",
    }
}

impl GcsRefusal {
    /// What an answer with this beginning of its body says.
    pub fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let json: Value = serde_json::from_slice(body).unwrap_or_default();
        let error = json.get("error").unwrap_or(&Value::Null);
        let text = String::from_utf8_lossy(body);
        let plain =
            || if text.trim_start().starts_with(['<', '{', '[']) { String::new() } else { text.trim().to_owned() };
        let message = error.get("message").and_then(Value::as_str).map(str::to_owned).unwrap_or_else(plain);
        let reason = error.pointer("/errors/0/reason").and_then(Value::as_str).unwrap_or_default().to_owned();
        let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        Self {
            status,
            reason,
            message,
            after: after.and_then(|value| retry_after(value, SystemTime::now())),
            page: text.trim_start().starts_with('<'),
        }
    }

    /// Whether there is no such object.
    pub fn is_absent(&self) -> bool {
        self.status == StatusCode::NOT_FOUND && !self.page && !self.lacks_bucket()
    }

    /// Whether the object is not the one of the condition any more.
    pub fn is_stale(&self) -> bool {
        self.status == StatusCode::PRECONDITION_FAILED
    }

    fn lacks_bucket(&self) -> bool {
        self.message.to_lowercase().contains("bucket does not exist")
    }

    /// Status, reason and message in one line, and no more of it than one reads.
    pub fn said(&self, secrets: &[String]) -> String {
        let clean = |text: &str| redact(text, secrets, 200).trim_end_matches('.').to_owned();
        let number = self.status.as_u16();
        match (clean(&self.reason), clean(&self.message)) {
            (_, message) if message.is_empty() => {
                format!("{number} {}", self.status.canonical_reason().unwrap_or("unknown status"))
            }
            (reason, message) if reason.is_empty() => format!("{number}: {message}"),
            (reason, message) => format!("{number} {reason}: {message}"),
        }
    }

    /// The failure for what was asked.
    pub fn failure(&self, asked: &Asked<'_>) -> Failure {
        let said = self.for_sentence(&asked.secrets);
        let waits = |verb, advice: &str| asked.waits(verb, &said, advice);
        let ends = |advice: &str| asked.ends(&said, advice);
        match (self.status.as_u16(), self.reason.as_str()) {
            (429, _) | (403, "rateLimitExceeded" | "userRateLimitExceeded") => {
                waits("rate limited", "it asks for fewer requests: try again later")
            }
            (404, _) if self.lacks_bucket() => {
                ends(&format!("there is no bucket {:?}: create it, or name another one", asked.bucket.bucket))
            }
            (403, "quotaExceeded") => {
                ends("the quota is used up: delete images (tekton-wrap prune does it for runs), or raise it")
            }
            (403, "retentionPolicyNotMet" | "objectUnderActiveHold") => {
                ends("the bucket keeps its objects for a time: name another one, or change its retention policy")
            }
            (403, "accountDisabled" | "billingNotEnabled" | "userProjectAccountProblem") => {
                ends("look at the billing of the bucket's project")
            }
            (401 | 403, _) => self.denied(asked, &said),
            (408, _) => waits("refused", "it took too long"),
            (412, _) => waits("refused", "another request changed the same object"),
            (413, _) => ends("it is too large for the server or for a proxy before it: raise their limit"),
            (500.., _) => waits("failed", "this is a fault of the server: look at its log"),
            _ if self.page || (self.message.is_empty() && self.reason.is_empty()) => {
                asked.unexpected(&said, "Google Cloud Storage")
            }
            _ => ends("the server does not understand the request"),
        }
    }

    fn denied(&self, asked: &Asked<'_>, said: &Said) -> Failure {
        let rights = if self.status == StatusCode::FORBIDDEN && !asked.anonymous {
            format!(": a role has to give them {} for the bucket {:?}", rights(asked.action), asked.bucket.bucket)
        } else {
            String::new()
        };
        asked.denied(said, &format!("{}{rights}", asked.searched))
    }

    fn for_sentence(&self, secrets: &[String]) -> Said {
        Said { text: self.said(secrets), after: self.after }
    }
}

#[cfg(test)]
mod tests;
