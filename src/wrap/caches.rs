//! Which tasks restore and save each cache.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use fixedbitset::FixedBitSet;
use serde_json::Value;

use super::{
    absence::Absence,
    request::{Cache, Request},
};
use crate::tekton::{
    fields::field,
    graph::Graph,
    workspaces::{Use, is_read_only},
};

/// A cache that no task can restore.
#[derive(Debug, PartialEq, Eq)]
pub struct NoTask {
    /// What it is of.
    pub path: String,
    /// Why, and what to do.
    pub problem: NoTaskReason,
}

/// Why no task can restore a cache: a clause that says what to do.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTaskReason {
    /// A task that it names does not use its workspace.
    #[error("task {task:?} does not use the workspace {workspace:?}: name another task")]
    WrongTask { task: String, workspace: String },
    /// Nobody uses its workspace.
    #[error("no task uses the workspace {workspace:?}: remove the cache")]
    Unused { workspace: String },
    /// The files of its key are there for none of the tasks.
    #[error(
        "no task that uses the workspace {workspace:?} begins with the files of its key, which an earlier task must leave in the workspace {others}: name a task in its field task, or take other files"
    )]
    NoFiles { workspace: String, others: String },
}

/// The tasks of a Pipeline, as far as caches depend on them.
struct Tasks<'a> {
    request: &'a Request,
    graph: &'a Graph,
    absence: &'a Absence,
    tasks: &'a [&'a Value],
    used: &'a [Vec<Use>],
}

/// For each task the indexes of the caches in `request` that it restores, and saves if it may change the workspace.
pub fn assign(
    request: &Request,
    tasks: &[&Value],
    graph: &Graph,
    absence: &Absence,
    used: &[Vec<Use>],
) -> Result<Vec<Vec<usize>>, NoTask> {
    let all = Tasks { request, graph, absence, tasks, used };
    let mut assigned = vec![Vec::new(); tasks.len()];
    for (index, cache) in request.caches.iter().enumerate() {
        let restoring = if cache.tasks.is_empty() { all.first(cache) } else { all.named(cache) };
        match restoring {
            Ok(restoring) => restoring.into_iter().for_each(|task| assigned[task].push(index)),
            Err(_) if cache.is_default => {}
            Err(problem) => return Err(NoTask { path: cache.shown(), problem }),
        }
    }
    Ok(assigned)
}

impl Tasks<'_> {
    /// Those that the cache names.
    fn named(&self, cache: &Cache) -> Result<Vec<usize>, NoTaskReason> {
        let find = |name: &String| {
            let task = self.graph.names.iter().position(|other| other == name);
            let wrong = || NoTaskReason::WrongTask { task: name.clone(), workspace: cache.workspace.clone() };
            task.filter(|&task| self.uses(task, &cache.workspace).is_some()).ok_or_else(wrong)
        };
        cache.tasks.iter().map(find).collect()
    }

    /// The first ones on each way through the graph that can fill its folder. After one that may be skipped the next one does it
    /// too, if the folder is still empty then.
    fn first(&self, cache: &Cache) -> Result<Vec<usize>, NoTaskReason> {
        let needs_start = !cache.step.path.is_empty();
        let found = self.first_that(cache, &|task| {
            let own = needs_start.then_some(cache.workspace.as_str());
            let needed = cache.step.files.iter().map(|files| files.workspace.as_str()).chain(own);
            needed.into_iter().all(|workspace| self.starts_with_files(task, workspace))
        });
        if !found.is_empty() {
            return Ok(found);
        }
        let any = self.first_that(cache, &|_| true);
        match (cache.step.files.is_empty(), any.is_empty()) {
            (_, true) => Err(NoTaskReason::Unused { workspace: cache.workspace.clone() }),
            (true, false) => Ok(any),
            (false, false) => {
                let mut others: Vec<String> =
                    cache.step.files.iter().map(|files| format!("{:?}", files.workspace)).collect();
                others.dedup();
                Err(NoTaskReason::NoFiles { workspace: cache.workspace.clone(), others: others.join(" and ") })
            }
        }
    }

    fn first_that(&self, cache: &Cache, can: &dyn Fn(usize) -> bool) -> Vec<usize> {
        let (graph, workspace) = (self.graph, &cache.workspace);
        let mut restoring = FixedBitSet::with_capacity(graph.count());
        let in_dag = graph.in_order().into_iter().filter(|&task| task < graph.dag_len);
        for task in in_dag.filter(|&task| self.uses(task, workspace).is_some() && can(task)) {
            let gives =
                |ancestor: usize| self.changes(ancestor, workspace) && !self.absence.is_possible(ancestor, task);
            let is_filled = restoring.intersection(&graph.ancestors[task]).any(gives);
            restoring.set(task, !is_filled);
        }
        restoring.ones().collect()
    }

    /// Whether `task` uses `workspace` and something is in it then.
    fn starts_with_files(&self, task: usize, workspace: &str) -> bool {
        let is_left = |ancestor: usize| self.changes(ancestor, workspace);
        self.uses(task, workspace).is_some()
            && (self.request.base(workspace).is_some() || self.graph.ancestors[task].ones().any(is_left))
    }

    fn changes(&self, task: usize, workspace: &str) -> bool {
        let is_read_only =
            |used: &Use| field(self.tasks[task], "taskSpec").is_some_and(|spec| is_read_only(spec, &used.task));
        self.uses(task, workspace).is_some_and(|used| !is_read_only(used))
    }

    fn uses(&self, task: usize, workspace: &str) -> Option<&Use> {
        self.used[task].iter().find(|used| used.pipeline == *workspace)
    }
}
