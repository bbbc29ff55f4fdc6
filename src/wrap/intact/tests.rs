use serde_json::json;

use super::*;
use crate::step::{ENV, PROGRAM, stored::is_wrapped};

/// How a list of tasks is changed.
type Change<'a> = &'a dyn Fn(&mut Vec<Value>);

/// The tasks are called a, b, … in their order.
fn order(task: &str) -> u8 {
    task.as_bytes()[0] - b'a'
}

fn config(task: &str, after: &[&str]) -> Value {
    let after: Vec<Value> = after.iter().map(|task| json!({"task": task, "order": order(task)})).collect();
    let workspace = json!({"name": "w", "path": "/x/w", "target": "t", "after": after});
    json!({"run": "$(context.pipelineRun.uid)", "task": task, "order": order(task), "workspaces": [workspace],
        "of a later version": 1})
}

fn injected(verb: &str, task: &str, after: &[&str]) -> Value {
    let config = config(task, after).to_string().replace('$', "\\u0024");
    json!({"name": verb, "command": [PROGRAM], "args": [verb],
        "volumeMounts": [{"name": "$(workspaces.w.volume)", "mountPath": "/x/w"}],
        "env": [{"name": ENV, "value": config}, {"name": "TEKTON_WRAP_RUN_UID", "value": "$(context.pipelineRun.uid)"}]})
}

fn task(name: &str, run_after: &[&str], steps: Vec<Value>) -> Value {
    json!({"name": name, "runAfter": run_after, "workspaces": [{"name": "w"}],
        "taskSpec": {"workspaces": [{"name": "w"}], "steps": steps}})
}

/// A chain of three, the last one a finally task.
fn wrapped() -> Value {
    let own = || json!({"name": "s", "image": "i"});
    json!({"spec": {"workspaces": [{"name": "w", "emptyDir": {}}], "pipelineSpec": {
        "tasks": [
            task("a", &[], vec![own(), injected("save", "a", &[])]),
            task("b", &["a"], vec![injected("restore", "b", &["a"]), own(), injected("save", "b", &[])]),
        ],
        "finally": [task("c", &[], vec![injected("restore", "c", &["b"]), own(), injected("save", "c", &[])])],
    }}})
}

#[test]
fn what_was_wrapped_is_intact() {
    let run = wrapped();
    assert!(is_wrapped(&run["spec"]["pipelineSpec"]));
    check(Run::new(&run)).unwrap();
    // A task that has nothing to do with the workspace may be added, and one that only reads it need not save.
    let mut run = wrapped();
    let tasks = run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap();
    tasks.push(json!({"name": "lint", "taskSpec": {"steps": [{"name": "s", "image": "i"}]}}));
    let mut reader = task("reader", &["a"], vec![injected("restore", "reader", &["a"])]);
    reader["taskSpec"]["workspaces"][0]["readOnly"] = json!(true);
    tasks.push(reader);
    check(Run::new(&run)).unwrap();
}

