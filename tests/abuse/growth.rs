//! Runs that say once what their wrapped form would have to say many times, or in which many names are to be looked for.

use serde_json::{Value, json};

/// So long is what is said once.
const LONG: usize = 800_000;

/// All of them, by what grows.
pub fn runs() -> Vec<(&'static str, Value)> {
    let none = || json!({});
    let long = || "x".repeat(LONG);
    let script = |text: &str, times: usize| json!([{"name": "s", "image": "i", "script": text.repeat(times)}]);
    let patterns = (0..80_000).map(|n| format!("**/{n}*")).collect::<Vec<_>>().join(",");
    let long_names: Vec<Value> = (0..26).map(|n| task(n, json!({"steps": steps(250, 60)}))).collect();
    let names = |from: usize| (from..from + 10_000).map(|n| format!("$(workspaces.w{n}.path)")).collect::<String>();
    let mounts = |step: usize| -> Vec<Value> {
        (0..250).map(|n| json!({"name": "v", "mountPath": format!("/workspace/w/{step}-{n}")})).collect()
    };
    let mounting: Vec<Value> =
        (0..40).map(|n| json!({"name": format!("s{n}"), "image": "i", "volumeMounts": mounts(n)})).collect();
    let two_names = json!({"workspaces": [{"name": "w"}, {"name": "b", "workspace": "w"}], "taskSpec": {
        "workspaces": [{"name": "w"}, {"name": "b", "mountPath": format!("/{}", "p".repeat(4000))}],
        "steps": script("$(workspaces.b.path)", 40_000)}});
    let parts = json!({"runAfter": ["t0"], "workspaces": [{"name": "w", "subPath": "d/".repeat(2000)}],
        "taskSpec": {"workspaces": [{"name": "w"}], "steps": mounting}});
    let behind = |spec: Value| {
        let mut second = task(1, spec);
        second["runAfter"] = json!(["t0"]);
        vec![task(0, json!({"steps": steps(1, 0)})), second]
    };
    let access = json!({"tekton-wrap.dev/insecure": "a".repeat(8000), "tekton-wrap.dev/region": "a".repeat(8000),
        "tekton-wrap.dev/conflict": format!("{}=last", "a".repeat(8000))});
    let template = |template: Value| json!({"stepTemplate": template, "steps": steps(250, 0)});
    vec![
        ("a long path at each variable", run(none(), vec![with(0, two_names)])),
        (
            "a security context in each step",
            run(
                none(),
                vec![task(
                    0,
                    template(json!({"securityContext": {"privileged": true, "seLinuxOptions": {"user": long()}}})),
                )],
            ),
        ),
        (
            "a variable in each step",
            run(
                json!({"tekton-wrap.dev/credentials": "c"}),
                vec![task(0, template(json!({"env": [{"name": "A", "value": long()}]})))],
            ),
        ),
        (
            "a working directory in each step",
            run(none(), behind(template(json!({"workingDir": format!("/workspace/w/{}", long())})))),
        ),
        ("a folder in front of each mount", {
            let mut tasks = behind(none());
            tasks[1] = with(1, parts);
            run(none(), tasks)
        }),
        (
            "params in each injected step",
            run(access, (0..900).map(|n| task(n, json!({"steps": steps(1, 0)}))).collect()),
        ),
        ("a name in each later script", {
            let all = [vec![json!({"name": long(), "image": "i", "script": "x"})], steps(250, 0)].concat();
            run(json!({"tekton-wrap.dev/failed": "save"}), vec![task(0, json!({"steps": all}))])
        }),
        ("names in all later scripts", run(json!({"tekton-wrap.dev/failed": "save"}), long_names)),
        (
            "80,000 patterns",
            run(
                none(),
                behind(json!({"metadata": {"annotations": {"tekton-wrap.dev/paths": patterns}}, "steps": steps(1, 0)})),
            ),
        ),
        (
            "30,000 workspaces in variables",
            run(
                none(),
                vec![task(0, json!({"steps": script(&(0..3).map(|n| names(n * 10_000)).collect::<String>(), 1)}))],
            ),
        ),
        (
            "10,000 workspaces that tasks share",
            run(
                json!({"tekton-wrap.dev/wrap": "auto"}),
                (0..3).map(|n| task(n, json!({"steps": script(&names(0), 1)}))).collect(),
            ),
        ),
    ]
}

fn run(annotations: Value, tasks: Vec<Value>) -> Value {
    let mut all = json!({"tekton-wrap.dev/wrap": "w", "tekton-wrap.dev/target": "quay.io/me/x-{{workspace}}"});
    for (name, value) in annotations.as_object().expect("an object") {
        all[name] = value.clone();
    }
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "r-", "annotations": all},
        "spec": {"pipelineSpec": {"workspaces": [{"name": "w"}], "tasks": tasks}}})
}

/// A task that uses the workspace, with these fields of its spec.
fn task(number: usize, spec: Value) -> Value {
    let mut all = json!({"workspaces": [{"name": "w"}]});
    for (name, value) in spec.as_object().expect("an object") {
        all[name] = value.clone();
    }
    with(number, json!({"workspaces": [{"name": "w"}], "taskSpec": all}))
}

fn with(number: usize, mut task: Value) -> Value {
    task["name"] = json!(format!("t{number}"));
    task
}

fn steps(count: usize, name: usize) -> Vec<Value> {
    (0..count).map(|n| json!({"name": format!("{}{n:03}", "a".repeat(name)), "image": "i", "script": "x"})).collect()
}
