//! One setting for the image: that of the webhook's pod, whoever wrote it there.

use serde_json::{Value, json};
use support::{cluster::Cluster, crds, manifests, webhook::Webhook};

use super::kubectl::{find, kustomize, overlay};

const IMAGE: &str =
    "registry.example.com/mirror/tekton-wrap@sha256:a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4a1b2c3d4";

/// From an overlay that sets `images:` to a run's injected steps.
#[tokio::test]
async fn an_overlays_images_reach_the_injected_steps() {
    let (name, digest) = IMAGE.split_once('@').expect("a digest");
    let folder = overlay(&format!(
        "resources: [ROOT]\nimages:\n- {{name: tekton-wrap, newName: {name}, digest: \"{digest}\"}}\n"
    ));
    let objects = kustomize(folder.path());
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "webhook-1", "namespace": "tekton-wrap"}});
    pod["spec"] = find(&objects, "Deployment", "tekton-wrap-webhook")["spec"]["template"]["spec"].clone();

    let cluster = Cluster::start().await;
    let client = cluster.admin().await;
    crds::apply_tekton(&client).await;
    cluster.install().await;
    manifests::apply(&client, &pod).await.expect("the pod of the Deployment is accepted");
    let webhook = Webhook::start_exactly(&cluster, &["--pod-name=webhook-1".to_owned()]).await;
    let namespace = cluster.namespace().await;
    webhook.register(&namespace, true).await;

    let task = json!({"name": "t", "workspaces": [{"name": "w"}], "taskSpec": {"workspaces": [{"name": "w"}],
        "steps": [{"name": "s", "image": "i", "script": "true"}]}});
    let pipeline = json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"},
        "spec": {"workspaces": [{"name": "w"}], "tasks": [task]}});
    namespace.accepts(&pipeline).await;
    let params = [("pipelineref", "p"), ("workspaces", "w"), ("target", "quay.io/me/w:v1")];
    let params: Vec<Value> = params.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "r-"},
        "spec": {"pipelineRef": {"resolver": "wrap", "params": params}}});
    let stored = namespace.accepts(&run).await;
    let steps = stored["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["steps"].as_array().expect("steps").clone();
    let images: Vec<&Value> = steps
        .iter()
        .filter(|s| s["name"].as_str().is_some_and(|n| n.starts_with("tekton-wrap-")))
        .map(|s| &s["image"])
        .collect();
    assert_eq!(images, [IMAGE], "the first task has nothing to restore");
}

#[tokio::test]
async fn nobody_to_ask_is_said_so() {
    let cluster = Cluster::shared().await;
    cluster.install().await;
    let token = support::webhook::account_token(cluster).await;
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, cluster.kubeconfig(&token).to_string()).expect("the kubeconfig");
    support::certificate::Authority::new().issue(folder.path());
    for (pod, expected) in [
        (
            Some("no-such-pod"),
            r#"the image of pod "no-such-pod" in namespace "tekton-wrap", which the injected steps would run, is unknown: there is no such pod; or give --image REF"#,
        ),
        (Some("../secrets/x"), "no pod can have this name"),
        (None, "--image <REF>"),
    ] {
        let mut command = std::process::Command::new(support::program());
        command.args(["webhook", "--listen=127.0.0.1:0", "--admin-listen=none"]).env_remove("POD_NAME");
        command
            .arg(format!("--tls-dir={}", folder.path().display()))
            .arg(format!("--kubeconfig={}", kubeconfig.display()));
        command.args(pod.map(|pod| format!("--pod-name={pod}")));
        let output = command.output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{pod:?}: {stderr}");
    }
}
