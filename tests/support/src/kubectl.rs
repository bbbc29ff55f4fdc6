//! kubectl and other programs of an operator, which must succeed.

use std::process::{Command, Output};

use serde_json::json;

use super::{cluster::Cluster, manifests};

/// Runs kubectl, which must succeed; what it prints.
pub fn kubectl(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.kubectl().args(args).output().expect("kubectl starts");
    succeed(&format!("kubectl {}", args.join(" ")), output)
}

/// Runs any command, which must succeed; what it prints.
pub fn run(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    succeed(&format!("{command:?}"), output)
}

fn succeed(what: &str, output: Output) -> String {
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{stdout}\n{stderr}", output.status);
    stdout.into_owned()
}

/// What a cluster with Tekton has.
pub async fn make_tekton(cluster: &Cluster) {
    let client = cluster.admin().await;
    for object in [
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tekton-pipelines"}}),
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {},
            "metadata": {"name": "feature-flags", "namespace": "tekton-pipelines"}}),
    ] {
        manifests::apply(&client, &object).await.expect("accepted");
    }
}
