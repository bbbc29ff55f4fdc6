//! A registry's error response as one sentence (OCI distribution-spec, "Error codes").

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::Value;

use super::operation::Operation;
use crate::{
    redact::redact,
    store::{
        StoreError,
        net::retry::{Failure, retry_after},
    },
    units,
};

/// The request, for the sentence.
#[derive(Debug)]
pub struct RequestContext<'a> {
    /// The image or blob.
    pub place: String,
    /// The registry.
    pub registry: &'a str,
    /// The repository in it.
    pub repository: &'a str,
    /// The purpose of the request.
    pub operation: Operation,
    /// A clause that says what to do about credentials.
    pub searched: String,
    /// Whether there are none.
    pub anonymous: bool,
    /// Strings to redact.
    pub secrets: Vec<String>,
}

/// A parsed error response.
struct ErrorResponse {
    status: u16,
    code: String,
    /// Code and message in lower case, for searches.
    words: String,
    /// Status, code and message.
    said: String,
    /// The header `Retry-After`.
    after: Option<Duration>,
    is_html: bool,
    insufficient_scope: bool,
}

#[derive(Deserialize)]
struct ErrorBody {
    errors: Vec<ErrorEntry>,
}

#[derive(Default, Deserialize)]
struct ErrorEntry {
    code: Option<String>,
    message: Option<String>,
    detail: Option<Value>,
}

impl RequestContext<'_> {
    /// The failure for a response with `status` and the beginning of its body.
    pub fn failure(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        let response = ErrorResponse::new(status, headers, body, &self.secrets);
        let waits = |error| Failure::Transient { error, after: response.after };
        if response.is_rate_limit() {
            return waits(self.rate_limited(&response));
        }
        if response.is_expired_token() {
            return waits(self.refused(&response, "the token has expired, and a new one did not help; try again"));
        }
        match (response.status, response.code.as_str()) {
            _ if response.is_quota() => Failure::Final(self.refused(
                &response,
                "the storage quota is used up: delete images (tekton-wrap prune does it for runs), or raise it",
            )),
            _ if response.is_immutable_tag() => Failure::Final(self.refused(
                &response,
                "the tag exists and may not be changed there (immutable tags): let the target have another tag for each run, or exempt it",
            )),
            (401 | 403, _) | (400..=499, "DENIED" | "UNAUTHORIZED") => Failure::Final(self.denied(&response)),
            (400 | 404 | 416, "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID") => {
                waits(self.refused(&response, "the upload was forgotten; is the registry being restarted?"))
            }
            (400 | 404, "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN") if self.operation == Operation::StoreManifest => {
                let advice = "a blob that it names is missing, deleted since it was stored: run the task again, which stores it again";
                let (place, problem) = (self.place.clone(), self.problem("refused", &response, advice));
                Failure::Final(StoreError::MissingBlob { place, problem })
            }
            (404, "NAME_UNKNOWN") => {
                Failure::Final(self.refused(&response, "there is no such repository: create it, or name another one"))
            }
            // Damaged in transit; distribution also says so of a valid manifest while another client stores a blob that
            // both refer to (registry/handlers/manifests.go: a link file reads as empty while it is rewritten).
            (400..=499, "DIGEST_INVALID") if self.operation.is_upload() => {
                waits(self.refused(&response, "the digest is wrong: the data were damaged in transit"))
            }
            (400..=499, "SIZE_INVALID") => {
                Failure::Final(self.refused(&response, "the size is wrong: the data were damaged in transit"))
            }
            (405, _) => Failure::Final(self.refused(&response, self.method_advice())),
            (413, _) => Failure::Final(self.refused(
                &response,
                "it is too large for the registry or for a proxy before it: raise their limit",
            )),
            (408 | 425, _) => waits(self.refused(&response, "it took too long")),
            (500.., _) => waits(self.failed(&response)),
            (300..=399, _) => Failure::Final(self.refused(&response, "it responds with a redirect that can't be followed")),
            _ if response.is_html => {
                let problem = format!("unexpected response from {} ({}): is it a registry?", self.registry, response.said);
                Failure::Final(StoreError::Registry { place: self.place.clone(), problem })
            }
            (404, _) => Failure::Final(
                self.refused(&response, "it is not there; check the name, or run the pipeline again if it has expired"),
            ),
            _ => Failure::Final(self.refused(&response, "the registry does not understand the request")),
        }
    }

    fn denied(&self, response: &ErrorResponse) -> StoreError {
        // The registry authenticated the client, or its token server granted a smaller scope than requested.
        let is_authenticated = response.status == 403 || response.code == "DENIED" || response.insufficient_scope;
        let advice = if is_authenticated && !self.anonymous {
            format!("{}: they need the right to {} {}", self.searched, self.operation.right(), self.repository)
        } else {
            self.searched.clone()
        };
        StoreError::Denied { place: self.place.clone(), problem: self.problem("denied", response, &advice) }
    }

    fn rate_limited(&self, response: &ErrorResponse) -> StoreError {
        let mut advice = match response.after {
            Some(after) if after >= Duration::from_secs(1) => {
                let until = SystemTime::now().checked_add(after).filter(has_http_date).map(httpdate::fmt_http_date);
                let until = until.map_or_else(String::new, |until| format!(", until {until}"));
                format!("it asks to wait {}{until}", units::duration(after))
            }
            _ => "it asks for fewer requests: try again later".to_owned(),
        };
        if self.anonymous {
            advice.push_str("; limits are higher for those who log in: ");
            advice.push_str(&self.searched);
        }
        self.error("rate limited", response, &advice)
    }

    fn failed(&self, response: &ErrorResponse) -> StoreError {
        self.error("failed", response, "this is a fault of the registry: look at its log")
    }

    fn refused(&self, response: &ErrorResponse, advice: &str) -> StoreError {
        self.error("refused", response, advice)
    }

    fn error(&self, verb: &str, response: &ErrorResponse, advice: &str) -> StoreError {
        StoreError::Registry { place: self.place.clone(), problem: self.problem(verb, response, advice) }
    }

    fn problem(&self, verb: &str, response: &ErrorResponse, advice: &str) -> String {
        format!("{} {verb} {} ({}); {advice}", self.registry, self.operation.gerund(), response.said)
    }

    fn method_advice(&self) -> &'static str {
        match self.operation {
            Operation::DeleteImage => {
                "it deletes no images; its operator can allow it, or the param expires can limit how long images are kept"
            }
            operation if operation.is_upload() => "this registry takes no uploads: name another one",
            _ => "the registry does not understand the request",
        }
    }
}

