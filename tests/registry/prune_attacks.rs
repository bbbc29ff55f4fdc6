//! Whoever may push to a repository, but not delete, and leaves there what should have `prune` delete for them, or never end.

use std::process::Command;

use support::faults::Faults;
use tekton_wrap::digest::Digest;

use super::{
    attacks::{Place, forge},
    prune::play,
    *,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const REPLACES: &str = "dev.tekton-wrap.replaces";

/// What two parallel tasks left in a registry: a target, snapshots, and a target that was replaced.
struct Played {
    place: Place,
    store: Box<dyn Store>,
}

impl Played {
    fn new() -> Self {
        let place = Place::new();
        play(place.folder.path(), &place.image("done"));
        let target: Target = place.image("done").parse().unwrap();
        Self { store: store::open_with(&target, &options()).unwrap(), place }
    }

    fn digest(&self, tag: &str) -> Digest {
        self.store.digest(tag).unwrap().unwrap()
    }

    /// The target that the second task replaced, which has no tag.
    fn replaced(&self) -> Digest {
        let found = self.store.manifest("done").unwrap().unwrap();
        let manifest: serde_json::Value = serde_json::from_slice(&found.bytes).unwrap();
        manifest["annotations"][REPLACES].as_str().unwrap().parse().unwrap()
    }

    /// An image for several platforms, under `tag`.
    fn put_index(&self, tag: &str, kind: &str, members: &[Digest]) -> Digest {
        let describe = |digest: &Digest| json!({"mediaType": kind, "digest": digest.to_string(), "size": 1});
        let members: Vec<_> = members.iter().map(describe).collect();
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": members}).to_string();
        self.store.put_manifest(tag, INDEX, index.as_bytes()).unwrap()
    }

    /// The tag of a snapshot.
    fn snapshot(&self, order: u32) -> String {
        format!("{}.{order}.ws", uid(&self.place.repository))
    }

    fn has(&self, digest: &Digest) -> bool {
        self.store.manifest(&digest.to_string()).unwrap().is_some()
    }
}

/// A registry deletes what an index names like anything else, and the index names nothing then.
#[test]
fn what_an_index_names_stays() {
    for nested in [false, true] {
        let run = Played::new();
        let (replaced, snapshot, target) = (run.replaced(), run.digest(&run.snapshot(0)), run.digest("done"));
        run.put_index("v1", MANIFEST, &[replaced, snapshot, target]);
        if nested {
            let inner = run.digest("v1");
            run.put_index("v1", INDEX, &[inner]);
        }
        let repository = ["--repository", &run.place.repository, "--older-than", "0s", "--all"];
        for args in [&[&*run.place.image("done"), "--all"][..], &repository] {
            let ended = run.place.program(&[&["prune"], args].concat());
            assert!(ended.succeeded, "{}", ended.stderr);
            let stays = [replaced, snapshot, target].map(|digest| run.has(&digest));
            assert_eq!(stays, [true; 3], "{args:?}, nested: {nested}: {}{}", ended.stdout, ended.stderr);
        }
        assert!(run.store.manifest(&run.snapshot(1)).unwrap().is_none(), "what it does not name goes");
    }
}

#[test]
fn a_target_with_another_tag_stays() {
    let run = Played::new();
    let target = run.store.manifest("done").unwrap().unwrap();
    run.store.put_manifest("release", MANIFEST, &target.bytes).unwrap();
    let ended = run.place.program(&["prune", &run.place.image("done"), "--all"]);
    assert!(ended.succeeded && ended.stderr.contains("has another tag and stays"), "{}", ended.stderr);
    assert!(run.store.manifest("release").unwrap().is_some(), "{}", ended.stdout);
}

/// Each digest that an image says it replaced is a request.
#[test]
fn an_image_that_says_that_it_replaced_thousands() {
    let run = Played::new();
    let forged = run.place.image("forged");
    let many: Vec<String> = (0..5000).map(|i: u32| Digest::of(&i.to_le_bytes()).to_string()).collect();
    forge(&run.place.image("done"), &forged, |manifest, _| manifest["annotations"][REPLACES] = many.join(",").into());
    let faults = Faults::start(&REGISTRY.address);
    let through = |name: &str| name.replace(&REGISTRY.address, &faults.address);
    let ended = run.place.program(&["prune", &through(&forged)]);
    assert!(ended.succeeded, "{}", ended.stderr);
    let asked = faults.seen("GET", "/manifests/sha256:").len();
    assert!((1000..1100).contains(&asked), "{asked} requests for one image");
}

/// One large manifest with many tags costs whoever pushes it little.
#[test]
fn prune_holds_no_manifests() {
    let folder = tempfile::tempdir().unwrap();
    let layout = format!("dir://{}", folder.path().join("store").display());
    play(folder.path(), &format!("{layout}:done"));
    let target: Target = format!("{layout}:done").parse().unwrap();
    let store = store::open_with(&target, &options()).unwrap();
    let found = store.manifest("done").unwrap().unwrap();
    let mut manifest: serde_json::Value = serde_json::from_slice(&found.bytes).unwrap();
    let many: Vec<String> = (0..40_000).map(|i: u32| Digest::of(&i.to_le_bytes()).to_string()).collect();
    manifest["annotations"][REPLACES] = many.join(",").into();
    manifest["annotations"]["dev.tekton-wrap.cache"] = "x".repeat(500_000).into();
    let bytes = manifest.to_string().into_bytes();
    for i in 0..150 {
        store.put_manifest(&format!("cache.0123456789ab.{i}.0123456789ab"), MANIFEST, &bytes).unwrap();
    }
    for what in ["--expired", "--caches --keep 1"] {
        // 150 MB of data: these manifests are 500 MB.
        let script = format!(
            "ulimit -d 150000; exec '{}' prune --repository '{layout}' {what}",
            env!("CARGO_BIN_EXE_tekton-wrap")
        );
        let output = Command::new("sh").args(["-c", &script]).output().unwrap();
        assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
