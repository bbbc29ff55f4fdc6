//! Registries that take uploads in another way than most.

use super::*;
use support::faults::{Fault, Faults};

const SIZE: usize = 9_500_000;

fn answer(status: &'static str) -> Fault {
    Fault::Answer(status, Vec::new(), Vec::new())
}

/// A store for each kind of answer to a PATCH request that streams.
fn refusing(status: &'static str, times: usize) -> (Faults, Box<dyn Store>) {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    faults.on("PATCH", "", times, answer(status));
    (faults, store)
}

#[test]
fn one_put_where_patch_is_not_known() {
    for status in ["404 Not Found", "405 Method Not Allowed", "501 Not Implemented"] {
        let (faults, store) = refusing(status, usize::MAX);
        for seed in 0..2 {
            let content = content(seed, SIZE);
            let blob = put(&*store, &content).unwrap();
            assert!(get(&*store, &blob).unwrap() == content);
        }
        assert_eq!(faults.seen("PATCH", "").len(), 1, "{status}: tried once, and learned");
        let puts = faults.seen("PUT", "digest=");
        assert_eq!(puts.len(), 2);
        assert!(puts.iter().all(|head| head.header("content-length") == Some(&SIZE.to_string())), "{puts:?}");
    }
}

#[test]
fn pieces_where_a_stream_is_too_long() {
    for status in ["411 Length Required", "413 Request Entity Too Large", "416 Range Not Satisfiable"] {
        let (faults, store) = refusing(status, 1);
        for seed in 0..2 {
            let content = content(seed, SIZE);
            let blob = put(&*store, &content).unwrap();
            assert!(get(&*store, &blob).unwrap() == content);
        }
        let pieces = faults.seen("PATCH", "");
        let ranges: Vec<_> = pieces.iter().filter_map(|head| head.header("content-range")).collect();
        let expected = ["0-4194303", "4194304-8388607", "8388608-9499999"];
        assert_eq!(ranges, expected.repeat(2), "{status}");
        assert_eq!(pieces.len(), 7, "the stream is tried once");
    }
}

#[test]
fn the_least_size_of_pieces() {
    let (faults, store) = refusing("416 Range Not Satisfiable", 1);
    faults.on("POST", "/uploads/", usize::MAX, Fault::SetHeader("OCI-Chunk-Min-Length", "6000000".to_owned()));
    let content = content(1, SIZE);
    let blob = put(&*store, &content).unwrap();
    assert!(get(&*store, &blob).unwrap() == content);
    let pieces = faults.seen("PATCH", "");
    let ranges: Vec<_> = pieces.iter().filter_map(|head| head.header("content-range")).collect();
    assert_eq!(ranges, ["0-5999999", "6000000-9499999"]);
}

/// The answer to a piece says another place than the end of what was sent (seen with ECR and zot).
#[test]
fn a_stale_range_is_not_believed() {
    let (faults, store) = refusing("416 Range Not Satisfiable", 1);
    faults.on("PATCH", "", usize::MAX, Fault::SetHeader("Range", "0-4194303".to_owned()));
    let content = content(2, SIZE);
    let blob = put(&*store, &content).unwrap();
    assert!(get(&*store, &blob).unwrap() == content);
}

#[test]
fn small_blobs_where_a_put_must_be_empty() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    let text = Fault::Answer("500 Internal Server Error", Vec::new(), b"no body expected".to_vec());
    faults.on("PUT", "digest=", 1, text);
    for seed in 0..3 {
        let content = content(seed, 5000);
        let blob = store.put_bytes(&content).unwrap();
        assert!(get(&*store, &blob).unwrap() == content);
    }
    assert_eq!(faults.seen("PATCH", "").len(), 3);
    assert_eq!(faults.seen("PUT", "digest=").len(), 4, "tried once, and learned");
    // Where that is not it, the reason is told.
    let never = Fault::Answer("500 Internal Server Error", Vec::new(), b"no space left on device\n".to_vec());
    faults.on("PUT", "digest=", usize::MAX, never);
    let error = open(&faults.address, &repository(), &impatient()).put_bytes(b"x").unwrap_err().to_string();
    assert!(error.contains("failed uploading a blob (500: no space left on device)"), "{error}");
}

#[test]
fn head_is_not_known() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    faults.on("HEAD", "", usize::MAX, answer("405 Method Not Allowed"));
    let blob = put(&*store, &content(3, SIZE)).unwrap();
    assert!(store.has_blob(&blob.digest).unwrap());
    assert!(!store.has_blob(&tekton_wrap::digest::Digest::of(b"absent")).unwrap());
    assert_eq!(store.put_bytes(b"small").unwrap().size, 5);
    assert_eq!(faults.seen("GET", "/blobs/")[0].header("range"), Some("bytes=0-0"));
}

/// What a token server, a proxy or a registry throttles is asked for less at once, and gets done all the same.
#[test]
fn many_uploads_to_a_busy_registry() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    let later = Fault::Answer("429 Too Many Requests", vec![("Retry-After", "0".to_owned())], Vec::new());
    for method in ["POST", "PATCH", "HEAD", "PUT"] {
        faults.on(method, "", 10, later.clone());
    }
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let store = &store;
            scope.spawn(move || {
                let content = content(seed, 300_000);
                let blob = put(&**store, &content).unwrap();
                store.put_bytes(&seed.to_be_bytes()).unwrap();
                assert!(get(&**store, &blob).unwrap() == content);
            });
        }
    });
}
