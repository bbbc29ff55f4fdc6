//! PipelineRuns are created through the apiserver, with the webhook registered as `webhook-config/` registers it.

use std::{fs, path::PathBuf};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tekton_wrap::{render::FileObjects, resolve::wrap_run, wrap::Settings, yaml};

use support::{
    cluster::{Cluster, Namespace},
    webhook::{IMAGE, Webhook},
};

/// A pipeline of two tasks, the second one a reference.
const OBJECTS: &str = r#"
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  params: [{name: greeting, type: string, default: hello}]
  workspaces: [{name: w}]
  tasks:
  - name: one
    workspaces: [{name: w}]
    taskSpec:
      workspaces: [{name: w}]
      steps: [{name: s, image: i, script: "echo $(params.greeting) > $(workspaces.w.path)/file"}]
  - name: two
    runAfter: [one]
    workspaces: [{name: w}]
    taskRef: {name: t}
---
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: t}
spec:
  workspaces: [{name: w}]
  steps: [{name: s, image: i, script: "cat $(workspaces.w.path)/file"}]
"#;

/// A run of it.
fn run() -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"generateName": "r-"},
        "spec": {"pipelineRef": {"resolver": "wrap", "params": [
            {"name": "pipelineref", "value": "p"},
            {"name": "workspaces", "value": "w"},
            {"name": "target", "value": "quay.io/me/build-$(context.pipelineRun.name):latest"},
        ]}},
    })
}

/// A namespace that holds [`OBJECTS`], and these as they are stored. The webhook is in force.
async fn namespace() -> (Namespace, FileObjects) {
    Webhook::shared().await;
    namespace_with(OBJECTS).await
}

async fn namespace_with(text: &str) -> (Namespace, FileObjects) {
    let namespace = Cluster::shared().await.namespace().await;
    let mut stored = FileObjects::default();
    for mut object in yaml::parse(text).unwrap() {
        if object["kind"] != "PipelineRun" {
            name_steps(&mut object);
            stored.add(&namespace.accepts(&object).await.to_string()).unwrap();
        }
    }
    (namespace, stored)
}

/// Gives unnamed steps an empty name, and workspaces of steps without a mountPath an empty one, as Tekton's own webhook does
/// before the schema, which requires them, is looked at.
fn name_steps(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for step in fields.get_mut("steps").and_then(Value::as_array_mut).into_iter().flatten() {
                step.as_object_mut().unwrap().entry("name").or_insert(json!(""));
                for used in step.get_mut("workspaces").and_then(Value::as_array_mut).into_iter().flatten() {
                    let used = used.as_object_mut().unwrap();
                    // Tekton's webhook reads any case and writes this one.
                    let path = used.shift_remove("mountpath").unwrap_or(json!(""));
                    used.entry("mountPath").or_insert(path);
                }
            }
            fields.values_mut().for_each(name_steps);
        }
        Value::Array(items) => items.iter_mut().for_each(name_steps),
        _ => {}
    }
}

/// What `render` makes of `run` with `objects`.
async fn render(objects: &FileObjects, run: &Value, namespace: &Namespace) -> Value {
    let settings = Settings::new(IMAGE);
    let rewrite = wrap_run(objects, run, &*namespace.name, &settings).await.unwrap();
    rewrite.expect("a run for the resolver wrap").run
}

/// The webhook adds to the names of its volumes what nobody can guess; `render` has no review to make it of.
fn with_plain_names(spec: &Value) -> Value {
    let names = regex::Regex::new("(tekton-wrap-[a-z]+)-[0-9a-f]{16}").unwrap();
    serde_json::from_str(&names.replace_all(&spec.to_string(), "$1")).unwrap()
}

#[tokio::test]
async fn stored_as_render_says() {
    Webhook::shared().await;
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let is_input = |file: &str| file.ends_with(".yaml") && !file.ends_with(".out.yaml");
    let inputs: Vec<_> = files.filter(|file| is_input(file.to_str().unwrap())).collect();
    assert!(inputs.len() >= 8, "golden files are missing");
    for file in inputs {
        let text = fs::read_to_string(&file).unwrap();
        if text.contains("tekton.dev/v1beta1") {
            // To store these takes Tekton's own conversion webhook.
            continue;
        }
        let (namespace, objects) = namespace_with(&text).await;
        let run = yaml::parse(&text).unwrap().into_iter().find(|object| object["kind"] == "PipelineRun").unwrap();
        let stored = namespace.accepts(&run).await;
        let rendered = render(&objects, &run, &namespace).await;
        assert_eq!(with_plain_names(&stored["spec"]), rendered["spec"], "{}", file.display());
        for field in ["labels", "annotations"] {
            assert_eq!(stored["metadata"][field], rendered["metadata"][field], "{}", file.display());
        }
    }
}

