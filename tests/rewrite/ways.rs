//! The ways in which a run asks to be wrapped give the same wrapped Pipeline; where values come from; what `auto` takes.

use serde_json::{Value, json};
use tekton_wrap::{
    render::FileObjects,
    resolve::wrap_run,
    source::{Creation, OptInBy},
    wrap::{Refusal, Rewrite, Settings},
};

const OBJECTS: &str = r#"
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  params: [{name: tag, default: v1}]
  workspaces: [{name: src}, {name: cache}, {name: notes, optional: true}]
  tasks:
  - name: one
    params: [{name: tag, value: $(params.tag)}]
    workspaces: [{name: src}, {name: cache}]
    taskSpec:
      params: [{name: tag}]
      workspaces: [{name: src}, {name: cache}]
      steps: [{name: s, image: i, script: echo $(params.tag)}]
  - {name: two, runAfter: [one], taskRef: {name: t}, workspaces: [{name: src}]}
  - {name: three, runAfter: [one], taskRef: {name: t}, workspaces: [{name: src, workspace: cache}]}
---
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: t}
spec: {workspaces: [{name: src}], steps: [{name: s, image: i, script: ls $(workspaces.src.path)}]}
"#;

const TARGET: &str = "quay.io/me/ci:$(context.pipelineRun.name)-{{workspace}}";

fn run(annotations: &[(&str, &str)], spec: Value) -> Value {
    let name = |name: &str| format!("tekton-wrap.dev/{name}");
    let annotations: serde_json::Map<String, Value> =
        annotations.iter().map(|(key, value)| (name(key), json!(value))).collect();
    let metadata = json!({"generateName": "r-", "annotations": annotations});
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": metadata, "spec": spec})
}

fn resolver() -> Value {
    run(
        &[],
        json!({"pipelineRef": {"resolver": "wrap", "params": [
            {"name": "pipelineref", "value": "p"}, {"name": "workspaces", "value": "src,cache"}, {"name": "target", "value": TARGET},
        ]}}),
    )
}

fn embedded() -> Value {
    tekton_wrap::yaml::parse(OBJECTS).unwrap()[0]["spec"].clone()
}

fn map(name: &str, namespace: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": namespace}, "data": data})
}

fn wrap(run: &Value, others: &[Value]) -> Result<Option<Rewrite>, Refusal> {
    let mut objects = FileObjects::default();
    objects.add(OBJECTS).unwrap();
    wrap_as(OptInBy::Run, objects, run, others)
}

fn wrap_as(
    opt_in_by: OptInBy,
    mut objects: FileObjects,
    run: &Value,
    others: &[Value],
) -> Result<Option<Rewrite>, Refusal> {
    objects.add(&json!({"kind": "List", "items": others}).to_string()).unwrap();
    let (settings, creation) = (Settings::new("i"), Creation { opt_in_by, ..Creation::from("ns") });
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(wrap_run(&objects, run, creation, &settings))
}

/// Creates `run` in a namespace that has all runs wrapped; its Pipeline has these annotations of ours.
fn in_namespace(run: &Value, annotations: &[(&str, &str)]) -> Result<Option<Rewrite>, Refusal> {
    let mut documents = tekton_wrap::yaml::parse(OBJECTS).unwrap();
    let annotations = annotations.iter().map(|(key, value)| (format!("tekton-wrap.dev/{key}"), json!(value)));
    documents[0]["metadata"]["annotations"] = Value::Object(annotations.collect());
    let defaults = map("tekton-wrap", "ns", json!({"target": TARGET}));
    let mut objects = FileObjects::default();
    documents.iter().for_each(|document| objects.add(&document.to_string()).unwrap());
    wrap_as(OptInBy::Namespace, objects, run, &[defaults])
}

fn wrapped(run: &Value, others: &[Value]) -> Value {
    wrap(run, others).unwrap().expect("a run that asks to be wrapped").run
}

