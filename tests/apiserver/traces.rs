//! Traces of an apiserver that makes some (APIServerTracing), and what the webhook adds to them.

use std::fs;

use serde_json::{Value, json};
use support::{
    cluster::Cluster,
    collector::{Collector, attribute},
    crds, process,
    webhook::Webhook,
};

#[tokio::test]
async fn a_review_is_a_part_of_the_apiservers_trace() {
    let dir = process::folder("tracing");
    let file = dir.join("tracing.yaml");
    // Its own spans go nowhere: only what it tells the webhook matters here.
    let configuration = json!({"apiVersion": "apiserver.config.k8s.io/v1beta1", "kind": "TracingConfiguration",
        "endpoint": "127.0.0.1:1", "samplingRatePerMillion": 1_000_000});
    fs::write(&file, configuration.to_string()).expect("the folder is writable");
    let cluster = Cluster::start_with(&[format!("--tracing-config-file={}", file.display())]).await;
    crds::apply_tekton(&cluster.admin().await).await;
    let collector = Collector::start(&[]);
    // A fraction of none: all that is traced is what the apiserver asks for.
    let flags = [format!("--otlp-endpoint={}", collector.url), "--trace-fraction=0".to_owned()];
    let webhook = Webhook::start_with(&cluster, &flags).await;
    let namespace = cluster.namespace().await;
    webhook.register(&namespace, true).await;
    let object = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let workspace = json!([{"name": "w"}]);
    let task = json!({"workspaces": workspace, "steps": [{"name": "s", "image": "i", "script": "true"}]});
    namespace.accepts(&object("Task", "t", task)).await;
    let tasks = json!([{"name": "a", "taskRef": {"name": "t"}, "workspaces": workspace}]);
    namespace.accepts(&object("Pipeline", "p", json!({"workspaces": workspace, "tasks": tasks}))).await;
    let params = json!([{"name": "pipelineref", "value": "p"}, {"name": "workspaces", "value": "w"}, {"name": "target", "value": "quay.io/me/x:y"}]);
    namespace
        .accepts(&object("PipelineRun", "r", json!({"pipelineRef": {"resolver": "wrap", "params": params}})))
        .await;

    let is_it = |span: &&Value| attribute(span, "tekton_wrap.run") == Some("r");
    let start = std::time::Instant::now();
    while !collector.spans().iter().any(|span| is_it(&span)) {
        assert!(start.elapsed().as_secs() < 60, "{:#?}\n{}", collector.spans(), webhook.log());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    let spans = collector.spans();
    let review = spans.iter().find(is_it).expect("it is there");
    assert!(review["parentSpanId"].is_string(), "the apiserver's span is above it: {review:#}");
    assert_eq!(attribute(review, "tekton_wrap.outcome"), Some("wrapped"));
    assert_eq!(attribute(review, "k8s.namespace.name"), Some(namespace.name.as_str()));
    let within: Vec<&Value> = spans.iter().filter(|span| span["parentSpanId"] == review["spanId"]).collect();
    assert!(within.iter().all(|span| span["traceId"] == review["traceId"]));
    assert_eq!(within.iter().filter(|span| span["name"] == "rewrite").count(), 1);
    let paths: Vec<&str> = within.iter().filter_map(|span| attribute(span, "url.path")).collect();
    for end in ["/pipelines/p", "/tasks/t"] {
        assert!(paths.iter().any(|path| path.ends_with(end)), "{end}: {paths:?}");
    }
    let _ = fs::remove_dir_all(&dir);
}