/// Runs that ask by the annotation, with a default of their namespace, whatever their pipeline is; and all kinds of runs that
/// don't ask, which the webhook never sees.
#[tokio::test]
async fn annotated_runs() {
    let (namespace, mut objects) = namespace().await;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tekton-wrap"},
        "data": {"target": "quay.io/me/ci:$(context.pipelineRun.name)-$(workspace)", "unknown": "x"}});
    objects.add(&namespace.accepts(&map).await.to_string()).unwrap();
    let annotated = |spec: Value| {
        json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "spec": spec,
            "metadata": {"generateName": "r-", "annotations": {"tekton-wrap.dev/wrap": "auto"}}})
    };
    let pipeline = objects.all().find(|object| object["kind"] == "Pipeline").unwrap()["spec"].clone();
    for spec in [json!({"pipelineRef": {"name": "p"}}), json!({"pipelineSpec": pipeline})] {
        let run = annotated(spec);
        let stored = namespace.accepts(&run).await;
        assert_eq!(stored["spec"], render(&objects, &run, &namespace).await["spec"]);
        assert!(stored["spec"].to_string().contains("quay.io/me/ci:"), "{stored}");
        assert_eq!(stored["metadata"]["labels"]["tekton-wrap.dev/wrapped"], "true");
        // What was stored can be created again, as reruns do.
        let mut again = run.clone();
        again["spec"] = stored["spec"].clone();
        assert_eq!(namespace.accepts(&again).await["spec"], stored["spec"]);
    }
    for (annotations, spec) in [
        (json!({}), json!({"pipelineRef": {"name": "p"}})),
        (json!({"tekton-wrap.dev/target": "quay.io/x"}), json!({"pipelineRef": {"name": "p"}})),
        (json!({"other": "x"}), json!({"pipelineRef": {"resolver": "git", "params": [{"name": "url", "value": "u"}]}})),
        (Value::Null, json!({"pipelineRef": {"resolver": "wrapper"}})),
        (Value::Null, json!({"pipelineSpec": pipeline})),
    ] {
        let mut run = annotated(spec.clone());
        run["metadata"]["annotations"] = annotations;
        assert_eq!(namespace.accepts(&run).await["spec"], spec);
    }
    let mut misspelled = annotated(json!({"pipelineRef": {"name": "p"}}));
    misspelled["metadata"]["annotations"]["tekton-wrap.dev/tagret"] = json!("x");
    assert!(namespace.rejects(&misspelled).await.contains("did you mean \"target\"?"));
}

#[tokio::test]
async fn generate_name_and_dry_run() {
    let (namespace, objects) = namespace().await;
    let dry = namespace.dry_run(&run()).await.expect("it is wrapped");
    assert!(namespace.names(&run()).await.is_empty(), "a dry run stores nothing");

    let stored = namespace.accepts(&run()).await;
    let name = stored["metadata"]["name"].as_str().unwrap();
    assert!(name.starts_with("r-") && name.len() > 2, "{name}");
    assert_eq!(stored["spec"], dry["spec"]);
    assert_eq!(stored["spec"], render(&objects, &run(), &namespace).await["spec"]);
    // The name does not exist yet when the webhook is asked.
    assert!(stored["spec"].to_string().contains("0024(context.pipelineRun.name):latest"));
    assert!(!stored["spec"].to_string().contains(name));
}

/// A v1beta1 run reaches the webhook as v1 (matchPolicy Equivalent).
#[tokio::test]
async fn v1beta1() {
    let (namespace, objects) = namespace().await;
    let mut old = run();
    old["apiVersion"] = json!("tekton.dev/v1beta1");
    let stored = namespace.accepts(&old).await;
    assert_eq!(stored["spec"], render(&objects, &run(), &namespace).await["spec"]);
}

#[tokio::test]
async fn other_runs_are_stored_as_they_were_sent() {
    let (namespace, _) = namespace().await;
    for spec in others() {
        let stored = namespace.accepts(&run_with(spec.clone())).await;
        assert_eq!(stored["spec"], spec);
        assert!(stored["metadata"].get("annotations").is_none(), "{stored:#}");
    }
}

