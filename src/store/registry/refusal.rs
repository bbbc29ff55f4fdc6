//! A registry's answer that is not what was hoped for, turned into one sentence (OCI distribution-spec, "Error codes").

use std::time::SystemTime;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

use super::retry::{Failure, retry_after};
use crate::store::StoreError;

/// What was asked for, for the sentence.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The image or blob.
    pub place: String,
    /// The registry.
    pub host: &'a str,
    /// What for: fits after "to", for example `read the manifest`.
    pub action: &'a str,
    /// Where credentials were looked for: a clause that says what to do.
    pub searched: &'a str,
}

#[derive(Deserialize)]
struct Body {
    errors: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    code: Option<String>,
    message: Option<String>,
}

impl Asked<'_> {
    /// The failure for an answer with `status` and the beginning of its body.
    pub fn refused(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        let after = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = after.and_then(|value| retry_after(value, SystemTime::now()));
        let entry = serde_json::from_slice::<Body>(body).ok().and_then(|body| body.errors.into_iter().next());
        let code = entry.as_ref().and_then(|e| e.code.as_deref()).unwrap_or_default();
        let message = entry.as_ref().and_then(|e| e.message.as_deref()).unwrap_or_default();
        let said = said(status, code, message);
        let (place, host, action) = (self.place.clone(), self.host, self.action);
        let other = |advice: &str| StoreError::Registry {
            place: self.place.clone(),
            problem: format!("{host} refused to {action} ({said}); {advice}"),
        };
        match status.as_u16() {
            // GitHub says "slow down" with 403 and Retry-After.
            403 if after.is_some() => Failure::Transient { error: other("it asks to be asked less often"), after },
            401 | 403 => {
                let problem = format!("{host} does not allow to {action} ({said}); {}", self.searched);
                Failure::Final(StoreError::Denied { place, problem })
            }
            404 if matches!(code, "BLOB_UPLOAD_UNKNOWN" | "BLOB_UPLOAD_INVALID") => {
                Failure::Transient { error: other("the upload was forgotten; is the registry being restarted?"), after }
            }
            400 | 404 if code == "MANIFEST_BLOB_UNKNOWN" => {
                Failure::Final(other("a blob that it names was deleted meanwhile: run the pipeline again"))
            }
            404 if code == "NAME_UNKNOWN" => {
                Failure::Final(other("there is no such repository: create it, or name another one"))
            }
            404 => {
                Failure::Final(other("it is not there; check the name, or run the pipeline again if it has expired"))
            }
            405 => Failure::Final(other("this registry does not take uploads; name another one")),
            413 => {
                Failure::Final(other("it is too large for the registry or for a proxy before it; raise their limit"))
            }
            408 | 429 => Failure::Transient { error: other("it asks to be asked less often"), after },
            500.. => Failure::Transient { error: other("this is a fault of the registry: look at its log"), after },
            300..=399 => Failure::Final(other("it answers with a redirect that can't be followed")),
            _ => match code {
                // Damaged on the way; and distribution says so of a good manifest while another client stores a blob that
                // both name (registry/handlers/manifests.go: a link file that is just being rewritten reads as empty).
                "DIGEST_INVALID" => {
                    Failure::Transient { error: other("the digest is wrong: the data were damaged on the way"), after }
                }
                "SIZE_INVALID" => Failure::Final(other("the size is wrong: the data were damaged on the way")),
                "DENIED" | "UNAUTHORIZED" => {
                    let problem = format!("{host} does not allow to {action} ({said}); {}", self.searched);
                    Failure::Final(StoreError::Denied { place, problem })
                }
                _ => Failure::Final(other("the registry does not understand the request")),
            },
        }
    }
}

/// Status, code and message in one line. What a registry sends is shown to people and goes to logs: no control
/// characters, and no more of it than one reads.
fn said(status: StatusCode, code: &str, message: &str) -> String {
    const LENGTH: usize = 200;
    let clean = |text: &str| {
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(LENGTH).collect();
        text.trim().trim_end_matches('.').to_owned()
    };
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
mod tests {
    use std::time::Duration;

    use super::*;

    fn refused(status: u16, after: Option<&str>, body: &str) -> (String, Option<Option<Duration>>) {
        let mut headers = HeaderMap::new();
        headers.extend(after.map(|value| (header::RETRY_AFTER, value.parse().unwrap())));
        let asked = Asked {
            place: "quay.io/me/a:b".to_owned(),
            host: "quay.io",
            action: "upload a blob",
            searched: "add credentials for quay.io: there are none in /x (absent)",
        };
        match asked.refused(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()) {
            Failure::Final(error) => (error.to_string(), None),
            Failure::Transient { error, after } => (error.to_string(), Some(after)),
        }
    }

    #[test]
    fn one_sentence_each() {
        let body =
            r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied","detail":[]}]}"#;
        let (error, transient) = refused(401, None, body);
        assert_eq!(
            error,
            "quay.io/me/a:b: quay.io does not allow to upload a blob (401 DENIED: requested access to the resource is \
             denied); add credentials for quay.io: there are none in /x (absent)"
        );
        assert_eq!(transient, None);
        for (status, body, says) in [
            (
                400,
                r#"{"errors":[{"code":"SIZE_INVALID","message":"provided length did not match content length"}]}"#,
                "size is wrong",
            ),
            (
                404,
                r#"{"errors":[{"code":"NAME_UNKNOWN","message":"repository name not known to registry"}]}"#,
                "no such repository",
            ),
            (404, "", "404 Not Found"),
            (
                405,
                r#"{"errors":[{"code":"UNSUPPORTED","message":"The operation is unsupported."}]}"#,
                "does not take uploads",
            ),
            (413, "<html>413 Request Entity Too Large</html>", "too large"),
            (418, "{\"errors\":[{\"message\":\"a\\u001b[31m\\nb\"}]}", "(418: a [31m b)"),
            (400, r#"{"errors":[]}"#, "400 Bad Request"),
            (403, r#"{"errors":[{"code":"DENIED"}]}"#, "(403 DENIED)"),
            (307, "", "redirect"),
        ] {
            let (error, transient) = refused(status, None, body);
            assert!(error.contains(says) && !error.contains('\n'), "{error}");
            assert_eq!(transient, None, "{error}");
        }
    }

    #[test]
    fn what_may_pass_is_tried_again() {
        let seconds = |n| Some(Some(Duration::from_secs(n)));
        for (status, after, body, expected) in [
            (429, Some("7"), r#"{"errors":[{"code":"TOOMANYREQUESTS"}]}"#, seconds(7)),
            (429, None, "", Some(None)),
            (408, None, "", Some(None)),
            (503, Some("3"), "", seconds(3)),
            (500, None, "{", Some(None)),
            (403, Some("60"), "", seconds(60)),
            (404, None, r#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN"}]}"#, Some(None)),
        ] {
            assert_eq!(refused(status, after, body).1, expected, "{status}");
        }
    }

    /// Seen where four tasks saved at once: distribution refuses a good manifest for a moment.
    #[test]
    fn a_wrong_digest_may_be_a_passing_fault() {
        let body =
            r#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#;
        let (error, transient) = refused(400, None, body);
        assert!(error.contains("digest is wrong"), "{error}");
        assert_eq!(transient, Some(None));
    }
}
