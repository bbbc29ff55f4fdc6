//! The files of a release.

use std::{collections::BTreeSet, env, fs, path::Path, process::Command};

use serde_json::Value;
use support::{assets, manifests};

use super::kubectl::{find, kustomize, run};

const IMAGE: &str = "quay.io/me/tekton-wrap@sha256:5d41402abc4b2a76b9719d911017c5925d41402abc4b2a76b9719d911017c592";

/// A script of `release/`, with the assets' programs in front on the PATH.
fn script(name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(format!("release/{name}"));
    let tools =
        ["kustomize", "helm"].map(|tool| assets::attempt(tool).and_then(|path| Some(path.parent()?.to_owned())));
    let rest = env::var_os("PATH").expect("a PATH");
    let path = env::join_paths(tools.into_iter().flatten().chain(env::split_paths(&rest))).expect("a PATH");
    command.args(args).env("PATH", path).env("SOURCE_URL", "https://example.com/source");
    command
}

/// What the overlays are, with the image by its digest and the version.
#[test]
fn manifests_with_the_image_by_digest() {
    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().to_str().expect("UTF-8");
    run(&mut script("manifests", &["v1.2.3", IMAGE, folder]));
    for (file, overlay) in [
        ("release.yaml", "overlays/cert-manager"),
        ("release-openshift.yaml", "overlays/openshift"),
        ("release-no-cert-manager.yaml", "overlays/no-cert-manager"),
        ("strict.yaml", "strict"),
    ] {
        let text = fs::read_to_string(out.path().join(file)).expect("it was made");
        assert!(text.starts_with("# tekton-wrap v1.2.3: https://example.com/source\n"), "{file}");
        let mut objects = manifests::parse(&text);
        for object in &mut objects {
            let labels = object["metadata"]["labels"].as_object_mut().expect("labels");
            assert_eq!(labels.remove("app.kubernetes.io/version"), Some("v1.2.3".into()), "{file}");
        }
        let mut expected = kustomize(&Path::new("webhook-config").join(overlay));
        for object in expected.iter_mut().filter(|object| object["kind"] == "Deployment") {
            object["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGE.into();
        }
        assert_eq!(objects, expected, "{file}");
    }
    if let Some(helm) = assets::attempt("helm") {
        let chart = out.path().join("tekton-wrap-1.2.3.tgz");
        let rendered = run(Command::new(helm).args(["template", "x", "--kube-version=1.34"]).arg(chart));
        let objects = manifests::parse(&rendered);
        let deployment = find(&objects, "Deployment", "tekton-wrap-webhook");
        assert_eq!(deployment["spec"]["template"]["spec"]["containers"][0]["image"], IMAGE);
    }
}

/// All crates that are in the program, and none that only tests take.
#[test]
fn what_it_is_made_of() {
    let Some(cyclonedx) = assets::built("cargo-cyclonedx") else {
        eprintln!("skipped: there is no cargo-cyclonedx: tests/assets/build cargo-cyclonedx");
        return;
    };
    let out = tempfile::tempdir().expect("a folder");
    let mut command = script("sbom", &["v1.2.3", out.path().to_str().expect("UTF-8")]);
    let tools = [cyclonedx.parent().expect("a folder").to_owned()];
    let path = env::join_paths(tools.into_iter().chain(env::split_paths(&env::var_os("PATH").expect("a PATH"))));
    run(command.env("PATH", path.expect("a PATH")));
    let sbom = fs::read_to_string(out.path().join("tekton-wrap-v1.2.3.cdx.json")).expect("it was made");
    let sbom: Value = serde_json::from_str(&sbom).expect("JSON");
    assert_eq!((sbom["bomFormat"].as_str(), sbom["specVersion"].as_str()), (Some("CycloneDX"), Some("1.5")));
    assert_eq!(sbom["metadata"]["component"]["version"], env!("CARGO_PKG_VERSION"));
    let text = |value: &Value| value.as_str().expect("a string").to_owned();
    let listed: BTreeSet<(String, String)> = sbom["components"]
        .as_array()
        .expect("components")
        .iter()
        .map(|component| {
            assert!(component["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:cargo/")), "{component}");
            (text(&component["name"]), text(&component["version"]))
        })
        .collect();
    let tree = run(Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--edges=normal", "--prefix=none"])
        .args(["--target=x86_64-unknown-linux-gnu", "--package=tekton-wrap", "--format={p}"]));
    let of_line = |line: &str| {
        let (name, rest) = line.split_once(" v")?;
        Some((name.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    let mut needed: BTreeSet<(String, String)> = tree.lines().filter_map(of_line).collect();
    needed.retain(|(name, _)| name != "tekton-wrap");
    assert!(needed.len() > 100, "{needed:?}");
    assert_eq!(needed.difference(&listed).collect::<Vec<_>>(), Vec::<&(String, String)>::new());
    assert!(
        listed.iter().all(|(name, _)| !["oci-client", "proptest", "tekton-wrap-test-support"].contains(&name.as_str()))
    );
}

#[test]
fn what_is_no_release_is_refused() {
    let out = tempfile::tempdir().expect("a folder");
    let folder = out.path().to_str().expect("UTF-8");
    for (name, args, expected) in [
        ("manifests", vec!["1.2", IMAGE, folder], "1.2 is not like v1.2.3"),
        ("manifests", vec!["v1.2.3", "quay.io/me/tekton-wrap:v1", folder], "has no digest"),
        ("changelog", vec!["v99.0.0"], "CHANGELOG.md has no section [99.0.0]"),
        ("krew", vec!["v1.2.3", folder], "has no archive of v1.2.3"),
        ("sbom", vec!["v1.2.3"], "release/sbom VERSION OUT"),
    ] {
        let output = script(name, &args).output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{name} {args:?}: {stderr}");
    }
}

/// A plugin for each archive that there is, by its sum.
#[test]
fn the_plugin_for_krew() {
    let out = tempfile::tempdir().expect("a folder");
    for arch in ["amd64", "s390x"] {
        fs::write(out.path().join(format!("tekton-wrap-v1.2.3-linux-{arch}.tar.gz")), arch).expect("it is written");
    }
    let printed = run(&mut script("krew", &["v1.2.3", out.path().to_str().expect("UTF-8")]));
    let plugin = manifests::parse(&printed).remove(0);
    let platforms = plugin["spec"]["platforms"].as_array().expect("platforms");
    assert_eq!(platforms.len(), 2);
    for (platform, arch) in platforms.iter().zip(["amd64", "s390x"]) {
        assert_eq!(platform["selector"]["matchLabels"]["arch"], arch);
        let uri = format!("https://example.com/source/releases/download/v1.2.3/tekton-wrap-v1.2.3-linux-{arch}.tar.gz");
        assert_eq!(platform["uri"], uri);
        let file = out.path().join(format!("tekton-wrap-v1.2.3-linux-{arch}.tar.gz"));
        let sum = run(Command::new("sha256sum").arg(file));
        assert_eq!(platform["sha256"].as_str(), sum.split_whitespace().next());
    }
}
