//! Random pipelines: their tasks, their JSON, and which task is started or skipped when.

use std::{collections::BTreeSet, ffi::OsStr, fmt, os::unix::ffi::OsStrExt, path::Path};

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::edits::{self, Edit};

/// The Pipeline's workspaces, both wrapped.
pub const WORKSPACES: [&str; 2] = ["one", "two"];

/// A run and its Pipeline.
#[derive(Clone)]
pub struct Pipeline {
    /// Tasks refer only to earlier ones. The last `finally` ones are in `finally`.
    pub tasks: Vec<Task>,
    /// How many of the tasks are in `finally`.
    pub finally: usize,
    /// Whether the Pipeline lists its tasks in the opposite order.
    pub reversed: bool,
    /// `conflict: last`; else `fail`.
    pub last: bool,
    /// What the image `base` holds, if the run names one.
    pub base: Option<Vec<Edit>>,
    /// The param `compression`.
    pub compression: &'static str,
    /// `failed: save`.
    pub saves_failed: bool,
}

/// A task of a pipeline.
#[derive(Clone, Debug)]
pub struct Task {
    /// `runAfter`.
    pub after: BTreeSet<usize>,
    /// Whose results it uses.
    pub results: BTreeSet<usize>,
    /// What it does with each of [`WORKSPACES`].
    pub uses: [Use; 2],
    /// Whether it has a `when`, and whether that holds in this run.
    pub when: Option<bool>,
    /// `onError: continue`.
    pub continues: bool,
    /// How many attempts of its first combination fail, after their edits.
    pub fails: u32,
    /// `retries`.
    pub retries: u32,
    /// Its matrix.
    pub matrix: Option<Matrix>,
    /// What each combination does, in each workspace.
    pub scripts: Vec<[Script; 2]>,
    /// The part of its workspaces that it restores; all where it is empty.
    pub paths: Vec<Pattern>,
    /// Of the tasks that can be started, the one with the highest number is.
    pub urgency: u8,
}

/// A pattern of `paths`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Pattern {
    /// `x`: what has this name, with all that is in it.
    Named(&'static str),
    /// `/x/`: the folder `x` in the root, with all that is in it.
    Folder(&'static str),
    /// `x/**`: what is in `x` in the root.
    Within(&'static str),
}

impl Pattern {
    /// Whether it matches what is at `path`.
    pub fn matches(self, path: &Path, is_dir: bool) -> bool {
        let mut names = path.iter().map(OsStr::as_bytes);
        match self {
            Self::Named(name) => names.any(|found| found == name.as_bytes()),
            Self::Folder(name) => names.next() == Some(name.as_bytes()) && (is_dir || names.next().is_some()),
            Self::Within(name) => names.next() == Some(name.as_bytes()) && names.next().is_some(),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Named(name) => f.write_str(name),
            Self::Folder(name) => write!(f, "/{name}/"),
            Self::Within(name) => write!(f, "{name}/**"),
        }
    }
}

/// How a task uses a workspace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Use {
    No,
    ReadOnly,
    Write,
}

/// A matrix with so many combinations.
#[derive(Clone, Copy, Debug)]
pub struct Matrix {
    pub combinations: usize,
    /// Whether their number is known only from a result, which the first task gives.
    pub from_result: bool,
}

/// What one combination of a task does in one workspace.
#[derive(Clone, Debug, Default)]
pub struct Script {
    /// A file in the root of the workspace that many tasks write, and its content.
    pub common: Option<(u8, u8)>,
    /// Whether the edits are done in a folder of the task's own.
    pub apart: bool,
    pub edits: Vec<Edit>,
}

/// What became of a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    Succeeded,
    Failed,
    /// It failed before its steps, so that it gave no results.
    NotRestored,
    SkippedByWhen,
    SkippedOtherwise,
}

/// What is to be done with a task.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    Wait,
    Skip(End),
    Start,
}

