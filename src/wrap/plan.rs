//! What each task restores and saves.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use fixedbitset::FixedBitSet;
use serde_json::Value;

use super::{
    absence::Absence,
    caches::{self, NoTask},
    request::Request,
};
use crate::{
    limits::{MAX_CACHES, MAX_RUN_BYTES, MAX_TASK_RUNS},
    step::{CACHE_PLACES, CacheStep, Keep, Predecessor, WORKSPACE_DIR, WorkspaceStep},
    tekton::{
        fields::field,
        graph::Graph,
        matrix::Fan,
        run::Run,
        tasks::all_tasks,
        workspaces::{Use, is_read_only},
    },
};

/// Why there is no plan.
#[derive(Debug, PartialEq, Eq)]
pub enum PlanError {
    /// The matrices make so many TaskRuns, more than [`MAX_TASK_RUNS`].
    TooManyTaskRuns(u64),
    /// What the injected steps have to be told has at least so many bytes, more than [`MAX_RUN_BYTES`].
    TooLarge(usize),
    /// A cache that no task can restore.
    Cache(NoTask),
    /// There is no time left.
    Late,
}

/// Bytes of JSON that name a predecessor, at the least, beside the name itself.
const PREDECESSOR_BYTES: usize = 20;

/// What every task of the Pipeline does, by its index in the graph.
#[derive(Debug, Default)]
pub struct Plan {
    /// One for each task.
    pub tasks: Vec<TaskPlan>,
}

/// What one task does.
#[derive(Debug, Default)]
pub struct TaskPlan {
    /// The task's place in pipeline order, the first one where it has a matrix.
    pub order: u32,
    /// Its matrix, if the names of the TaskRuns end with the number of the combination.
    pub matrix: Option<Fan>,
    /// The workspaces that a step in front restores.
    pub restore: Vec<WorkspaceStep>,
    /// The workspaces that a step at the end saves.
    pub save: Vec<WorkspaceStep>,
    /// Those that it need not save: no later task reads them, and nothing is kept.
    pub dropped: Vec<String>,
}

/// One workspace in the whole pipeline.
struct WorkspaceGraph<'a> {
    graph: &'a Graph,
    absence: &'a Absence,
    places: &'a [OrderRange],
    /// The tasks in pipeline order.
    in_order: &'a [usize],
    /// Those that come after each task.
    descendants: &'a [FixedBitSet],
    /// The tasks that use the workspace.
    uses: FixedBitSet,
    /// The tasks that may change it.
    saves: FixedBitSet,
}

/// Where a task stands in pipeline order, the combinations of its matrix one after the other.
struct OrderRange {
    /// The places of its caches are right before this one.
    first: u32,
    fan: Option<Fan>,
    caches: u32,
}

impl Plan {
    /// `spec` has the tasks inlined that use wrapped workspaces, `used` says which; `fans` are the fan-outs of their matrices.
    pub fn new(
        run: Run<'_>,
        request: &Request,
        spec: &Value,
        graph: &Graph,
        used: &[Vec<Use>],
        fans: &[Option<Fan>],
        is_late: &dyn Fn() -> bool,
    ) -> Result<Self, PlanError> {
        let tasks: Vec<&Value> = all_tasks(spec).collect();
        let absence = Absence::new(&tasks, graph, fans);
        let cached = caches::assign(request, &tasks, graph, &absence, used).map_err(PlanError::Cache)?;
        let places = places(graph, fans, &cached)?;
        let (in_order, descendants) = (graph.in_order(), graph.descendants());
        let mut plan: Vec<TaskPlan> = places
            .iter()
            .map(|place| TaskPlan { order: place.first, matrix: place.numbered_matrix(), ..TaskPlan::default() })
            .collect();
        let mut bytes = 0;
        for workspace in &request.workspaces {
            let find = |task: usize| used[task].iter().find(|used| used.pipeline == *workspace);
            let is_writable = |task: usize, used: &Use| {
                field(tasks[task], "taskSpec").is_none_or(|spec| !is_read_only(spec, &used.task))
            };
            let uses: FixedBitSet = (0..graph.count()).filter(|task| find(*task).is_some()).collect();
            let changes: FixedBitSet =
                uses.ones().filter(|task| find(*task).is_some_and(|used| is_writable(*task, used))).collect();
            let is_wanted = |task: &usize| {
                let is_cached = cached[*task].iter().any(|cache| request.caches[*cache].workspace == *workspace);
                is_cached || request.retention.keep != Keep::None || !descendants[*task].is_disjoint(&uses)
            };
            let (saves, dropped): (Vec<usize>, Vec<usize>) = changes.ones().partition(is_wanted);
            dropped.into_iter().for_each(|task| plan[task].dropped.push(workspace.clone()));
            let wrapped = WorkspaceGraph {
                graph,
                absence: &absence,
                places: &places,
                in_order: &in_order,
                descendants: &descendants,
                uses,
                saves: saves.into_iter().collect(),
            };
            let sized = request.sizes.is_sized(workspace, run.binding(workspace));
            for task in wrapped.uses.ones() {
                if is_late() {
                    return Err(PlanError::Late);
                }
                let planned = &mut plan[task];
                let step = WorkspaceStep {
                    name: workspace.clone(),
                    path: format!("{WORKSPACE_DIR}/{}", directory(workspace, request)),
                    target: request.target(workspace),
                    base: request.base(workspace),
                    sized: false,
                    after: wrapped.nearest(task),
                    parallel: Vec::new(),
                    joined: Vec::new(),
                    mounts: Vec::new(),
                    paths: Vec::new(),
                    caches: places[task].caches_of(workspace, request, &cached[task]),
                };
                bytes = usize::saturating_add(bytes, bytes_of(&step));
                if bytes > MAX_RUN_BYTES {
                    return Err(PlanError::TooLarge(bytes));
                }
                if wrapped.saves.contains(task) {
                    let parallel = wrapped.parallel(task);
                    let joined = if parallel.is_clear() { parallel.clone() } else { &parallel & &wrapped.met(task) };
                    let (parallel, joined) = (wrapped.ranges(&parallel), wrapped.ranges(&joined));
                    // Its predecessors are in the state that the restore step left.
                    planned.save.push(WorkspaceStep { parallel, joined, after: Vec::new(), ..step.clone() });
                }
                if !step.after.is_empty() || step.base.is_some() || !step.caches.is_empty() {
                    planned.restore.push(WorkspaceStep { sized, ..step });
                }
            }
        }
        Ok(Self { tasks: plan })
    }
}

