//! Random pipelines against a plain model of a run: whatever is skipped or fails, each task restores exactly the snapshots
//! of all its ancestors that succeeded, and every snapshot that it insists on is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tekton_wrap::{
    render::Objects,
    resolve::wrap_run,
    step::{ENV, StepConfig, WorkspaceStep},
    wrap::Settings,
};

/// A task of a random pipeline; tasks refer only to earlier ones.
#[derive(Clone, Debug)]
struct Task {
    after: BTreeSet<usize>,
    /// Whose results it uses.
    results: BTreeSet<usize>,
    uses: bool,
    read_only: bool,
    /// Has a `when`; and whether it holds in this run.
    when: Option<bool>,
    /// Has `onError: continue`; and whether it fails in this run.
    may_fail: Option<bool>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Succeeded,
    Failed,
    SkippedByWhen,
    SkippedOtherwise,
}

fn tasks(count: usize) -> impl Strategy<Value = Vec<Task>> {
    let earlier = |index: usize| prop::collection::btree_set(0..index.max(1), 0..3);
    let task = move |index: usize| {
        let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.2));
        let ends = (prop::option::weighted(0.3, any::<bool>()), prop::option::weighted(0.2, any::<bool>()));
        (earlier(index), earlier(index), flags, ends).prop_map(
            move |(after, results, (uses, read_only), (when, may_fail))| {
                let known = |set: BTreeSet<usize>| set.into_iter().filter(|&on| on < index).collect();
                // Results in a third of the tasks only, so that not all graphs fall to pieces.
                let results = if index.is_multiple_of(3) { known(results) } else { BTreeSet::new() };
                Task { after: known(after), results, uses, read_only, when, may_fail }
            },
        )
    };
    (0..count).map(task).collect::<Vec<_>>()
}

fn spec(tasks: &[Task], finally: usize) -> Value {
    let one = |task: &Task, index: usize| {
        let workspaces = if task.uses { json!([{"name": "w"}]) } else { json!([]) };
        let params: Vec<Value> = task
            .results
            .iter()
            .map(|on| json!({"name": format!("p{on}"), "value": format!("$(tasks.t{on}.results.r)")}))
            .collect();
        let mut value = json!({
            "name": format!("t{index}"), "params": params, "workspaces": workspaces,
            "taskSpec": {
                "workspaces": if task.uses { json!([{"name": "w", "readOnly": task.read_only}]) } else { json!([]) },
                "steps": [{"name": "s", "image": "i", "script": "true"}],
            },
        });
        if index < tasks.len() - finally {
            value["runAfter"] = task.after.iter().map(|on| json!(format!("t{on}"))).collect();
        }
        if task.when.is_some() {
            value["when"] = json!([{"input": "a", "operator": "in", "values": ["b"]}]);
        }
        if task.may_fail.is_some() {
            value["onError"] = json!("continue");
        }
        value
    };
    let all: Vec<Value> = tasks.iter().enumerate().map(|(index, task)| one(task, index)).collect();
    let (dag, last) = all.split_at(tasks.len() - finally);
    json!({"workspaces": [{"name": "w"}], "tasks": dag, "finally": last})
}

/// The wrapped tasks' restore and save configurations.
fn wrapped(spec: &Value) -> Vec<[Option<StepConfig>; 2]> {
    let mut objects = Objects::default();
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "r"}, "spec": {
        "pipelineRef": {"resolver": "wrap", "params": [
            {"name": "pipelineref", "value": "p"}, {"name": "workspaces", "value": "w"}, {"name": "target", "value": "quay.io/a/b"},
        ]},
    }});
    let pipeline = json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": spec});
    objects.add(&json!({"kind": "List", "items": [run, pipeline]}).to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let settings = Settings { image: "i".to_owned() };
    let wrap = |run: &Value| runtime.block_on(wrap_run(&objects, run, "ns", &settings)).unwrap();
    let result = wrap(&run).expect("a run for the resolver wrap").run;
    assert!(wrap(&result).is_none(), "a wrapped run is wrapped again");
    let spec = &result["spec"]["pipelineSpec"];
    let config = |task: &Value, verb: &str| {
        let steps = task["taskSpec"]["steps"].as_array().unwrap();
        let step = steps.iter().find(|step| step["name"] == format!("tekton-wrap-{verb}"))?;
        let env = step["env"].as_array().unwrap().iter().find(|env| env["name"] == ENV).unwrap();
        Some(serde_json::from_str(env["value"].as_str().unwrap()).unwrap())
    };
    let lists = ["tasks", "finally"].map(|list| spec[list].as_array().unwrap());
    lists.into_iter().flatten().map(|task| [config(task, "restore"), config(task, "save")]).collect()
}

