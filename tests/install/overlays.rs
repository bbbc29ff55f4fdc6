//! Every overlay is accepted, comes to rest, and goes without a trace.

use std::{
    fs,
    path::{Path, PathBuf},
};

use support::{cluster::Cluster, crds};

use super::kubectl::{kubectl, make_tekton, overlay};

/// What is applied by itself, and all overlays with it.
fn folders() -> Vec<PathBuf> {
    let mut folders: Vec<PathBuf> = fs::read_dir("webhook-config/overlays")
        .expect("the overlays")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    folders.sort();
    assert!(folders.len() >= 6, "overlays are missing: {folders:?}");
    folders.insert(0, "webhook-config".into());
    folders
}

/// As docs/install.md has it: apply, and later delete. In between `kubectl diff` finds nothing to change, or a GitOps tool
/// would never come to rest.
#[tokio::test]
async fn apply_diff_delete() {
    let cluster = Cluster::start().await;
    crds::apply_cert_manager(&cluster.admin().await).await;
    make_tekton(&cluster).await;
    for folder in folders() {
        round(&cluster, &folder);
    }
    // Components that no overlay has. What the Prometheus operator serves is not served here.
    let all = overlay(
        "resources: [ROOT/base, ROOT/strict]\n\
         components: [ROOT/components/priority, ROOT/components/autoscaling, ROOT/components/flow-schema, ROOT/components/registry, ROOT/components/namespace-mode]\n",
    );
    round(&cluster, all.path());
}

fn round(cluster: &Cluster, folder: &Path) {
    println!("{}", folder.display());
    let folder = folder.to_str().expect("UTF-8");
    let applied = kubectl(cluster, &["apply", "-k", folder]);
    assert!(applied.lines().count() > 10 && applied.lines().all(|line| line.ends_with("created")), "{applied}");
    // kubectl diff ends with 1 where there is a difference.
    assert_eq!(kubectl(cluster, &["diff", "-k", folder]), "");
    let versions = || kubectl(cluster, &["get", "-k", folder, "-o", "jsonpath={.items[*].metadata.resourceVersion}"]);
    let before = versions();
    kubectl(cluster, &["apply", "-k", folder]);
    assert_eq!(before, versions(), "applied again, nothing is changed");
    // Strict: no field that the apiserver does not know.
    kubectl(
        cluster,
        &["apply", "-k", folder, "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict"],
    );

    kubectl(cluster, &["delete", "-k", folder, "--wait=false"]);
    let kinds = kubectl(cluster, &["api-resources", "--verbs=list,delete", "-o", "name"]);
    let kinds: Vec<&str> = kinds.lines().filter(|kind| *kind != "namespaces").collect();
    let left =
        kubectl(cluster, &["get", &kinds.join(","), "-A", "-l", "app.kubernetes.io/name=tekton-wrap", "-o", "name"]);
    assert_eq!(left, "", "{folder} is deleted");
    finalize_namespaces(cluster);
}

/// Does what the namespace controller would do, which does not run here.
fn finalize_namespaces(cluster: &Cluster) {
    let names = kubectl(cluster, &["get", "namespaces", "-l", "app.kubernetes.io/name=tekton-wrap", "-o", "name"]);
    for name in names.lines().filter_map(|name| name.strip_prefix("namespace/")) {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let object =
            serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}, "spec": {}});
        fs::write(file.path(), object.to_string()).expect("it is written");
        let path = format!("/api/v1/namespaces/{name}/finalize");
        kubectl(cluster, &["replace", "--raw", &path, "-f", file.path().to_str().expect("UTF-8")]);
    }
}
