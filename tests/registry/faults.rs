//! What goes wrong on the way to a registry.

use std::thread;

use tekton_wrap::digest::Digest;

use super::*;
use support::{
    faults::{Fault, Faults},
    process::free_port,
};

const SIZE: usize = 3_000_000;

fn start() -> (Faults, Box<dyn Store>) {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    (faults, store)
}

fn free_address() -> String {
    format!("127.0.0.1:{}", free_port())
}

fn answer(status: &'static str) -> Fault {
    Fault::Answer(status, Vec::new(), Vec::new())
}

#[test]
fn busy_registries_are_asked_again() {
    let (faults, store) = start();
    let later = |status| Fault::Answer(status, vec![("Retry-After", "0".to_owned())], Vec::new());
    let busy = [later("429 Too Many Requests"), answer("503 Service Unavailable"), answer("408 Request Timeout")];
    let turns = [
        ("HEAD", "/blobs/"),
        ("POST", "/uploads/"),
        ("PATCH", "/uploads/"),
        ("PUT", "/uploads/"),
        ("PUT", "/manifests/"),
        ("GET", "/manifests/"),
        ("GET", "/blobs/"),
    ];
    for (turn, (method, part)) in turns.into_iter().enumerate() {
        let before = faults.seen(method, part).len();
        for fault in &busy {
            faults.on(method, part, 1, fault.clone());
        }
        let content = content(turn as u64, SIZE);
        let layer = put(&*store, &content).unwrap();
        let config = store.put_bytes(format!("{{\"turn\":{turn}}}").as_bytes()).unwrap();
        store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
        assert!(store.manifest("v1").unwrap().is_some());
        assert!(get(&*store, &layer).unwrap() == content);
        assert!(faults.seen(method, part).len() >= before + 4, "{method} {part}");
    }
}

