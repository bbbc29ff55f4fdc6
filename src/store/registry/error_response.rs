//! A registry's answer that is not what was hoped for, turned into one sentence (OCI distribution-spec, "Error codes").

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::{
    action::Action,
    retry::{Failure, retry_after},
};
use crate::{redact::redact, store::StoreError, units};

/// What was asked for, for the sentence.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The image or blob.
    pub place: String,
    /// The registry.
    pub registry: &'a str,
    /// The repository in it.
    pub repository: &'a str,
    /// What the request was for.
    pub action: Action,
    /// Where credentials were looked for: a clause that says what to do.
    pub searched: String,
    /// Whether there were none.
    pub anonymous: bool,
    /// What must not be repeated.
    pub secrets: Vec<String>,
}

/// An answer, as far as it says something.
struct Answer {
    status: u16,
    code: String,
    /// In lower case, to look for words in it.
    words: String,
    /// Status, code and message.
    said: String,
    /// How long the registry asks to wait.
    after: Option<Duration>,
    html: bool,
    insufficient_scope: bool,
}

#[derive(Deserialize)]
struct Body {
    errors: Vec<Entry>,
}

#[derive(Default, Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
    detail: Option<Value>,
}

impl Asked<'_> {
    /// The failure for an answer with `status` and the beginning of its body.
    pub fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        let answer = Answer::new(status, headers, body, &self.secrets);
        let waits = |error| Failure::Transient { error, after: answer.after };
        if answer.is_rate_limit() {
            return waits(self.rate_limited(&answer));
        }
        if answer.is_expired_token() {
            return waits(self.refused(&answer, "the token has expired, and a new one did not help; try again"));
        }
        match (answer.status, answer.code.as_str()) {
            _ if answer.is_quota() => Failure::Final(self.refused(
                &answer,
                "the storage quota is used up: delete images (tekton-wrap prune does it for runs), or raise it",
            )),
            _ if answer.is_immutable_tag() => Failure::Final(self.refused(
                &answer,
                "the tag exists and may not be changed there (immutable tags): let the target have another tag for each run, or exempt it",
            )),
            (401 | 403, _) | (400..=499, "DENIED" | "UNAUTHORIZED") => Failure::Final(self.denied(&answer)),
            (400 | 404 | 416, "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID") => {
                waits(self.refused(&answer, "the upload was forgotten; is the registry being restarted?"))
            }
            (400 | 404, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN") if self.action == Action::StoreManifest => {
                let advice = "a blob that it names is missing, deleted since it was stored: run the task again, which stores it again";
                let (place, problem) = (self.place.clone(), self.problem("refused", &answer, advice));
                Failure::Final(StoreError::MissingBlob { place, problem })
            }
            (404, "NAME_UNKNOWN") => {
                Failure::Final(self.refused(&answer, "there is no such repository: create it, or name another one"))
            }
            // Damaged on the way; and distribution says so of a good manifest while another client stores a blob that
            // both name (registry/handlers/manifests.go: a link file that is just being rewritten reads as empty).
            (400..=499, "DIGEST_INVALID") if self.action.is_upload() => {
                waits(self.refused(&answer, "the digest is wrong: the data were damaged on the way"))
            }
            (400..=499, "SIZE_INVALID") => {
                Failure::Final(self.refused(&answer, "the size is wrong: the data were damaged on the way"))
            }
            (405, _) => Failure::Final(self.refused(&answer, self.method_advice())),
            (413, _) => Failure::Final(self.refused(
                &answer,
                "it is too large for the registry or for a proxy before it: raise their limit",
            )),
            (408 | 425, _) => waits(self.refused(&answer, "it took too long")),
            (500.., _) => waits(self.failed(&answer)),
            (300..=399, _) => Failure::Final(self.refused(&answer, "it answers with a redirect that can't be followed")),
            _ if answer.html => {
                let problem = format!("unexpected response from {} ({}): is it a registry?", self.registry, answer.said);
                Failure::Final(StoreError::Registry { place: self.place.clone(), problem })
            }
            (404, _) => Failure::Final(
                self.refused(&answer, "it is not there; check the name, or run the pipeline again if it has expired"),
            ),
            _ => Failure::Final(self.refused(&answer, "the registry does not understand the request")),
        }
    }

    fn denied(&self, answer: &Answer) -> StoreError {
        // A registry that knows who asks, and one whose token server gave less than was asked for.
        let known = answer.status == 403 || answer.code == "DENIED" || answer.insufficient_scope;
        let advice = match known && !self.anonymous {
            true => format!("{}: they need the right to {} {}", self.searched, self.action.right(), self.repository),
            false => self.searched.clone(),
        };
        StoreError::Denied { place: self.place.clone(), problem: self.problem("denied", answer, &advice) }
    }

    fn rate_limited(&self, answer: &Answer) -> StoreError {
        let mut advice = match answer.after {
            Some(after) if after >= Duration::from_secs(1) => {
                let until = SystemTime::now().checked_add(after).map(httpdate::fmt_http_date);
                let until = until.map_or_else(String::new, |until| format!(", until {until}"));
                format!("it asks to wait {}{until}", units::duration(after))
            }
            _ => "it asks for fewer requests: try again later".to_owned(),
        };
        if self.anonymous {
            advice.push_str("; limits are higher for those who log in: ");
            advice.push_str(&self.searched);
        }
        self.error("rate limited", answer, &advice)
    }

    fn failed(&self, answer: &Answer) -> StoreError {
        self.error("failed", answer, "this is a fault of the registry: look at its log")
    }

    fn refused(&self, answer: &Answer, advice: &str) -> StoreError {
        self.error("refused", answer, advice)
    }

    fn error(&self, verb: &str, answer: &Answer, advice: &str) -> StoreError {
        StoreError::Registry { place: self.place.clone(), problem: self.problem(verb, answer, advice) }
    }

    fn problem(&self, verb: &str, answer: &Answer, advice: &str) -> String {
        format!("{} {verb} {} ({}); {advice}", self.registry, self.action.gerund(), answer.said)
    }

    fn method_advice(&self) -> &'static str {
        match self.action {
            Action::DeleteImage => {
                "it deletes no images; its operator can allow it, or the param expires can limit how long images are kept"
            }
            action if action.is_upload() => "this registry takes no uploads: name another one",
            _ => "the registry does not understand the request",
        }
    }
}

