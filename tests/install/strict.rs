//! Runs that ask to be wrapped are refused while nobody wraps them.

use serde_json::{Value, json};
use support::{
    cluster::{Cluster, Namespace},
    crds,
    webhook::Webhook,
};

use super::kubectl::kubectl;

fn run(annotations: Value, labels: Value, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "spec": spec,
        "metadata": {"generateName": "r-", "annotations": annotations, "labels": labels}})
}

fn by_resolver(resolver: &str) -> Value {
    run(
        json!({}),
        json!({}),
        json!({"pipelineRef": {"resolver": resolver, "params": [
        {"name": "pipelineref", "value": "p"}, {"name": "workspaces", "value": "w"}, {"name": "target", "value": "quay.io/me/w:v1"}]}}),
    )
}

fn by_annotation(value: &str) -> Value {
    let annotations = json!({"tekton-wrap.dev/wrap": value, "tekton-wrap.dev/target": "quay.io/me/w:v1"});
    run(annotations, json!({}), json!({"pipelineRef": {"name": "p"}}))
}

#[tokio::test]
async fn while_the_registration_is_missing() {
    let cluster = Cluster::start().await;
    let client = cluster.admin().await;
    crds::apply_tekton(&client).await;
    let namespace = cluster.namespace().await;
    let task = json!({"name": "t", "workspaces": [{"name": "w"}], "taskSpec": {"workspaces": [{"name": "w"}],
        "steps": [{"name": "s", "image": "i", "script": "true"}]}});
    let pipeline = json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"},
        "spec": {"workspaces": [{"name": "w"}], "tasks": [task]}});
    namespace.accepts(&pipeline).await;
    // What happens without it: stored as it is, for Tekton to ask a resolver that nobody has.
    namespace.accepts(&by_resolver("wrap")).await;

    kubectl(&cluster, &["apply", "-k", "webhook-config/strict"]);
    in_force(&namespace).await;
    let mut old = by_resolver("wrap");
    old["apiVersion"] = json!("tekton.dev/v1beta1");
    for refused in [by_resolver("wrap"), by_resolver("wrap.oci"), by_annotation("auto"), by_annotation("w"), old] {
        let error = namespace.create(&refused).await.expect_err("nobody wraps it").to_string();
        for part in ["ValidatingAdmissionPolicy 'tekton-wrap-strict'", "nothing wrapped this run", "is missing"] {
            assert!(error.contains(part), "{error}");
        }
    }
    let embedded = json!({"pipelineSpec": {"tasks": [task]}});
    for accepted in [
        by_resolver("wrapper"),
        by_resolver("git"),
        by_annotation("none"),
        run(Value::Null, Value::Null, embedded.clone()),
        run(json!({"other": "x"}), json!({}), embedded.clone()),
        // What was wrapped once and is created again.
        run(json!({"tekton-wrap.dev/wrap": "auto"}), json!({"tekton-wrap.dev/wrapped": "true"}), embedded),
    ] {
        namespace.accepts(&accepted).await;
    }
    namespace.dry_run(&by_resolver("wrap")).await.expect("a dry run shows what there is");

    // With the webhook there is nothing to refuse.
    let webhook = Webhook::start(&cluster).await;
    webhook.register(&namespace, true).await;
    for wrapped in [by_resolver("wrap"), by_annotation("w")] {
        assert!(namespace.accepts(&wrapped).await["spec"].get("pipelineSpec").is_some());
    }
    kubectl(&cluster, &["delete", "-k", "webhook-config/strict"]);
}

/// The apiserver compiles a policy a moment after it was stored.
async fn in_force(namespace: &Namespace) {
    let start = std::time::Instant::now();
    while namespace.create(&by_resolver("wrap")).await.is_ok() {
        assert!(start.elapsed().as_secs() < 60, "the policy is not in force");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}