/// With `conflict: last` or `fail`.
pub fn pipelines(last: bool) -> impl Strategy<Value = Pipeline> {
    let tasks = (2usize..9).prop_flat_map(|count| (0..count).map(task).collect::<Vec<_>>());
    let base = prop::option::weighted(0.3, edits::edits(10));
    let compression = prop::sample::select(vec!["zstd", "zstd", "gzip", "none"]);
    let first = [edits::edits(25), edits::edits(15)];
    let flags = (any::<bool>(), any::<bool>());
    (tasks, first, 0usize..3, flags, base, compression).prop_map(
        move |(mut tasks, first, finally, (reversed, saves_failed), base, compression)| {
            let finally = finally.min(tasks.len() - 1);
            let dag = tasks.len() - finally;
            // The first task makes a tree that most others start from.
            tasks[0] = Task { uses: [Use::Write; 2], when: None, fails: 0, ..tasks[0].clone() };
            tasks[0].scripts.iter_mut().flatten().zip(first).for_each(|(script, edits)| {
                *script = Script { edits, ..Script::default() };
            });
            for (index, task) in tasks.iter_mut().enumerate() {
                // Where conflicts are no errors, tasks may get in each other's way.
                task.scripts.iter_mut().flatten().for_each(|script| script.apart &= !last);
                task.after.retain(|&on| on < index.min(dag));
                task.results.retain(|&on| on < index.min(dag));
                if index >= dag {
                    task.after.clear();
                }
            }
            let plain: Vec<bool> = tasks.iter().map(|task| task.matrix.is_none()).collect();
            for (index, task) in tasks.iter_mut().enumerate() {
                // Of a matrix there are only lists of results.
                task.results.retain(|&on| plain[on]);
                if task.matrix.is_some_and(|matrix| matrix.from_result) {
                    match index > 0 && plain[0] {
                        true => drop(task.results.insert(0)),
                        false => task.matrix = Some(Matrix { combinations: 2, from_result: false }),
                    }
                }
            }
            Pipeline { tasks, finally, reversed, last, base, compression, saves_failed }
        },
    )
}

fn task(index: usize) -> impl Strategy<Value = Task> {
    let earlier = move |most: usize| prop::collection::btree_set(0..index.max(1), 0..most);
    let after = prop_oneof![4 => prop::collection::btree_set(0..index.max(1), 1..4), 1 => earlier(1)];
    let uses = |weight: u32| prop_oneof![weight => Just(Use::Write), 1 => Just(Use::ReadOnly), 2 => Just(Use::No)];
    let flags = (prop::option::weighted(0.25, any::<bool>()), prop::bool::weighted(0.25), any::<u8>());
    let fails = (prop_oneof![8 => Just(0u32), 1 => Just(1u32), 1 => Just(2u32)], 0u32..3);
    let matrix = prop::option::weighted(0.2, (0usize..4, prop::bool::weighted(0.3)));
    let scripts = prop::collection::vec([script(), script()], 3);
    let name = || prop::sample::select(vec!["a", "b", "c", "ab", "a.b", "common0", "t0", "t1", "t2"]);
    let pattern = prop_oneof![
        name().prop_map(Pattern::Named),
        name().prop_map(Pattern::Folder),
        name().prop_map(Pattern::Within),
    ];
    let paths = prop::option::weighted(0.3, prop::collection::vec(pattern, 1..4)).prop_map(Option::unwrap_or_default);
    let rest = (matrix, scripts, paths);
    (after, prop::option::weighted(0.3, earlier(2)), [uses(8), uses(3)], flags, fails, rest).prop_map(
        |(after, results, uses, (when, continues, urgency), (fails, retries), (matrix, scripts, paths))| {
            let matrix = matrix.map(|(combinations, from_result)| Matrix {
                combinations: if from_result { combinations } else { combinations.max(1) },
                from_result,
            });
            let results = results.unwrap_or_default();
            Task { after, results, uses, when, continues, fails, retries, matrix, scripts, paths, urgency }
        },
    )
}

fn script() -> impl Strategy<Value = Script> {
    let common = prop::option::weighted(0.3, (0..3_u8, 0..2_u8));
    (common, prop::bool::weighted(0.7), edits::edits(9)).prop_map(|(common, apart, edits)| Script {
        common,
        apart,
        edits,
    })
}

impl Pipeline {
    /// How many tasks are in `tasks`.
    pub fn dag(&self) -> usize {
        self.tasks.len() - self.finally
    }

    /// The tasks that `task` waits for.
    pub fn parents(&self, task: usize) -> BTreeSet<usize> {
        match task < self.dag() {
            true => self.tasks[task].after.union(&self.tasks[task].results).copied().collect(),
            false => (0..self.dag()).collect(),
        }
    }

    /// All tasks before `task`.
    pub fn ancestors(&self, task: usize) -> BTreeSet<usize> {
        let parents = self.parents(task);
        let further: BTreeSet<usize> = parents.iter().flat_map(|&parent| self.ancestors(parent)).collect();
        &parents | &further
    }

    /// The tasks as the Pipeline lists them, those of `finally` behind the others.
    fn listed(&self) -> Vec<usize> {
        let dag = 0..self.dag();
        let finally = self.dag()..self.tasks.len();
        match self.reversed {
            false => dag.chain(finally).collect(),
            true => dag.rev().chain(finally.rev()).collect(),
        }
    }

