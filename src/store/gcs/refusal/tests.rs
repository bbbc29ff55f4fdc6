//! Answers as Google Cloud Storage gives them, and the sentences that they become.

use super::*;
use crate::{
    store::bucket::tests::{headers, outcome},
    target::Bucket,
};

/// Error, and whether it may pass and after how many seconds.
fn failure(action: ObjectAction, anonymous: bool, refusal: &GcsRefusal) -> (String, Option<Option<u64>>) {
    let bucket = Bucket { bucket: "ci".to_owned(), prefix: "a".to_owned(), tag: "v1".to_owned() };
    let searched = if anonymous { "add credentials: there are none in X" } else { "check the credentials of X" };
    let asked = Asked {
        place: "gs://ci/a/x".to_owned(),
        server: "storage.googleapis.com".to_owned(),
        bucket: &bucket,
        action,
        searched: searched.to_owned(),
        anonymous,
        secrets: vec!["hunter2".to_owned()],
    };
    outcome(refusal.failure(&asked))
}

fn refusal(status: u16, fields: &[(&str, &str)], body: &str) -> GcsRefusal {
    GcsRefusal::new(StatusCode::from_u16(status).unwrap(), &headers(fields), body.as_bytes())
}

fn error(code: u16, reason: &str, message: &str) -> String {
    serde_json::json!({"error": {"code": code, "message": message, "errors": [{"message": message, "domain": "global", "reason": reason}]}}).to_string()
}

#[test]
fn one_sentence_each() {
    use ObjectAction::*;
    let (lasting, passing) = (None, Some(None));
    for (action, anonymous, status, reason, message, passes, says) in [
        (
            Store,
            false,
            403,
            "forbidden",
            "ci@p.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object.",
            lasting,
            "denied storing an object (403 forbidden: ci@p.iam.gserviceaccount.com does not have storage.objects.create access to the Google Cloud Storage object); check the credentials of X: a role has to give them storage.objects.create and storage.objects.delete for the bucket \"ci\"",
        ),
        (
            Read,
            true,
            401,
            "required",
            "Anonymous caller does not have storage.objects.get access",
            lasting,
            "denied reading an object (401 required: Anonymous caller does not have storage.objects.get access); add credentials: there are none in X",
        ),
        (
            Read,
            false,
            401,
            "authError",
            "Invalid Credentials hunter2",
            lasting,
            "denied reading an object (401 authError: Invalid Credentials ***); check the credentials of X",
        ),
        (
            List,
            false,
            404,
            "notFound",
            "The specified bucket does not exist.",
            lasting,
            "refused listing objects (404 notFound: The specified bucket does not exist); there is no bucket \"ci\": create it, or name another one",
        ),
        (
            Store,
            false,
            429,
            "rateLimitExceeded",
            "The object exceeded the rate limit for object mutation operations.",
            passing,
            "rate limited storing an object (429 rateLimitExceeded: The object exceeded the rate limit for object mutation operations); it asks for fewer requests: try again later",
        ),
        (
            Store,
            false,
            503,
            "backendError",
            "Backend Error",
            passing,
            "failed storing an object (503 backendError: Backend Error); this is a fault of the server: look at its log",
        ),
        (
            Delete,
            false,
            403,
            "retentionPolicyNotMet",
            "Object is under retention",
            lasting,
            "refused deleting an object (403 retentionPolicyNotMet: Object is under retention); the bucket keeps its objects for a time: name another one, or change its retention policy",
        ),
        (
            Copy,
            false,
            412,
            "conditionNotMet",
            "x",
            passing,
            "refused copying an object (412 conditionNotMet: x); another request changed the same object",
        ),
        (
            Find,
            false,
            400,
            "invalid",
            "x",
            lasting,
            "refused looking for an object (400 invalid: x); the server does not understand the request",
        ),
    ] {
        let (text, passing) = failure(action, anonymous, &refusal(status, &[], &error(status, reason, message)));
        assert_eq!(text, format!("gs://ci/a/x: storage.googleapis.com {says}"));
        assert_eq!(passing, passes, "{says}");
    }
}

#[test]
fn what_an_answer_is_about() {
    assert!(refusal(404, &[], &error(404, "notFound", "No such object: ci/a/x")).is_absent());
    assert!(refusal(404, &[], "Not Found").is_absent());
    assert!(!refusal(404, &[], &error(404, "notFound", "The specified bucket does not exist.")).is_absent());
    assert!(!refusal(404, &[], "<html></html>").is_absent());
    assert!(refusal(412, &[], "").is_stale());
    let later = refusal(429, &[("Retry-After", "7")], "");
    assert_eq!(failure(ObjectAction::Read, false, &later).1, Some(Some(7)));
    let (text, _) = failure(ObjectAction::Read, false, &refusal(404, &[], "<html></html>"));
    assert_eq!(
        text,
        "gs://ci/a/x: unexpected response from storage.googleapis.com (404 Not Found): is it Google Cloud Storage?"
    );
}
