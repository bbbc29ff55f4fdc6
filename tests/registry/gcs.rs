//! What is particular to buckets of Google Cloud Storage: large objects, faults on the way, and a tag that moves.

use support::faults::{Fault, Faults};
use tekton_wrap::digest::Digest;

use super::*;

const LARGE: usize = 20_000_000;

/// Something that makes things go wrong, and a store behind it; none where there is no such server.
fn behind_faults() -> Option<(Faults, Box<dyn Store>)> {
    let faults = Faults::start(&gcs()?.address);
    // The server names itself as the place to upload to.
    faults.on("POST", "uploadType=resumable", usize::MAX, Fault::MoveLocation(faults.address.clone()));
    let variables = [("STORAGE_EMULATOR_HOST".to_owned(), faults.address.clone())].into();
    let options = StoreOptions { cloud: Environment::new(variables, None), ..options() };
    let store = store::open_with(&bucket("gs"), &options).unwrap();
    Some((faults, store))
}

fn answer(status: &'static str, reason: &str) -> Fault {
    let body = json!({"error": {"message": "A message.", "errors": [{"reason": reason}]}}).to_string();
    Fault::Answer(status, Vec::new(), body.into_bytes())
}

#[test]
fn busy_servers_are_asked_again() {
    let Some((faults, store)) = behind_faults() else { return };
    for (turn, (method, part)) in [
        ("GET", "/o/"),
        ("GET", "alt=media"),
        ("POST", "uploadType=media"),
        ("PUT", "uploadType=resumable"),
        ("POST", "rewriteTo"),
    ]
    .into_iter()
    .enumerate()
    {
        for fault in
            [answer("429 Too Many Requests", "rateLimitExceeded"), answer("503 Service Unavailable", "backendError")]
        {
            faults.on(method, part, 1, fault);
        }
        let before = faults.seen(method, part).len();
        let content = content(turn as u64, LARGE);
        let layer = put(&*store, &content).unwrap();
        let config = store.put_bytes(format!("{{\"turn\":{turn}}}").as_bytes()).unwrap();
        store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
        assert!(store.manifest("v1").unwrap().is_some());
        assert!(get(&*store, &layer).unwrap() == content);
        assert!(faults.seen(method, part).len() >= before + 3, "{method} {part}");
    }
}

#[test]
fn an_upload_that_fails_is_cancelled() {
    let Some((faults, store)) = behind_faults() else { return };
    faults.on("PUT", "uploadType=resumable", usize::MAX, answer("403 Forbidden", "forbidden"));
    let error = put(&*store, &content(1, LARGE)).unwrap_err().to_string();
    assert!(error.contains("denied storing an object (403 forbidden: A message)"), "{error}");
    assert_eq!(faults.seen("DELETE", "uploadType=resumable").len(), 1);
}

#[test]
fn a_broken_download_goes_on_from_where_it_broke() {
    let Some((faults, store)) = behind_faults() else { return };
    let content = content(2, 3_000_000);
    let blob = put(&*store, &content).unwrap();
    assert_eq!(blob.digest, Digest::of(&content));
    for cut in [1_000_000, 0, 500_000] {
        faults.on("GET", "alt=media", 1, Fault::CutAnswer(cut));
    }
    assert!(get(&*store, &blob).unwrap() == content);
}

#[test]
fn a_tag_that_moved_meanwhile_stays() {
    let Some((faults, store)) = behind_faults() else { return };
    let config = store.put_bytes(b"{}").unwrap();
    let old = store.put_manifest("v1", MANIFEST, &manifest(&config, &config)).unwrap();
    faults.on("DELETE", "manifests%2Fv1", 1, answer("412 Precondition Failed", "conditionNotMet"));
    store.delete_image("v1", &old).unwrap();
    assert!(store.manifest("v1").unwrap().is_some(), "it was another one by then");
    let seen = faults.seen("DELETE", "manifests%2Fv1");
    assert!(seen[0].target().contains("?ifGenerationMatch=1"), "{}", seen[0].target());
}

#[test]
fn what_goes_wrong_is_said() {
    let Some(server) = gcs() else { return };
    let at = |address: &str| {
        let variables = [("STORAGE_EMULATOR_HOST".to_owned(), address.to_owned())].into();
        StoreOptions { cloud: Environment::new(variables, None), ..impatient() }
    };
    let faults = Faults::start(&server.address);
    for (reason, status) in [("authError", "401 Unauthorized"), ("forbidden", "403 Forbidden")] {
        faults.on("GET", reason, usize::MAX, answer(status, reason));
    }
    faults.on("GET", "busy", usize::MAX, answer("503 Service Unavailable", "backendError"));
    let front = &faults.address;
    for (prefix, address, expected) in [
        ("authError", front.as_str(), format!("{front} denied reading an object (401 authError: A message); ")),
        ("forbidden", front, format!("{front} denied reading an object (403 forbidden: A message); ")),
        (
            "busy",
            front,
            format!(
                "{front} failed reading an object (503 backendError: A message); this is a fault of the server: look at its log (tried "
            ),
        ),
        (
            "a",
            "127.0.0.1:1",
            "127.0.0.1:1 can't be reached: nothing listens there (connection refused) (tried ".to_owned(),
        ),
    ] {
        let target: Target = format!("gs://{BUCKET}/{prefix}:v1").parse().unwrap();
        let error = store::open_with(&target, &at(address)).unwrap().manifest("v1").unwrap_err().to_string();
        assert!(error.starts_with(&format!("gs://{BUCKET}/{prefix}/manifests/v1: {expected}")), "{error}");
    }
    let absent: Target = "gs://absent-bucket/a:v1".parse().unwrap();
    let error = store::open_with(&absent, &at(&server.address)).unwrap().put_bytes(b"x").unwrap_err().to_string();
    assert!(error.starts_with("gs://absent-bucket/a/") && error.contains("404"), "{error}");
}
