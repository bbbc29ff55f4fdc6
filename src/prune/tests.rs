//! Which images are deleted, in a folder.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    Args, Doomed, PruneError,
    attached::{self, Attachment},
    caches,
    image::RunImage,
    parse_repository, prune,
    repository::{self, RunSelection},
};
use crate::{
    digest::Digest,
    step::{StepConfig, cache_tag},
    store::{Store, StoredManifest},
    workspace::{
        snapshot::image::{CACHE, CACHE_SCOPE, CREATED, EXPIRES, KEEP, MANIFEST, Manifest},
        tests::{Run, Task, task},
    },
};

/// Two tasks after each other.
fn played() -> Run {
    let run = Run::new();
    for order in 0..2 {
        run.play(&task(order, if order == 0 { &[] } else { &[0] }), |dir| {
            std::fs::write(dir.join(format!("f{order}")), "text").unwrap();
        });
    }
    run
}

fn all_tags(store: &dyn Store) -> BTreeSet<String> {
    store.tags().unwrap().into_iter().collect()
}

/// What is deleted of what runs left.
fn left_in(store: &dyn Store, selection: &RunSelection, all: bool) -> Vec<Doomed> {
    let tags = all_tags(store);
    let doomed = repository::left_in(store, &tags, selection, all).unwrap();
    attached::settle(store, Some(&tags), doomed, all).unwrap()
}

/// A time that is later than every image.
fn later() -> RunSelection {
    RunSelection::Before(Timestamp::now() + SignedDuration::from_hours(1))
}

fn tags(doomed: &[Doomed]) -> Vec<&str> {
    doomed.iter().map(|image| image.tag.as_deref().unwrap_or("replaced")).collect()
}

/// Changes the annotations of the image under `tag`.
fn annotate(store: &dyn Store, tag: &str, name: &str, value: &str) {
    let StoredManifest { media_type, bytes, digest } = store.manifest(tag).unwrap().unwrap();
    let mut manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
    manifest.annotations.insert(name.to_owned(), value.to_owned());
    store.put_manifest(tag, &media_type, &serde_json::to_vec(&manifest).unwrap()).unwrap();
    store.delete_manifest(&digest).unwrap();
}

#[test]
fn a_repository_is_pruned_of_runs_that_are_old() {
    let run = played();
    let store = run.store();
    let left = |selection: &RunSelection, all: bool| left_in(&*store, selection, all);
    assert_eq!(tags(&left(&later(), false)), ["replaced", "run.0.ws", "run.1.ws"]);
    assert_eq!(tags(&left(&later(), true)), ["replaced", "run.0.ws", "run.1.ws", "done"]);
    assert_eq!(left(&RunSelection::older_than(std::time::Duration::from_secs(3600)), true), []);
    assert_eq!(left(&RunSelection::Run("other".to_owned()), true), []);
    assert_eq!(tags(&left(&RunSelection::Run("run".to_owned()), false)), ["replaced", "run.0.ws", "run.1.ws"]);
    // The run is as old as its last image; one that does not say how old it is stays.
    annotate(&*store, "run.0.ws", CREATED, "2020-01-01T00:00:00Z");
    let hour_ago = RunSelection::older_than(std::time::Duration::from_secs(3600));
    assert_eq!(left(&hour_ago, false), []);
    annotate(&*store, "run.1.ws", CREATED, "2020-01-01T00:00:00Z");
    assert_eq!(tags(&left(&hour_ago, false)), ["run.0.ws", "run.1.ws"]);
    annotate(&*store, "run.1.ws", CREATED, "yesterday");
    assert_eq!(left(&hour_ago, false), []);
}

#[test]
fn images_go_when_their_own_time_is_over() {
    let run = played();
    let store = run.store();
    let left = |hours| {
        let then = Timestamp::now() + SignedDuration::from_hours(hours);
        left_in(&*store, &RunSelection::Expired(then), false)
    };
    // They are to be kept for a day; the target, and what it replaced, as long as nobody says otherwise.
    assert_eq!(left(23), []);
    assert_eq!(tags(&left(25)), ["run.0.ws", "run.1.ws"]);
    annotate(&*store, "done", EXPIRES, "2w");
    assert_eq!(tags(&left(25)), ["run.0.ws", "run.1.ws"]);
    assert_eq!(tags(&left(15 * 24)), ["run.0.ws", "run.1.ws", "done"]);
    annotate(&*store, "run.0.ws", EXPIRES, "soon");
    annotate(&*store, "run.1.ws", CREATED, "yesterday");
    assert_eq!(tags(&left(25)), [] as [&str; 0]);
}