    /// Pipeline order: again and again the first one of the list whose parents all have their place.
    pub fn order(&self) -> Vec<usize> {
        let mut order: Vec<usize> = Vec::new();
        while order.len() < self.tasks.len() {
            let placed = |task: usize| order.contains(&task);
            let free = |task: &usize| !placed(*task) && self.parents(*task).into_iter().all(placed);
            let next = self.listed().into_iter().find(free).expect("the graph has no cycle");
            order.push(next);
        }
        order
    }

    /// Whether nothing but the end of the run keeps `task` from being started, and from ending it if it fails.
    pub fn is_certain(&self, task: usize) -> bool {
        let Task { when, continues, .. } = &self.tasks[task];
        when.is_none() && !continues && !self.may_be_taken_along(task)
    }

    /// Whether `task` may be skipped for another reason than its own `when`, as are then all after it.
    fn may_be_taken_along(&self, task: usize) -> bool {
        let Task { results, matrix, .. } = &self.tasks[task];
        let mut parents = self.parents(task).into_iter().filter(|_| task < self.dag());
        matrix.is_some_and(|matrix| matrix.from_result)
            || results.iter().any(|&on| !self.is_certain(on))
            || parents.any(|on| self.may_be_taken_along(on))
    }

    /// What is to be done with `task` now (Tekton: docs/pipelines.md, "Guard Task execution" and "Using onError").
    pub fn next(&self, task: usize, ends: &[Option<End>]) -> Next {
        let failed = |end: &Option<End>| matches!(end, Some(End::Failed | End::NotRestored));
        let stops = |(task, end): (usize, &Option<End>)| failed(end) && !self.tasks[task].continues;
        let in_dag = task < self.dag();
        let stopped = ends[..self.dag()].iter().enumerate().any(stops);
        if in_dag && stopped {
            return Next::Skip(End::SkippedOtherwise);
        }
        let parents = self.parents(task);
        if parents.iter().any(|&on| ends[on].is_none()) {
            return Next::Wait;
        }
        let skipped = |on: &usize| ends[*on] == Some(End::SkippedOtherwise);
        // A task whose steps fail has given its results before.
        let no_result = |on: &usize| !matches!(ends[*on], Some(End::Succeeded | End::Failed));
        let Task { when, matrix, results, .. } = &self.tasks[task];
        let is_empty = matrix.is_some_and(|matrix| matrix.combinations == 0);
        if in_dag && parents.iter().any(skipped) || results.iter().any(no_result) {
            return Next::Skip(End::SkippedOtherwise);
        }
        match when {
            Some(false) => Next::Skip(End::SkippedByWhen),
            _ if is_empty => Next::Skip(End::SkippedOtherwise),
            _ => Next::Start,
        }
    }

