//! Answers as registries give them, and the sentences that they become.

use super::*;

const IN_FILE: &str = "check the credentials for r.io in /x/config.json";

/// Error, and whether it may pass and after how many seconds.
fn failure(
    asked: &RequestContext<'_>,
    status: u16,
    headers: &[(&str, &str)],
    body: &str,
) -> (String, Option<Option<u64>>) {
    let headers = headers.iter().map(|(name, value)| {
        (name.parse::<header::HeaderName>().unwrap(), value.parse::<http::HeaderValue>().unwrap())
    });
    let headers = HeaderMap::from_iter(headers);
    match asked.failure(StatusCode::from_u16(status).unwrap(), &headers, body.as_bytes()) {
        Failure::Final(error) => (error.to_string(), None),
        Failure::Transient { error, after } => (error.to_string(), Some(after.map(|after| after.as_secs()))),
    }
}

fn asked(operation: Operation, anonymous: bool) -> RequestContext<'static> {
    RequestContext {
        place: "r.io/me/a:b".to_owned(),
        registry: "r.io",
        repository: "me/a",
        operation,
        searched: if anonymous { "add credentials for r.io".to_owned() } else { IN_FILE.to_owned() },
        anonymous,
        secrets: vec!["hunter2".to_owned()],
    }
}

fn errors(code: &str, message: &str) -> String {
    serde_json::json!({"errors": [{"code": code, "message": message}]}).to_string()
}

