//! In a cluster with Tekton and cert-manager: certificates that cert-manager renews, and replicas that are replaced, while runs
//! are created. What `cargo bench --bench load` does with `certs/make` and processes is done here by cert-manager, cainjector,
//! kubelet and kube-proxy.

use std::{env, process::Command, time::Duration};

use kube::{Client, ResourceExt, api::PostParams};
use serde_json::{Value, json};
use support::{
    assets,
    chain::{make_tasks, pipeline},
    cluster::Namespace,
    creations::Stream,
    manifests,
    webhook::value_of,
};

use super::kubectl::{overlay, run};

/// Creations a second, as dry runs: each is reviewed and nothing is stored, so no pod of a run ever starts.
const RATE: u32 = 65;

/// How often each thing happens.
const TIMES: usize = 3;

/// A kubelet takes up to two minutes to bring a Secret that has changed into a pod.
const LIMIT: Duration = Duration::from_secs(300);

const PODS: &str = "app.kubernetes.io/component=webhook";

const DEPLOYMENT: &str = "deployment/tekton-wrap-webhook";

/// Installs the product there, and removes it when all was as expected.
#[tokio::test(flavor = "multi_thread")]
async fn no_creation_is_lost_while_certificates_and_replicas_change() {
    let Some(image) = image() else {
        eprintln!("skipped: TEKTON_WRAP_INSTALL_IMAGE names no image to install in the cluster of KUBECONFIG");
        return;
    };
    let folder = overlay(&format!("resources: [ROOT/overlays/cert-manager]\nimages: [{image}]\n"));
    let folder = folder.path().to_str().expect("UTF-8");
    assert_eq!(
        kubectl(&["get", "namespace", "tekton-wrap", "--ignore-not-found"]),
        "",
        "it is installed there already"
    );
    kubectl(&["apply", "-k", folder]);
    rolled_out();
    let namespace = namespace().await;
    until("a run is wrapped", async || namespace.dry_run(&wrapped()).await.is_ok()).await;

    under_load(&namespace, "certificates of the same authority", async || {
        for _ in 0..TIMES {
            new_certificate().await;
        }
    })
    .await;
    under_load(&namespace, "an authority with a new key", async || {
        let policy = r#"{"spec": {"privateKey": {"rotationPolicy": "Always"}}}"#;
        kubectl(&["-n", "tekton-wrap", "patch", "certificate", "tekton-wrap-ca", "--type=merge", "-p", policy]);
        reissue("tekton-wrap-ca", "tekton-wrap-ca").await;
        new_certificate().await;
    })
    .await;
    under_load(&namespace, "rolling restarts", async || {
        for _ in 0..TIMES {
            kubectl(&["-n", "tekton-wrap", "rollout", "restart", DEPLOYMENT]);
            tokio::task::block_in_place(rolled_out);
        }
    })
    .await;

    kubectl(&["delete", "mutatingwebhookconfiguration", "tekton-wrap"]);
    kubectl(&["delete", "-k", folder, "--ignore-not-found"]);
    kubectl(&["delete", "namespace", &namespace.name]);
}

/// What kustomize is told of `TEKTON_WRAP_INSTALL_IMAGE`; none where that is not set.
///
/// # Panics
/// Where it is, but no KUBECONFIG: nobody's cluster is to be written to by accident.
fn image() -> Option<Value> {
    let image = env::var("TEKTON_WRAP_INSTALL_IMAGE").ok().filter(|image| !image.is_empty())?;
    assert!(env::var_os("KUBECONFIG").is_some(), "TEKTON_WRAP_INSTALL_IMAGE is set: set KUBECONFIG too");
    let (name, version) = match image.split_once('@') {
        Some((name, digest)) => (name, ("digest", digest)),
        None => {
            image.rsplit_once(':').map(|(name, tag)| (name, ("newTag", tag))).expect("an image with a tag or a digest")
        }
    };
    Some(json!({"name": "tekton-wrap", "newName": name, version.0: version.1}))
}

