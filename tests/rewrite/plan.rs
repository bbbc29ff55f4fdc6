//! Random pipelines against a plain model of a run: whatever is skipped or fails, each task restores exactly the snapshots
//! of all its ancestors that succeeded, and every snapshot that it insists on is there.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::{Value, json};
use tekton_wrap::{
    render::FileObjects,
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
    how: How,
    optional: bool,
    /// How many combinations its matrix has.
    matrix: Option<u32>,
    retries: bool,
    /// Has a `when`; and whether it holds in this run.
    when: Option<bool>,
    /// Has `onError: continue`; and whether it fails in this run.
    may_fail: Option<bool>,
}

/// How a task says that it uses the workspace.
#[derive(Clone, Copy, Debug, PartialEq)]
enum How {
    SameName,
    Omitted,
    Renamed,
    /// Only in a text.
    Propagated,
    /// In a Task that it refers to.
    Referenced,
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
        let how =
            prop::sample::select(vec![How::SameName, How::Omitted, How::Renamed, How::Propagated, How::Referenced]);
        let flags = (prop::bool::weighted(0.8), prop::bool::weighted(0.2), how, any::<bool>(), any::<bool>());
        let ends = (prop::option::weighted(0.3, any::<bool>()), prop::option::weighted(0.2, any::<bool>()));
        (earlier(index), earlier(index), flags, ends, prop::option::weighted(0.3, 1u32..4)).prop_map(
            move |(after, results, (uses, read_only, how, optional, retries), (when, may_fail), matrix)| {
                let known = |set: BTreeSet<usize>| set.into_iter().filter(|&on| on < index).collect();
                // Results in a third of the tasks only, so that not all graphs fall to pieces.
                let results = if index.is_multiple_of(3) { known(results) } else { BTreeSet::new() };
                // A workspace that is used in a text alone is not declared.
                let read_only = read_only && how != How::Propagated;
                // A task that goes on after a failure is not tried again.
                let retries = retries && may_fail.is_none();
                Task { after: known(after), results, uses, read_only, how, optional, matrix, retries, when, may_fail }
            },
        )
    };
    (0..count).map(task).collect::<Vec<_>>()
}