#[test]
fn there_is_one_deadline_and_the_last_cause_is_told() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &impatient());
    faults.on("GET", "/manifests/", usize::MAX, answer("502 Bad Gateway"));
    let error = store.manifest("v1").unwrap_err();
    assert!(matches!(error, StoreError::GaveUp { attempts: 5.., .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.starts_with(&format!("{}/test/", faults.address)), "{text}");
    assert!(text.contains("failed reading the manifest (502 Bad Gateway)") && text.contains("(tried "), "{text}");
}

#[test]
fn a_registry_that_is_away_for_a_while() {
    let address = free_address();
    let store = open(&address, &repository(), &options());
    let registry = thread::spawn({
        let address = address.clone();
        move || {
            thread::sleep(Duration::from_millis(1500));
            wait_for(Registry::start_at(&address))
        }
    });
    let blob = put(&*store, &content(1, SIZE)).unwrap();
    assert!(store.has_blob(&blob.digest).unwrap());
    drop(registry.join().unwrap());
}

#[test]
fn a_registry_that_asks_for_more_patience_than_there_is() {
    let (faults, store) = start();
    let later = Fault::Answer("429 Too Many Requests", vec![("Retry-After", "3600".to_owned())], Vec::new());
    faults.on("GET", "/manifests/", usize::MAX, later);
    let error = store.manifest("v1").unwrap_err().to_string();
    assert!(
        error.contains("rate limited reading the manifest (429") && error.contains("it asks to wait 60 min"),
        "{error}"
    );
    assert_eq!(faults.seen("GET", "/manifests/").len(), 1);
}

#[test]
fn a_broken_upload_begins_again() {
    let (faults, store) = start();
    for cut in [0, 1_000_000] {
        faults.on("PATCH", "", 1, Fault::CutRequest(cut));
    }
    let content = content(2, SIZE);
    let mut calls = 0;
    let blob = store
        .put_blob(&mut |to| {
            calls += 1;
            to.write_all(&content)
        })
        .unwrap();
    assert_eq!((calls, blob.digest), (3, Digest::of(&content)));
    assert!(get(&*store, &blob).unwrap() == content);
    assert_eq!(faults.seen("DELETE", "/uploads/").len(), 2, "the broken uploads are cancelled");
}

#[test]
fn the_answer_to_a_finished_upload_gets_lost() {
    let (faults, store) = start();
    faults.on("PUT", "digest=", 1, Fault::LoseAnswer);
    let blob = put(&*store, &content(3, SIZE)).unwrap();
    assert_eq!(faults.seen("PATCH", "").len(), 1, "the blob is there and not sent again");
    assert!(store.has_blob(&blob.digest).unwrap());
    faults.on("PUT", "digest=", 1, Fault::LoseAnswer);
    store.put_bytes(b"small").unwrap();
}

#[test]
fn an_upload_that_the_registry_forgot() {
    let (faults, store) = start();
    let unknown = br#"{"errors":[{"code":"BLOB_UPLOAD_UNKNOWN","message":"blob upload unknown to registry"}]}"#;
    let forgotten = Fault::Answer("404 Not Found", Vec::new(), unknown.to_vec());
    faults.on("PATCH", "", 1, forgotten.clone()).on("PUT", "digest=", 1, forgotten);
    put(&*store, &content(4, SIZE)).unwrap();
    assert_eq!(faults.seen("POST", "/uploads/").len(), 3);
}

#[test]
fn an_early_refusal_of_an_upload_is_read() {
    let (faults, store) = start();
    faults.on("PATCH", "", 2, answer("413 Request Entity Too Large"));
    let error = put(&*store, &content(5, 40_000_000)).unwrap_err().to_string();
    assert!(error.contains("413") && error.contains("too large for the registry or for a proxy before it"), "{error}");
    // Once as a stream, once in pieces.
    assert_eq!(faults.seen("PATCH", "").len(), 2);
}

#[test]
fn a_broken_download_goes_on_from_where_it_broke() {
    let (faults, store) = start();
    let content = content(6, SIZE);
    let blob = put(&*store, &content).unwrap();
    for cut in [1_000_000, 0, 500_000, 0, 0] {
        faults.on("GET", "/blobs/", 1, Fault::CutAnswer(cut));
    }
    assert!(get(&*store, &blob).unwrap() == content);
    let ranges: Vec<_> = faults.seen("GET", "/blobs/").iter().map(|h| h.header("range").map(str::to_owned)).collect();
    let from = |offset: usize| Some(format!("bytes={offset}-{}", SIZE - 1));
    assert_eq!(ranges, [None, from(1_000_000), from(1_000_000), from(1_500_000), from(1_500_000), from(1_500_000)]);
}

#[test]
fn a_download_that_never_goes_on_ends() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &impatient());
    let blob = put(&*store, &content(7, SIZE)).unwrap();
    faults.on("GET", "/blobs/", 1, Fault::CutAnswer(10)).on("GET", "/blobs/", usize::MAX, Fault::CutAnswer(0));
    let error = get(&*store, &blob).unwrap_err();
    assert!(error.contains(&blob.digest.hex()) && error.contains("(tried "), "{error}");
}

#[test]
fn registries_that_don_t_know_ranges() {
    let (faults, store) = start();
    let content = content(8, SIZE);
    let blob = put(&*store, &content).unwrap();
    faults.on("GET", "/blobs/", 1, Fault::HideHeader("range"));
    assert!(store.blob_range(&blob, 1_234_567, 1000).unwrap() == content[1_234_567..1_235_567]);
    faults.on("GET", "/blobs/", 1, Fault::CutAnswer(2_000_000));
    faults.on("GET", "/blobs/", 1, Fault::HideHeader("range"));
    assert!(get(&*store, &blob).unwrap() == content);
}

#[test]
fn a_broken_range_is_read_again() {
    let (faults, store) = start();
    let content = content(9, SIZE);
    let blob = put(&*store, &content).unwrap();
    faults.on("GET", "/blobs/", 2, Fault::CutAnswer(100));
    assert!(store.blob_range(&blob, 5, 1000).unwrap() == content[5..1005]);
}

