//! Pipelines and Tasks that resolvers of the cluster bring.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use support::{
    cluster::{Cluster, Namespace},
    manifests,
    resolver::{self, NAME},
    webhook::Webhook,
};

const TASK: &str = "
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: remote-task, labels: {team: a}}
spec:
  params: [{name: p, default: d}]
  workspaces: [{name: w}]
  steps: [{name: s, image: i, script: 'echo $(context.task.name) $(params.p)'}]
";

/// A pipeline of one embedded task, and one that comes through the resolver.
fn pipeline(task: &str) -> String {
    let task_ref = json!({"resolver": NAME, "params": [{"name": "object", "value": resolver::data(task)}]});
    format!(
        "
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {{name: remote, labels: {{from: afar}}}}
spec:
  workspaces: [{{name: w}}]
  tasks:
  - name: one
    workspaces: [{{name: w}}]
    taskSpec: {{workspaces: [{{name: w}}], steps: [{{name: s, image: i}}]}}
  - {{name: two, runAfter: [one], workspaces: [{{name: w}}], taskRef: {task_ref}}}
  - {{name: three, runAfter: [one], workspaces: [{{name: w}}], taskRef: {task_ref}}}
"
    )
}

/// A run of what the resolver makes of `params`, among which `object` is a text (and ` object` base64 as it is).
fn run(params: &[(&str, &str)]) -> Value {
    let value = |name: &str, value: &str| match name {
        "object" => resolver::data(value),
        _ => value.to_owned(),
    };
    let params: Vec<Value> =
        params.iter().map(|(name, text)| json!({"name": name.trim(), "value": value(name, text)})).collect();
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"generateName": "r-"},
        "spec": {
            "params": [{"name": "later", "value": "200"}],
            "pipelineRef": {"resolver": "wrap", "params": [
                {"name": "pipelineref", "value": json!({"resolver": NAME, "params": params}).to_string()},
                {"name": "workspaces", "value": "w"},
                {"name": "target", "value": "quay.io/me/build-$(context.pipelineRun.name):latest"},
            ]},
        },
    })
}

async fn namespace() -> Namespace {
    Webhook::shared().await;
    resolver::shared().await;
    Cluster::shared().await.namespace().await
}

/// How many resolutions of this webhook ended so.
fn resolutions(webhook: &Webhook, outcome: &str) -> u64 {
    let count = webhook.metric(&format!("tekton_wrap_resolutions_total{{outcome={outcome:?}}}"));
    count.unwrap_or_default() as u64
}

/// Waits until no ResolutionRequest is left.
async fn nothing_left(namespace: &Namespace) {
    let start = Instant::now();
    while !namespace.names(&resolver::like()).await.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20), "a ResolutionRequest is left");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn what_a_resolver_brings_is_wrapped() {
    let namespace = namespace().await;
    let stored = namespace.accepts(&run(&[("object", &pipeline(TASK)), ("delay", "$(params.later)")])).await;
    assert_eq!(stored["spec"].get("pipelineRef"), None);
    let source = r#"{"uri":"git+https://example.com/repo.git","digest":{"sha1":"abc"},"entryPoint":"p.yaml"}"#;
    let metadata = &stored["metadata"];
    assert_eq!(
        metadata["labels"],
        json!({"from": "afar", "tekton-wrap.dev/wrapped": "true", "tekton.dev/pipeline": "remote"})
    );
    assert_eq!(metadata["annotations"]["tekton-wrap.dev/pipeline-source"], source);
    assert_eq!(metadata["annotations"]["tekton-wrap.dev/pipeline"], "remote");
    for task in [1, 2] {
        let spec = &stored["spec"]["pipelineSpec"]["tasks"][task]["taskSpec"];
        assert_eq!(spec["steps"][1]["script"], "echo remote-task $(params.p)");
        assert_eq!(spec["metadata"]["labels"], json!({"team": "a", "tekton.dev/task": "remote-task"}));
        assert_eq!(spec["metadata"]["annotations"]["tekton-wrap.dev/task-source"], source);
    }
    nothing_left(&namespace).await;
    assert!(resolutions(Webhook::shared().await, "answered") >= 2);
    // The same Task is asked for once, and the run's param is in its place.
    let asked = resolver::asked(&namespace.name);
    assert_eq!(asked.len(), 2, "{asked:?}");
    assert_eq!(asked[0][1], json!({"name": "delay", "value": "200"}));
}