/// What becomes of each task (Tekton: docs/pipelines.md, "Guard Task execution").
fn play(tasks: &[Task], dag: usize) -> Vec<End> {
    let mut ends: Vec<End> = Vec::new();
    for (index, task) in tasks.iter().enumerate() {
        let no_result = task.results.iter().any(|&on| ends[on] != End::Succeeded);
        let parents = task.after.union(&task.results);
        let taken_along = index < dag && parents.clone().any(|&on| ends[on] == End::SkippedOtherwise);
        ends.push(match (no_result || taken_along, task.when, task.may_fail) {
            (true, ..) => End::SkippedOtherwise,
            (_, Some(false), _) => End::SkippedByWhen,
            (.., Some(true)) => End::Failed,
            _ => End::Succeeded,
        });
    }
    ends
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_task_restores_what_its_ancestors_left(mut tasks in (2usize..14).prop_flat_map(tasks), finally in 0usize..3) {
        let finally = finally.min(tasks.len() - 1);
        let dag = tasks.len() - finally;
        for (index, task) in tasks.iter_mut().enumerate() {
            task.results.retain(|&on| on < dag);
            if index >= dag {
                task.after = (0..dag).collect();
            }
        }
        let mut ancestors: Vec<BTreeSet<usize>> = Vec::new();
        for task in &tasks {
            let direct: BTreeSet<usize> = task.after.union(&task.results).copied().collect();
            let further = direct.iter().flat_map(|&on| ancestors[on].clone());
            ancestors.push(direct.iter().copied().chain(further).collect());
        }
        let steps = wrapped(&spec(&tasks, finally));
        let ends = play(&tasks, dag);
        let saves = |index: usize| tasks[index].uses && !tasks[index].read_only;
        let order_of: BTreeMap<u32, usize> = steps.iter().enumerate()
            .filter_map(|(index, [_, save])| Some((save.as_ref()?.order, index))).collect();

        // The ancestors that each snapshot names, as the save step would write them.
        let mut named: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for (index, [restore, save]) in steps.iter().enumerate() {
            prop_assert_eq!(save.is_some(), saves(index));
            if !tasks[index].uses || matches!(ends[index], End::SkippedByWhen | End::SkippedOtherwise) {
                continue;
            }
            let empty = Vec::new();
            let after = restore.as_ref().map_or(&empty, |step: &StepConfig| &step.workspaces[0].after);
            let mut found: BTreeSet<usize> = BTreeSet::new();
            for predecessor in after {
                let on = order_of[&predecessor.order];
                match named.get(&on) {
                    Some(theirs) => found.extend(theirs.iter().copied().chain([on])),
                    None => prop_assert!(predecessor.optional, "t{index} insists on t{on}"),
                }
            }
            let expected: BTreeSet<usize> = ancestors[index].iter().copied()
                .filter(|&on| saves(on) && ends[on] == End::Succeeded).collect();
            prop_assert_eq!(&found, &expected, "t{} restores", index);
            if saves(index) && ends[index] == End::Succeeded {
                named.insert(index, found);
            }
        }

        // Parallel are those that no path connects.
        for (index, [_, save]) in steps.iter().enumerate() {
            let Some(WorkspaceStep { parallel, .. }) = save.as_ref().map(|step| &step.workspaces[0]) else { continue };
            for (&order, &other) in &order_of {
                let related = index == other || ancestors[index].contains(&other) || ancestors[other].contains(&index);
                prop_assert_eq!(StepConfig::in_ranges(parallel, order), !related, "t{} and t{}", index, other);
            }
        }

        // A conflict is left to a later task only if that one runs and has to succeed, whatever is skipped.
        let guarded = tasks.iter().any(|task| task.when.is_some() || task.may_fail.is_some());
        for (index, [_, save]) in steps.iter().enumerate() {
            let Some(WorkspaceStep { joined, .. }) = save.as_ref().map(|step| &step.workspaces[0]) else { continue };
            for (&order, &other) in &order_of {
                let meets = |later: &usize| {
                    let both = [index, other].iter().all(|task| ancestors[*later].contains(task));
                    tasks[*later].uses && both && index != other
                };
                let parallel = !ancestors[index].contains(&other) && !ancestors[other].contains(&index);
                let all_met = || (0..tasks.len()).any(|later| meets(&later)) && parallel;
                let found_out = (0..tasks.len()).filter(meets).any(|later| {
                    tasks[later].may_fail.is_none() && ends[later] == End::Succeeded
                });
                let left_to_later = StepConfig::in_ranges(joined, order);
                let both_left = [index, other].iter().all(|task| ends[*task] == End::Succeeded);
                prop_assert!(!left_to_later || !both_left || found_out, "t{index} and t{other}");
                prop_assert!(guarded || left_to_later == all_met(), "t{index} and t{other}");
            }
        }
    }
}