fn spec(tasks: &[Task], finally: usize) -> Value {
    let one = |task: &Task, index: usize| {
        let results = task.results.iter();
        let params = results.map(|on| json!({"name": format!("p{on}"), "value": format!("$(tasks.t{on}.results.r)")}));
        let mut value = json!({"name": format!("t{index}"), "params": params.collect::<Vec<_>>()});
        match (task.uses, task.how) {
            (false, _) | (true, How::Propagated) => {}
            (true, How::Omitted) => value["workspaces"] = json!([{"name": "w"}]),
            (true, How::SameName) => value["workspaces"] = json!([{"name": "w", "workspace": "w"}]),
            (true, _) => value["workspaces"] = json!([{"name": "inner", "workspace": "w"}]),
        }
        match task.how {
            How::Referenced => value["taskRef"] = json!({"name": format!("referenced{index}")}),
            _ => value["taskSpec"] = task_spec(task),
        }
        if let Some(count) = task.matrix {
            let values: Vec<String> = (0..count).map(|number| number.to_string()).collect();
            value["matrix"] = json!({"params": [{"name": "m", "value": values}]});
        }
        if task.retries {
            value["retries"] = json!(2);
        }
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

fn task_spec(task: &Task) -> Value {
    let name = if matches!(task.how, How::Renamed | How::Referenced) { "inner" } else { "w" };
    let script = if task.uses { format!("ls $(workspaces.{name}.path)") } else { "true".to_owned() };
    let mut spec =
        json!({"params": [{"name": "m", "default": ""}], "steps": [{"name": "s", "image": "i", "script": script}]});
    if task.uses && task.how != How::Propagated {
        spec["workspaces"] = json!([{"name": name, "readOnly": task.read_only, "optional": task.optional}]);
    }
    spec
}

/// The wrapped tasks' restore and save configurations.
fn wrapped(tasks: &[Task], spec: &Value) -> Vec<[Option<StepConfig>; 2]> {
    let mut objects = FileObjects::default();
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "r"}, "spec": {
        "pipelineRef": {"resolver": "wrap", "params": [
            {"name": "pipelineref", "value": "p"}, {"name": "workspaces", "value": "w"}, {"name": "target", "value": "quay.io/a/b"},
        ]},
    }});
    let pipeline = json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": spec});
    let referenced = tasks.iter().enumerate().map(|(index, task)| {
        json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": format!("referenced{index}")}, "spec": task_spec(task)})
    });
    let items: Vec<Value> = [run.clone(), pipeline].into_iter().chain(referenced).collect();
    objects.add(&json!({"kind": "List", "items": items}).to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let settings = Settings::new("i");
    let wrap = |run: &Value| runtime.block_on(wrap_run(&objects, run, "ns", &settings)).unwrap();
    let result = wrap(&run).expect("a run for the resolver wrap").run;
    assert!(wrap(&result).is_none(), "a wrapped run is wrapped again");
    let spec = &result["spec"]["pipelineSpec"];
    let config = |task: &Value, verb: &str| {
        let steps = task["taskSpec"]["steps"].as_array()?;
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
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

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
        let steps = wrapped(&tasks, &spec(&tasks, finally));
        let ends = play(&tasks, dag);
        let saves = |index: usize| tasks[index].uses && !tasks[index].read_only;
        let width = |index: usize| tasks[index].matrix.unwrap_or(1);
        // The places of each task's combinations, and the tasks by place.
        let places: Vec<Vec<u32>> = steps.iter().enumerate()
            .map(|(index, [_, save])| save.iter().flat_map(|save| save.order..save.order + width(index)).collect())
            .collect();
        let all: BTreeMap<u32, usize> = places.iter().enumerate()
            .flat_map(|(index, places)| places.iter().map(move |&place| (place, index))).collect();
        prop_assert_eq!(all.len(), places.iter().map(Vec::len).sum::<usize>(), "no place is taken twice");

        // The places that each snapshot names, as the save step would write them.
        let mut named: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (index, [restore, save]) in steps.iter().enumerate() {
            prop_assert_eq!(save.is_some(), saves(index));
            if let Some(save) = save {
                let numbered = save.matrix.as_ref().map(|matrix| (matrix.single.is_some(), matrix.most));
                prop_assert_eq!(numbered, Some((false, width(index))).filter(|(_, most)| *most > 1));
            }
            if !tasks[index].uses || matches!(ends[index], End::SkippedByWhen | End::SkippedOtherwise) {
                continue;
            }
            let empty = Vec::new();
            let after = restore.as_ref().map_or(&empty, |step: &StepConfig| &step.workspaces[0].after);
            let mut found: BTreeSet<u32> = BTreeSet::new();
            for predecessor in after {
                for place in predecessor.order..=predecessor.last.unwrap_or(predecessor.order) {
                    prop_assert_eq!(format!("t{}", all[&place]), predecessor.task.clone());
                    match named.get(&place) {
                        Some(theirs) => found.extend(theirs.iter().copied().chain([place])),
                        None => prop_assert!(predecessor.optional, "t{index} insists on {}", predecessor.task),
                    }
                }
            }
            let expected: BTreeSet<u32> = ancestors[index].iter()
                .flat_map(|&on| &places[on]).copied().filter(|place| named.contains_key(place)).collect();
            prop_assert_eq!(&found, &expected, "t{} restores", index);
            // Of a task that fails the first combination does.
            let left = places[index].iter().skip(usize::from(ends[index] == End::Failed));
            named.extend(left.map(|&place| (place, found.clone())));
        }

        // Parallel are those that no path connects, and the combinations of one matrix.
        for (index, [_, save]) in steps.iter().enumerate() {
            let Some(WorkspaceStep { parallel, .. }) = save.as_ref().map(|step| &step.workspaces[0]) else { continue };
            for (&place, &other) in &all {
                let related = match index == other {
                    true => width(index) == 1,
                    false => ancestors[index].contains(&other) || ancestors[other].contains(&index),
                };
                prop_assert_eq!(StepConfig::in_ranges(parallel, place), !related, "t{} and t{}", index, other);
            }
        }

        // A conflict is left to a later task only if that one runs and has to succeed, whatever is skipped.
        let guarded = tasks.iter().any(|task| task.when.is_some() || task.may_fail.is_some());
        for (index, [_, save]) in steps.iter().enumerate() {
            let Some(WorkspaceStep { joined, .. }) = save.as_ref().map(|step| &step.workspaces[0]) else { continue };
            for (&order, &other) in &all {
                let meets = |later: &usize| {
                    let both = [index, other].iter().all(|task| ancestors[*later].contains(task));
                    tasks[*later].uses && both && (index != other || width(index) > 1)
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
