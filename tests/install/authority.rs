//! `certs/make`: a certificate without cert-manager, and its renewal, while runs are being created.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::json;
use support::{
    cluster::{Cluster, Namespace},
    crds, process,
    service::{CONFIGURATION, copy_certificate, lead_to, make, script},
    webhook::Webhook,
};

use super::kubectl::{kubectl, make_tekton};

const FOLDER: &str = "webhook-config/overlays/no-cert-manager";

/// With a Service that leads to the webhook of the test, so that the apiserver checks what it checks in a cluster: an authority
/// out of `caBundle`, and the Service's name.
#[tokio::test]
async fn made_renewed_and_replaced_while_runs_are_created() {
    let cluster = Cluster::start().await;
    let client = cluster.admin().await;
    crds::apply_tekton(&client).await;
    make_tekton(&cluster).await;
    kubectl(&cluster, &["apply", "-k", FOLDER]);
    let made = make(&cluster, &[]);
    assert!(made.contains("a new authority") && made.contains("for tekton-wrap-webhook.tekton-wrap.svc"), "{made}");
    assert_eq!(kubectl(&cluster, &["diff", "-k", FOLDER]), "");
    kubectl(&cluster, &["apply", "-k", FOLDER]);
    assert_eq!(trusted(&cluster), 1, "applied again, it is still trusted");

    let dir = process::folder("webhook");
    copy_certificate(&cluster, &dir.join("tls"));
    let webhook =
        Webhook::start_in(dir, String::new(), &cluster, &["--image=quay.io/me/tekton-wrap:v1".to_owned()]).await;
    lead_to(&cluster, webhook.port).await;
    let namespace = cluster.namespace().await;
    let start = std::time::Instant::now();
    while let Err(error) = ask(&namespace).await {
        assert!(start.elapsed().as_secs() < 30, "{error}");
    }

    // A new authority, and what is served is still signed by the old one.
    let made = make(&cluster, &["--new-ca"]);
    assert!(made.contains("a new authority") && made.contains("a new certificate"), "{made}");
    assert_eq!(trusted(&cluster), 2);
    for _ in 0..20 {
        ask(&namespace).await.expect("the old certificate is trusted");
    }
    copy_certificate(&cluster, &webhook.tls_dir());
    while !webhook.metrics().contains("tekton_wrap_tls_reload_total{result=\"success\"} 1") {
        ask(&namespace).await.expect("either certificate is trusted");
    }
    // The next run forgets the old one.
    assert!(make(&cluster, &[]).starts_with("nothing to renew"));
    assert_eq!(trusted(&cluster), 1);
    for _ in 0..20 {
        ask(&namespace).await.expect("the new certificate is trusted");
    }

    // One that is nearly over is renewed by the same authority.
    let short = make(&cluster, &["--days", "2000"]);
    assert!(short.starts_with("a new certificate") && trusted(&cluster) == 1, "{short}");
    copy_certificate(&cluster, &webhook.tls_dir());
    while !webhook.metrics().contains("tekton_wrap_tls_reload_total{result=\"success\"} 2") {
        ask(&namespace).await.expect("its authority is trusted");
    }
    assert_eq!(make(&cluster, &["--days", "2000"]).lines().count(), 1);
}

/// What can't be is said before anything is changed.
#[tokio::test]
async fn without_the_manifests_it_says_what_to_do() {
    let cluster = Cluster::shared().await;
    for (args, expected) in [
        (vec![], "apply webhook-config/overlays/no-cert-manager first"),
        (vec!["--days", "many"], "--days many is not a number of days"),
        (vec!["--help"], "certs/make [--namespace NAME] [--days N] [--new-ca]"),
    ] {
        let output = script(cluster, &args).output().expect("it starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{args:?}: {stderr}");
    }
}

/// How many authorities the apiserver trusts for the webhook.
fn trusted(cluster: &Cluster) -> usize {
    let template = "go-template={{(index .webhooks 0).clientConfig.caBundle}}";
    let bundle = BASE64_STANDARD.decode(kubectl(cluster, &["get", CONFIGURATION, "-o", template])).expect("base64");
    String::from_utf8(bundle).expect("PEM").matches("BEGIN CERTIFICATE").count()
}

/// Has a run reviewed. What is missing in it only the webhook knows.
async fn ask(namespace: &Namespace) -> Result<(), String> {
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "r-"},
        "spec": {"pipelineRef": {"resolver": "wrap"}}});
    match namespace.create(&run).await {
        Err(kube::Error::Api(status))
            if status.message.contains("param \"pipelineref\" of resolver wrap is missing") =>
        {
            Ok(())
        }
        Err(error) => Err(error.to_string()),
        Ok(stored) => Err(format!("it was stored: {stored}")),
    }
}
