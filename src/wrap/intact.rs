//! Whether a run that was wrapped before is still what it was: it is created again by a rerun, or shown a second time because
//! another webhook changed it (Kubernetes: `reinvocationPolicy`).
//!
//! What matters is what a task sees: each one has to restore what exactly those ancestors saved that also come before it in
//! the graph as it is now, first of all, and to save last, to where the others look for it. How the steps are configured beside
//! that is for the version that injected them. Whoever creates runs may as well create one that is not wrapped: this finds what
//! others changed without knowing what it means.
//!
//! | module | contents |
//! |---|---|
//! | [`steps`] | what the injected steps of a task say |

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

mod steps;

use std::collections::{BTreeSet, HashMap};

use fixedbitset::FixedBitSet;
use serde_json::Value;

use self::steps::TaskSteps;
use super::refusal::Refusal;
use crate::{
    limits::{Exceeded, MAX_TASKS, MAX_USES},
    tekton::{fields::field, graph::Graph, matrix::fans, run::Run, tasks::all_tasks, workspaces::is_read_only},
};

/// Refuses `run`, whose embedded pipeline is wrapped, if a task would not see what it should.
pub fn check(run: Run<'_>) -> Result<(), Refusal> {
    let Some(spec) = run.pipeline_spec() else { return Ok(()) };
    let tasks: Vec<&Value> = all_tasks(spec).collect();
    let what = || "the pipeline".to_owned();
    Exceeded::check(tasks.len(), MAX_TASKS, "tasks", what)?;
    // Tekton refuses what is no graph.
    let Ok(graph) = Graph::new(spec) else { return Ok(()) };
    let mut injected = Vec::with_capacity(tasks.len());
    for (task, name) in tasks.iter().zip(&graph.names) {
        injected.push(TaskSteps::read(task).map_err(|problem| changed(name, problem))?);
    }
    Exceeded::check(injected.iter().map(|task| task.uses.len()).sum(), MAX_USES, "uses of workspaces", what)?;
    for ((own, name), fan) in injected.iter().zip(&graph.names).zip(fans(run, spec)) {
        if own.task.as_ref().is_some_and(|injected_into| injected_into != name) {
            return Err(changed(name, "has the injected steps of another task"));
        }
        if own.displaced {
            return Err(changed(name, "has a step before the injected restore step or after the injected save step"));
        }
        if own.task.is_some() && fan.map_or(1, |fan| fan.most) > own.combinations {
            return Err(changed(name, "has a matrix with more combinations than it had"));
        }
    }
    let wrapped: BTreeSet<&String> =
        injected.iter().flat_map(|task| task.saved.iter().chain(task.restored.keys())).collect();
    for workspace in wrapped {
        check_places(run, workspace, &graph, &injected)?;
        check_workspace(workspace, &graph, &injected)?;
    }
    Ok(())
}

/// Checks that all tasks look for `workspace` in the same place, and find there what the steps bring.
fn check_places(run: Run<'_>, workspace: &str, graph: &Graph, injected: &[TaskSteps<'_>]) -> Result<(), Refusal> {
    let mut first = None;
    for (own, name) in injected.iter().zip(&graph.names) {
        let Some(place) = own.places.get(workspace) else { continue };
        if field(run.binding(workspace).unwrap_or(&Value::Null), "emptyDir").is_none() {
            return Err(changed(name, "has a workspace that is no emptyDir any more"));
        }
        if place.is_mounted_elsewhere {
            return Err(changed(name, "has a workspace that is not mounted where its injected steps look for it"));
        }
        if place.targets.len() > 1 || *first.get_or_insert(&place.targets) != &place.targets {
            return Err(changed(name, "has another target than the tasks before it"));
        }
    }
    Ok(())
}

/// Checks what each task restores and saves of `workspace`.
fn check_workspace(workspace: &str, graph: &Graph, injected: &[TaskSteps<'_>]) -> Result<(), Refusal> {
    let count = graph.names.len();
    let by_name: HashMap<&str, usize> =
        graph.names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    let use_of = |task: usize| injected[task].uses.iter().find(|used| used.pipeline == workspace);
    let users: Vec<usize> = (0..count).filter(|&task| use_of(task).is_some()).collect();
    let savers: FixedBitSet = (0..count).filter(|&task| injected[task].saved.contains(workspace)).collect();
    // The tasks whose changes are in what each one restores: those that it names, and those that their snapshots name.
    let mut restored = vec![FixedBitSet::with_capacity(count); count];
    let is_rerun = injected.iter().any(|task| task.goes_on);
    for task in graph.in_order() {
        let wrong = || changed(&graph.names[task], "does not restore what the tasks before it save");
        for (name, order) in injected[task].restored.get(workspace).into_iter().flatten() {
            let before = by_name.get(name.as_str()).copied().filter(|&before| graph.ancestors[task].contains(before));
            let before = before.filter(|&before| injected[before].has_order(*order)).ok_or_else(wrong)?;
            let known = restored[before].clone();
            restored[task].union_with(&known);
            restored[task].insert(before);
        }
        let Some(used) = use_of(task) else { continue };
        let mut expected = graph.ancestors[task].clone();
        expected.intersect_with(&savers);
        // In a rerun the snapshots of tasks that are left out name more than is known here.
        let agrees = if is_rerun && injected[task].task.is_some() {
            restored[task].is_subset(&expected)
        } else {
            restored[task].ones().eq(expected.ones())
        };
        if !agrees {
            return Err(wrong());
        }
        let changes_it = injected[task].spec.is_none_or(|spec| !is_read_only(spec, &used.task));
        // What no later task uses need not be saved.
        let is_used_later = users.iter().any(|&later| graph.ancestors[later].contains(task));
        if changes_it && is_used_later && !injected[task].saved.contains(workspace) {
            return Err(changed(&graph.names[task], "does not save what it changes"));
        }
    }
    Ok(())
}

fn changed(task: &str, problem: &'static str) -> Refusal {
    Refusal::ChangedAfterWrapping { task: task.to_owned(), problem }
}

#[cfg(test)]
mod tests {
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
        json!({"task": task, "order": order(task), "workspaces": [workspace], "of a later version": 1})
    }

    fn injected(verb: &str, task: &str, after: &[&str]) -> Value {
        json!({"name": verb, "command": [PROGRAM], "args": [verb], "volumeMounts": [{"name": "v", "mountPath": "/x/w"}],
            "env": [{"name": ENV, "value": config(task, after).to_string()}]})
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
        let cases: [(Change<'_>, &str, &str); 20] = [
            (
                &|tasks| tasks.push(task("d", &["b"], vec![own()])),
                "d",
                "does not restore what the tasks before it save",
            ),
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
            (
                &|tasks| tasks[0]["taskSpec"]["steps"][1]["env"] = json!([]),
                "a",
                "has an injected step that can't be read",
            ),
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
                &|tasks| {
                    tasks[0]["taskSpec"]["steps"][1]["when"] = json!([{"input": "a", "operator": "in", "values": []}])
                },
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
}