#[test]
fn images_with_another_name_stay() {
    let run = played();
    let store = run.store();
    for (tag, name) in [("run.0.ws", "copy"), ("done", "release")] {
        let StoredManifest { media_type, bytes, .. } = store.manifest(tag).unwrap().unwrap();
        store.put_manifest(name, &media_type, &bytes).unwrap();
    }
    let left = |all| left_in(&*store, &later(), all);
    assert_eq!(tags(&left(true)), ["replaced", "run.1.ws"], "done and release are one image");
}

/// A manifest of one layer, under `tag`.
fn put(store: &dyn Store, tag: &str, layer: &str, subject: Option<Digest>) -> Digest {
    let blob = store.put_bytes(layer.as_bytes()).unwrap();
    let describe = |kind: &str| json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.size});
    let mut manifest = json!({"schemaVersion": 2, "config": describe("application/vnd.oci.image.config.v1+json"), "layers": [describe(layer)]});
    if let Some(digest) = subject {
        manifest["subject"] = json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1});
    }
    store.put_manifest(tag, MANIFEST, manifest.to_string().as_bytes()).unwrap()
}

const SIGNATURE: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

#[test]
fn what_is_signed_stays_or_goes_with_its_signature() {
    let run = played();
    let store = run.store();
    let digest = |tag: &str| store.digest(tag).unwrap().unwrap();
    let (snapshot, target) = (digest("run.1.ws"), digest("done"));
    let replaced = left_in(&*store, &later(), false)[0].digest;
    let mut attached = Vec::new();
    for (image, end) in [(snapshot, "sig"), (snapshot, "att"), (target, "sig"), (replaced, "sbom")] {
        let tag = format!("sha256-{}.{end}", image.hex());
        let layer = if end == "sig" { SIGNATURE } else { "text/spdx" };
        attached.push(Attachment { digest: put(&*store, &tag, layer, None), tag: Some(tag) });
    }
    assert_eq!(tags(&left_in(&*store, &later(), false)), ["run.0.ws"]);
    let all = left_in(&*store, &later(), true);
    assert_eq!(tags(&all), ["replaced", "run.0.ws", "run.1.ws", "done"]);
    let expected = [&attached[3..], &[], &attached[..2], &attached[2..3]];
    assert!(all.iter().zip(expected).all(|(image, expected)| image.attached == expected), "{all:?}");
    // The other runs' images are found behind a signed one when nothing else leads there.
    store.delete_image("done", &target).unwrap();
    assert_eq!(tags(&left_in(&*store, &later(), true)), ["replaced", "run.0.ws", "run.1.ws"]);
}

#[test]
fn a_tag_that_only_looks_like_a_signature_deletes_nothing_else() {
    let run = played();
    let store = run.store();
    let snapshot = store.digest("run.0.ws").unwrap().unwrap();
    let release = put(&*store, "v1", "application/vnd.oci.image.layer.v1.tar+gzip", None);
    let (of_another, own) =
        (put(&*store, "v2", SIGNATURE, Some(release)), put(&*store, "x", SIGNATURE, Some(snapshot)));
    // It has no tag any more.
    put(&*store, "x", SIGNATURE, None);
    let StoredManifest { bytes, media_type, .. } = store.manifest("v1").unwrap().unwrap();
    store.put_manifest(&format!("sha256-{}.sig", snapshot.hex()), &media_type, &bytes).unwrap();
    // The list of the Referrers Tag Schema: only one of these says that it belongs to the image.
    let schema = format!("sha256-{}", snapshot.hex());
    let gone = Digest::of(b"gone");
    for (members, whole) in [(&[release, of_another, own][..], false), (&[own, gone], true)] {
        let index = put_index(&*store, &schema, members);
        let expected = [
            vec![Attachment { tag: None, digest: own }],
            if whole { vec![Attachment { tag: Some(schema.clone()), digest: index }] } else { Vec::new() },
        ];
        assert_eq!(attached_to(&*store, snapshot), expected.into_iter().flatten().collect::<Vec<_>>());
    }
}

/// An index of manifests, under `tag`.
fn put_index(store: &dyn Store, tag: &str, members: &[Digest]) -> Digest {
    let describe = |digest: &Digest| json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1});
    let members: Vec<Value> = members.iter().map(describe).collect();
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members}).to_string();
    store.put_manifest(tag, INDEX, index.as_bytes()).unwrap()
}

/// What goes with the image, if everything goes.
fn attached_to(store: &dyn Store, image: Digest) -> Vec<Attachment> {
    let doomed = left_in(store, &later(), true);
    doomed.into_iter().find(|doomed| doomed.digest == image).unwrap().attached
}