/// The first task is left out of it.
#[test]
fn a_rerun_is_intact() {
    let mut run = wrapped();
    run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap().remove(0);
    run["spec"]["pipelineSpec"]["tasks"][0]["runAfter"] = json!([]);
    let refusal = check(Run::new(&run)).unwrap_err().to_string();
    assert!(refusal.contains("does not restore what the tasks before it save"), "{refusal}");
    let step = &mut run["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["steps"][0];
    let mut config = config("b", &["a"]);
    config["earlier"] = json!([{"run": "u", "tasks": [[0, 0]]}]);
    step["env"][0]["value"] = json!(config.to_string());
    check(Run::new(&run)).unwrap();
    // A task that was added to it sees what it should, or is refused.
    let more = task("d", &["b"], vec![json!({"name": "s", "image": "i"})]);
    run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap().push(more);
    assert!(check(Run::new(&run)).is_err());
}

/// Changes what step `step` of the task is told.
fn tell(task: &mut Value, step: usize, change: &dyn Fn(&mut Value)) {
    let told = &mut task["taskSpec"]["steps"][step]["env"][0]["value"];
    let mut config = serde_json::from_str(told.as_str().unwrap()).unwrap();
    change(&mut config);
    *told = json!(config.to_string());
}

#[test]
fn what_is_bound_to_something_else_is_refused() {
    for binding in [json!([]), json!([{"name": "w", "persistentVolumeClaim": {"claimName": "c"}}])] {
        let mut run = wrapped();
        run["spec"]["workspaces"] = binding;
        let refusal = check(Run::new(&run)).unwrap_err().to_string();
        assert!(refusal.contains("has a workspace that is no emptyDir any more"), "{refusal}");
    }
}

#[test]
fn what_was_changed_is_refused() {
    let own = || json!({"name": "s", "image": "i"});
    let tasks = |run: &mut Value, change: Change<'_>| {
        change(run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap());
    };
    let cases: [(Change<'_>, &str, &str); 31] = [
        (&|tasks| tasks.push(task("d", &["b"], vec![own()])), "d", "does not restore what the tasks before it save"),
        (
            &|tasks| {
                let _ = tasks[0]["taskSpec"]["steps"].as_array_mut().unwrap().pop();
            },
            "a",
            "does not save what it changes",
        ),
        (&|tasks| tasks[1]["runAfter"] = json!([]), "b", "does not restore what the tasks before it save"),
        (
            &|tasks| tasks[0]["taskSpec"]["steps"].as_array_mut().unwrap().push(own()),
            "a",
            "has a step before the injected restore step or after the injected save step",
        ),
        (
            &|tasks| tasks[1]["taskSpec"]["steps"].as_array_mut().unwrap().insert(0, own()),
            "b",
            "has a step before the injected restore step or after the injected save step",
        ),
        (&|tasks| tasks[1]["name"] = json!("z"), "z", "has the injected steps of another task"),
        (&|tasks| tasks[0]["taskSpec"]["steps"][1]["env"] = json!([]), "a", "has an injected step that can't be read"),
        (
            &|tasks| {
                let env = tasks[1]["taskSpec"]["steps"][0]["env"].as_array_mut().unwrap();
                env.push(json!({"name": ENV, "value": "{}"}));
            },
            "b",
            "has an injected step that can't be read",
        ),
        (
            &|tasks| tasks.push(task("d", &[], vec![json!({"name": "s", "image": "i", "command": [PROGRAM]})])),
            "d",
            "has an injected step with other arguments",
        ),
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["args"] = json!(["restore", "--help"]),
            "b",
            "has an injected step with other arguments",
        ),
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["onError"] = json!("continue"),
            "b",
            "has an injected step that may be skipped or whose failure is ignored",
        ),
        (
            &|tasks| tasks[0]["taskSpec"]["steps"][1]["when"] = json!([{"input": "a", "operator": "in", "values": []}]),
            "a",
            "has an injected step that may be skipped or whose failure is ignored",
        ),
        (
            &|tasks| tasks[0]["matrix"] = json!({"params": [{"name": "p", "value": ["1", "2"]}]}),
            "a",
            "has a matrix with more combinations than it had",
        ),
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["args"] = json!(["version"]),
            "b",
            "has an injected step with other arguments",
        ),
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["workspaces"][0]["after"] = json!([])),
            "b",
            "does not restore what the tasks before it save",
        ),
        // The order behind the only one that it has.
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["workspaces"][0]["after"][0]["order"] = json!(1)),
            "b",
            "does not restore what the tasks before it save",
        ),
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["workspaces"][0]["after"][0]["order"] = json!(7)),
            "b",
            "does not restore what the tasks before it save",
        ),
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["workspaces"][0]["target"] = json!("other")),
            "b",
            "has another target than the tasks before it",
        ),
        (
            &|tasks| tell(&mut tasks[1], 2, &|config| config["workspaces"][0]["target"] = json!("other")),
            "b",
            "has another target than the tasks before it",
        ),
        // `--help` ends well and restores nothing.
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["command"] = json!([PROGRAM, "--help"]),
            "b",
            "has an injected step with other arguments",
        ),
        // Snapshots of another run.
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["run"] = json!("0a1b")),
            "b",
            "has an injected step that is told of another run",
        ),
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["env"][1]["value"] = json!("0a1b"),
            "b",
            "has an injected step that is told of another run",
        ),
        (
            &|tasks| {
                let env = tasks[1]["taskSpec"]["steps"][0]["env"].as_array_mut().unwrap();
                env.push(json!({"name": "TEKTON_WRAP_RUN_UID", "value": "0a1b"}));
            },
            "b",
            "has an injected step that is told of another run",
        ),
        (
            &|tasks| {
                tasks[1]["taskSpec"]["steps"][0]["env"].as_array_mut().unwrap().truncate(1);
                tasks[1]["taskSpec"]["stepTemplate"] =
                    json!({"env": [{"name": "TEKTON_WRAP_RUN_UID", "value": "0a1b"}]});
            },
            "b",
            "has an injected step that is told of another run",
        ),
        // Another volume, or a part of it.
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["volumeMounts"][0]["name"] = json!("other"),
            "b",
            "has a workspace that is not mounted where its injected steps look for it",
        ),
        (
            &|tasks| tasks[1]["taskSpec"]["steps"][0]["volumeMounts"][0]["subPath"] = json!("x"),
            "b",
            "has a workspace that is not mounted where its injected steps look for it",
        ),
        // The base.
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["workspaces"][0]["base"] = json!("quay.io/me/x")),
            "b",
            "has another base than the tasks before it",
        ),
        (
            &|tasks| {
                for step in [0, 2] {
                    tell(&mut tasks[1], step, &|config| config["workspaces"][0]["base"] = json!("i"));
                }
            },
            "b",
            "has another base than the tasks before it",
        ),
        (
            &|tasks| tasks[0]["taskSpec"]["steps"][1]["volumeMounts"] = json!([]),
            "a",
            "has a workspace that is not mounted where its injected steps look for it",
        ),
        (
            &|tasks| tasks[0]["taskSpec"]["steps"][1]["args"] = json!([]),
            "a",
            "has an injected step with other arguments",
        ),
        (
            &|tasks| tell(&mut tasks[1], 0, &|config| config["workspaces"][0]["path"] = json!("/tmp")),
            "b",
            "has a workspace that is not mounted where its injected steps look for it",
        ),
    ];
    for (change, task, problem) in cases {
        let mut run = wrapped();
        tasks(&mut run, change);
        let refusal = check(Run::new(&run)).unwrap_err();
        let expected = format!("task {task:?} of a run that is wrapped already {problem}: ");
        assert!(refusal.to_string().starts_with(&expected), "{refusal}");
    }
}