/// Every order is a u32: a task has one or more, each with those of its caches.
const _: () = assert!(MAX_TASK_RUNS as u64 * (1 + MAX_CACHES as u64 * CACHE_PLACES as u64) <= u32::MAX as u64);

/// The places of all tasks, by their index.
#[allow(clippy::arithmetic_side_effects, reason = "see the assertion above")]
fn places(graph: &Graph, fans: &[Option<Fan>], cached: &[Vec<usize>]) -> Result<Vec<OrderRange>, PlanError> {
    let widths = fans.iter().map(|fan| fan.map_or(1, |fan| fan.most));
    let count = widths.map(u64::from).fold(0, u64::saturating_add);
    if count > u64::from(MAX_TASK_RUNS) {
        return Err(PlanError::TooManyTaskRuns(count));
    }
    let mut next = 0;
    let mut places: Vec<(usize, OrderRange)> = Vec::new();
    for task in graph.in_order() {
        let caches = u32::try_from(cached[task].len()).unwrap_or(u32::MAX);
        let mut place = OrderRange { first: next, fan: fans[task], caches };
        place.first += place.for_caches();
        next = place.first + place.width();
        places.push((task, place));
    }
    places.sort_unstable_by_key(|(task, _)| *task);
    Ok(places.into_iter().map(|(_, place)| place).collect())
}

#[allow(clippy::arithmetic_side_effects, reason = "see the assertion above")]
impl OrderRange {
    fn width(&self) -> u32 {
        self.fan.map_or(1, |fan| fan.most)
    }

    fn last(&self) -> u32 {
        self.first + self.width() - 1
    }

    /// The number of places before it that its caches have, in all combinations of its matrix.
    fn for_caches(&self) -> u32 {
        self.caches * CACHE_PLACES * self.width()
    }

    /// Those of the caches in `request` with the indexes `cached`, all that the task has, that are of `workspace`.
    fn caches_of(&self, workspace: &str, request: &Request, cached: &[usize]) -> Vec<CacheStep> {
        let begin = self.first - self.for_caches();
        let all = (0_u32..).zip(cached).map(|(place, cache)| {
            let order = begin + place * CACHE_PLACES * self.width();
            (&request.caches[*cache].workspace, CacheStep { order, ..request.caches[*cache].step.clone() })
        });
        all.filter(|(of, _)| *of == workspace).map(|(_, step)| step).collect()
    }

    /// The matrix; none if there is at most one combination, whose TaskRun's name has no number.
    fn numbered_matrix(&self) -> Option<Fan> {
        self.fan.filter(|fan| fan.most > 1)
    }

