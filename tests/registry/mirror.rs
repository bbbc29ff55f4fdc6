//! Blobs from a mirror: distribution in proxy mode.

use tekton_wrap::{digest::Digest, mirror::MirrorAddress};

use super::*;
use support::{
    faults::{Fault, Faults},
    process::free_port,
};

fn with_mirror(mirror: &str) -> StoreOptions {
    let mirror: MirrorAddress = mirror.parse().unwrap();
    StoreOptions { mirror: Some(mirror), ..options() }
}

#[test]
fn a_pull_through_registry_takes_the_load() {
    let upstream = Faults::start(&REGISTRY.address);
    let mirror = wait_for(Registry::start_mirror_of(&format!("http://{}", upstream.address)));
    let mirror = Faults::start(&mirror.address);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &upstream.address, json!({"registrytoken": "the-token"}));
    let options = StoreOptions { credentials: options_with(&config).credentials, ..with_mirror(&mirror.address) };
    let (repository, large, small) = (repository(), content(1, 3_000_000), content(2, 3000));
    let store = open(&upstream.address, &repository, &options);
    for content in [&large, &small] {
        let blob = put(&*store, content).unwrap();
        for _ in 0..3 {
            assert!(get(&*store, &blob).unwrap() == *content);
        }
        assert!(store.blob_range(&blob, 10, 20).unwrap() == content[10..30]);
    }
    let ours = |head: &&support::http::Head| head.header("user-agent").is_some_and(|a| a.starts_with("tekton-wrap"));
    let reads = upstream.seen("GET", "/blobs/");
    assert!(reads.iter().filter(ours).all(|head| head.header("range").is_some()), "whole blobs come from the mirror");
    assert_eq!(mirror.seen("GET", "/blobs/").len(), 6);
    assert!(mirror.seen("GET", "/blobs/")[0].target().ends_with(&format!("?ns={}", upstream.address)));
    assert!(mirror.all().iter().all(|head| head.header("authorization").is_none()));
    assert!(mirror.all().iter().all(|head| head.method() == "GET"), "nothing is written there");
}

#[test]
fn a_mirror_of_no_use_goes_unnoticed() {
    let store_with = |mirror: &str| open(&REGISTRY.address, &repository(), &with_mirror(mirror));
    let (large, small) = (content(3, 3_000_000), content(4, 3000));
    let check = |store: &dyn Store, what: &str| {
        for content in [&large, &small] {
            let blob = put(store, content).unwrap();
            assert!(get(store, &blob).unwrap() == *content, "{what}");
        }
    };
    check(&*store_with(&format!("127.0.0.1:{}", free_port())), "nothing listens there");
    check(&*store_with(&REGISTRY.address), "it does not have the blob of another repository, or has it");
    let status = |status| Fault::Answer(status, Vec::new(), Vec::new());
    for fault in [
        status("404 Not Found"),
        status("500 Internal Server Error"),
        Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", "Basic realm=x".to_owned())], Vec::new()),
        Fault::CutAnswer(2000),
    ] {
        // Another address each time: one that failed is left alone.
        let mirror = Faults::start(&REGISTRY.address);
        mirror.on("GET", "/blobs/", usize::MAX, fault);
        check(&*store_with(&mirror.address), "a fault");
        assert_eq!(mirror.seen("GET", "/blobs/").len(), 1);
    }
}

#[test]
fn damaged_data_of_a_mirror_never_count() {
    let mirror = Faults::start(&REGISTRY.address);
    let store = open(&REGISTRY.address, &repository(), &with_mirror(&mirror.address));
    let content = content(5, 3000);
    let small = put(&*store, &content).unwrap();
    mirror.on("GET", "/blobs/", usize::MAX, Fault::FlipAnswer(1000));
    assert!(get(&*store, &small).unwrap() == content, "a small one is fetched elsewhere");

    let mirror = Faults::start(&REGISTRY.address);
    let store = open(&REGISTRY.address, &repository(), &with_mirror(&mirror.address));
    let content = super::content(6, 3_000_000);
    let large = put(&*store, &content).unwrap();
    mirror.on("GET", "/blobs/", usize::MAX, Fault::FlipAnswer(1000));
    let error = get(&*store, &large).unwrap_err();
    assert!(error.contains(&format!("the mirror {} sent content with another digest", mirror.address)), "{error}");
    assert!(get(&*store, &large).unwrap() == content, "it is not asked again");
    assert_eq!(large.digest, Digest::of(&content));
}