#[test]
fn one_sentence_each() {
    use Operation::*;
    let denied = errors("DENIED", "requested access to the resource is denied");
    for (operation, anonymous, status, body, says) in [
        // Docker Hub, with and without an account; rights that are missing.
        (
            UploadBlob,
            true,
            401,
            denied.clone(),
            "r.io denied uploading a blob (401 DENIED: requested access to the resource is denied); add credentials for r.io",
        ),
        (
            UploadBlob,
            false,
            403,
            denied.clone(),
            "r.io denied uploading a blob (403 DENIED: requested access to the resource is denied); check the credentials for r.io in /x/config.json: they need the right to push to me/a",
        ),
        (
            DeleteImage,
            false,
            403,
            String::new(),
            "r.io denied deleting the image (403 Forbidden); check the credentials for r.io in /x/config.json: they need the right to delete in me/a",
        ),
        (
            ReadBlob,
            false,
            401,
            errors("UNAUTHORIZED", "authentication required"),
            "r.io denied reading a blob (401 UNAUTHORIZED: authentication required); check the credentials for r.io in /x/config.json",
        ),
        // Harbor; quotas; immutable tags of ECR, Harbor, Artifact Registry.
        (
            UploadBlob,
            false,
            403,
            errors(
                "DENIED",
                "adding 1.2 GiB of storage resource, which when updated to current usage of 9.9 GiB will exceed the configured upper limit of 10.0 GiB.",
            ),
            "the storage quota is used up: delete images",
        ),
        (
            StoreManifest,
            false,
            400,
            errors(
                "TAG_INVALID",
                "The image tag 'b' already exists in the 'me/a' repository and cannot be overwritten because the repository is immutable.",
            ),
            "the tag exists and may not be changed there (immutable tags)",
        ),
        (
            StoreManifest,
            false,
            412,
            errors("PRECONDITION", "Failed to process request due to 'a:b' configured as immutable."),
            "the tag exists and may not be changed there (immutable tags)",
        ),
        (
            StoreManifest,
            false,
            400,
            errors("MANIFEST_INVALID", "cannot update tag \"b\": The repository has enabled tag immutability."),
            "the tag exists and may not be changed there (immutable tags)",
        ),
        (
            StoreManifest,
            false,
            404,
            format!(
                r#"{{"errors":[{{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry","detail":{{"digest":"sha256:{}"}}}}]}}"#,
                "ab".repeat(32)
            ),
            "unknown to registry sha256:ababab",
        ),
        (
            UploadBlob,
            false,
            400,
            errors("SIZE_INVALID", "provided length did not match content length"),
            "size is wrong",
        ),
        (
            UploadBlob,
            false,
            404,
            errors("NAME_UNKNOWN", "repository name not known to registry"),
            "there is no such repository: create it",
        ),
        (ReadBlob, false, 404, String::new(), "(404 Not Found); it is not there"),
        (
            UploadBlob,
            false,
            405,
            errors("UNSUPPORTED", "The operation is unsupported."),
            "this registry takes no uploads",
        ),
        (
            DeleteImage,
            false,
            405,
            errors("UNSUPPORTED", "The operation is unsupported."),
            "it deletes no images; its operator can allow it",
        ),
        (
            UploadBlob,
            false,
            413,
            "<html>413 Request Entity Too Large</html>".to_owned(),
            "(413 Payload Too Large); it is too large",
        ),
        (UploadBlob, false, 405, "<!DOCTYPE html><title>Sign in</title>".to_owned(), "takes no uploads"),
        (
            ReadManifest,
            false,
            406,
            " <html>".to_owned(),
            "unexpected response from r.io (406 Not Acceptable): is it a registry?",
        ),
        (ReadManifest, false, 418, "{\"errors\":[{\"message\":\"a\\u001b[31m\\nb\"}]}".to_owned(), "(418: a [31m b)"),
        (
            ReadManifest,
            false,
            400,
            errors("", "you sent Basic aGk6aHVudGVyMg== and hunter2"),
            "(400: you sent Basic *** and ***)",
        ),
        (ReadManifest, false, 400, r#"{"errors":[]}"#.to_owned(), "400 Bad Request"),
        (ReadManifest, false, 400, r#"{"message":"no such thing"}"#.to_owned(), "(400: no such thing)"),
        (ReadManifest, false, 307, String::new(), "redirect"),
    ] {
        let (error, transient) = failure(&asked(operation, anonymous), status, &[], &body);
        assert!(
            error.starts_with("r.io/me/a:b: ") && error.contains(says) && !error.contains('\n'),
            "{error}\nnot: {says}"
        );
        assert_eq!(transient, None, "{error}");
    }
}

#[test]
fn a_token_that_allows_less_than_was_asked_for() {
    let challenge = r#"Bearer realm="https://r.io/t",error="insufficient_scope""#;
    let (error, _) = failure(&asked(Operation::StoreManifest, false), 401, &[("WWW-Authenticate", challenge)], "");
    assert!(error.ends_with("they need the right to push to me/a"), "{error}");
}

#[test]
fn what_may_pass_is_tried_again() {
    let asked = asked(Operation::UploadBlob, false);
    for (status, headers, body, after, says) in [
        (
            429,
            &[("Retry-After", "7")][..],
            errors("TOOMANYREQUESTS", ""),
            Some(7),
            "rate limited uploading a blob (429 TOOMANYREQUESTS); it asks to wait 7 s, until ",
        ),
        (429, &[], String::new(), None, "rate limited"),
        (
            403,
            &[("Retry-After", "60")],
            String::new(),
            Some(60),
            "rate limited uploading a blob (403 Forbidden); it asks to wait 1 min",
        ),
        (403, &[], errors("DENIED", "You have exceeded a secondary rate limit."), None, "rate limited"),
        (408, &[], String::new(), None, "took too long"),
        (503, &[("Retry-After", "3")], String::new(), Some(3), "fault of the registry"),
        (
            500,
            &[],
            "upload does not exist".to_owned(),
            None,
            "failed uploading a blob (500: upload does not exist); this is a fault of the registry",
        ),
        (500, &[], "{".to_owned(), None, "(500 Internal Server Error)"),
        (404, &[], errors("BLOB_UPLOAD_UNKNOWN", ""), None, "forgotten"),
        // The public ECR; distribution while four tasks saved at once.
        (
            400,
            &[],
            errors("DENIED", "Your authorization token has expired. Reauthenticate and try again."),
            None,
            "the token has expired",
        ),
        (400, &[], errors("DIGEST_INVALID", "provided digest did not match uploaded content"), None, "digest is wrong"),
    ] {
        let (error, transient) = failure(&asked, status, headers, &body);
        assert!(error.contains(says), "{error}\nnot: {says}");
        assert_eq!(transient, Some(after), "{error}");
    }
}

/// Docker Hub's limit for those who don't log in.
#[test]
fn a_rate_limit_says_until_when_and_who_has_a_higher_one() {
    let body = errors("TOOMANYREQUESTS", "You have reached your unauthenticated pull rate limit.");
    let (error, transient) = failure(&asked(Operation::ReadBlob, true), 429, &[("Retry-After", "900")], &body);
    assert_eq!(transient, Some(Some(900)));
    let (before, after) = error.split_once(", until ").unwrap();
    assert!(before.ends_with("rate limit); it asks to wait 15 min"), "{error}");
    assert!(after.ends_with(" GMT; limits are higher for those who log in: add credentials for r.io"), "{error}");
}