impl ErrorResponse {
    fn new(status: StatusCode, headers: &HeaderMap, body: &[u8], secrets: &[String]) -> Self {
        let text = |name| headers.get(name).and_then(|value: &http::HeaderValue| value.to_str().ok());
        let html = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("text/html"))
            || body.trim_ascii_start().first() == Some(&b'<');
        let entry = serde_json::from_slice::<ErrorBody>(body).ok().and_then(|body| body.errors.into_iter().next());
        let entry = entry.unwrap_or_else(|| ErrorEntry { message: other_message(body, html), ..ErrorEntry::default() });
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
            is_html: html,
            insufficient_scope: text(header::WWW_AUTHENTICATE).is_some_and(|c| c.contains("insufficient_scope")),
        }
    }

    fn is_rate_limit(&self) -> bool {
        let says = ["rate limit", "toomanyrequests", "too many requests", "ratelimit"];
        match self.status {
            429 => true,
            // GitHub reports secondary rate limits with 403, with or without Retry-After.
            403 => self.after.is_some() || self.says_one_of(&says),
            _ => false,
        }
    }

    /// ECR Public reports it with 400, GitLab with 403.
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

/// Whether a response with this beginning of its body means that the token, or the password that is one, has expired.
pub fn says_expired_token(status: StatusCode, body: &[u8]) -> bool {
    is_expired_token(status.as_u16(), &String::from_utf8_lossy(body).to_lowercase())
}

fn is_expired_token(status: u16, words: &str) -> bool {
    matches!(status, 400 | 403) && words.contains("token") && words.contains("expired")
}

/// The message of a body that the specification does not describe: other JSON with a message, or plain text.
fn other_message(body: &[u8], html: bool) -> Option<String> {
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

/// The digest in the detail of an error: in distribution a field `digest`, elsewhere the string itself.
fn digest_of(detail: &Value) -> Option<&str> {
    let text = detail.as_str().or_else(|| detail.get("digest")?.as_str()).or_else(|| detail.get("Digest")?.as_str())?;
    text.parse::<crate::digest::Digest>().is_ok().then_some(text)
}

/// Status, code and message in one line of limited length.
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

/// The format of dates has four digits for the year.
fn has_http_date(time: &SystemTime) -> bool {
    const YEAR_10000: Duration = Duration::from_secs(253_402_300_800);
    time.duration_since(SystemTime::UNIX_EPOCH).is_ok_and(|since| since < YEAR_10000)
}

#[cfg(test)]
mod tests;