/// Somebody who may push, but not delete, gives it such a tag: deleting its digest would delete its other tags.
#[test]
fn what_is_of_use_without_the_image_stays() {
    const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    let run = played();
    let store = run.store();
    let snapshot = store.digest("run.0.ws").unwrap().unwrap();
    let image = put(&*store, "amd64", "application/vnd.oci.image.layer.v1.tar+gzip", None);
    let index = |tag: &str| put_index(&*store, tag, &[image]);
    let chart = |tag: &str| put(&*store, tag, CHART, None);
    let signature = |tag: &str| put(&*store, tag, SIGNATURE, None);
    let cases = [("an index", &index as &dyn Fn(&str) -> Digest), ("a chart", &chart), ("a signature", &signature)];
    for (what, make) in cases {
        for end in ["", ".sig", ".att", ".sbom"] {
            let tag = format!("sha256-{}{end}", snapshot.hex());
            let digest = make(&tag);
            make("v1");
            assert_eq!(attached_to(&*store, snapshot), [], "{what} with {tag}");
            assert!(!tags(&left_in(&*store, &later(), false)).contains(&"run.0.ws"), "{what}, {tag}: it may vouch");
            // Of these only a signature that has no other name goes.
            image_under(&*store, "v1");
            let goes = what == "a signature" && !end.is_empty();
            let expected = goes.then(|| Attachment { tag: Some(tag.clone()), digest });
            assert_eq!(attached_to(&*store, snapshot), Vec::from_iter(expected), "{what} with {tag} alone");
            store.delete_image(&tag, &digest).unwrap();
        }
    }
}

/// Nor does what says itself that it belongs to another image, or what an index has as a part.
#[test]
fn what_is_attached_to_something_else_stays() {
    let run = played();
    let store = run.store();
    let snapshot = store.digest("run.0.ws").unwrap().unwrap();
    let release = put(&*store, "v1", "application/vnd.oci.image.layer.v1.tar+gzip", None);
    let tag = format!("sha256-{}.att", snapshot.hex());
    let of_another = put(&*store, &tag, SIGNATURE, Some(release));
    assert_eq!(attached_to(&*store, snapshot), [], "{of_another}");
    let of_an_index = put(&*store, &tag, "application/vnd.in-toto+json", None);
    put_index(&*store, "v2", &[release, of_an_index]);
    assert_eq!(attached_to(&*store, snapshot), []);
}

/// Each of them is a request, or two.
#[test]
fn an_image_with_a_long_list_of_what_is_attached_stays() {
    let run = played();
    let store = run.store();
    let snapshot = store.digest("run.0.ws").unwrap().unwrap();
    let many: Vec<Digest> = (0..1000_u32).map(|i| Digest::of(&i.to_le_bytes())).collect();
    put_index(&*store, &format!("sha256-{}", snapshot.hex()), &many);
    assert!(!tags(&left_in(&*store, &later(), true)).contains(&"run.0.ws"));
}

fn image_under(store: &dyn Store, tag: &str) {
    put(store, tag, "application/vnd.oci.image.layer.v1.tar", None);
}

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

#[test]
fn tags_of_what_is_attached() {
    let hex = "0".repeat(64);
    for (tag, is_one) in [
        (format!("sha256-{hex}"), true),
        (format!("sha256-{hex}.sig"), true),
        (format!("sha256-{hex}.att"), true),
        (format!("sha256-{hex}.exe"), false),
        (format!("sha256-{hex}0.sig"), false),
        ("sha256-.sig".to_owned(), false),
        ("v1".to_owned(), false),
    ] {
        assert_eq!(attached::subject(&tag).map(|digest| digest.hex()), is_one.then(|| hex.clone()), "{tag}");
    }
}

#[test]
fn a_run_that_keeps_all_is_deleted_only_if_asked_for() {
    let run = played();
    let store = run.store();
    annotate(&*store, "run.0.ws", KEEP, "all");
    assert_eq!(tags(&left_in(&*store, &later(), false)), ["replaced", "run.1.ws"]);
    let all = left_in(&*store, &later(), true);
    assert_eq!(tags(&all), ["replaced", "run.0.ws", "run.1.ws", "done"]);
    let named = left_in(&*store, &RunSelection::Run("run".to_owned()), false);
    assert_eq!(tags(&named), ["replaced", "run.0.ws", "run.1.ws"]);
}

