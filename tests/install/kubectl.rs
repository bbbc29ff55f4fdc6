//! kubectl, and kustomizations of a test's own.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
pub use support::kubectl::{kubectl, make_tekton, run};
use support::{assets, manifests};

/// What `kubectl kustomize` makes of a folder.
pub fn kustomize(folder: &Path) -> Vec<Value> {
    let output = assets::command("kubectl").arg("kustomize").arg(folder).output().expect("kubectl starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "kubectl kustomize {}: {stderr}", folder.display());
    manifests::parse(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// A folder with this kustomization, in which `ROOT` stands for `webhook-config` of this repository. kustomize takes only paths
/// that are relative.
pub fn overlay(kustomization: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
    let path = fs::canonicalize(folder.path()).expect("it exists");
    let up: PathBuf = path.components().skip(1).map(|_| "..").collect();
    let root = fs::canonicalize("webhook-config").expect("the repository");
    let root = up.join(root.strip_prefix("/").expect("an absolute path"));
    let text = kustomization.replace("ROOT", root.to_str().expect("UTF-8"));
    fs::write(path.join("kustomization.yaml"), text).expect("kustomization.yaml");
    folder
}

/// The only object of this kind and name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|object| object["kind"] == kind && object["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("there is no {kind} {name:?}"));
    assert!(found.next().is_none(), "there are two of {kind} {name:?}");
    object
}