#[tokio::test]
async fn v1beta1_is_converted() {
    let namespace = namespace().await;
    let task =
        TASK.replace("/v1", "/v1beta1").replace("image: i,", "image: i, resources: {limits: {cpu: '1'}}, tty: true,");
    let pipeline = pipeline(&task).replacen("/v1", "/v1beta1", 1);
    let stored = namespace.accepts(&run(&[("object", &pipeline)])).await;
    let step = &stored["spec"]["pipelineSpec"]["tasks"][1]["taskSpec"]["steps"][1];
    assert_eq!(step["computeResources"], json!({"limits": {"cpu": "1"}}));
    assert_eq!((step.get("tty"), step.get("resources")), (None, None));
    nothing_left(&namespace).await;
}

/// One sentence for whatever a resolver does, and nothing left.
#[tokio::test]
async fn refusals() {
    let namespace = namespace().await;
    let good = pipeline(TASK);
    for (params, sentence) in [
        (vec![("mode", "fail"), (" object", "no such\nbranch")], "its resolver says ResolutionFailed: no such branch"),
        (vec![("object", TASK)], r#"it is a "Task" of "tekton.dev/v1", not a Pipeline of tekton.dev"#),
        (vec![("object", "nothing: [")], "it is not YAML"),
        (vec![("object", &format!("{good}---{good}"))], "it has 2 YAML documents: there must be one"),
        (
            vec![("object", &format!("{good}status: {{}}\n"))],
            r#"it has the field "status", which Tekton does not know"#,
        ),
        (vec![(" object", ""), ("padding", "1400000")], "it has 1050000 bytes, more than the 1048576 that are read"),
        (vec![(" object", "?")], "its resolver's answer is not base64"),
        (vec![("object", &pipeline("kind: Secret"))], r#"it is a "Secret" of "", not a Task of tekton.dev"#),
        (vec![("object", &good), ("rev", "$(params.no)")], "$(params.no) has no value when the run is created"),
        (vec![("object", &good), ("rev", "$(context.pipelineRun.uid)")], "has no value when the run is created"),
        (
            vec![(
                "object",
                &good.replace(
                    "\"name\":\"object\",\"value\":",
                    "\"name\":\"$(x)\",\"value\":\"$(tasks.one.results.r)\",\"old\":",
                ),
            )],
            r#"task "two" uses the wrapped workspace "w", but its taskRef needs $(tasks.one.results.r), which has no value when the run is created"#,
        ),
    ] {
        let error = namespace.rejects(&run(&params)).await;
        assert!(error.contains(sentence), "{error}");
        nothing_left(&namespace).await;
    }
}

#[tokio::test]
async fn a_dry_run_creates_nothing() {
    let namespace = namespace().await;
    let run = run(&[("object", &pipeline(TASK))]);
    let dry = namespace.dry_run(&run).await.expect("it passes");
    assert_eq!(dry["spec"], run["spec"], "as it was sent");
    assert!(resolver::asked(&namespace.name).is_empty() && namespace.names(&run).await.is_empty());
}

#[tokio::test]
async fn an_answer_that_came_too_late_is_used_the_next_time() {
    let namespace = namespace().await;
    let webhook = Webhook::start(Cluster::shared().await).await;
    webhook.register_with(&namespace, true, |hook| hook["timeoutSeconds"] = json!(3)).await;
    let run = run(&[("object", &pipeline(TASK)), ("delay", "3500")]);
    // The client of these tests tries again by itself after a time-out.
    if namespace.create(&run).await.is_err() {
        nothing_left(&namespace).await;
        namespace.accepts(&run).await;
    }
    let log = webhook.log();
    for part in [
        r#"resolver "test-resolver" gave no answer for 2 s to what was asked of it: the pipeline through resolver "test-resolver" (object="#,
        "create the PipelineRun again, which is safe: nothing was stored, and an answer that comes meanwhile is used",
    ] {
        assert!(log.contains(part), "{log}");
    }
    let asked = resolver::asked(&namespace.name);
    let pipelines = asked.iter().filter(|params| params.as_array().map(Vec::len) == Some(2));
    assert_eq!(pipelines.count(), 1, "{asked:?}");
    assert_eq!(resolutions(&webhook, "late"), 1);
    nothing_left(&namespace).await;
}

#[tokio::test]
async fn what_is_never_answered_is_given_up_and_swept() {
    let namespace = namespace().await;
    let cluster = Cluster::shared().await;
    let never = run(&[("mode", "never")]);
    // A webhook that is killed while it waits.
    let webhook = Webhook::start(cluster).await;
    webhook.register(&namespace, true).await;
    let waiting = async {
        while namespace.names(&resolver::like()).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        drop(webhook);
    };
    let (created, ()) = tokio::join!(namespace.create(&never), waiting);
    let error = created.expect_err("nobody answers any more").to_string();
    assert!(error.contains("failed calling webhook"), "{error}");
    assert_eq!(namespace.names(&resolver::like()).await.len(), 1);
    // The next one finds what it left.
    let next = Webhook::start_with(cluster, &["--resolution-timeout=2".to_owned()]).await;
    nothing_left(&namespace).await;
    // And gives up its own in time, although nobody asks.
    next.register(&namespace, true).await;
    let error = namespace.rejects(&never).await;
    assert!(error.ends_with("its resolver gave no answer within 2 s"), "{error}");
    assert_eq!(resolutions(&next, "unanswered"), 1);
    nothing_left(&namespace).await;
}

#[tokio::test]
async fn many_at_once() {
    let namespace = namespace().await;
    let good = pipeline(TASK);
    let runs: Vec<Value> =
        (0..50).map(|i| run(&[("object", &good), ("delay", "300"), ("number", &(i / 2).to_string())])).collect();
    let created = futures_util::future::join_all(runs.iter().map(|run| namespace.create(run))).await;
    for stored in created {
        assert!(stored.expect("it is wrapped")["spec"].get("pipelineSpec").is_some());
    }
    nothing_left(&namespace).await;
    // Equal ones at the same time may share a request, but never disturb each other.
    assert!(resolver::asked(&namespace.name).len() >= 25);
}

#[tokio::test]
async fn policies_of_the_operator() {
    let namespace = namespace().await;
    let policy = json!({"apiVersion": "tekton.dev/v1alpha1", "kind": "VerificationPolicy", "metadata": {"name": "signed"}, "spec": {
        "resources": [{"pattern": "https://example.com/.*"}], "authorities": [{"name": "k", "key": {"data": "k"}}]}});
    namespace.accepts(&policy).await;
    let error = namespace.rejects(&run(&[("object", &pipeline(TASK))])).await;
    assert!(error.contains(r#"is subject to VerificationPolicy "signed""#), "{error}");

    // Tekton's flags, in a namespace that this webhook takes for Tekton's.
    let place = &namespace.name;
    let flags = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "feature-flags", "namespace": place},
        "data": {"disable-inline-spec": "pipelinerun"}});
    for mut object in manifests::webhook_config() {
        if object["metadata"]["namespace"] == "tekton-pipelines" {
            object["metadata"]["namespace"] = json!(place);
            manifests::apply(&namespace.client, &object).await.expect("accepted");
        }
    }
    let webhook = Webhook::start_with(Cluster::shared().await, &[format!("--tekton-namespace={place}")]).await;
    webhook.register(&namespace, true).await;
    let mut named = run(&[]);
    named["spec"]["pipelineRef"]["params"][0]["value"] = json!("named");
    // Nobody knows whether inlining is allowed.
    let error = namespace.rejects(&named).await;
    assert!(
        error.starts_with("the ConfigMap \"feature-flags\" of Tekton") && error.contains("was not found"),
        "{error}"
    );
    manifests::apply(&namespace.client, &flags).await.expect("accepted");
    let error = namespace.rejects(&named).await;
    assert!(error.starts_with("Tekton's feature flag disable-inline-spec is \"pipelinerun\""), "{error}");
}
