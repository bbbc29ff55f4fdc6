//! Requests that were measured to take a replica down, each small.

#[path = "growth.rs"]
mod growth;

use serde_json::{Value, json};

/// A review by its name.
pub type Attack = (&'static str, String);

/// All reviews of the corpus.
pub fn attacks() -> Vec<Attack> {
    let many = |count: usize| -> Vec<Value> { (0..count).map(|n| json!({"name": format!("n{n}")})).collect() };
    let runs = [
        (
            "YAML aliases",
            run(&json!(format!("a: &a {}\nb: [{}]", "x".repeat(40_000), vec!["*a"; 5000].join(","))), "w"),
        ),
        (
            "nested anchors",
            run(&json!(format!("{}{}{}", "[&a ".repeat(190), "x".repeat(50_000), "]".repeat(190))), "w"),
        ),
        (
            "1.4 million array elements",
            with_params(run(&json!("small"), "w"), json!([{"name": "p", "value": vec![0; 1_400_000]}])),
        ),
        (
            "50,000 array elements",
            with_params(run(&json!("small"), "w"), json!([{"name": "p", "value": vec![0; 50_000]}])),
        ),
        (
            "20,000 workspaces",
            run(&json!("small"), &(0..20_000).map(|n| format!("w{n}")).collect::<Vec<_>>().join(",")),
        ),
        (
            "references in target",
            target(&"$(params.p)".repeat(12_000), json!([{"name": "p", "value": "x".repeat(1000)}])),
        ),
        ("references to many params", target(&"$(params.n7)".repeat(300), json!(many(4000)))),
        ("defaults of defaults", run(&json!("defaults"), "w")),
        ("4000 tasks and 4000 finally", run(&json!("wide"), "w")),
        ("500 tasks and 500 finally", run(&json!("half"), "w")),
        ("2000 params that are shadowed", with_params(run(&json!("shadowed"), "w"), json!(many(2000)))),
        ("40 Tasks of 1.2 MB", run(&json!("heavy"), "w")),
        ("60 Tasks of 30 KB, most of it values", run(&json!("values"), "w")),
        ("1000 taskRefs to one Task of 300 KB", run(&json!("repeated"), "w")),
        ("1500 taskRefs through resolvers", run(&json!("remote"), "w")),
        ("a million variables", run(&json!("variables"), "w")),
    ];
    runs.into_iter().chain(growth::runs()).map(|(name, run)| (name, review(&run))).collect()
}

/// The Pipelines and Tasks that the corpus names, as the Kubernetes API answers for them: kind and name.
pub fn object(kind: &str, name: &str) -> Option<Value> {
    let uses = || json!([{"name": "w"}]);
    let spec = |steps: Value| json!({"workspaces": uses(), "steps": steps});
    let embedded = |n: usize| {
        let step = json!([{"name": "s", "image": "i", "script": "make -C $(workspaces.w.path)\n"}]);
        json!({"name": format!("t{n}"), "workspaces": uses(), "taskSpec": spec(step)})
    };
    let refer =
        |n: usize, reference: Value| json!({"name": format!("t{n}"), "workspaces": uses(), "taskRef": reference});
    let pipeline = |tasks: Vec<Value>| json!({"workspaces": uses(), "tasks": tasks});
    let tasks = |count: usize| (0..count).map(embedded).collect::<Vec<_>>();
    let plain = |count: usize, letter: &str| -> Vec<Value> {
        (0..count).map(|n| json!({"name": format!("{letter}{n}")})).collect()
    };
    let spec = match (kind, name) {
        ("pipelines", "small") => pipeline(tasks(10)),
        ("pipelines", "wide") => json!({"workspaces": uses(), "tasks": plain(4000, "t"), "finally": plain(4000, "f")}),
        ("pipelines", "half") => {
            let finally: Vec<Value> = (0..400).map(|n| json!({"name": format!("f{n}"), "workspaces": uses(), "taskSpec": spec(json!([{"image": "i"}]))})).collect();
            let tasks: Vec<Value> = (0..400).map(|n| json!({"name": format!("t{n}"), "workspaces": uses(), "taskSpec": spec(json!([{"image": "i"}]))})).collect();
            json!({"workspaces": uses(), "tasks": tasks, "finally": finally})
        }
        ("pipelines", "shadowed") => pipeline(vec![refer(0, json!({"name": "shadowed"}))]),
        ("pipelines", "heavy") => pipeline((0..40).map(|n| refer(n, json!({"name": format!("heavy-{n}")}))).collect()),
        ("pipelines", "values") => {
            pipeline((0..60).map(|n| refer(n, json!({"name": format!("values-{n}")}))).collect())
        }
        ("pipelines", "repeated") => pipeline((0..1000).map(|n| refer(n, json!({"name": "heavy-small"}))).collect()),
        ("pipelines", "remote") => {
            let reference =
                |n: usize| json!({"resolver": "git", "params": [{"name": "url", "value": format!("u{n}")}]});
            pipeline((0..1500).map(|n| refer(n, reference(n))).collect())
        }
        ("pipelines", "variables") => {
            let step = json!([{"name": "s", "image": "i", "script": "$(params.a) ".repeat(80_000)}]);
            pipeline(vec![json!({"name": "t", "workspaces": uses(), "taskSpec": spec(step)})])
        }
        ("pipelines", "defaults") => {
            let default =
                |n: usize| json!({"name": format!("p{n}"), "default": format!("$(params.p{})", n + 1).repeat(1000)});
            let params: Vec<Value> =
                (0..12).map(default).chain([json!({"name": "p12", "default": "x".repeat(1000)})]).collect();
            json!({"workspaces": uses(), "params": params, "tasks": [refer(0, json!({"name": "$(params.p0)"}))]})
        }
        ("tasks", "shadowed") => {
            let params: Vec<Value> = (0..2000).map(|n| json!({"name": format!("n{n}")})).collect();
            let script = (0..2000).map(|n| format!("$(params.n{n})")).collect::<String>();
            json!({"workspaces": uses(), "params": params, "steps": [{"name": "s", "image": "i", "script": script}]})
        }
        ("tasks", "heavy-small") => spec(json!([{"name": "s", "image": "i", "script": "x".repeat(300_000)}])),
        ("tasks", values) if values.starts_with("values-") => {
            spec(json!([{"name": "s", "image": "i", "args": vec![0; 15_000]}]))
        }
        ("tasks", heavy) if heavy.starts_with("heavy-") => {
            spec(json!([{"name": "s", "image": "i", "script": "x".repeat(1_200_000)}]))
        }
        _ => return None,
    };
    let kind = if kind == "tasks" { "Task" } else { "Pipeline" };
    Some(
        json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": {"name": name, "namespace": "team"}, "spec": spec}),
    )
}

/// An honest review: a Pipeline of ten tasks.
pub fn honest() -> String {
    review(&run(&json!("small"), "w"))
}

fn run(pipeline: &Value, workspaces: &str) -> Value {
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"generateName": "r-"},
        "spec": {"pipelineRef": {"resolver": "wrap", "params": [
            {"name": "pipelineref", "value": pipeline},
            {"name": "workspaces", "value": workspaces},
            {"name": "target", "value": "quay.io/me/{{workspace}}"},
        ]}},
    })
}

fn with_params(mut run: Value, params: Value) -> Value {
    run["spec"]["params"] = params;
    run
}

fn target(target: &str, params: Value) -> Value {
    let mut run = with_params(run(&json!("small"), "w"), params);
    run["spec"]["pipelineRef"]["params"][2]["value"] = json!(target);
    run
}

fn review(run: &Value) -> String {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "u",
            "resource": {"group": "tekton.dev", "version": "v1", "resource": "pipelineruns"},
            "namespace": "team",
            "operation": "CREATE",
            "object": run,
        },
    })
    .to_string()
}