#[test]
fn one_pipeline_each_way() {
    let expected = wrapped(&resolver(), &[])["spec"].take();
    let by_name = json!({"pipelineRef": {"name": "p"}});
    let asks = [("wrap", "src,cache"), ("target", TARGET)];
    assert_eq!(wrapped(&run(&asks, by_name.clone()), &[])["spec"], expected);
    assert_eq!(wrapped(&run(&asks, json!({"pipelineSpec": embedded()})), &[])["spec"], expected);
    let behind_a_resolver = json!({"resolver": "hub", "params": [{"name": "name", "value": "p"}]});
    assert_eq!(wrapped(&run(&asks, json!({"pipelineRef": behind_a_resolver})), &[])["spec"], expected);
    let auto = [("wrap", "auto"), ("target", TARGET)];
    assert_eq!(wrapped(&run(&auto, by_name.clone()), &[])["spec"], expected);
    let braceless = TARGET.replace("{{workspace}}", "$(workspace)");
    assert_eq!(wrapped(&run(&[("wrap", "auto"), ("target", &braceless)], by_name.clone()), &[])["spec"], expected);
    let defaults = [map("tekton-wrap-defaults", "tekton-wrap", json!({"target": TARGET}))];
    assert_eq!(wrapped(&run(&[("wrap", "auto")], by_name), &defaults)["spec"], expected);
}

