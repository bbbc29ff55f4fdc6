//! docs/first-run.md, as far as it goes without a node.

use std::{
    fs,
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;
use support::{cluster::Cluster, crds, webhook::Webhook};

use super::kubectl::{kubectl, make_tekton};

/// The overlay `try` and the example without its target: the run goes to the registry of the overlay.
#[tokio::test]
async fn a_run_needs_nothing_but_the_annotation() {
    let cluster = Cluster::start().await;
    let client = cluster.admin().await;
    crds::apply_tekton(&client).await;
    crds::apply_cert_manager(&client).await;
    make_tekton(&cluster).await;
    kubectl(&cluster, &["apply", "-k", "webhook-config/overlays/try"]);
    // The test's webhook is not behind the Service.
    kubectl(&cluster, &["delete", "mutatingwebhookconfiguration", "tekton-wrap"]);
    let webhook = Webhook::start(&cluster).await;
    webhook.register(&cluster.namespace().await, false).await;

    let example = fs::read_to_string("examples/annotation.yaml").expect("the example");
    let example: Vec<&str> = example.lines().filter(|line| !line.contains("tekton-wrap.dev/target")).collect();
    let created = feed(cluster.kubectl().args(["create", "-f", "-"]), &example.join("\n"));
    let kinds: Vec<&str> = created.lines().filter_map(|line| line.split('/').next()).collect();
    assert_eq!(kinds, ["configmap", "pipeline.tekton.dev", "pipelinerun.tekton.dev"], "{created}");

    let get = ["get", "pipelineruns", "-l", "tekton-wrap.dev/wrapped=true", "-o", "json"];
    let runs: Value = serde_json::from_str(&kubectl(&cluster, &get)).expect("JSON");
    let spec = runs["items"][0]["spec"].to_string();
    assert!(spec.contains("registry.tekton-wrap.svc.cluster.local:5000/ci:"), "{spec}");
    assert!(!spec.contains("volumeClaimTemplate") && spec.contains("tekton-wrap-restore"), "{spec}");
}

fn feed(command: &mut Command, text: &str) -> String {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}
