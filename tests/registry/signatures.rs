//! Signatures beside targets: as cosign attaches them, and as registries list what refers to an image.

use std::process::Command;

use serde_json::Value;
use support::{
    assets,
    faults::{Fault, Faults},
};
use tekton_wrap::digest::Digest;

use super::{
    prune::{play, run},
    *,
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

fn digest_of(store: &dyn Store, tag: &str) -> Digest {
    store.digest(tag).unwrap().unwrap()
}

/// A manifest with one layer that is a signature.
fn signature(store: &dyn Store, tag: &str, subject: Option<Digest>) -> Digest {
    let payload = store.put_bytes(tag.as_bytes()).unwrap();
    let mut manifest: Value = serde_json::from_slice(&manifest(&payload, &payload)).unwrap();
    manifest["layers"][0]["mediaType"] = "application/vnd.dev.cosign.simplesigning.v1+json".into();
    if let Some(digest) = subject {
        manifest["subject"] = json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1});
    }
    let bytes = manifest.to_string().into_bytes();
    // What is found by its subject has no tag.
    let reference = if subject.is_some() { Digest::of(&bytes).to_string() } else { tag.to_owned() };
    store.put_manifest(&reference, MANIFEST, &bytes).unwrap()
}

/// What `prune` says of a repository, with these arguments too.
fn prune(repository: &str, more: &[&str]) -> (String, String) {
    let (succeeded, said, error) =
        run(&[&["prune", "--repository", repository, "--older-than", "0s"], more].concat(), &[]);
    assert!(succeeded, "{error}");
    (said, error)
}

#[test]
fn what_is_signed_stays_until_all_goes() {
    let (folder, name) = (tempfile::tempdir().unwrap(), repository());
    let repository = format!("{}/{name}", REGISTRY.address);
    let target = format!("{repository}:done");
    play(folder.path(), &target);
    let store = open(&REGISTRY.address, &name, &options());
    let (snapshot, whole) = (digest_of(&*store, &format!("{}.0.ws", uid(&name))), digest_of(&*store, "done"));
    let ends = [(snapshot, ".sig"), (snapshot, ".att"), (whole, ".sig")];
    for (image, end) in ends {
        signature(&*store, &format!("sha256-{}{end}", image.hex()), None);
    }

    let (said, error) = prune(&repository, &[]);
    let stays =
        format!("{}.0.ws ({snapshot}) has a signature or an attestation and stays; --all deletes both", uid(&name));
    assert!(error.contains(&stays) && said.ends_with("4 images deleted\n"), "{said}{error}");
    assert_eq!(prune(&repository, &[]).0, "0 images deleted\n");
    let copy = folder.path().join("copy");
    let (succeeded, _, error) = run(&["restore", &target, copy.to_str().unwrap()], &[]);
    assert!(succeeded, "{error}");
    let (succeeded, said, _) = run(&["inspect", &target], &[]);
    assert!(succeeded && said.contains("one") && said.contains("two"), "{said}");

    let (said, _) = prune(&repository, &["--all"]);
    assert!(said.ends_with("5 images deleted\n"), "{said}");
    assert_eq!(store.tags().unwrap(), [] as [&str; 0]);
}

/// In a registry with the referrers API, in place of tags.
#[test]
fn what_a_registry_lists_as_attached() {
    let faults = Faults::start(&REGISTRY.address);
    let (folder, name) = (tempfile::tempdir().unwrap(), repository());
    let repository = format!("{}/{name}", faults.address);
    play(folder.path(), &format!("{repository}:done"));
    let store = open(&REGISTRY.address, &name, &options());
    let (snapshot, whole) = (digest_of(&*store, &format!("{}.1.ws", uid(&name))), digest_of(&*store, "done"));
    let attached = [signature(&*store, "a", Some(snapshot)), signature(&*store, "b", Some(whole))];
    // It names both for every image: what they say themselves counts.
    let list = attached.map(|digest| json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1}));
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": list}).to_string();
    let answer = Fault::Answer("200 OK", vec![("Content-Type", INDEX.to_owned())], list.into_bytes());
    faults.on("GET", "/referrers/sha256:", usize::MAX, answer);

    let (said, error) = prune(&repository, &[]);
    assert!(error.contains(&format!("{}.1.ws ({snapshot}) has a signature or an attestation", uid(&name))), "{error}");
    assert!(said.ends_with("4 images deleted\n"), "{said}");
    let lines = |said: &str| said.lines().filter(|line| line.contains(" (attached)")).count();
    assert_eq!(lines(&prune(&repository, &["--all", "--dry-run"]).0), 2);
    let (said, _) = prune(&repository, &["--all"]);
    assert!(said.ends_with("4 images deleted\n") && lines(&said) == 2, "{said}");
    assert_eq!(store.tags().unwrap(), [] as [&str; 0]);
    // Where it can't be asked, nothing is deleted that may be signed.
    play(folder.path(), &format!("{repository}:done"));
    faults.forget_rules();
    faults.on("GET", "/referrers/", usize::MAX, Fault::Answer("403 Forbidden", Vec::new(), Vec::new()));
    let (succeeded, said, error) = run(&["prune", "--repository", &repository, "--older-than", "0s"], &[]);
    assert!(!succeeded && said.is_empty() && error.contains("denied listing what belongs to the image"), "{error}");
}