/// Runs are created while `what` happens, and none of them may fail.
async fn under_load(namespace: &Namespace, what: &str, happens: impl AsyncFnOnce()) {
    let (name, client) = (namespace.name.clone(), namespace.client.clone());
    let stream = Stream::start(Namespace { name, client }, wrapped(), RATE, true);
    happens().await;
    let mut outcomes = stream.end().await;
    let (created, rate) = (outcomes.times.len(), outcomes.rate());
    println!(
        "{what}: {created} created, {rate:.0} a second, p99 {:.0} ms; failed: {:?}",
        outcomes.percentile(99),
        outcomes.failed
    );
    assert_eq!(outcomes.failures(), 0, "{what}: {:?}", outcomes.failed);
}

/// cert-manager makes another certificate for the webhook, and all replicas serve it.
async fn new_certificate() {
    let before = reloads();
    reissue("tekton-wrap-webhook", "tekton-wrap-webhook-tls").await;
    // The kubelet looks at the Secrets of a pod that changes at once, and otherwise once in a minute or two.
    let count = format!("tekton-wrap.dev/reissued={}", before.iter().sum::<u64>());
    kubectl(&["-n", "tekton-wrap", "annotate", "pods", "-l", PODS, "--overwrite", &count]);
    until("all replicas have the new certificate", async || {
        reloads().iter().zip(&before).all(|(now, before)| now > before)
    })
    .await;
}

/// What `cmctl renew` does, until the Secret has changed.
async fn reissue(certificate: &str, secret: &str) {
    let content = || kubectl(&["-n", "tekton-wrap", "get", "secret", secret, "-o", "jsonpath={.data.tls\\.crt}"]);
    let before = content();
    let condition = json!({"type": "Issuing", "status": "True", "reason": "ManuallyTriggered", "message": "by a test"});
    let patch = json!([{"op": "add", "path": "/status/conditions/-", "value": condition}]).to_string();
    let patch = ["patch", "certificate", certificate, "--subresource=status", "--type=json", "-p", &patch];
    kubectl(&[["-n", "tekton-wrap"].as_slice(), &patch].concat());
    until("there is another certificate", async || content() != before).await;
}

/// How often each replica has taken a new certificate.
fn reloads() -> Vec<u64> {
    let pods = kubectl(&["-n", "tekton-wrap", "get", "pods", "-l", PODS, "-o", "jsonpath={.items[*].metadata.name}"]);
    let count = |pod: &str| {
        let metrics =
            kubectl(&["get", "--raw", &format!("/api/v1/namespaces/tekton-wrap/pods/{pod}:8081/proxy/metrics")]);
        let value = value_of(&metrics, r#"tekton_wrap_tls_reload_total{result="success"}"#);
        value.expect("the metric") as u64
    };
    pods.split_whitespace().map(count).collect()
}

fn rolled_out() {
    kubectl(&["-n", "tekton-wrap", "rollout", "status", DEPLOYMENT, "--timeout=5m"]);
}

/// A new one, with the Pipeline `two`.
async fn namespace() -> Namespace {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_default().await.expect("the cluster of KUBECONFIG");
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "tekton-wrap-install-"}});
    let created = manifests::create(&client, None, &object, &PostParams::default()).await.expect("a namespace");
    let namespace = Namespace { name: created.name_any(), client };
    make_tasks(&namespace).await;
    namespace.accepts(&pipeline("two", 2)).await;
    namespace
}

fn wrapped() -> Value {
    let params =
        [("pipelineref", "two"), ("workspaces", "source"), ("target", "quay.io/me/w:$(context.pipelineRun.name)")];
    let params: Vec<Value> = params.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "r-"},
        "spec": {"pipelineRef": {"resolver": "wrap", "params": params}}})
}

async fn until(what: &str, mut happened: impl AsyncFnMut() -> bool) {
    let waited = async {
        while !happened().await {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    tokio::time::timeout(LIMIT, waited).await.unwrap_or_else(|_| panic!("{what}: not within {LIMIT:?}"));
}

/// With the cluster of KUBECONFIG.
fn kubectl(args: &[&str]) -> String {
    let mut command: Command = assets::command("kubectl");
    tokio::task::block_in_place(|| run(command.args(args)))
}
