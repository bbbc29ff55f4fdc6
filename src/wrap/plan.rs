//! What each task restores and saves.

use serde_json::Value;

use super::Request;
use crate::{
    step::{Predecessor, WORKSPACE_DIR, WorkspaceStep},
    tekton::{
        fields::{field, items, text},
        graph::Graph,
        workspaces::{Use, is_read_only},
    },
};

/// What every task of the Pipeline does, by its index in the graph.
pub struct Plan {
    /// One for each task.
    pub tasks: Vec<TaskPlan>,
}

/// What one task does.
#[derive(Default)]
pub struct TaskPlan {
    /// The task's place in pipeline order.
    pub order: u32,
    /// The workspaces that a step in front restores.
    pub restore: Vec<WorkspaceStep>,
    /// The workspaces that a step at the end saves.
    pub save: Vec<WorkspaceStep>,
}

impl Plan {
    /// `spec` has the tasks inlined that use wrapped workspaces; `used` says which.
    pub fn new(request: &Request, spec: &Value, graph: &Graph, used: &[Vec<Use>]) -> Self {
        let tasks: Vec<&Value> = super::all_tasks(spec).collect();
        let absent = Absence::new(&tasks, graph);
        let mut plan: Vec<TaskPlan> =
            graph.order.iter().map(|&order| TaskPlan { order, ..TaskPlan::default() }).collect();
        for workspace in &request.workspaces {
            let find = |task: usize| used[task].iter().find(|used| used.pipeline == *workspace);
            let saves: Vec<bool> = (0..graph.len())
                .map(|task| {
                    let read_only =
                        |used: &Use| field(tasks[task], "taskSpec").is_some_and(|spec| is_read_only(spec, &used.task));
                    find(task).is_some_and(|used| !read_only(used))
                })
                .collect();
            for (task, planned) in plan.iter_mut().enumerate() {
                if find(task).is_none() {
                    continue;
                }
                let step = WorkspaceStep {
                    name: workspace.clone(),
                    path: format!("{WORKSPACE_DIR}/{}", directory(workspace, request)),
                    target: request.target(workspace),
                    base: request.base(workspace),
                    after: nearest(task, graph, &saves, &absent),
                    parallel: Vec::new(),
                    joined: Vec::new(),
                };
                if saves[task] {
                    let parallel = parallel(task, graph, &saves);
                    let reads = |task: usize| find(task).is_some() && !absent.may_be_absent[task];
                    let joined: Vec<usize> =
                        parallel.iter().copied().filter(|&other| meets(task, other, graph, &reads)).collect();
                    let (parallel, joined) = (ranges(&parallel, graph), ranges(&joined, graph));
                    // What it comes after is in the state that the restore step left.
                    planned.save.push(WorkspaceStep { parallel, joined, after: Vec::new(), ..step.clone() });
                }
                if !step.after.is_empty() || step.base.is_some() {
                    planned.restore.push(step);
                }
            }
        }
        Self { tasks: plan }
    }
}

/// A folder name for the workspace: its own where that is a plain word, else its place in the list.
fn directory(workspace: &str, request: &Request) -> String {
    let plain = workspace.starts_with(|c: char| c.is_ascii_alphanumeric())
        && workspace.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain {
        return workspace.to_owned();
    }
    let place = request.workspaces.iter().position(|other| other == workspace).unwrap_or_default();
    format!("_{place}")
}

/// The nearest ancestors that save the workspace, and behind each one that may be absent its own nearest, in pipeline order.
fn nearest(task: usize, graph: &Graph, saves: &[bool], absent: &Absence) -> Vec<Predecessor> {
    let mut seen = crate::tekton::graph::Set::default();
    let mut found = Vec::new();
    let mut open = graph.dependencies[task].clone();
    while let Some(ancestor) = open.pop() {
        if seen.contains(ancestor) {
            continue;
        }
        seen.insert(ancestor);
        let optional = absent.of(ancestor, task);
        if saves[ancestor] {
            found.push((ancestor, optional));
        }
        if !saves[ancestor] || optional {
            open.extend(&graph.dependencies[ancestor]);
        }
    }
    // What a snapshot that must exist already brings along need not be named.
    let brought =
        |ancestor: usize| found.iter().any(|&(other, optional)| !optional && graph.ancestors[other].contains(ancestor));
    let mut after: Vec<Predecessor> = found
        .iter()
        .filter(|(ancestor, _)| !brought(*ancestor))
        .map(|&(ancestor, optional)| Predecessor {
            task: graph.names[ancestor].clone(),
            order: graph.order[ancestor],
            optional,
        })
        .collect();
    after.sort_unstable_by_key(|predecessor| predecessor.order);
    after
}

/// The saving tasks that may run at the same time as `task`.
fn parallel(task: usize, graph: &Graph, saves: &[bool]) -> Vec<usize> {
    let related =
        |other: usize| other == task || graph.ancestors[task].contains(other) || graph.ancestors[other].contains(task);
    (0..graph.len()).filter(|&other| saves[other] && !related(other)).collect()
}

/// Whether a later task that reads the workspace, and can't be skipped, has both as ancestors.
fn meets(one: usize, other: usize, graph: &Graph, reads: &impl Fn(usize) -> bool) -> bool {
    let both = |task: usize| graph.ancestors[task].contains(one) && graph.ancestors[task].contains(other);
    (0..graph.len()).any(|task| both(task) && reads(task))
}

/// The orders of `tasks` as inclusive ranges.
fn ranges(tasks: &[usize], graph: &Graph) -> Vec<(u32, u32)> {
    let mut orders: Vec<u32> = tasks.iter().map(|&task| graph.order[task]).collect();
    orders.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for order in orders {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == order => *last = order,
            _ => ranges.push((order, order)),
        }
    }
    ranges
}

/// Which tasks may leave no snapshot although the tasks after them run
/// (Tekton: pipelinerunresolution.go `skip`, docs/pipelines.md "Guard Task execution").
struct Absence {
    dag_len: usize,
    /// Skipped by `when`, skipped with a parent, or failed with `onError: continue`.
    may_be_absent: Vec<bool>,
}

impl Absence {
    fn new(tasks: &[&Value], graph: &Graph) -> Self {
        let mut may_be_absent = vec![false; tasks.len()];
        // A skip for any other reason than the task's own `when` takes the dependents along.
        let mut taken_along = vec![false; tasks.len()];
        for task in graph.in_order() {
            let result_missing = graph.result_dependencies[task].iter().any(|&on| may_be_absent[on]);
            let parent_taken = graph.dependencies[task].iter().any(|&on| task < graph.dag_len && taken_along[on]);
            taken_along[task] = result_missing || parent_taken;
            let guarded = !items(tasks[task], "when").is_empty();
            let may_fail = !matches!(text(tasks[task], "onError"), "" | "stopAndFail");
            may_be_absent[task] = taken_along[task] || guarded || may_fail;
        }
        Self { dag_len: graph.dag_len, may_be_absent }
    }

    /// Whether `ancestor` may be absent when `task` runs. A finally task runs after whatever happened.
    fn of(&self, ancestor: usize, task: usize) -> bool {
        task >= self.dag_len || self.may_be_absent[ancestor]
    }
}
