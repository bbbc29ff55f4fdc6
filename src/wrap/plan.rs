//! What each task restores and saves.

use fixedbitset::FixedBitSet;
use serde_json::Value;

use super::{absence::Absence, request::Request, task_spec::all_tasks};
use crate::{
    limits::{MAX_RUN_BYTES, MAX_TASK_RUNS},
    step::{Predecessor, WORKSPACE_DIR, WorkspaceStep},
    tekton::{
        fields::field,
        graph::Graph,
        matrix::Fan,
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
    /// There is no time left.
    Late,
}

/// Bytes of JSON that name a predecessor, at the least, beside the name itself.
const PREDECESSOR_BYTES: usize = 20;

/// What every task of the Pipeline does, by its index in the graph.
pub struct Plan {
    /// One for each task.
    pub tasks: Vec<TaskPlan>,
}

/// What one task does.
#[derive(Default)]
pub struct TaskPlan {
    /// The task's place in pipeline order, the first one where it has a matrix.
    pub order: u32,
    /// The least and the most TaskRuns of its matrix, if their names end with the number of the combination.
    pub numbered: Option<(u32, u32)>,
    /// The workspaces that a step in front restores.
    pub restore: Vec<WorkspaceStep>,
    /// The workspaces that a step at the end saves.
    pub save: Vec<WorkspaceStep>,
}

/// One workspace in the whole pipeline.
struct Wrapped<'a> {
    graph: &'a Graph,
    absent: &'a Absence,
    places: &'a [Place],
    /// Whether each task uses the workspace.
    uses: Vec<bool>,
    /// Whether each task may change it.
    saves: Vec<bool>,
}

/// Where a task stands in pipeline order, the combinations of its matrix one after the other.
struct Place {
    first: u32,
    fan: Option<Fan>,
}

impl Plan {
    /// `spec` has the tasks inlined that use wrapped workspaces, `used` says which; `fans` are the fan-outs of their matrices.
    pub fn new(
        request: &Request,
        spec: &Value,
        graph: &Graph,
        used: &[Vec<Use>],
        fans: &[Option<Fan>],
        is_late: &dyn Fn() -> bool,
    ) -> Result<Self, PlanError> {
        let tasks: Vec<&Value> = all_tasks(spec).collect();
        let absent = Absence::new(&tasks, graph, fans);
        let places = places(graph, fans)?;
        let mut plan: Vec<TaskPlan> = places
            .iter()
            .map(|place| TaskPlan { order: place.first, numbered: place.numbered(), ..TaskPlan::default() })
            .collect();
        let mut bytes = 0;
        for workspace in &request.workspaces {
            let find = |task: usize| used[task].iter().find(|used| used.pipeline == *workspace);
            let read_only = |task: usize, used: &Use| {
                field(tasks[task], "taskSpec").is_some_and(|spec| is_read_only(spec, &used.task))
            };
            let wrapped = Wrapped {
                graph,
                absent: &absent,
                places: &places,
                uses: (0..graph.count()).map(|task| find(task).is_some()).collect(),
                saves: (0..graph.count()).map(|task| find(task).is_some_and(|used| !read_only(task, used))).collect(),
            };
            for (task, planned) in plan.iter_mut().enumerate().filter(|(task, _)| wrapped.uses[*task]) {
                if is_late() {
                    return Err(PlanError::Late);
                }
                let step = WorkspaceStep {
                    name: workspace.clone(),
                    path: format!("{WORKSPACE_DIR}/{}", directory(workspace, request)),
                    target: request.target(workspace),
                    base: request.base(workspace),
                    after: wrapped.nearest(task),
                    parallel: Vec::new(),
                    joined: Vec::new(),
                    mounts: Vec::new(),
                    paths: Vec::new(),
                };
                bytes += step.target.len() + step.base.as_ref().map_or(0, String::len);
                bytes += step.after.iter().map(|before| before.task.len() + PREDECESSOR_BYTES).sum::<usize>();
                if bytes > MAX_RUN_BYTES {
                    return Err(PlanError::TooLarge(bytes));
                }
                if wrapped.saves[task] {
                    let parallel = wrapped.parallel(task);
                    let met = wrapped.met(task);
                    let joined: Vec<usize> = parallel.iter().copied().filter(|&other| met.contains(other)).collect();
                    let (parallel, joined) = (wrapped.ranges(&parallel), wrapped.ranges(&joined));
                    // Its predecessors are in the state that the restore step left.
                    planned.save.push(WorkspaceStep { parallel, joined, after: Vec::new(), ..step.clone() });
                }
                if !step.after.is_empty() || step.base.is_some() {
                    planned.restore.push(step);
                }
            }
        }
        Ok(Self { tasks: plan })
    }
}

/// The places of all tasks, by their index.
fn places(graph: &Graph, fans: &[Option<Fan>]) -> Result<Vec<Place>, PlanError> {
    let widths = fans.iter().map(|fan| fan.map_or(1, |fan| fan.most));
    let count = widths.map(u64::from).fold(0, u64::saturating_add);
    if count > u64::from(MAX_TASK_RUNS) {
        return Err(PlanError::TooManyTaskRuns(count));
    }
    let mut next = 0;
    let mut places: Vec<(usize, Place)> = Vec::new();
    for task in graph.in_order() {
        let place = Place { first: next, fan: fans[task] };
        next += place.width();
        places.push((task, place));
    }
    places.sort_unstable_by_key(|(task, _)| *task);
    Ok(places.into_iter().map(|(_, place)| place).collect())
}

impl Place {
    fn width(&self) -> u32 {
        self.fan.map_or(1, |fan| fan.most)
    }

    fn last(&self) -> u32 {
        self.first + self.width() - 1
    }

    /// The least and the most combinations; none if there is at most one, whose TaskRun's name has no number.
    fn numbered(&self) -> Option<(u32, u32)> {
        self.fan.filter(|fan| fan.most > 1).map(|fan| (fan.least, fan.most))
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

impl Wrapped<'_> {
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
            let optional = self.absent.of(ancestor, task);
            if self.saves[ancestor] {
                found.push((ancestor, optional));
            }
            if !self.saves[ancestor] || optional {
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
    fn parallel(&self, task: usize) -> Vec<usize> {
        let ancestors = &self.graph.ancestors;
        let related = |other: usize| {
            if other == task {
                self.places[task].numbered().is_none()
            } else {
                ancestors[task].contains(other) || ancestors[other].contains(task)
            }
        };
        (0..self.graph.count()).filter(|&other| self.saves[other] && !related(other)).collect()
    }

    /// The tasks that a later one, which reads the workspace and can't be skipped, has as ancestors beside `task`.
    fn met(&self, task: usize) -> FixedBitSet {
        let mut met = FixedBitSet::with_capacity(self.graph.count());
        for (later, ancestors) in self.graph.ancestors.iter().enumerate() {
            if self.uses[later] && !self.absent.may_be_absent(later) && ancestors.contains(task) {
                met.union_with(ancestors);
            }
        }
        met
    }

    /// The orders of `tasks` as inclusive ranges.
    fn ranges(&self, tasks: &[usize]) -> Vec<(u32, u32)> {
        let mut places: Vec<&Place> = tasks.iter().map(|&task| &self.places[task]).collect();
        places.sort_unstable_by_key(|place| place.first);
        let mut ranges: Vec<(u32, u32)> = Vec::new();
        for place in places {
            match ranges.last_mut() {
                Some((_, last)) if *last + 1 == place.first => *last = place.last(),
                _ => ranges.push((place.first, place.last())),
            }
        }
        ranges
    }
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