#[test]
fn another_part_than_was_asked_for_is_refused() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &impatient());
    let blob = put(&*store, &content(10, SIZE)).unwrap();
    let headers = vec![("Content-Range", format!("bytes 1-10/{SIZE}"))];
    faults.on("GET", "/blobs/", usize::MAX, Fault::Answer("206 Partial Content", headers, vec![0; 10]));
    let error = store.blob_range(&blob, 0, 10).unwrap_err().to_string();
    assert!(error.contains("another part"), "{error}");
}

#[test]
fn damaged_blobs_and_manifests_are_found() {
    let (faults, store) = start();
    let layer = put(&*store, &content(11, SIZE)).unwrap();
    let config = store.put_bytes(b"{}").unwrap();
    let digest = store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
    faults.on("GET", "/blobs/", 1, Fault::FlipAnswer(SIZE / 2));
    let error = get(&*store, &layer).unwrap_err();
    assert!(error.contains("damaged") && error.contains(&layer.digest.hex()), "{error}");
    for reference in ["v1", &digest.to_string()] {
        faults.on("GET", "/manifests/", 1, Fault::FlipAnswer(30));
        let error = store.manifest(reference).unwrap_err().to_string();
        assert!(error.contains(reference) && error.contains("its manifest is damaged"), "{error}");
    }
}

#[test]
fn what_arrives_damaged_is_sent_again() {
    let (faults, store) = start();
    let invalid =
        br#"{"errors":[{"code":"DIGEST_INVALID","message":"provided digest did not match uploaded content"}]}"#;
    let damaged = Fault::Answer("400 Bad Request", Vec::new(), invalid.to_vec());
    faults.on("PUT", "digest=", 2, damaged.clone()).on("PUT", "/manifests/", 1, damaged.clone());
    let layer = put(&*store, &content(12, SIZE)).unwrap();
    let config = store.put_bytes(b"{}").unwrap();
    store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
    faults.on("PUT", "digest=", usize::MAX, damaged);
    let impatient = open(&faults.address, &repository(), &impatient());
    let error = put(&*impatient, b"x").unwrap_err().to_string();
    assert!(error.contains("DIGEST_INVALID") && error.contains("damaged in transit"), "{error}");
}

#[test]
fn registries_that_don_t_mount() {
    let (faults, store) = start();
    let from = repository();
    let blob = open(&REGISTRY.address, &from, &options()).put_bytes(b"layer").unwrap();
    let from = target(&faults.address, &from);
    faults.on("POST", "mount=", 1, answer("403 Forbidden"));
    assert!(!store.mount_blob(&blob.digest, &from).unwrap());
    // 202: the registry has begun an ordinary upload; that is cancelled.
    let upload = vec![("Location", "/v2/a/blobs/uploads/1".to_owned())];
    faults.on("POST", "mount=", 1, Fault::Answer("202 Accepted", upload, Vec::new()));
    assert!(!store.mount_blob(&blob.digest, &from).unwrap());
    assert_eq!(faults.seen("DELETE", "/v2/a/blobs/uploads/1").len(), 1);
    assert!(store.mount_blob(&blob.digest, &from).unwrap());
}

#[test]
fn read_only_registries_and_absent_repositories() {
    let (faults, store) = start();
    for (status, code, says) in [
        ("405 Method Not Allowed", "UNSUPPORTED", "takes no uploads"),
        ("404 Not Found", "NAME_UNKNOWN", "there is no such repository"),
        ("403 Forbidden", "DENIED", "add credentials"),
    ] {
        let body = format!(r#"{{"errors":[{{"code":"{code}","message":"a message"}}]}}"#);
        faults.on("POST", "/uploads/", 1, Fault::Answer(status, Vec::new(), body.into_bytes()));
        let error = put(&*store, b"x").unwrap_err().to_string();
        assert!(error.contains(says) && error.contains(&format!("{code}: a message")), "{error}");
    }
}
