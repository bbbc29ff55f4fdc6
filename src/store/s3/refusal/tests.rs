//! Answers as S3 and its relatives give them, and the sentences that they become.

use super::*;
use crate::store::bucket::tests::{headers, outcome};

const FOUND: &str = "check the credentials of AWS_ACCESS_KEY_ID";
const NONE: &str = "add credentials: there are none in AWS_ACCESS_KEY_ID";

fn bucket() -> Bucket {
    Bucket { bucket: "ci".to_owned(), prefix: "team/a".to_owned(), tag: "v1".to_owned() }
}

/// Error, and whether it may pass and after how many seconds.
fn failure(action: ObjectAction, anonymous: bool, refusal: &S3Refusal) -> (String, Option<Option<u64>>) {
    let bucket = bucket();
    let asked = Asked {
        place: "s3://ci/team/a/x".to_owned(),
        server: "s3.eu-west-1.amazonaws.com".to_owned(),
        bucket: &bucket,
        action,
        searched: if anonymous { NONE.to_owned() } else { FOUND.to_owned() },
        anonymous,
        secrets: vec!["hunter2".to_owned()],
    };
    outcome(refusal.failure(&asked, "eu-west-1"))
}

fn refusal(status: u16, fields: &[(&str, &str)], body: &str) -> S3Refusal {
    S3Refusal::new(StatusCode::from_u16(status).unwrap(), &headers(fields), body.as_bytes())
}

fn error(code: &str, message: &str) -> String {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>{message}</Message><RequestId>1</RequestId></Error>"
    )
}

#[test]
fn one_sentence_each() {
    use ObjectAction::*;
    let lasting = None;
    let passing = Some(None);
    for (action, anonymous, status, body, passes, says) in [
        (
            Store,
            false,
            403,
            error("AccessDenied", "User: arn:aws:iam::1:user/u is not authorized to perform: s3:PutObject"),
            lasting,
            "denied storing an object (403 AccessDenied: User: arn:aws:iam::1:user/u is not authorized to perform: s3:PutObject); check the credentials of AWS_ACCESS_KEY_ID: a policy has to allow s3:PutObject and s3:AbortMultipartUpload for s3://ci/team/a/*",
        ),
        (
            Find,
            false,
            403,
            String::new(),
            lasting,
            "denied looking for an object (403 Forbidden); check the credentials of AWS_ACCESS_KEY_ID: a policy has to allow s3:GetObject and s3:ListBucket for s3://ci/team/a/*",
        ),
        (
            Read,
            true,
            403,
            error("AccessDenied", "Access Denied"),
            lasting,
            "denied reading an object (403 AccessDenied: Access Denied); add credentials: there are none in AWS_ACCESS_KEY_ID",
        ),
        (
            Read,
            false,
            400,
            error("ExpiredToken", "The provided token has expired."),
            lasting,
            "denied reading an object (400 ExpiredToken: The provided token has expired); the credentials have expired: renew them; check the credentials of AWS_ACCESS_KEY_ID",
        ),
        (
            Read,
            false,
            400,
            error("InvalidToken", "The provided token is malformed or otherwise invalid."),
            lasting,
            "denied reading an object (400 InvalidToken: The provided token is malformed or otherwise invalid); the session token is not one of the access key: check the credentials of AWS_ACCESS_KEY_ID",
        ),
        (
            Read,
            false,
            403,
            error("SignatureDoesNotMatch", "for hunter2"),
            lasting,
            "denied reading an object (403 SignatureDoesNotMatch: for ***); the secret access key is not that of the access key: check the credentials of AWS_ACCESS_KEY_ID",
        ),
        (
            Read,
            false,
            403,
            error("RequestTimeTooSkewed", "The difference between the request time and the current time is too large."),
            lasting,
            "refused reading an object (403 RequestTimeTooSkewed: The difference between the request time and the current time is too large); the clock of this machine is wrong: set it",
        ),
        (
            Store,
            false,
            404,
            error("NoSuchBucket", "The specified bucket does not exist"),
            lasting,
            "refused storing an object (404 NoSuchBucket: The specified bucket does not exist); there is no bucket \"ci\": create it, or name another one",
        ),
        (
            List,
            false,
            301,
            error(
                "PermanentRedirect",
                "The bucket you are attempting to access must be addressed using the specified endpoint.",
            ),
            lasting,
            "refused listing objects (301 PermanentRedirect: The bucket you are attempting to access must be addressed using the specified endpoint); the bucket is not in the region \"eu-west-1\": set AWS_REGION to the one that it is in",
        ),
        (
            Store,
            false,
            503,
            error("SlowDown", "Please reduce your request rate."),
            passing,
            "rate limited storing an object (503 SlowDown: Please reduce your request rate); it asks for fewer requests: try again later, or spread runs over more prefixes",
        ),
        (
            Store,
            false,
            500,
            error("InternalError", "We encountered an internal error. Please try again."),
            passing,
            "failed storing an object (500 InternalError: We encountered an internal error. Please try again); this is a fault of the server: look at its log",
        ),
        (
            Copy,
            false,
            200,
            error("InternalError", "We encountered an internal error"),
            passing,
            "failed copying an object (200 InternalError: We encountered an internal error); this is a fault of the server: look at its log",
        ),
        (
            Store,
            false,
            507,
            error("XMinioStorageFull", "Storage backend has reached its minimum free drive threshold."),
            lasting,
            "refused storing an object (507 XMinioStorageFull: Storage backend has reached its minimum free drive threshold); there is no room left: delete images (tekton-wrap prune does it for runs), or raise the quota",
        ),
        (
            Read,
            false,
            403,
            error("InvalidObjectState", "The operation is not valid for the object's storage class"),
            lasting,
            "refused reading an object (403 InvalidObjectState: The operation is not valid for the object's storage class); the object was moved to an archive: let no lifecycle rule of the bucket do that with this prefix",
        ),
        (
            Store,
            false,
            400,
            error("XAmzContentSHA256Mismatch", "mismatch"),
            passing,
            "refused storing an object (400 XAmzContentSHA256Mismatch: mismatch); the data were damaged on the way",
        ),
        (
            Store,
            false,
            404,
            error("NoSuchUpload", ""),
            passing,
            "refused storing an object (404 NoSuchUpload); the upload was forgotten; does a lifecycle rule of the bucket end uploads too soon?",
        ),
        (
            Delete,
            false,
            405,
            error("MethodNotAllowed", ""),
            lasting,
            "refused deleting an object (405 MethodNotAllowed); the server does not allow that: is the bucket read-only?",
        ),
        (
            Store,
            false,
            400,
            error("InvalidArgument", "x"),
            lasting,
            "refused storing an object (400 InvalidArgument: x); the server does not understand the request",
        ),
    ] {
        let (text, passing) = failure(action, anonymous, &refusal(status, &[], &body));
        assert_eq!(text, format!("s3://ci/team/a/x: s3.eu-west-1.amazonaws.com {says}"));
        assert_eq!(passing, passes, "{says}");
    }
}