/// A list of these referrers, and what follows it.
fn listed(digests: &[Digest], link: Option<&str>) -> Fault {
    let list: Vec<Value> =
        digests.iter().map(|digest| json!({"mediaType": MANIFEST, "digest": digest.to_string(), "size": 1})).collect();
    let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": list}).to_string();
    let link = link.map(|link| ("Link", format!("<{link}>; rel=\"next\"")));
    Fault::Answer("200 OK", link.into_iter().collect(), list.into_bytes())
}

#[test]
fn whether_a_registry_lists_referrers() {
    let refused = |status| Fault::Answer(status, Vec::new(), Vec::new());
    let (image, one) = (Digest::of(b"image"), Digest::of(b"one"));
    // What it answered first, and whether it is asked again after a 404.
    for (first, is_asked) in [("404 Not Found", false), ("400 Bad Request", true), ("200 OK", true)] {
        let faults = Faults::start(&REGISTRY.address);
        let store = open(&faults.address, &repository(), &options());
        let answer = if first == "200 OK" { listed(&[], None) } else { refused(first) };
        faults.on("GET", "/referrers/", 1, answer);
        assert_eq!(store.referrers(&image).is_err(), first.starts_with("400"), "{first}");
        if first == "200 OK" {
            faults.on("GET", "/referrers/", 1, refused("404 Not Found"));
            assert_eq!(store.referrers(&image).unwrap(), Some(Vec::new()));
        }
        faults.forget_rules();
        faults.on("GET", "/referrers/", usize::MAX, listed(&[one], None));
        let expected = if is_asked { vec![one] } else { Vec::new() };
        assert_eq!(store.referrers(&image).unwrap(), Some(expected), "{first}");
    }
}

#[test]
fn all_pages_of_referrers() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    let [image, one, two] = [&b"image"[..], b"one", b"two"].map(Digest::of);
    // The next one is elsewhere: only its query counts.
    faults.on("GET", "?after=1", usize::MAX, listed(&[two], None));
    faults.on("GET", "/referrers/", usize::MAX, listed(&[one], Some("https://evil.example/v2/x/referrers/y?after=1")));
    assert_eq!(store.referrers(&image).unwrap(), Some(vec![one, two]));
    // Pages without an end, and one that can't be found.
    for link in ["/v2/x?after=2", "ftp://evil.example"] {
        faults.forget_rules();
        faults.on("GET", "/referrers/", usize::MAX, listed(&[one], Some(link)));
        assert_eq!(store.referrers(&image).unwrap(), None, "{link}");
    }
    assert!(faults.seen("GET", "/referrers/").len() < 10);
}

/// `tests/assets/build cosign` builds it.
#[test]
fn cosign_signs_a_target() {
    let Some(cosign) = assets::built("cosign") else {
        eprintln!("skipped: cosign, which tests/assets/build cosign builds");
        return;
    };
    let (folder, name) = (tempfile::tempdir().unwrap(), repository());
    let repository = format!("{}/{name}", REGISTRY.address);
    let target = format!("{repository}:done");
    play(folder.path(), &target);
    let store = open(&REGISTRY.address, &name, &options());
    let image = format!("{repository}@{}", digest_of(&*store, "done"));
    let cosign = |args: &[&str], env: &[(&str, &str)]| {
        let mut command = Command::new(&cosign);
        command.args(args).current_dir(folder.path()).env("HOME", folder.path()).env("COSIGN_PASSWORD", "secret");
        let output = command.envs(env.iter().copied()).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    cosign(&["generate-key-pair"], &[]);
    let verify = ["verify", "--key", "cosign.pub", "--insecure-ignore-tlog", "--allow-http-registry"];
    let sign = ["sign", "--key", "cosign.key", "--tlog-upload=false", "--allow-http-registry", "--yes"];
    // By its tag, and by the Referrers Tag Schema, as this registry lists no referrers.
    for (more, env) in [(&[][..], &[][..]), (&["--registry-referrers-mode=oci-1-1"], &[("COSIGN_EXPERIMENTAL", "1")])] {
        cosign(&[&sign[..], more, &[&image]].concat(), env);
    }
    let verified = cosign(&[&verify[..], &[&image]].concat(), &[]);
    assert!(verified.contains(&digest_of(&*store, "done").to_string()), "{verified}");
    let hex = digest_of(&*store, "done").hex();
    let tags = [format!("sha256-{hex}"), format!("sha256-{hex}.sig")];
    assert!(tags.iter().all(|tag| store.tags().unwrap().contains(tag)), "{:?}", store.tags());

    assert!(prune(&repository, &[]).0.ends_with("5 images deleted\n"));
    cosign(&[&verify[..], &[&image]].concat(), &[]);
    let (said, _) = prune(&repository, &["--all"]);
    assert!(said.contains(&tags[1]) && said.contains(" (attached)"), "{said}");
    assert_eq!(store.tags().unwrap(), [] as [&str; 0]);
}
