//! Another webhook, called after this one, that changes a run which has just been wrapped: the apiserver asks this one again.

use std::sync::Arc;

use base64::prelude::{BASE64_STANDARD, Engine};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde_json::{Value, json};
use support::{
    certificate::Authority,
    cluster::{Cluster, Namespace},
    manifests, process,
    webhook::{IMAGE, Webhook},
};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

/// The annotation with the task that the other webhook adds.
const ADD: &str = "test/add-task";

#[tokio::test]
async fn what_another_webhook_changes_is_looked_at_again() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let webhook = Webhook::start(cluster).await;
    webhook.register(&namespace, true).await;
    register_other(&namespace).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tekton-wrap"},
        "data": {"target": "quay.io/me/ci:$(context.pipelineRun.name)"}});
    namespace.accepts(&map).await;
    let steps = json!([{"name": "s", "image": "i"}]);
    let lint = json!({"name": "lint", "taskSpec": {"steps": steps}});
    let wrong =
        json!({"name": "wrong", "runAfter": ["b"], "workspaces": [{"name": "w"}], "taskSpec": {"steps": steps}});

    let before = webhook.answered();
    let stored = namespace.accepts(&run(&lint)).await;
    let spec = &stored["spec"]["pipelineSpec"];
    assert!(spec.to_string().contains(IMAGE), "{stored}");
    assert_eq!(spec["tasks"][2], lint, "it is stored as the other webhook wrote it");
    assert_eq!(webhook.answered() - before, 2, "once to wrap it, once to look at it again");

    let sentence = namespace.rejects(&run(&wrong)).await;
    let expected = "task \"wrong\" of a run that is wrapped already does not restore what the tasks before it save: ";
    assert!(sentence.starts_with(expected), "{sentence}");
}

/// A run of two tasks that share a workspace, to which the other webhook adds `task`.
fn run(task: &Value) -> Value {
    let share = |name: &str, after: &[&str]| {
        json!({"name": name, "runAfter": after, "workspaces": [{"name": "w"}],
            "taskSpec": {"workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i"}]}})
    };
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"generateName": "r-", "annotations": {"tekton-wrap.dev/wrap": "auto", ADD: task.to_string()}},
        "spec": {"pipelineSpec": {"workspaces": [{"name": "w"}], "tasks": [share("a", &[]), share("b", &["a"])]}}})
}

/// Serves the other webhook for as long as the test's runtime lives, and registers it, by a name that sorts behind ours.
async fn register_other(namespace: &Namespace) {
    let dir = process::folder("other");
    let authority = Authority::new();
    authority.issue(&dir);
    let read = |name: &str| std::fs::read(dir.join(name)).expect("it was written");
    let chain = vec![CertificateDer::from_pem_slice(&read("tls.crt")).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(&read("tls.key")).expect("a key");
    std::fs::remove_dir_all(&dir).expect("the folder is there");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).expect("a pair");
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("https://{}", listener.local_addr().expect("its address"));
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer)).await;
            });
        }
    });
    let hook = json!({
        "name": "other.example.com",
        "admissionReviewVersions": ["v1"],
        "clientConfig": {"url": url, "caBundle": BASE64_STANDARD.encode(authority.pem())},
        "rules": [{"apiGroups": ["tekton.dev"], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pipelineruns"]}],
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": namespace.name}},
        "sideEffects": "None",
    });
    let configuration = json!({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": format!("other-{}", namespace.name)}, "webhooks": [hook]});
    manifests::apply(&namespace.client, &configuration).await.expect("the registration is accepted");
    // The apiserver takes notice a moment later.
    let plain = json!({"name": "plain", "taskSpec": {"steps": [{"name": "s", "image": "i"}]}});
    let mut probe = run(&plain);
    probe["metadata"]["annotations"].as_object_mut().expect("annotations").remove("tekton-wrap.dev/wrap");
    while namespace.dry_run(&probe).await.expect("it passes")["spec"]["pipelineSpec"]["tasks"][2] != plain {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

/// Adds the task of the annotation [`ADD`].
async fn answer(request: http::Request<Incoming>) -> Result<http::Response<Full<bytes::Bytes>>, hyper::Error> {
    let body = request.into_body().collect().await?.to_bytes();
    let review: Value = serde_json::from_slice(&body).expect("a review");
    let task = review["request"]["object"]["metadata"]["annotations"][ADD].as_str().expect("the task");
    let task: Value = serde_json::from_str(task).expect("JSON");
    let patch = json!([{"op": "add", "path": "/spec/pipelineSpec/tasks/-", "value": task}]);
    let response = json!({"uid": review["request"]["uid"], "allowed": true, "patchType": "JSONPatch",
        "patch": BASE64_STANDARD.encode(patch.to_string())});
    let answer = json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response});
    Ok(http::Response::new(Full::new(answer.to_string().into())))
}
