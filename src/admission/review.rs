//! AdmissionReview v1 as it is on the wire (Kubernetes: k8s.io/api/admission/v1, types.go).
//!
//! Own types, because kube's response writes the patch as a list of numbers and not as base64.

use std::borrow::Cow;

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::{error::Category, value::RawValue};

use crate::quote::Line;

const API_VERSION: &str = "admission.k8s.io/v1";
const KIND: &str = "AdmissionReview";

/// The apiserver cuts longer warnings and drops those with control characters
/// (Kubernetes: apiserver/pkg/endpoints/filters/warning.go).
const MAX_WARNING_CHARS: usize = 256;

/// Seconds after which a client may try again what can't be done now.
const RETRY_AFTER: u16 = 2;

/// What the apiserver asks. Fields that are not read here are skipped, whatever they hold.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", bound(deserialize = "O: Deserialize<'de>"))]
pub struct ReviewRequest<O = Bytes> {
    /// To be echoed in the response.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// What the request is about, after the conversion that `matchPolicy: Equivalent` may have asked for.
    pub resource: Resource,
    /// For example `status`.
    #[serde(default)]
    pub sub_resource: String,
    /// The namespace of the object; the object's own `metadata.namespace` may still be empty.
    #[serde(default)]
    pub namespace: String,
    /// Whether nothing will be stored.
    #[serde(default)]
    pub dry_run: bool,
    /// Who asks.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object, a JSON value that is read only if it is for us: a part of the body, which lives as long as this.
    pub object: Option<O>,
}

/// The user of a request (Kubernetes: k8s.io/api/authentication/v1, UserInfo).
#[derive(Debug, Default, Deserialize)]
pub struct UserInfo {
    /// For example `system:serviceaccount:ci:pipeline`.
    #[serde(default)]
    pub username: String,
}

/// Group, version and plural name of a kind of objects.
#[derive(Debug, Deserialize)]
pub struct Resource {
    /// For example `tekton.dev`.
    pub group: String,
    /// For example `v1`.
    pub version: String,
    /// For example `pipelineruns`.
    pub resource: String,
}

/// What is answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewResponse {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<ReviewStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    warnings: Vec<String>,
}

/// Why a request is refused (Kubernetes: apimachinery/pkg/apis/meta/v1, ReviewStatus).
#[derive(Debug, Serialize)]
struct ReviewStatus {
    status: &'static str,
    message: String,
    reason: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<StatusDetails>,
    code: u16,
}

/// With a time to wait the apiserver sends `Retry-After`, and client-go then sends the request again by itself
/// (Kubernetes: apiserver/pkg/endpoints/handlers/responsewriters/writers.go, client-go/rest/with_retry.go).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StatusDetails {
    retry_after_seconds: u16,
}

/// Why a review can't be read: a clause that says what is wrong with it.
#[derive(Debug, thiserror::Error)]
pub enum ReviewError {
    /// It is not JSON, or not of the form of a review.
    #[error("it is not a review: {}, line {} column {}", of_category(.0.classify()), .0.line(), .0.column())]
    Json(serde_json::Error),
    /// It is another kind of object, or of another version.
    #[error("it is not an {KIND} of {API_VERSION}")]
    Kind,
    /// Nothing is asked.
    #[error("it has no request")]
    NoRequest,
    /// The request can't be answered.
    #[error("its request has no uid")]
    NoUid,
    /// The object to be created is absent.
    #[error("its request has no object")]
    NoObject,
    /// The object is not JSON that can be read.
    #[error("its object can't be read: {}, line {} column {}", of_category(.0.classify()), .0.line(), .0.column())]
    Object(serde_json::Error),
    /// Nothing can be in a namespace of this name, which would become a part of URLs.
    #[error("its request has a namespace that can't exist")]
    Namespace,
}

/// What serde says may quote what it read.
fn of_category(category: Category) -> &'static str {
    match category {
        Category::Io => "it can't be read",
        Category::Syntax => "syntax error",
        Category::Data => "unexpected type, missing or duplicate field",
        Category::Eof => "it ends early",
    }
}

impl ReviewRequest {
    /// The request of the review `body`.
    pub fn parse(body: &Bytes) -> Result<Self, ReviewError> {
        let review: Review<'_> = serde_json::from_slice(body).map_err(ReviewError::Json)?;
        if review.kind != KIND || review.api_version != API_VERSION {
            return Err(ReviewError::Kind);
        }
        let request = review.request.ok_or(ReviewError::NoRequest)?;
        if request.uid.is_empty() {
            return Err(ReviewError::NoUid);
        }
        let ReviewRequest { uid, operation, resource, sub_resource, namespace, dry_run, user_info, object } = request;
        let object = object.map(|object| body.slice_ref(object.get().as_bytes()));
        Ok(Self { uid, operation, resource, sub_resource, namespace, dry_run, user_info, object })
    }

    /// Whether it is the creation of a PipelineRun.
    pub fn creates_pipeline_run(&self) -> bool {
        let Resource { group, resource, .. } = &self.resource;
        self.operation == "CREATE"
            && group == "tekton.dev"
            && resource == "pipelineruns"
            && self.sub_resource.is_empty()
    }
}

