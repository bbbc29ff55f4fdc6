//! What is a target and what is none.

use super::*;

#[test]
fn accepts() {
    for (text, shown) in [
        ("quay.io/me/build:v1", "quay.io/me/build:v1"),
        ("oci://quay.io/me/build", "quay.io/me/build:latest"),
        ("localhost:5000/a/b__c:x", "localhost:5000/a/b__c:x"),
        ("127.0.0.1:5000/run-1-sources", "127.0.0.1:5000/run-1-sources:latest"),
        ("[::1]:5000/a", "[::1]:5000/a:latest"),
        ("me/build", "index.docker.io/me/build:latest"),
        ("busybox", "index.docker.io/library/busybox:latest"),
        ("docker.io/me/a", "index.docker.io/me/a:latest"),
        ("dir:///tmp/a:b", "dir:///tmp/a:b"),
        ("dir:///tmp/a", "dir:///tmp/a:latest"),
        ("s3://bucket", "s3://bucket:latest"),
        ("s3://bucket/", "s3://bucket:latest"),
        ("s3://my.bucket-1/ci/a+b:v1", "s3://my.bucket-1/ci/a+b:v1"),
        ("s3://bucket/ci/:v1", "s3://bucket/ci:v1"),
        ("gs://bucket/ci:v1", "gs://bucket/ci:v1"),
    ] {
        assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
    }
}

#[test]
fn what_is_said_is_what_was_written() {
    let letters = "may hold only lower-case letters and digits, separated by '.', '_', '-' or '/'";
    for (text, says) in [
        (
            "",
            "\"\" is not an image reference: it names no repository; write for example quay.io/me/image:tag".to_owned(),
        ),
        (
            ":v1",
            "\":v1\" is not an image reference: it names no repository; write for example quay.io/me/image:tag"
                .to_owned(),
        ),
        ("a b", format!("\"a b\" is not an image reference: the repository \"a b\" {letters}")),
        ("quay.io/Me/a", format!("\"quay.io/Me/a\" is not an image reference: the repository \"Me/a\" {letters}")),
    ] {
        assert_eq!(text.parse::<Target>().unwrap_err().to_string(), says);
    }
    let digest = format!("quay.io/me/a@{}", Digest::of(b""));
    let says = format!("\"{digest}\" is pinned to a digest, which can't be written to: name a tag");
    assert_eq!(Target::to_write(&digest).unwrap_err().to_string(), says);
    assert_eq!(Target::to_write("quay.io/me/a:b").unwrap().to_string(), "quay.io/me/a:b");
}

#[test]
fn rejects() {
    for text in [
        "",
        "quay.io/Me/build",
        "quay.io/me/build:",
        "quay.io/me/build:a b",
        "quay.io//build",
        "quay.io/me/-a",
        "quay.io/me/a..b",
        "quay.io:port/me",
        "exa mple.io/me",
        "quay.io/me/build@sha256:12",
        "https://quay.io/me",
        "s3:/bucket",
        "gcs://bucket/a",
        "gs://Bucket/a",
        "s3://",
        "s3://bu",
        "s3://Bucket/a",
        "s3://-bucket/a",
        "s3://10.0.0.1/a",
        "s3://bucket//a",
        "s3://bucket/a/../b",
        "s3://bucket/a b",
        "s3://bucket/a?region=x",
        "s3://bucket/a:",
        "s3://bucket/a:b c",
        "dir://relative",
        "dir:///a/../b",
        "dir:///a/.",
        "quay.io/me/build-{{workspace}}",
    ] {
        assert!(text.parse::<Target>().is_err(), "{text}");
    }
}

#[test]
fn a_long_tag_is_cut_and_stays_its_own() {
    let longest = "a".repeat(128);
    assert_eq!(legal_tag(&longest), Some(longest.clone()));
    let (one, other) = (format!("{longest}b"), format!("{longest}c"));
    for prefix in ["quay.io/me/build", "dir:///tmp/a"] {
        let cut = |tag: &str| format!("{prefix}:{tag}").parse::<Target>().unwrap();
        assert_eq!(cut(&one).reference().len(), 128);
        assert!(cut(&one).reference().starts_with(&"a".repeat(111)));
        assert_ne!(cut(&one), cut(&other));
        // What it was cut to stays.
        assert_eq!(cut(&cut(&one).reference()), cut(&one));
    }
}

#[test]
fn a_long_repository_is_refused() {
    let error = format!("quay.io/me/{}:v1", "a".repeat(256)).parse::<Target>().unwrap_err().to_string();
    assert!(error.contains("has 259 characters, more than the 255"), "{error}");
}

#[test]
fn a_password_in_it_is_not_shown() {
    for text in [
        "https://me:hunter2@quay.io/me",
        "me:hunter2@quay.io/me",
        "oci://me:hunter2@quay.io/me",
        "me:hunter2@quay.io:5000/me/a",
        "s3://key:hunter2@bucket/a",
    ] {
        let error = text.parse::<Target>().unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
