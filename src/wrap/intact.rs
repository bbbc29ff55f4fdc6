//! Whether a run that was wrapped before is still what it was: it is created again by a rerun, or shown a second time because
//! another webhook changed it (Kubernetes: `reinvocationPolicy`).
//!
//! What matters is what a task sees: each one has to restore what exactly those ancestors saved that also come before it in
//! the graph as it is now, first of all, and to save last. How the steps are configured beside that is for the version that
//! injected them.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use std::collections::{BTreeSet, HashMap};

use fixedbitset::FixedBitSet;
use serde::Deserialize;
use serde_json::Value;

use super::refusal::Refusal;
use crate::{
    limits::{Exceeded, MAX_TASKS, MAX_USES},
    step::{ENV, EarlierRun, StepConfig, stored::is_injected},
    tekton::{
        fields::{field, items, text},
        graph::Graph,
        run::Run,
        tasks::all_tasks,
        workspaces::{Use, is_read_only, uses},
    },
};

/// What the injected steps of one task do, by the names of workspaces.
#[derive(Default)]
struct TaskSteps<'a> {
    /// For each workspace that is restored, the tasks that its snapshot comes from.
    restored: HashMap<String, BTreeSet<String>>,
    saved: BTreeSet<String>,
    /// Whether a step of the task itself stands before the restore or behind the save.
    displaced: bool,
    /// Whether tasks of earlier runs stand before it: it is one of a rerun.
    goes_on: bool,
    /// The task's name when they were injected.
    task: Option<String>,
    uses: Vec<Use>,
    spec: Option<&'a Value>,
}

/// What is read of a [`crate::step::StepConfig`], of whatever version.
#[derive(Deserialize)]
struct AnyStepConfig {
    task: String,
    #[serde(default)]
    earlier: Vec<EarlierRun>,
    workspaces: Vec<ConfigWorkspace>,
}

#[derive(Deserialize)]
struct ConfigWorkspace {
    name: String,
    #[serde(default)]
    after: Vec<ConfigPredecessor>,
}

#[derive(Deserialize)]
struct ConfigPredecessor {
    task: String,
    order: u32,
}

/// Refuses `run`, whose embedded pipeline is wrapped, if a task would not see what it should.
pub fn check(run: Run<'_>) -> Result<(), Refusal> {
    let Some(spec) = run.pipeline_spec() else { return Ok(()) };
    let tasks: Vec<&Value> = all_tasks(spec).collect();
    let what = || "the pipeline".to_owned();
    Exceeded::check(tasks.len(), MAX_TASKS, "tasks", what)?;
    // Tekton refuses what is no graph.
    let Ok(graph) = Graph::new(spec) else { return Ok(()) };
    // Steps of a later version may have a configuration that this one can't read.
    let Some(injected) = tasks.iter().map(|task| TaskSteps::read(task)).collect::<Option<Vec<_>>>() else {
        return Ok(());
    };
    Exceeded::check(injected.iter().map(|task| task.uses.len()).sum(), MAX_USES, "uses of workspaces", what)?;
    for (own, name) in injected.iter().zip(&graph.names) {
        if own.task.as_ref().is_some_and(|injected_into| injected_into != name) {
            return Err(changed(name, "has the injected steps of another task"));
        }
        if own.displaced {
            return Err(changed(name, "has a step before the injected restore step or after the injected save step"));
        }
    }
    let wrapped: BTreeSet<&String> =
        injected.iter().flat_map(|task| task.saved.iter().chain(task.restored.keys())).collect();
    wrapped.into_iter().try_for_each(|workspace| check_workspace(workspace, &graph, &injected))
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
        for name in injected[task].restored.get(workspace).into_iter().flatten() {
            let before = by_name.get(name.as_str()).copied().filter(|&before| graph.ancestors[task].contains(before));
            let before = before.ok_or_else(wrong)?;
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

impl<'a> TaskSteps<'a> {
    /// Those of `pipeline_task`; none if their configuration can't be read.
    fn read(pipeline_task: &'a Value) -> Option<Self> {
        let spec = field(pipeline_task, "taskSpec");
        let mut injected = Self { uses: uses(pipeline_task), spec, ..Self::default() };
        let steps = spec.map_or(&[][..], |spec| items(spec, "steps"));
        for (index, step) in steps.iter().enumerate().filter(|(_, step)| is_injected(step)) {
            let env = items(step, "env").iter().find(|variable| text(variable, "name") == ENV)?;
            let config: AnyStepConfig = serde_json::from_str(text(env, "value")).ok()?;
            let is_restore = items(step, "args").first()?.as_str()? == "restore";
            injected.displaced |= if is_restore { index != 0 } else { index != steps.len().saturating_sub(1) };
            injected.task = Some(config.task);
            injected.goes_on |= !config.earlier.is_empty();
            let is_earlier = |order| config.earlier.iter().any(|earlier| StepConfig::in_ranges(&earlier.tasks, order));
            for workspace in config.workspaces {
                if is_restore {
                    let here = workspace.after.into_iter().filter(|before| !is_earlier(before.order));
                    let tasks = here.map(|before| before.task).collect();
                    injected.restored.insert(workspace.name, tasks);
                } else {
                    injected.saved.insert(workspace.name);
                }
            }
        }
        Some(injected)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::step::{PROGRAM, stored::is_wrapped};

    /// How a list of tasks is changed.
    type Change<'a> = &'a dyn Fn(&mut Vec<Value>);

    fn injected(verb: &str, task: &str, after: &[&str]) -> Value {
        let after: Vec<Value> = after.iter().map(|task| json!({"task": task, "order": 0})).collect();
        let config = json!({"task": task, "workspaces": [{"name": "w", "after": after}], "of a later version": 1});
        json!({"name": verb, "command": [PROGRAM], "args": [verb], "env": [{"name": ENV, "value": config.to_string()}]})
    }

    fn task(name: &str, run_after: &[&str], steps: Vec<Value>) -> Value {
        json!({"name": name, "runAfter": run_after, "workspaces": [{"name": "w"}],
            "taskSpec": {"workspaces": [{"name": "w"}], "steps": steps}})
    }

    /// A chain of three, the last one a finally task.
    fn wrapped() -> Value {
        let own = || json!({"name": "s", "image": "i"});
        json!({"spec": {"pipelineSpec": {
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
        let config = json!({"task": "b", "earlier": [{"run": "u", "tasks": [[0, 0]]}],
            "workspaces": [{"name": "w", "after": [{"task": "a", "order": 0}]}]});
        step["env"][0]["value"] = json!(config.to_string());
        check(Run::new(&run)).unwrap();
        // A task that was added to it sees what it should, or is refused.
        let more = task("d", &["b"], vec![json!({"name": "s", "image": "i"})]);
        run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap().push(more);
        assert!(check(Run::new(&run)).is_err());
    }

    #[test]
    fn what_was_changed_is_refused() {
        let own = || json!({"name": "s", "image": "i"});
        let tasks = |run: &mut Value, change: Change<'_>| {
            change(run["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap());
        };
        let cases: [(Change<'_>, &str, &str); 6] = [
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
