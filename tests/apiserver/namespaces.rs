//! Namespaces whose label has all runs wrapped, and runs that were changed after they had been wrapped.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{
    cluster::{Cluster, Namespace},
    webhook::{IMAGE, Webhook, namespace_registration},
};

/// How a spec is changed.
type Change<'a> = &'a dyn Fn(&mut Value);

/// A namespace with the label, a default target, and a webhook of its own.
async fn labelled() -> (Namespace, Webhook) {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let webhook = Webhook::start(cluster).await;
    webhook.register_namespace_mode(&namespace).await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tekton-wrap"},
        "data": {"target": "quay.io/me/ci:$(context.pipelineRun.name)-$(workspace)"}});
    namespace.accepts(&map).await;
    (namespace, webhook)
}

/// A Pipeline's spec whose tasks share the workspace `w`.
fn spec(finally: &[&str]) -> Value {
    let task = |name: &str, after: &[&str]| {
        json!({"name": name, "runAfter": after, "workspaces": [{"name": "w"}],
            "taskSpec": {"workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i", "script": "date"}]}})
    };
    let finally: Vec<Value> = finally
        .iter()
        .map(|name| {
            let mut task = task(name, &[]);
            task.as_object_mut().unwrap().remove("runAfter");
            task
        })
        .collect();
    json!({"workspaces": [{"name": "w"}], "tasks": [task("a", &[]), task("b", &["a"])], "finally": finally})
}

fn run(annotations: Value, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "spec": spec,
        "metadata": {"generateName": "r-", "annotations": annotations}})
}

fn pipeline(name: &str, annotations: Value, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "spec": spec, "metadata": {"name": name, "annotations": annotations}})
}

fn is_wrapped(run: &Value) -> bool {
    let is_wrapped = run["spec"]["pipelineSpec"].to_string().contains(IMAGE);
    assert_eq!(is_wrapped, run["metadata"]["labels"]["tekton-wrap.dev/wrapped"] == "true", "{run}");
    is_wrapped
}

#[tokio::test]
async fn a_label_wraps_all_runs_that_mean_the_same_wrapped() {
    let (namespace, webhook) = labelled().await;
    let none = json!({"tekton-wrap.dev/wrap": "none"});
    let auto = json!({"tekton-wrap.dev/wrap": "auto", "tekton-wrap.dev/target": "quay.io/pipeline/$(context.pipelineRun.name)"});
    for (name, annotations, spec) in [
        ("plain", json!({}), spec(&[])),
        ("excluded", none.clone(), spec(&[])),
        ("reporting", json!({}), spec(&["report"])),
        ("decided", auto, spec(&["report"])),
        ("alone", json!({}), json!({"tasks": [spec(&[])["tasks"][0].clone()], "workspaces": [{"name": "w"}]})),
    ] {
        namespace.accepts(&pipeline(name, annotations, spec)).await;
    }
    let by_name = |name: &str| json!({"pipelineRef": {"name": name}});
    let template = json!([{"name": "w", "volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"]}}}]);
    let claim = json!([{"name": "w", "persistentVolumeClaim": {"claimName": "c"}}]);
    let bound = |workspaces: Value| json!({"pipelineRef": {"name": "plain"}, "workspaces": workspaces});
    for (annotations, spec, wrapped, said) in [
        (json!({}), by_name("plain"), true, ""),
        (json!({}), json!({"pipelineSpec": spec(&[])}), true, ""),
        (json!({}), bound(template), true, ""),
        (json!({}), json!({"pipelineRef": {"name": "plain"}, "status": "PipelineRunPending"}), true, ""),
        // A run, or its Pipeline, that does not want it.
        (none.clone(), by_name("plain"), false, ""),
        (json!({}), by_name("excluded"), false, ""),
        // Nothing that tasks share for the run alone.
        (json!({}), by_name("alone"), false, ""),
        (json!({}), bound(claim), false, ""),
        // It would mean something else: unless its Pipeline or the run itself decides.
        (
            json!({}),
            by_name("reporting"),
            false,
            "passed: not wrapped, as its namespace would have it: task \"report\" uses the workspace \"w\" also if task ",
        ),
        (json!({}), by_name("decided"), true, ""),
        (json!({"tekton-wrap.dev/wrap": "auto"}), by_name("reporting"), true, ""),
        // Tekton says what is wrong with these.
        (
            json!({}),
            by_name("absent"),
            false,
            "passed: not wrapped, as its namespace would have it: pipeline \"absent\" was not found",
        ),
        (json!({}), json!({}), false, ""),
    ] {
        let before = webhook.log().len();
        let stored = namespace.accepts(&run(annotations, spec.clone())).await;
        assert_eq!(is_wrapped(&stored), wrapped, "{spec}: {}", &webhook.log()[before..]);
        let log = webhook.log()[before..].to_owned();
        assert!(if said.is_empty() { !log.contains("passed: ") } else { log.contains(said) }, "{spec}: {log}");
        if !wrapped {
            assert_eq!(stored["spec"], spec, "not a byte of it changes");
        }
    }
    let saving = json!({"tekton-wrap.dev/failed": "save"});
    assert!(
        is_wrapped(&namespace.accepts(&run(saving, by_name("reporting"))).await),
        "it sees what a failed task wrote"
    );
    let decided = namespace.accepts(&run(json!({}), by_name("decided"))).await;
    assert!(decided["spec"].to_string().contains("quay.io/pipeline/"), "{decided}");
}