/// All runs of the namespace are wrapped that do not say otherwise, and whose Pipeline does not.
#[test]
fn a_namespace_that_asks_for_its_runs() {
    let by_name = || json!({"pipelineRef": {"name": "p"}});
    let plain = run(&[], by_name());
    let expected = wrapped(&resolver(), &[])["spec"].take();
    let spec = |run: &Value, annotations: &[(&str, &str)]| {
        in_namespace(run, annotations).unwrap().map(|rewrite| rewrite.run["spec"].clone())
    };
    assert_eq!(spec(&plain, &[]), Some(expected.clone()));
    assert_eq!(spec(&run(&[], json!({"pipelineSpec": embedded()})), &[]), Some(expected.clone()));
    // Nobody asked for what was on a volume to mean something else: after a failure a finally task would see other files.
    let mut last = embedded();
    last["finally"] = json!([{"name": "end", "taskRef": {"name": "t"}, "workspaces": [{"name": "src"}]}]);
    let last = |annotations: &[(&str, &str)]| run(annotations, json!({"pipelineSpec": last}));
    assert_eq!(in_namespace(&last(&[]), &[]).unwrap_err().reason(), "AfterFailure");
    assert!(spec(&last(&[("failed", "save")]), &[]).is_some());
    assert!(spec(&last(&[("wrap", "src")]), &[]).is_some());
    // The run says no, or the Pipeline does.
    assert_eq!(spec(&run(&[("wrap", "none")], by_name()), &[]), None);
    assert_eq!(spec(&plain, &[("wrap", "none")]), None);
    assert_eq!(spec(&run(&[("wrap", "auto")], by_name()), &[("wrap", "none")]), Some(expected.clone()));
    // What the Pipeline says counts for it.
    assert_eq!(spec(&plain, &[("wrap", "src,cache")]), Some(expected));
    let annotated = in_namespace(&plain, &[("wrap", "src"), ("expires", "soon")]).unwrap_err().to_string();
    assert!(annotated.starts_with(r#"annotation "tekton-wrap.dev/expires" of the Pipeline: "soon" is"#), "{annotated}");
    let blank = in_namespace(&plain, &[("wrap", " , ")]).unwrap_err().to_string();
    assert!(blank.starts_with(r#"annotation "tekton-wrap.dev/wrap" of the Pipeline is missing"#), "{blank}");
    // What Tekton refuses is left to it, but not where the run asks itself.
    let both = json!({"pipelineRef": {"name": "p"}, "pipelineSpec": embedded()});
    assert_eq!(spec(&run(&[], both.clone()), &[]), None);
    assert_eq!(spec(&run(&[], json!({})), &[]), None);
    for wrapped in
        [wrap(&run(&[("wrap", "src")], both.clone()), &[]), in_namespace(&run(&[("wrap", "src")], both), &[])]
    {
        assert_eq!(wrapped.unwrap_err().reason(), "BothRefAndSpec");
    }
}

/// Without a label of its namespace a run that says `none` or nothing is left alone.
#[test]
fn a_run_that_does_not_ask() {
    for annotations in [&[][..], &[("wrap", "none")], &[("target", TARGET)]] {
        assert!(wrap(&run(annotations, json!({"pipelineRef": {"name": "p"}})), &[]).unwrap().is_none());
    }
}

/// Defaults are for all Pipelines: what names a task or a workspace of one counts only where there is such.
#[test]
fn defaults_of_other_pipelines() {
    let ask = |data: Value, run: &Value| wrap(run, &[map("tekton-wrap", "ns", data)]);
    let asking = run(&[("wrap", "src,cache"), ("target", TARGET)], json!({"pipelineRef": {"name": "p"}}));
    let plain = wrapped(&asking, &[]);
    for default in [
        json!({"cache": "{path: src/a, key: k, task: of-another-one}"}),
        json!({"cache": "{path: cache, key: k, task: two}"}),
        json!({"paths": "one=src/**"}),
        json!({"workspaces": "notes", "pipelineref": "other", "unknown": "x"}),
    ] {
        assert_eq!(ask(default.clone(), &asking).unwrap().unwrap().run, plain, "{default}");
    }
    let mut nothing = resolver();
    nothing["spec"]["pipelineRef"]["params"].as_array_mut().unwrap().remove(1);
    let refusal = ask(json!({"workspaces": "src"}), &nothing).unwrap_err().to_string();
    assert!(refusal.starts_with(r#"param "workspaces" of resolver wrap is missing"#), "{refusal}");
}

#[test]
fn a_wrapped_run_says_so_and_is_not_wrapped_again() {
    for ask in [resolver(), run(&[("wrap", "auto"), ("target", TARGET)], json!({"pipelineSpec": embedded()}))] {
        let first = wrapped(&ask, &[]);
        assert_eq!(first["metadata"]["labels"]["tekton-wrap.dev/wrapped"], "true");
        assert!(wrap(&first, &[]).unwrap().is_none());
    }
    let embedded = wrapped(&run(&[("wrap", "auto"), ("target", TARGET)], json!({"pipelineSpec": embedded()})), &[]);
    assert_eq!(embedded["metadata"]["labels"].get("tekton.dev/pipeline"), None);
}

/// Tekton gives an embedded pipeline the name of its run, which the API server may have yet to generate.
#[test]
fn the_name_of_an_embedded_pipeline_is_that_of_its_run() {
    let mut spec = embedded();
    spec["tasks"][0]["taskRef"] =
        json!({"resolver": "hub", "params": [{"name": "name", "value": "t-$(context.pipeline.name)"}]});
    spec["tasks"][0].as_object_mut().unwrap().remove("taskSpec");
    let mut ask = run(&[("wrap", "src"), ("target", TARGET)], json!({"pipelineSpec": spec}));
    ask["metadata"]["generateName"] = json!("r-");
    ask["metadata"].as_object_mut().unwrap().remove("name");
    let error = wrap(&ask, &[]).unwrap_err().to_string();
    assert!(
        error.contains("its taskRef needs $(context.pipeline.name), which has no value when the run is created"),
        "{error}"
    );
    ask["metadata"]["name"] = json!("r");
    let task = json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": "t-r"},
        "spec": {"workspaces": [{"name": "src"}], "steps": [{"name": "s", "image": "i"}]}});
    assert!(wrap(&ask, &[task]).unwrap().is_some());
}

#[test]
fn claim_templates_become_empty_dirs_of_their_size() {
    let template = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let bindings = json!([
        {"name": "src", "volumeClaimTemplate": template("5Gi")}, {"name": "cache", "emptyDir": {"medium": "Memory"}},
    ]);
    let spec = json!({"pipelineRef": {"name": "p"}, "workspaces": bindings});
    let asks = [("wrap", "auto"), ("target", TARGET), ("size", "cache=1Gi")];
    let spec = wrapped(&run(&asks, spec), &[])["spec"].take();
    assert_eq!(
        spec["workspaces"],
        json!([
            {"name": "src", "emptyDir": {"sizeLimit": "5Gi"}},
            {"name": "cache", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}},
        ])
    );
    let step = |task: usize, step: usize| &spec["pipelineSpec"]["tasks"][task]["taskSpec"]["steps"][step];
    assert_eq!(step(1, 0)["computeResources"]["requests"], json!({"ephemeral-storage": "5Gi"}));
    // A workspace in memory takes no disk.
    assert_eq!(step(2, 0)["computeResources"]["requests"].get("ephemeral-storage"), None);
}

#[test]
fn what_is_kept_and_how_long() {
    let defaults = [map("tekton-wrap", "ns", json!({"target": "quay.io/ns:{{workspace}}", "expires": "1d"}))];
    for (annotations, expected) in [
        (vec![], r#""expires":"1d","workspaces""#),
        (vec![("keep", "target"), ("target-expires", "4w")], r#""expires":"1d","targetExpires":"4w","workspaces""#),
        // What is kept does not expire, whatever the defaults say.
        (vec![("keep", "all"), ("target-expires", "4w")], r#""targetExpires":"4w","keep":"all","workspaces""#),
    ] {
        let annotations: Vec<_> = [("wrap", "src")].into_iter().chain(annotations).collect();
        let run = wrapped(&run(&annotations, json!({"pipelineRef": {"name": "p"}})), &defaults);
        let steps = &run["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["steps"];
        let step = serde_json::to_string(&steps[1]["env"]).unwrap();
        let config = step.replace('\\', "");
        assert!(config.contains(expected), "{expected} is not in {config}");
        assert_eq!(config.contains("expires\":\"1d"), expected.contains("\"expires"), "{config}");
    }
}

#[test]
fn the_nearest_value_counts() {
    let maps = [
        map("tekton-wrap", "ns", json!({"target": "quay.io/ns:{{workspace}}", "expires": "1d", "unknown": "x"})),
        map("tekton-wrap", "other", json!({"expires": "9d"})),
        map(
            "tekton-wrap-defaults",
            "tekton-wrap",
            json!({"expires": "2d", "compression": "gzip", "credentials": "push"}),
        ),
    ];
    let by_name = json!({"pipelineRef": {"name": "p"}});
    let run = wrapped(&run(&[("wrap", "src"), ("conflict", "last")], by_name), &maps);
    let save = &run["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["steps"][1];
    let env =
        |name: &str| save["env"].as_array().unwrap().iter().find(|env| env["name"] == name).map(|env| &env["value"]);
    let config = env("TEKTON_WRAP_STEP").unwrap().as_str().unwrap();
    for part in [r#""target":"quay.io/ns:src""#, r#""expires":"1d""#, r#""compression":"gzip""#, r#""conflict":"last""#]
    {
        assert!(config.contains(part), "{part} is not in {config}");
    }
    assert_eq!(env("TEKTON_WRAP_REGISTRY_SECRET"), Some(&json!("/tekton-wrap/credentials")));
    let task = &run["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"];
    let secret = json!({"name": "tekton-wrap-credentials", "secret": {"secretName": "push", "optional": true}});
    assert!(task["volumes"].as_array().unwrap().contains(&secret), "{}", task["volumes"]);
    let mounts = |step: &Value| step["volumeMounts"].to_string().contains("tekton-wrap-credentials");
    assert!(mounts(save) && !mounts(&task["steps"][0]), "{task}");
}

#[test]
fn refused_where_the_values_came_from() {
    let by_name = || json!({"pipelineRef": {"name": "p"}});
    let mut both = resolver();
    both["metadata"]["annotations"] = json!({"tekton-wrap.dev/wrap": "src"});
    let mut contradiction = resolver();
    contradiction["metadata"]["annotations"] = json!({"tekton-wrap.dev/target": "quay.io/other"});
    let claim = json!([{"name": "src", "persistentVolumeClaim": {"claimName": "c"}}]);
    let bound = json!({"pipelineRef": {"name": "p"}, "workspaces": claim});
    let bad_default = map("tekton-wrap", "ns", json!({"target": "quay.io/{{ .Values.repo }}/x"}));
    for (run, others, sentence) in [
        (
            both,
            vec![],
            r#"annotation "tekton-wrap.dev/wrap" stands beside the pipelineRef with resolver wrap: keep one of them"#,
        ),
        (
            contradiction,
            vec![],
            r#"param "target" of resolver wrap and annotation "tekton-wrap.dev/target" have different values: keep one of them"#,
        ),
        (
            run(&[("wrap", "src")], by_name()),
            vec![],
            r#"annotation "tekton-wrap.dev/target" is missing: name where the workspaces go, for example quay.io/me/ci:$(context.pipelineRun.name)-{{workspace}}"#,
        ),
        (
            run(&[("wrap", "src"), ("tagret", "x")], by_name()),
            vec![],
            r#"annotation "tekton-wrap.dev/tagret" is not known: did you mean "target"?"#,
        ),
        (
            run(&[("wrap", " , "), ("target", "quay.io/x")], by_name()),
            vec![],
            r#"annotation "tekton-wrap.dev/wrap" is missing: name the pipeline's workspaces to wrap, separated by commas"#,
        ),
        (
            run(&[("wrap", "src"), ("target", "quay.io/x"), ("pipelineref", "p")], by_name()),
            vec![],
            r#"annotation "tekton-wrap.dev/pipelineref" is not known: it has "target", "base", "wrapper", "conflict", "failed", "expires", "target-expires", "keep", "compression", "size", "paths", "cache", "credentials", "mirror", "insecure", "ca", "retry-for", "endpoint", "region", "wrap""#,
        ),
        (
            run(&[("wrap", "src")], by_name()),
            vec![bad_default],
            r#""target" of ConfigMap "tekton-wrap" in namespace "ns": it has "{{ .Values.repo }}" in it: a template that its tool has not rendered"#,
        ),
        (
            run(&[("wrap", "src"), ("target", "quay.io/x:{{ workspace }}")], by_name()),
            vec![],
            r#"annotation "tekton-wrap.dev/target": write {{workspace}} without spaces, or $(workspace)"#,
        ),
        (
            run(&[("wrap", "src"), ("target", "quay.io/x")], bound),
            vec![],
            r#"workspace "src" is wrapped, but the run binds it to persistentVolumeClaim: remove the binding (or bind emptyDir), or leave "src" out of those to wrap"#,
        ),
        (
            run(
                &[("wrap", "auto"), ("target", "quay.io/x")],
                json!({"pipelineSpec": {"tasks": [{"name": "a", "taskRef": {"name": "t"}}]}}),
            ),
            vec![],
            r#"annotation "tekton-wrap.dev/wrap" is "auto", but the pipeline has no workspace that several tasks share and that is bound to a volumeClaimTemplate, to emptyDir or to nothing: name the workspaces"#,
        ),
        (
            run(&[("wrap", "src"), ("target", "quay.io/x"), ("size", "big")], by_name()),
            vec![],
            r#"annotation "tekton-wrap.dev/size": "big" is not a size such as 500Mi or 5Gi"#,
        ),
    ] {
        assert_eq!(wrap(&run, &others).unwrap_err().to_string(), sentence);
    }
}