/// With a base even the first task begins with a restore.
#[test]
fn a_base_is_restored_by_every_task() {
    let own = || json!({"name": "s", "image": "i"});
    let steps = vec![injected("restore", "a", &[]), own(), injected("save", "a", &[])];
    let mut run = json!({"spec": {"workspaces": [{"name": "w", "emptyDir": {}}],
        "pipelineSpec": {"tasks": [task("a", &[], steps)]}}});
    let tasks = |run: &mut Value, change: Change<'_>| {
        change(run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap());
    };
    for step in [0, 2] {
        tasks(&mut run, &|tasks| tell(&mut tasks[0], step, &|config| config["workspaces"][0]["base"] = json!("i")));
    }
    check(Run::new(&run)).unwrap();
    // Both of its steps are told the same, though no task comes before it.
    for field in ["target", "base"] {
        let mut run = run.clone();
        tasks(&mut run, &|tasks| tell(&mut tasks[0], 2, &|config| config["workspaces"][0][field] = json!("other")));
        let refusal = check(Run::new(&run)).unwrap_err().to_string();
        assert!(refusal.contains(&format!("has another {field} than the tasks before it")), "{refusal}");
    }
    let cases: [(Change<'_>, &str); 3] = [
        (&|tasks| drop(tasks[0]["taskSpec"]["steps"].as_array_mut().unwrap().remove(0)), "a"),
        // What does nothing in its place.
        (&|tasks| tasks[0]["taskSpec"]["steps"][0]["command"] = json!(["true"]), "a"),
        (&|tasks| tasks.push(task("b", &[], vec![own()])), "b"),
    ];
    for (change, name) in cases {
        let mut run = run.clone();
        tasks(&mut run, change);
        let refusal = check(Run::new(&run)).unwrap_err().to_string();
        let expected = format!("task {name:?} of a run that is wrapped already does not restore the base: ");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

/// What a pod template says goes before what a step says (Tekton: docs/podtemplates.md).
#[test]
fn no_pod_template_tells_them_something_else() {
    for variable in [ENV, "TEKTON_WRAP_RUN_UID", "OTHER"] {
        let template = json!({"env": [{"name": variable, "value": "x"}]});
        for (pointer, value) in [
            ("taskRunTemplate", json!({"podTemplate": template})),
            ("taskRunSpecs", json!([{"pipelineTaskName": "b", "podTemplate": template}])),
        ] {
            let mut run = wrapped();
            run["spec"][pointer] = value;
            assert_eq!(check(Run::new(&run)).is_err(), variable != "OTHER", "{pointer}: {variable}");
        }
    }
}