/// Nobody asked for the runs of such a namespace to be wrapped.
#[tokio::test]
async fn without_the_webhook_runs_are_stored_as_they_are() {
    let (namespace, webhook) = labelled().await;
    let spec = json!({"pipelineSpec": spec(&[])});
    assert!(is_wrapped(&namespace.accepts(&run(json!({}), spec.clone())).await));
    drop(webhook);
    assert_eq!(namespace.accepts(&run(json!({}), spec.clone())).await["spec"], spec);
    namespace.create(&run(json!({"tekton-wrap.dev/wrap": "auto"}), spec)).await.expect_err("this one asked for it");
}

#[tokio::test]
async fn the_component_is_what_an_apiserver_stores() {
    let cluster = Cluster::shared().await;
    let mut configuration = support::webhook::registration();
    configuration["metadata"]["name"] = json!("dry-run-namespace-mode");
    configuration["webhooks"].as_array_mut().unwrap().push(namespace_registration());
    let params = kube::api::PostParams { dry_run: true, ..Default::default() };
    let client = cluster.admin().await;
    let created = support::manifests::create(&client, None, &configuration, &params).await.expect("accepted");
    assert_eq!(created.data["webhooks"], configuration["webhooks"]);
}

/// What was wrapped may be created again, and a webhook that comes later may change it, as long as every task sees the files that
/// it should.
#[tokio::test]
async fn a_wrapped_run_that_was_changed_is_refused() {
    let (namespace, _webhook) = labelled().await;
    let stored =
        namespace.accepts(&run(json!({"tekton-wrap.dev/wrap": "auto"}), json!({"pipelineSpec": spec(&["c"])}))).await;
    assert!(is_wrapped(&stored));
    let again = |change: Change<'_>| {
        let mut run = stored.clone();
        run["metadata"] = json!({"generateName": "again-", "labels": stored["metadata"]["labels"]});
        change(&mut run["spec"]["pipelineSpec"]);
        run
    };
    let same = namespace.accepts(&again(&|_| {})).await;
    assert_eq!(same["spec"], stored["spec"]);
    let unrelated = json!({"name": "lint", "taskSpec": {"steps": [{"name": "s", "image": "i"}]}});
    namespace.accepts(&again(&|spec| spec["tasks"].as_array_mut().unwrap().push(unrelated.clone()))).await;
    let step = json!({"name": "late", "image": "i"});
    let cases: [(Change<'_>, &str); 3] = [
        (
            &|spec: &mut Value| {
                let mut task = json!({"name": "d", "runAfter": ["b"]});
                task["workspaces"] = json!([{"name": "w"}]);
                task["taskSpec"] = json!({"steps": [step.clone()]});
                spec["tasks"].as_array_mut().unwrap().push(task);
            },
            "task \"d\" of a run that is wrapped already does not restore what the tasks before it save: ",
        ),
        (
            &|spec: &mut Value| spec["tasks"][1]["runAfter"] = json!([]),
            "task \"b\" of a run that is wrapped already does not restore what the tasks before it save: ",
        ),
        (
            &|spec: &mut Value| spec["tasks"][0]["taskSpec"]["steps"].as_array_mut().unwrap().push(step.clone()),
            "task \"a\" of a run that is wrapped already has a step before the injected restore step or after the injected save step: ",
        ),
    ];
    for (change, problem) in cases {
        let sentence = namespace.rejects(&again(change)).await;
        assert!(sentence.starts_with(problem), "{sentence}");
    }
}

/// `kubectl apply --server-side` of a run that does not exist yet is its creation.
#[tokio::test]
async fn server_side_apply_wraps() {
    let (namespace, _webhook) = labelled().await;
    let mut run = run(json!({"tekton-wrap.dev/wrap": "auto"}), json!({"pipelineSpec": spec(&[])}));
    run["metadata"].as_object_mut().unwrap().remove("generateName");
    run["metadata"]["name"] = json!("applied");
    let params = PatchParams::apply("gitops");
    let applied = namespace.api(&run).patch("applied", &params, &Patch::Apply(&run)).await.expect("it is created");
    let applied = serde_json::to_value(applied).unwrap();
    assert!(is_wrapped(&applied));
}
