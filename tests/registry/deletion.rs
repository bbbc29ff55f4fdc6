//! Registries delete images in different ways; and tags.

use tekton_wrap::digest::Digest;

use super::{lying_buckets::Liar, *};
use support::faults::{Fault, Faults};

fn start() -> (Faults, Box<dyn Store>) {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    (faults, store)
}

/// Stores an image under `tag`.
fn image(store: &dyn Store, tag: &str, text: &[u8]) -> Digest {
    let config = store.put_bytes(b"{}").unwrap();
    let layer = store.put_bytes(text).unwrap();
    store.put_manifest(tag, MANIFEST, &manifest(&config, &layer)).unwrap()
}

fn refusal(status: &'static str, code: &str) -> Fault {
    let body = json!({"errors": [{"code": code, "message": "a message"}]}).to_string();
    Fault::Answer(status, Vec::new(), body.into_bytes())
}

#[test]
fn by_tag_and_by_digest() {
    let (faults, store) = start();
    let digest = image(&*store, "v1", b"1");
    assert!(store.delete_image("v1", &digest).unwrap());
    assert!(store.manifest("v1").unwrap().is_none() && store.manifest(&digest.to_string()).unwrap().is_none());
    assert!(!store.delete_image("v1", &digest).unwrap(), "it is gone");
    assert!(!store.delete_manifest(&digest).unwrap());
    assert_eq!(faults.seen("DELETE", "/manifests/v1").len(), 2);
}

/// Tag only, digest only (distribution 2), and a digest only when no tag is left (Artifact Registry): what the registry does
/// not do is answered in front of it.
#[test]
fn by_one_of_them() {
    for (part, fault) in [
        ("/manifests/v1", refusal("405 Method Not Allowed", "UNSUPPORTED")),
        ("/manifests/v1", refusal("400 Bad Request", "DIGEST_INVALID_FORMAT")),
        ("/manifests/sha256:", refusal("400 Bad Request", "GOOGLE_MANIFEST_DANGLING_TAG")),
        ("/manifests/sha256:", refusal("405 Method Not Allowed", "UNSUPPORTED")),
    ] {
        let (faults, store) = start();
        let digest = image(&*store, "v1", b"1");
        faults.on("DELETE", part, usize::MAX, fault);
        assert!(store.delete_image("v1", &digest).unwrap(), "{part}");
        assert!(store.manifest("v1").unwrap().is_none(), "{part}");
    }
}

#[test]
fn a_registry_that_only_says_that_it_did_it() {
    let (faults, store) = start();
    let digest = image(&*store, "v1", b"1");
    faults.on("DELETE", "", usize::MAX, Fault::Answer("202 Accepted", Vec::new(), Vec::new()));
    for error in [store.delete_image("v1", &digest).unwrap_err(), store.delete_manifest(&digest).unwrap_err()] {
        let text = error.to_string();
        assert!(text.contains("answered that it deleted the image, but it is still there"), "{text}");
    }
}

#[test]
fn a_registry_that_does_not_delete_and_one_that_does_not_let_us() {
    for (fault, says) in [
        (refusal("405 Method Not Allowed", "UNSUPPORTED"), "(405 UNSUPPORTED: a message); it deletes no images"),
        (refusal("403 Forbidden", "DENIED"), "denied deleting the image (403 DENIED: a message)"),
    ] {
        let (faults, store) = start();
        let digest = image(&*store, "v1", b"1");
        faults.on("DELETE", "", usize::MAX, fault);
        let error = store.delete_image("v1", &digest).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
        assert!(store.manifest("v1").unwrap().is_some());
    }
}

#[test]
fn a_tag_that_was_moved_meanwhile_is_no_reason_to_wait() {
    let (_, store) = start();
    let old = image(&*store, "v1", b"1");
    image(&*store, "v1", b"2");
    assert!(store.delete_manifest(&old).unwrap());
    assert!(store.manifest("v1").unwrap().is_some());
}

#[test]
fn all_pages_of_tags() {
    let (faults, store) = start();
    assert_eq!(store.tags().unwrap(), [] as [&str; 0], "there is no such repository yet");
    let config = store.put_bytes(b"{}").unwrap();
    let bytes = manifest(&config, &config);
    let mut tags: Vec<String> = (0..7).map(|n| format!("t{n}")).collect();
    for tag in &tags {
        store.put_manifest(tag, MANIFEST, &bytes).unwrap();
    }
    assert_eq!(store.tags().unwrap(), tags);
    // A page that is full although less was asked for, and a next one elsewhere: only its query counts.
    let page = |tags: &[&str], link: Option<&str>| {
        let link = link.map(|link| ("Link", link.to_owned())).into_iter().collect();
        Fault::Answer("200 OK", link, json!({"name": "x", "tags": tags}).to_string().into_bytes())
    };
    let before = faults.seen("GET", "tags/list").len();
    faults.on(
        "GET",
        "tags/list",
        1,
        page(&["x1"], Some("<https://evil.example/v2/a/tags/list?last=t2&n=2>; rel=\"next\"")),
    );
    tags = tags.split_off(3);
    tags.push("x1".to_owned());
    assert_eq!(store.tags().unwrap(), tags);
    let asked = faults.seen("GET", "tags/list");
    assert!(asked[before + 1].target().ends_with("/tags/list?last=t2&n=2"), "{asked:?}");
    // One without a tag that may be shown, before others: without these an image would count as one without another tag.
    faults.on("GET", "tags/list", 1, page(&[], Some("</v2/x/tags/list?last=t2&n=3>; rel=\"next\"")));
    assert_eq!(store.tags().unwrap(), ["t3", "t4", "t5", "t6"]);
    let asked = faults.seen("GET", "tags/list");
    // One that goes round in circles, and names that are none.
    faults.on(
        "GET",
        "tags/list",
        usize::MAX,
        page(&["a", "../../b", ""], Some("</v2/x/tags/list?last=a>; rel=\"next\"")),
    );
    assert_eq!(store.tags().unwrap(), ["a"]);
    assert_eq!(faults.seen("GET", "tags/list").len(), asked.len() + 2);
}

/// Neither a list that never ends nor one of nothing is taken for all tags: `prune` would delete what others name.
#[test]
fn lists_of_tags_without_an_end() {
    for tags in [100_000, 0] {
        let liar = Liar::start(move |head, i| {
            if !head.target().contains("tags/list") {
                return ("200 OK", Vec::new(), String::new());
            }
            let tags: Vec<String> = (0..tags).map(|n| format!("t{i}-{n}")).collect();
            let link = format!("</v2/x/tags/list?last={i}>; rel=\"next\"");
            ("200 OK", vec![("Link", link)], json!({"name": "x", "tags": tags}).to_string())
        });
        let error = open(&liar.address, &repository(), &impatient()).tags().unwrap_err().to_string();
        assert!(liar.count() < 150 && error.contains("its list of tags does not end"), "{}: {error}", liar.count());
    }
}