impl ReviewResponse {
    /// The object may be stored as it is.
    pub fn allow(uid: &str) -> Self {
        Self { uid: uid.to_owned(), allowed: true, status: None, patch: None, patch_type: None, warnings: Vec::new() }
    }

    /// The object may be stored as it is; its creator gets a warning.
    pub fn warned(uid: &str, text: &str) -> Self {
        Self { warnings: vec![warning(text)], ..Self::allow(uid) }
    }

    /// The object may be stored after `patch`, the text of a JSON patch (RFC 6902), was applied.
    pub fn patched(uid: &str, patch: &[u8], warnings: &[String]) -> Self {
        Self {
            patch: Some(STANDARD.encode(patch)),
            patch_type: Some("JSONPatch"),
            warnings: warnings.iter().map(|w| warning(w)).collect(),
            ..Self::allow(uid)
        }
    }

    /// The object may not be stored. `code` is the HTTP status that the user's client gets, 400 or more; with 503 it is told to
    /// try again.
    pub fn refuse(uid: &str, code: u16, reason: &'static str, message: String) -> Self {
        let details = (code == 503).then_some(StatusDetails { retry_after_seconds: RETRY_AFTER });
        let status = ReviewStatus { status: "Failure", message, reason, details, code };
        Self { allowed: false, status: Some(status), ..Self::allow(uid) }
    }

    /// The whole AdmissionReview around it.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct AnsweredReview<'a> {
            api_version: &'static str,
            kind: &'static str,
            response: &'a ReviewResponse,
        }
        serde_json::to_vec(&AnsweredReview { api_version: API_VERSION, kind: KIND, response: self })
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    #[serde(default)]
    api_version: Cow<'a, str>,
    #[serde(default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    request: Option<ReviewRequest<&'a RawValue>>,
}

/// `text` as the apiserver shows it: one line, cut if it is too long.
fn warning(text: &str) -> String {
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut line = Line(&line).to_string();
    if let Some((end, _)) = line.char_indices().nth(MAX_WARNING_CHARS) {
        let keep = line[..end].char_indices().next_back().map_or(0, |(last, _)| last);
        line.truncate(keep);
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(response: &ReviewResponse) -> String {
        String::from_utf8(response.to_json().unwrap()).unwrap()
    }

    #[test]
    fn literal_bytes() {
        assert_eq!(
            text(&ReviewResponse::allow("u-1")),
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u-1","allowed":true}}"#
        );
        let patch = br#"[{"op":"remove","path":"/spec/pipelineRef"}]"#;
        assert_eq!(
            text(&ReviewResponse::patched("u-2", patch, &["cache is\nread-only".to_owned()])),
            concat!(
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u-2","allowed":true,"#,
                r#""patch":"W3sib3AiOiJyZW1vdmUiLCJwYXRoIjoiL3NwZWMvcGlwZWxpbmVSZWYifV0=","patchType":"JSONPatch","#,
                r#""warnings":["cache is read-only"]}}"#
            )
        );
        assert_eq!(
            text(&ReviewResponse::refuse("u-3", 400, "MissingParam", "param target is missing".to_owned())),
            concat!(
                r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","response":{"uid":"u-3","allowed":false,"#,
                r#""status":{"status":"Failure","message":"param target is missing","reason":"MissingParam","code":400}}}"#
            )
        );
    }

    #[test]
    fn what_can_not_be_done_now_may_be_tried_again() {
        let answer = text(&ReviewResponse::refuse("u", 503, "Unavailable", "later".to_owned()));
        assert!(answer.contains(r#""details":{"retryAfterSeconds":2},"code":503"#), "{answer}");
    }

    #[test]
    fn unreadable_reviews() {
        let review = |api: &str, request: &str| {
            format!(r#"{{"apiVersion":"admission.k8s.io/{api}","kind":"AdmissionReview","request":{request}}}"#)
        };
        let request = r#"{"uid":"u","operation":"CREATE","resource":{"group":"","version":"v1","resource":"pods"}}"#;
        let parse = |body: String| ReviewRequest::parse(&Bytes::from(body));
        assert!(parse(review("v1", request)).is_ok());
        for (body, why) in [
            (String::new(), "ends early"),
            ("[]".to_owned(), "unexpected type"),
            (r#"{"kind":"Pod","apiVersion":"v1"}"#.to_owned(), "not an AdmissionReview"),
            (review("v1beta1", request), "not an AdmissionReview"),
            (review("v1", "null"), "no request"),
            (review("v1", r#"{"operation":"CREATE"}"#), "missing"),
            (review("v1", &request.replace(r#""u""#, r#""""#)), "no uid"),
            (review("v1", request) + "}", "syntax error"),
            (review("v1", request).replace("\"request\"", r#""request":null,"request""#), "duplicate"),
            ("[".repeat(100_000), "column"),
        ] {
            let error = parse(body).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
        assert!(parse(review("v1", request).replace("pods", "\u{1}")).is_err());
        assert!(ReviewRequest::parse(&Bytes::from_static(b"{\"kind\":\"\xff\"}")).is_err());
    }

    proptest! {
        #[test]
        fn warnings_reach_the_user(text in any::<String>(), tail in ".{0,300}") {
            let line = warning(&(text.clone() + &tail));
            prop_assert!(line.chars().count() <= MAX_WARNING_CHARS);
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