#[test]
fn what_parallel_tasks_replaced_without_having_seen_it_is_found() {
    let run = Run::new();
    let parallel = |order, other| Task { parallel: vec![(other, other)], ..task(order, &[]) };
    run.play(&parallel(0, 1), |dir| std::fs::write(dir.join("a"), "a").unwrap());
    let store = run.store();
    let lost = store.digest("done").unwrap().unwrap();
    // The second task has read the tag before the first one wrote it.
    run.play(&parallel(1, 0), |dir| std::fs::write(dir.join("b"), "b").unwrap());
    annotate(&*store, "done", "dev.tekton-wrap.replaces", "");
    let args = |target: &str| Args {
        target: Some(target.to_owned()),
        repository: None,
        older_than: None,
        run: None,
        expired: false,
        caches: false,
        keep: None,
        all: false,
        dry_run: false,
    };
    let mut out = Vec::new();
    prune(&args(&run.target()), &mut out).unwrap();
    let out = String::from_utf8(out).unwrap();
    assert!(
        out.contains(&format!("deleted: dir://{}@{lost} (replaced)", run.folder.path().join("store").display())),
        "{out}"
    );
    assert!(out.ends_with("5 images deleted\n"), "{out}");
    assert_eq!(store.tags().unwrap(), ["done"]);
}

#[test]
fn the_newest_caches_of_each_path_and_scope_stay() {
    let run = played();
    let store = run.store();
    let StoredManifest { media_type, bytes, .. } = store.manifest("done").unwrap().unwrap();
    let put = |path: &str, scope: &str, day: u32| {
        let tag = cache_tag(path, scope, &format!("key-{day}"));
        let mut manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
        let created = format!("2026-11-{day:02}T00:00:00Z");
        for (name, value) in [(CACHE, path), (CACHE_SCOPE, scope), (CREATED, &created)] {
            manifest.annotations.insert(name.to_owned(), value.to_owned());
        }
        store.put_manifest(&tag, &media_type, &serde_json::to_vec(&manifest).unwrap()).unwrap();
        tag
    };
    let main: Vec<String> = (1..=3).map(|day| put("ws/modules", "main", day)).collect();
    let feature = put("ws/modules", "feature", 1);
    let other = put("ws", "main", 1);
    // What only looks like one, and one with a second tag.
    let StoredManifest { bytes: tagged, .. } = store.manifest(&main[0]).unwrap().unwrap();
    store.put_manifest("cache.0123456789ab.x.0123456789ab", &media_type, &bytes).unwrap();
    assert_eq!(tags(&caches::beyond(&*store, &all_tags(&*store), 1).unwrap()), [&main[1], &main[0]]);
    assert_eq!(tags(&caches::beyond(&*store, &all_tags(&*store), 3).unwrap()), [] as [&str; 0]);
    assert_eq!(caches::beyond(&*store, &all_tags(&*store), 0).unwrap().len(), 5);
    store.put_manifest("v1", &media_type, &tagged).unwrap();
    assert_eq!(tags(&caches::beyond(&*store, &all_tags(&*store), 1).unwrap()), [&main[1]]);
    annotate(&*store, &other, EXPIRES, "1d");
    let expired = left_in(&*store, &RunSelection::Expired(Timestamp::now()), false);
    assert_eq!(tags(&expired), [&other], "it says until when it is to be kept");
    // What a run left is another matter.
    let left = left_in(&*store, &later(), true);
    let left = tags(&left);
    assert!(left.contains(&"run.1.ws"), "{left:?}");
    assert!(!main.iter().chain([&feature, &other]).any(|tag| left.contains(&tag.as_str())), "{left:?}");
}

#[test]
fn tags_of_tasks() {
    let uid = "0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6b";
    for (tag, looks, is) in [
        (format!("{uid}.3.ws"), true, true),
        (format!("{uid}.r3.ws"), true, true),
        (format!("{uid}.3.other"), true, false),
        (format!("{uid}.x3.ws"), false, false),
        ("v1.2.3".to_owned(), false, false),
        ("latest".to_owned(), false, false),
        (uid.to_owned(), false, false),
    ] {
        let annotations = serde_json::json!({"dev.tekton-wrap.run": uid, "dev.tekton-wrap.workspace": "ws"});
        let config = serde_json::json!({"mediaType": "x", "digest": Digest::of(b"").to_string(), "size": 0});
        let manifest =
            serde_json::json!({"schemaVersion": 2, "config": config, "layers": [], "annotations": annotations});
        let bytes = manifest.to_string().into_bytes();
        let stored = StoredManifest { digest: Digest::of(&bytes), media_type: String::new(), bytes };
        assert_eq!(
            (StepConfig::is_task_tag(&tag), RunImage::parse(&stored).unwrap().is_of_task(&tag)),
            (looks, is),
            "{tag}"
        );
    }
}

#[test]
fn a_repository_has_no_tag() {
    for (text, valid) in [
        ("quay.io/me/build", true),
        ("dir:///tmp/a", true),
        ("localhost:5000/a", true),
        ("quay.io/me/build:v1", false),
        ("quay.io/me/build:latest", false),
    ] {
        match parse_repository(text) {
            Ok(_) => assert!(valid, "{text}"),
            Err(error) => assert!(!valid && matches!(error, PruneError::NotARepository(_)), "{text}: {error}"),
        }
    }
}
