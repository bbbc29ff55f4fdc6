//! Which runs the webhook is asked about: all shapes that a run may have, through a real apiserver. What must not happen is that a
//! condition fails on a shape that nobody thought of: with `failurePolicy: Fail` the run would be refused.

use serde_json::{Value, json};
use support::{cluster::Cluster, webhook::Webhook};

/// A part of a run, and whether it asks to be wrapped.
type Part = (Value, bool);

/// What `spec` may be; a string in the place of a field that is left out.
fn specs() -> Vec<Part> {
    let by = |reference: Value| json!({"pipelineRef": reference});
    let task = json!({"name": "a", "taskSpec": {"steps": [{"name": "s", "image": "i"}]}});
    vec![
        (json!("absent"), false),
        (Value::Null, false),
        (json!({}), false),
        (json!({"pipelineSpec": {"tasks": [task]}}), false),
        (json!({"pipelineSpec": {"tasks": [task]}, "status": "PipelineRunPending"}), false),
        (by(Value::Null), false),
        (by(json!({})), false),
        (by(json!([])), false),
        (by(json!("wrap")), false),
        (by(json!({"name": "wrap"})), false),
        (by(json!({"resolver": null})), false),
        (by(json!({"resolver": ""})), false),
        (by(json!({"resolver": 7})), false),
        (by(json!({"resolver": ["wrap"]})), false),
        (by(json!({"resolver": "git"})), false),
        (by(json!({"resolver": "wrapper"})), false),
        (by(json!({"resolver": "Wrap"})), false),
        (by(json!({"resolver": "git", "params": [{"name": "resolver", "value": "wrap"}]})), false),
        (by(json!({"resolver": "wrap"})), true),
        (by(json!({"resolver": "wrap.oci", "params": []})), true),
    ]
}

/// What `metadata` may have in it.
fn metadata() -> Vec<Part> {
    vec![
        (json!({}), false),
        (json!({"annotations": null, "labels": null}), false),
        (json!({"annotations": {}, "labels": {}}), false),
        (json!({"annotations": {"tekton-wrap.dev/target": "x"}, "labels": {"app": "wrap"}}), false),
        (json!({"annotations": {"tekton-wrap.dev/wrap": "none"}}), false),
        (json!({"annotations": {"tekton-wrap.dev/wrap": "auto"}}), true),
        (json!({"annotations": {"tekton-wrap.dev/wrap": ""}}), true),
        (json!({"labels": {"tekton-wrap.dev/wrapped": "true"}}), true),
    ]
}

#[tokio::test]
async fn only_runs_that_ask_reach_the_webhook_and_no_condition_fails() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let webhook = Webhook::start(cluster).await;
    webhook.register(&namespace, true).await;
    let mut tried = 0;
    for version in ["v1", "v1beta1"] {
        for (spec, spec_asks) in specs() {
            for (metadata, metadata_asks) in metadata() {
                let mut run =
                    json!({"apiVersion": format!("tekton.dev/{version}"), "kind": "PipelineRun", "metadata": metadata});
                run["metadata"]["generateName"] = json!("r-");
                if spec != "absent" {
                    run["spec"] = spec.clone();
                }
                let before = webhook.answered();
                let result = namespace.dry_run(&run).await;
                let asked = webhook.answered() - before;
                assert_eq!(asked > 0, spec_asks || metadata_asks, "{run}: {result:?}");
                let error = result.err().map(|error| error.to_string()).unwrap_or_default();
                assert!(
                    !error.contains("match condition") && !error.contains("failed calling webhook"),
                    "{run}: {error}"
                );
                tried += 1;
            }
        }
    }
    assert!(tried >= 300, "{tried}");
}
