//! A webhook that serves only an apiserver with a client certificate, as docs/who-may-ask.md sets it up.

use std::fs;

use serde_json::json;

use support::{certificate::Authority, cluster::Cluster, crds, process, webhook::Webhook};

#[tokio::test]
async fn only_an_apiserver_with_the_right_certificate_is_served() {
    let dir = process::folder("admission");
    let authority = Authority::new();
    authority.issue_client("kube-apiserver", &dir);
    let path = |name: &str| dir.join(name).display().to_string();
    let write = |name: &str, text: String| fs::write(dir.join(name), text).expect("the folder is writable");
    write("ca.crt", authority.pem());
    let user = json!({"client-certificate": path("tls.crt"), "client-key": path("tls.key")});
    // The webhook of this test has an address and no Service.
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "users": [{"name": "*", "user": user}]});
    write("kubeconfig", kubeconfig.to_string());
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "WebhookAdmissionConfiguration",
        "kubeConfigFile": path("kubeconfig")});
    let admission = json!({"apiVersion": "apiserver.config.k8s.io/v1", "kind": "AdmissionConfiguration",
        "plugins": [{"name": "MutatingAdmissionWebhook", "configuration": configuration}]});
    write("admission.yaml", admission.to_string());

    let cluster = Cluster::start_with(&[format!("--admission-control-config-file={}", path("admission.yaml"))]).await;
    crds::apply_tekton(&cluster.admin().await).await;
    let namespace = cluster.namespace().await;
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "r-"},
        "spec": {"pipelineRef": {"resolver": "wrap"}}});
    let ca = format!("--client-ca={}", path("ca.crt"));
    let webhook = Webhook::start_with(&cluster, &[ca.clone(), "--client-cn=kube-apiserver".to_owned()]).await;
    webhook.register(&namespace, true).await;
    assert!(namespace.rejects(&run).await.starts_with("param \"pipelineref\" of resolver wrap is missing"));

    let other = Webhook::start_with(&cluster, &[ca, "--client-cn=someone".to_owned()]).await;
    let place = cluster.namespace().await;
    other.register_unchecked(&place).await;
    // The apiserver takes notice of the registration a moment later, and then gets no further than the handshake.
    let start = std::time::Instant::now();
    loop {
        match place.dry_run(&run).await {
            Err(error) if error.to_string().contains("failed calling webhook") => break,
            _ => assert!(start.elapsed().as_secs() < 60, "someone else is served"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(!other.log().contains("refused: "));
    fs::remove_dir_all(&dir).expect("the folder is there");
}