/// Specs that are not for the webhook.
fn others() -> Vec<Value> {
    let task = json!({"name": "a", "taskSpec": {"steps": [{"name": "s", "image": "i"}]}});
    vec![
        json!({"pipelineRef": {"name": "p"}}),
        json!({"pipelineRef": {"resolver": "git", "params": [{"name": "url", "value": "wrap"}]}}),
        json!({"pipelineRef": {"resolver": "wrapper"}}),
        json!({"pipelineSpec": {"tasks": [task]}}),
    ]
}

fn run_with(spec: Value) -> Value {
    let mut run = run();
    run["spec"] = spec;
    run
}

#[tokio::test]
async fn updates_are_left_alone() {
    let (namespace, _) = namespace().await;
    let stored = namespace.accepts(&run_with(json!({"pipelineRef": {"resolver": "git"}}))).await;
    let name = stored["metadata"]["name"].as_str().unwrap();
    let change = json!({"spec": {"pipelineRef": {"resolver": "wrap"}}, "metadata": {"labels": {"changed": "true"}}});
    let params = PatchParams::default();
    let updated = namespace.api(&run()).patch(name, &params, &Patch::Merge(change)).await.expect("it is updated");
    assert_eq!(updated.data["spec"], json!({"pipelineRef": {"resolver": "wrap"}}));
}

#[tokio::test]
async fn without_the_webhook_only_wrapped_runs_are_refused() {
    let cluster = Cluster::shared().await;
    let (namespace, _) = namespace_with(OBJECTS).await;
    let webhook = Webhook::start(cluster).await;
    webhook.register(&namespace, true).await;
    namespace.accepts(&run()).await;
    drop(webhook);

    for resolver in ["wrap", "wrap.oci"] {
        let mut run = run();
        run["spec"]["pipelineRef"]["resolver"] = json!(resolver);
        let error = namespace.create(&run).await.expect_err("nobody answers").to_string();
        assert!(error.contains(r#"failed calling webhook "wrap.tekton-wrap.dev""#), "{error}");
    }
    for spec in others() {
        namespace.accepts(&run_with(spec)).await;
    }
    assert_eq!(namespace.names(&run()).await.len(), 1 + others().len());
}

/// One sentence that names what is wrong, and nothing stored ([`Namespace::rejects`] looks).
#[tokio::test]
async fn refusals() {
    let (namespace, _) = namespace().await;
    let broken = "
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: broken}
spec:
  workspaces: [{name: w}]
  tasks:
  - {name: one, workspaces: [{name: w}], taskRef: {name: no-such-task}}
";
    namespace.accepts(&yaml::parse(broken).unwrap()[0]).await;
    let place = &namespace.name;
    let value = |index: usize, value: &str| {
        let mut run = run();
        run["spec"]["pipelineRef"]["params"][index]["value"] = json!(value);
        run
    };
    let mut missing = run();
    missing["spec"]["pipelineRef"]["params"].as_array_mut().unwrap().pop();
    for (run, sentence) in [
        (
            missing,
            r#"param "target" of resolver wrap is missing: name where the workspaces go, for example quay.io/me/ci:$(context.pipelineRun.name)-{{workspace}}"#.to_owned(),
        ),
        (
            value(0, "no-such-pipeline"),
            format!(
                r#"pipeline "no-such-pipeline" was not found in namespace "{place}": create it first, or correct param "pipelineref""#
            ),
        ),
        (
            value(0, "broken"),
            format!(
                r#"task "no-such-task", which pipeline "broken" refers to, was not found in namespace "{place}": create it first"#
            ),
        ),
        (
            value(1, "w,no-such-workspace"),
            r#"param "target" of resolver wrap: "quay.io/me/build-$(context.pipelineRun.name):latest" must contain {{workspace}}, since more than one workspace is wrapped"#.to_owned(),
        ),
        (
            value(1, "no-such-workspace"),
            r#"workspace "no-such-workspace", which the run asks to wrap, is not declared by pipeline "p", which declares "w""#.to_owned(),
        ),
        (
            value(2, "quay.io/Me/build"),
            r#"param "target" of resolver wrap: "quay.io/Me/build" is not an image reference: the repository "Me/build" may hold only lower-case letters and digits, separated by '.', '_', '-' or '/'"#.to_owned(),
        ),
    ] {
        assert_eq!(namespace.rejects(&run).await, sentence);
    }
}
