//! What wrapping does to each task, as `render --explain` prints it.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use super::{
    failure::Failures,
    plan::{Plan, TaskPlan},
};
use crate::{
    quote::Line,
    step::{StepConfig, WorkspaceStep},
    tekton::{graph::Graph, workspaces::Use},
};

/// One task of the Pipeline, described for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskNote {
    /// Its name.
    pub task: String,
    /// The tasks that it waits for.
    pub after: String,
    /// What its restore step does.
    pub restores: String,
    /// What its save step does.
    pub saves: String,
    /// The tasks that it waits for itself, by name; none for a finally task.
    pub dependencies: Vec<String>,
    /// Whether it is in `finally`.
    pub finally: bool,
}

/// Why each task is changed as it is; by the tasks' indexes.
#[derive(Debug, Default)]
pub struct Explanation {
    /// The tasks and what they wait for.
    pub graph: Graph,
    /// What each one restores and saves.
    pub plan: Plan,
    /// The wrapped workspaces that each one uses.
    pub uses: Vec<Vec<Use>>,
    /// After which failures each one saves.
    pub failures: Vec<Failures>,
}

impl Explanation {
    /// A note for each task, in pipeline order.
    pub fn notes(&self) -> Vec<TaskNote> {
        self.graph.in_order().into_iter().map(|task| self.note(task)).collect()
    }

    fn note(&self, task: usize) -> TaskNote {
        let Self { graph, plan, uses, failures } = self;
        let planned = &plan.tasks[task];
        TaskNote {
            task: graph.names[task].clone(),
            after: if task < graph.dag_len {
                list(graph.dependencies[task].iter().map(|&on| graph.names[on].clone()), "-")
            } else {
                "all tasks (finally)".to_owned()
            },
            restores: restores(planned, &uses[task]),
            saves: saves(planned, &uses[task], &failures[task]),
            dependencies: if task < graph.dag_len {
                graph.dependencies[task].iter().map(|&on| graph.names[on].clone()).collect()
            } else {
                Vec::new()
            },
            finally: task >= graph.dag_len,
        }
    }
}

/// The most columns of a [`table`] whose cells are not wrapped.
const WIDTH: usize = 120;

/// The widths of the columns of a wider one; with the gaps [`WIDTH`] in all.
const WIDEST: [usize; 4] = [26, 24, 32, 32];

/// The notes as a table that fits 120 columns, but for words that are wider than their column.
#[allow(clippy::arithmetic_side_effects, reason = "characters of cells")]
pub fn table(notes: &[TaskNote]) -> String {
    let heads = ["TASK", "AFTER", "RESTORES", "SAVES"].map(str::to_owned);
    // Whoever wrote the Pipeline chose the names in it.
    let rows = notes.iter().map(|n| [&n.task, &n.after, &n.restores, &n.saves].map(|cell| Line(cell).to_string()));
    let rows: Vec<[String; 4]> = std::iter::once(heads).chain(rows).collect();
    let natural = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or_default()
    };
    let fits = (0..4).map(natural).sum::<usize>() + 6 <= WIDTH;
    let widest = if fits { [usize::MAX; 4] } else { WIDEST };
    let rows: Vec<[Vec<String>; 4]> = rows.iter().map(|row| wrapped(row, widest)).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.flatten().map(|line| line.chars().count()).max().unwrap_or_default()
    };
    let [task_width, after_width, restores_width] = [width(0), width(1), width(2)];
    let mut table = String::new();
    for row in &rows {
        for line in 0..row.iter().map(Vec::len).max().unwrap_or_default() {
            let [task, after, restores, saves] = std::array::from_fn(|column| {
                row.get(column).and_then(|cell| cell.get(line)).map_or("", String::as_str)
            });
            let line = format!("{task:task_width$}  {after:after_width$}  {restores:restores_width$}  {saves}");
            table.push_str(line.trim_end());
            table.push('\n');
        }
    }
    table
}

/// Each cell as lines of its column.
#[allow(clippy::arithmetic_side_effects, reason = "characters of cells")]
fn wrapped(row: &[String; 4], widest: [usize; 4]) -> [Vec<String>; 4] {
    std::array::from_fn(|column| {
        let (cell, widest) = (&row[column], widest[column]);
        let mut lines: Vec<String> = Vec::new();
        for word in cell.split(' ') {
            match lines.last_mut() {
                Some(line) if line.chars().count() + 1 + word.chars().count() <= widest => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    })
}

fn restores(planned: &TaskPlan, used: &[Use]) -> String {
    if used.is_empty() {
        return "left as it is: uses no wrapped workspace".to_owned();
    }
    let restored = |step: &WorkspaceStep| {
        let base = step.base.iter().map(|base| format!("base {base}"));
        let tasks = step.after.iter().map(|task| match (task.last, task.optional) {
            (None, false) => task.task.clone(),
            (None, true) => format!("{} (if it ran)", task.task),
            (Some(_), false) => format!("{}[*]", task.task),
            (Some(_), true) => format!("{}[*] (those that ran)", task.task),
        });
        let caches = step.caches.iter().map(|cache| format!("cache {}", cache.shown(&step.name)));
        let only = if step.paths.is_empty() { String::new() } else { format!(", only {}", step.paths.join(",")) };
        format!("{} from {}{only}", step.name, list(base.chain(tasks).chain(caches), "nothing"))
    };
    list(planned.restore.iter().map(restored), "nothing: no task before it saves")
}

fn saves(planned: &TaskPlan, used: &[Use], failures: &Failures) -> String {
    let place = |step: &WorkspaceStep| {
        let tag = StepConfig::tag("<run uid>", planned.order, &step.name);
        let more = if planned.matrix.is_some() { " and the next ones" } else { "" };
        format!("{} as {tag}{more}", step.name)
    };
    let caches = planned.save.iter().flat_map(|step| {
        step.caches.iter().map(|cache| format!("cache {} as {} if new", cache.shown(&step.name), cache.key))
    });
    let unsaved = used.iter().filter(|used| !planned.save.iter().any(|step| step.name == used.pipeline));
    let unsaved = unsaved.map(|used| {
        let is_dropped = planned.dropped.contains(&used.pipeline);
        format!("{} not: {}", used.pipeline, if is_dropped { "no later task reads it" } else { "readOnly" })
    });
    let after_failure = match (&failures.saved[..], &failures.unsaved[..]) {
        ([], _) => None,
        (_, []) => Some("also if a step fails".to_owned()),
        (saved, _) => Some(format!("also if step {} fails", saved.join(" or "))),
    };
    list(planned.save.iter().map(place).chain(caches).chain(unsaved).chain(after_failure), "-")
}

fn list(words: impl Iterator<Item = String>, none: &str) -> String {
    let words: Vec<String> = words.collect();
    if words.is_empty() { none.to_owned() } else { words.join(", ") }
}