impl Answer {
    fn new(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &[String]) -> Self {
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let html = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
            || body.trim_ascii_start().first() == Some(&b'<');
        let entry = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
        let entry = entry.unwrap_or_else(|| Entry { message: said_otherwise(body, html), ..Entry::default() });
        let code = entry.code.unwrap_or_default();
        let mut message = entry.message.unwrap_or_default();
        if let Some(digest) = entry.detail.as_ref().and_then(digest_of)
            && !message.contains(digest)
        {
            message = format!("{} {digest}", message.trim_end_matches('.'));
        }
        Self {
            status: status.as_u16(),
            words: format!("{code} {message}").to_lowercase(),
            said: said(status, &code, &message, secrets),
            code,
            after: text(header::RETRY_AFTER).and_then(|value| retry_after(value, SystemTime::now())),
            html,
            insufficient_scope: text(header::WWW_AUTHENTICATE).is_some_and(|c| c.contains("insufficient_scope")),
        }
    }

    fn is_rate_limit(&self) -> bool {
        let says = ["rate limit", "toomanyrequests", "too many requests", "ratelimit"];
        match self.status {
            429 => true,
            // GitHub says "slow down" with 403, with Retry-After or without it.
            403 => self.after.is_some() || self.says_one_of(&says),
            _ => false,
        }
    }

    /// The public ECR says so with 400, GitLab with 403.
    fn is_expired_token(&self) -> bool {
        is_expired_token(self.status, &self.words)
    }

    fn is_quota(&self) -> bool {
        (400..500).contains(&self.status)
            && self.says_one_of(&["quota", "exceed the configured upper limit", "storage limit"])
    }

    fn is_immutable_tag(&self) -> bool {
        matches!(self.status, 400 | 403 | 409 | 412) && self.says_one_of(&["immutab", "cannot be overwritten"])
    }

    fn says_one_of(&self, parts: &[&str]) -> bool {
        parts.iter().any(|part| self.words.contains(part))
    }
}

/// Whether an answer with this beginning of its body means that the token, or the password that is one, has expired.
pub fn says_expired_token(status: StatusCode, body: &[u8]) -> bool {
    is_expired_token(status.as_u16(), &String::from_utf8_lossy(body).to_lowercase())
}

fn is_expired_token(status: u16, words: &str) -> bool {
    matches!(status, 400 | 403) && words.contains("token") && words.contains("expired")
}

/// What a body says that is not as the specification has it: other JSON with a message, or plain text.
fn said_otherwise(body: &[u8], html: bool) -> Option<String> {
    #[derive(Deserialize)]
    struct Other {
        #[serde(alias = "error_description", alias = "details", alias = "error")]
        message: String,
    }
    if let Ok(other) = serde_json::from_slice::<Other>(body) {
        return Some(other.message);
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    (!html && !text.starts_with(['{', '['])).then(|| text.to_owned())
}

/// The digest that the detail of an error names: distribution has it as `digest`, others as the text itself.
fn digest_of(detail: &Value) -> Option<&str> {
    let text = detail.as_str().or_else(|| detail.get("digest")?.as_str()).or_else(|| detail.get("Digest")?.as_str())?;
    text.parse::<crate::digest::Digest>().is_ok().then_some(text)
}

/// Status, code and message in one line, and no more of it than one reads.
fn said(status: StatusCode, code: &str, message: &str, secrets: &[String]) -> String {
    const LENGTH: usize = 200;
    let clean = |text: &str| redact(text, secrets, LENGTH).trim_end_matches('.').to_owned();
    let number = status.as_u16();
    match (clean(code), clean(message)) {
        (code, message) if code.is_empty() && message.is_empty() => {
            format!("{number} {}", status.canonical_reason().unwrap_or("unknown status"))
        }
        (code, message) if message.is_empty() => format!("{number} {code}"),
        (code, message) if code.is_empty() => format!("{number}: {message}"),
        (code, message) => format!("{number} {code}: {message}"),
    }
}

#[cfg(test)]
mod tests;