#[test]
fn what_is_no_s3() {
    for (status, body) in [(404, "<html><body>404</body></html>"), (400, "no"), (302, "")] {
        let (text, passes) = failure(ObjectAction::Read, false, &refusal(status, &[], body));
        assert!(
            text.contains("unexpected response from s3.eu-west-1.amazonaws.com (") && text.ends_with("): is it S3?"),
            "{text}"
        );
        assert_eq!(passes, None);
    }
    assert!(!refusal(404, &[], "<html></html>").is_absent());
}

#[test]
fn what_the_server_asks_for_is_kept() {
    let busy = refusal(503, &[("Retry-After", "7")], &error("SlowDown", ""));
    assert_eq!(failure(ObjectAction::Read, false, &busy).1, Some(Some(7)));
}

#[test]
fn what_an_answer_is_about() {
    assert!(refusal(404, &[], &error("NoSuchKey", "")).is_absent());
    assert!(refusal(404, &[], "").is_absent(), "HEAD");
    assert!(!refusal(404, &[], &error("NoSuchBucket", "")).is_absent());
    assert!(refusal(412, &[], &error("PreconditionFailed", "")).is_stale());
    assert!(refusal(501, &[], &error("NotImplemented", "")).is_unknown());
    let moved = refusal(301, &[("x-amz-bucket-region", "eu-central-1")], "");
    assert_eq!((moved.is_other_region(), moved.region.as_deref()), (true, Some("eu-central-1")));
    let body = "<Error><Code>AuthorizationHeaderMalformed</Code><Region>us-west-2</Region></Error>";
    let malformed = refusal(400, &[], body);
    assert_eq!((malformed.is_other_region(), malformed.region.as_deref()), (true, Some("us-west-2")));
    assert!(S3Refusal::in_body(StatusCode::OK, "<CopyObjectResult/>").is_none());
    assert!(S3Refusal::in_body(StatusCode::OK, body).is_some());
}