    /// The task as predecessors of a restore step: its combinations that must be there, and those that may be.
    fn predecessors(&self, task: &str, optional: bool) -> Vec<Predecessor> {
        let least = if optional { 0 } else { self.fan.map_or(1, |fan| fan.least) };
        let predecessor = |first: u32, last: u32, optional: bool| Predecessor {
            task: task.to_owned(),
            order: first,
            last: (last > first).then_some(last),
            optional,
        };
        let sure = (least > 0).then(|| predecessor(self.first, self.first + least - 1, false));
        let others = (least < self.width()).then(|| predecessor(self.first + least, self.last(), true));
        sure.into_iter().chain(others).collect()
    }
}

impl WorkspaceGraph<'_> {
    /// The nearest ancestors that save the workspace, and beyond each one that may be absent its own nearest, in pipeline
    /// order.
    fn nearest(&self, task: usize) -> Vec<Predecessor> {
        let mut seen = FixedBitSet::with_capacity(self.graph.count());
        let mut found = Vec::new();
        let mut open = self.graph.dependencies[task].clone();
        while let Some(ancestor) = open.pop() {
            if seen.contains(ancestor) {
                continue;
            }
            seen.insert(ancestor);
            let optional = self.absence.is_possible(ancestor, task);
            let saves = self.saves.contains(ancestor);
            if saves {
                found.push((ancestor, optional));
            }
            if !saves || optional {
                open.extend(&self.graph.dependencies[ancestor]);
            }
        }
        // What a snapshot that must exist brings along need not be named.
        let mut brought = FixedBitSet::with_capacity(self.graph.count());
        found.iter().filter(|(_, optional)| !optional).for_each(|(other, _)| {
            brought.union_with(&self.graph.ancestors[*other]);
        });
        let mut after: Vec<Predecessor> = found
            .iter()
            .filter(|(ancestor, _)| !brought.contains(*ancestor))
            .flat_map(|&(ancestor, optional)| self.places[ancestor].predecessors(&self.graph.names[ancestor], optional))
            .collect();
        after.sort_unstable_by_key(|predecessor| predecessor.order);
        after
    }

    /// The saving tasks that may run at the same time as `task`: those that it has no path to or from, and the other
    /// combinations of its own matrix.
    fn parallel(&self, task: usize) -> FixedBitSet {
        let mut parallel = self.saves.clone();
        parallel.difference_with(&self.graph.ancestors[task]);
        parallel.difference_with(&self.descendants[task]);
        parallel.set(task, self.places[task].numbered_matrix().is_some());
        parallel
    }

    /// The tasks that a later one, which reads the workspace and can't be skipped, has as ancestors beside `task`.
    fn met(&self, task: usize) -> FixedBitSet {
        let mut met = FixedBitSet::with_capacity(self.graph.count());
        for later in self.descendants[task].ones() {
            if self.uses.contains(later) && !self.absence.may_be_absent(later) {
                met.union_with(&self.graph.ancestors[later]);
            }
        }
        met
    }

    /// The orders of `tasks` as inclusive ranges.
    fn ranges(&self, tasks: &FixedBitSet) -> Vec<(u32, u32)> {
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        if tasks.is_clear() {
            return ranges;
        }
        for task in self.in_order.iter().filter(|task| tasks.contains(**task)) {
            let place = &self.places[*task];
            match ranges.last_mut() {
                Some((_, last)) if last.checked_add(1) == Some(place.first) => *last = place.last(),
                _ => ranges.push((place.first, place.last())),
            }
        }
        ranges
    }
}

/// How much is told to a step about a workspace, about.
#[allow(clippy::arithmetic_side_effects, reason = "bytes of strings that are in memory")]
fn bytes_of(step: &WorkspaceStep) -> usize {
    let after = step.after.iter().map(|before| before.task.len() + PREDECESSOR_BYTES).sum::<usize>();
    let caches = step.caches.iter().map(bytes_of_cache).sum::<usize>();
    after + caches + step.target.len() + step.base.as_ref().map_or(0, String::len)
}

#[allow(clippy::arithmetic_side_effects, reason = "bytes of strings that are in memory")]
fn bytes_of_cache(cache: &CacheStep) -> usize {
    let files = cache.files.iter().flat_map(|files| files.patterns.iter().chain([&files.workspace]));
    let texts = files.chain(&cache.restore_keys).chain([&cache.path, &cache.target, &cache.key, &cache.scope]);
    texts.map(|text| text.len() + PREDECESSOR_BYTES).sum()
}

/// A folder name for the workspace: its own name if that is a plain word, else its index in the list.
fn directory(workspace: &str, request: &Request) -> String {
    let plain = workspace.starts_with(|c: char| c.is_ascii_alphanumeric())
        && workspace.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    if plain {
        return workspace.to_owned();
    }
    let place = request.workspaces.iter().position(|other| other == workspace).unwrap_or_default();
    format!("_{place}")
}