    /// Why a run says that it skipped `task` (Tekton: pipelinerun_types.go, `SkippingReason`).
    pub fn skipping_reason(&self, task: usize, ends: &[Option<End>]) -> &'static str {
        let parents = self.parents(task);
        let parent_skipped = parents.iter().any(|&on| ends[on] == Some(End::SkippedOtherwise));
        let no_result = |on: &usize| !matches!(ends[*on], Some(End::Succeeded | End::Failed));
        let Task { matrix, results, .. } = &self.tasks[task];
        match () {
            () if ends[task] == Some(End::SkippedByWhen) => "When Expressions evaluated to false",
            () if task < self.dag() && parent_skipped => "Parent Tasks were skipped",
            () if results.iter().any(no_result) => "Results were missing",
            () if matrix.is_some_and(|matrix| matrix.combinations == 0) => "Matrix Parameters have an empty array",
            () => "PipelineRun was stopping",
        }
    }

    /// How long the array is that the first task gives.
    pub fn list(&self) -> usize {
        let of_result = self.tasks.iter().filter_map(|task| task.matrix).find(|matrix| matrix.from_result);
        of_result.map_or(0, |matrix| matrix.combinations)
    }

    /// The same with a task that fails as often as it is tried, and ends the run.
    pub fn failing(mut self, task: usize) -> Self {
        let task = task % self.tasks.len();
        let retries = self.tasks[task].retries;
        self.tasks[task] = Task { fails: retries + 1, continues: false, ..self.tasks[task].clone() };
        self
    }

    /// PipelineRun and Pipeline.
    pub fn objects(&self, target: &str, base: Option<&str>) -> Value {
        let mut params = vec![
            json!({"name": "pipelineref", "value": "p"}),
            json!({"name": "workspaces", "value": WORKSPACES}),
            json!({"name": "target", "value": target}),
            json!({"name": "conflict", "value": if self.last { "last" } else { "fail" }}),
            json!({"name": "compression", "value": self.compression}),
            json!({"name": "failed", "value": if self.saves_failed { "save" } else { "discard" }}),
        ];
        // Every other task says it itself.
        let paths: Vec<String> = (0..self.tasks.len()).step_by(2).flat_map(|task| self.paths(task)).collect();
        if !paths.is_empty() {
            params.push(json!({"name": "paths", "value": paths.join(", ")}));
        }
        params.extend(base.map(|base| json!({"name": "base", "value": base})));
        let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "r"},
            "spec": {"pipelineRef": {"resolver": "wrap", "params": params}}});
        let list = |wanted: fn(usize, usize) -> bool| -> Vec<Value> {
            self.listed().into_iter().filter(|&task| wanted(task, self.dag())).map(|task| self.task(task)).collect()
        };
        let (tasks, finally) = (list(|task, dag| task < dag), list(|task, dag| task >= dag));
        let workspaces = WORKSPACES.map(|name| json!({"name": name}));
        let pipeline = json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"},
            "spec": {"workspaces": workspaces, "tasks": tasks, "finally": finally}});
        json!({"kind": "List", "items": [run, pipeline]})
    }

    /// The part of param `paths` that is about `task`.
    fn paths(&self, task: usize) -> Vec<String> {
        let mut paths: Vec<String> = self.tasks[task].paths.iter().map(Pattern::to_string).collect();
        paths.first_mut().into_iter().for_each(|first| *first = format!("t{task}={first}"));
        paths
    }

    fn task(&self, index: usize) -> Value {
        let task = &self.tasks[index];
        let used = || WORKSPACES.iter().zip(task.uses).filter(|(_, used)| *used != Use::No);
        let declared = used().map(|(name, used)| json!({"name": name, "readOnly": used == Use::ReadOnly}));
        let params = task
            .results
            .iter()
            .map(|on| json!({"name": format!("p{on}"), "value": format!("$(tasks.t{on}.results.r)")}));
        let mut value = json!({
            "name": format!("t{index}"),
            "params": params.collect::<Vec<_>>(),
            "workspaces": used().map(|(name, _)| json!({"name": name})).collect::<Vec<_>>(),
            "retries": task.retries,
            "taskSpec": {
                "workspaces": declared.collect::<Vec<_>>(),
                "steps": [{"name": "s", "image": "i", "script": "true"}],
            },
        });
        if index < self.dag() {
            value["runAfter"] = task.after.iter().map(|on| json!(format!("t{on}"))).collect();
        }
        if index % 2 == 1 && !task.paths.is_empty() {
            let paths: Vec<String> = task.paths.iter().map(Pattern::to_string).collect();
            value["taskSpec"]["metadata"] = json!({"annotations": {"tekton-wrap.dev/paths": paths.join(",")}});
        }
        if task.when.is_some() {
            value["when"] = json!([{"input": "a", "operator": "in", "values": ["b"]}]);
        }
        if task.continues {
            value["onError"] = json!("continue");
        }
        if let Some(Matrix { combinations, from_result }) = task.matrix {
            let values = match from_result {
                true => json!("$(tasks.t0.results.list[*])"),
                false => (0..combinations).map(|number| json!(number.to_string())).collect(),
            };
            value["matrix"] = json!({"params": [{"name": "combination", "value": values}]});
        }
        value
    }
}

/// A line for each task, so that a run that was found wanting can be read.
impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tasks, finally, reversed, last, base, compression, saves_failed } = self;
        writeln!(f, "finally: {finally}, reversed: {reversed}, last: {last}, base: {base:?}, {compression}")?;
        writeln!(f, "saves failed: {saves_failed}")?;
        for (index, task) in tasks.iter().enumerate() {
            let Task { after, results, uses, when, continues, fails, retries, matrix, scripts, paths, urgency } = task;
            write!(
                f,
                "  t{index}: after {after:?} results {results:?} uses {uses:?} when {when:?} continues {continues} "
            )?;
            writeln!(f, "fails {fails} of {retries} matrix {matrix:?} paths {paths:?} urgency {urgency}")?;
            for script in &scripts[..task.combinations()] {
                writeln!(f, "    {:?}\n    {:?}", script[0], script[1])?;
            }
        }
        Ok(())
    }
}

impl Task {
    /// How many TaskRuns it has, if it is started.
    pub fn combinations(&self) -> usize {
        self.matrix.map_or(1, |matrix| matrix.combinations)
    }
}
