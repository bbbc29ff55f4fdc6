//! What the injected steps of a rerun are told: whose snapshots stand for tasks that are left out, and where they are.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use serde_json::{Value, json};

use super::{RerunRefusal, first::FirstRun, results::declaration, split::Split};
use crate::{
    step::{
        ENV, EarlierRun, Predecessor, RUNTIME_VARIABLES, StepConfig, WorkspaceStep,
        stored::{Identity, Injected, injected},
    },
    tekton::fields::{field_mut, items_mut, text},
};

/// A snapshot that a rerun needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// The task that left it.
    pub task: String,
    /// The task's place in pipeline order.
    pub order: u32,
    /// How a step of the rerun looks for it: with one workspace, and no variable left.
    pub step: StepConfig,
}

/// What all injected steps of a rerun are told.
pub struct Told<'a> {
    earlier: Vec<EarlierRun>,
    first: Identity<'a>,
    /// Names of the tasks that are left out and have no matrix: they certainly left a snapshot.
    certain: BTreeSet<String>,
}

/// The injected steps of a task.
fn configs(task: &Value) -> Result<Vec<Injected>, RerunRefusal> {
    injected(task).map_err(|source| RerunRefusal::Step { task: text(task, "name").to_owned(), source })
}

/// Whether a task has an injected step.
pub fn is_told(task: &Value) -> bool {
    configs(task).is_ok_and(|configs| !configs.is_empty())
}

impl<'a> Told<'a> {
    /// For a rerun of `first` without the tasks that `split` leaves out.
    pub fn new(first: &FirstRun<'a>, tasks: &[&Value], split: &Split) -> Result<Self, RerunRefusal> {
        let mut earlier: Vec<EarlierRun> = Vec::new();
        let mut orders: Vec<(u32, u32)> = Vec::new();
        let mut certain = BTreeSet::new();
        for task in tasks {
            let configs = configs(task)?;
            if let Some(Injected { config, .. }) = configs.first() {
                // The same in all tasks of a rerun.
                earlier.clone_from(&config.earlier);
            }
            if split.leaves_out(text(task, "name")) {
                orders.extend(configs.first().map(|step| places(&step.config)));
                if configs.iter().all(|step| step.config.matrix.is_none()) {
                    certain.insert(text(task, "name").to_owned());
                }
            }
        }
        if !orders.is_empty() {
            earlier.push(EarlierRun { run: first.uid.to_owned(), tasks: merged(orders) });
        }
        Ok(Self { earlier, first: Identity::of(first.object), certain })
    }

    /// Tells the injected steps of `task`, which comes after the tasks `before` of the rerun, and the first of them to give these
    /// results.
    pub fn tell(
        &self,
        task: &mut Value,
        before: &HashSet<&str>,
        results: Option<&BTreeMap<String, Value>>,
    ) -> Result<(), RerunRefusal> {
        let mut configs = configs(task)?.into_iter();
        let Some(spec) = field_mut(task, "taskSpec").and_then(Value::as_object_mut) else { return Ok(()) };
        let mut results = results.filter(|results| !results.is_empty());
        for (name, value) in results.into_iter().flatten() {
            items_mut(spec, "results").into_iter().for_each(|list| list.push(declaration(name, value)));
        }
        for step in items_mut(spec, "steps").into_iter().flatten() {
            let Some(env) = field_mut(step, "env").and_then(Value::as_array_mut) else { continue };
            if !env.iter().any(|variable| text(variable, "name") == ENV) {
                continue;
            }
            let Some(Injected { config, .. }) = configs.next() else { continue };
            let mut config = self.changed(config, before);
            config.results.extend(results.take().cloned().unwrap_or_default());
            write(env, &config);
        }
        Ok(())
    }

    /// A step's configuration for the rerun. The repository of a target stays that of the first run, where the snapshots are;
    /// its tag is that of the new run.
    fn changed(&self, mut config: StepConfig, before: &HashSet<&str>) -> StepConfig {
        if self.earlier.is_empty() {
            return config;
        }
        config.earlier.clone_from(&self.earlier);
        for workspace in &mut config.workspaces {
            workspace.target = pinned(self.first, &workspace.target);
            workspace.base = workspace.base.as_ref().map(|base| self.first.resolved(base));
            // One that was skipped, and came before only by way of a task that is left out, left nothing.
            let is_earlier = |order| self.earlier.iter().any(|run| StepConfig::in_ranges(&run.tasks, order));
            workspace.after.retain(|task| is_earlier(task.order) || before.contains(&*task.task));
            for before in workspace.after.iter_mut().filter(|before| self.certain.contains(&before.task)) {
                before.optional = false;
            }
        }
        config
    }

    /// The snapshots that the tasks `kept` need of those that are left out. Says where workspaces stay that they don't save.
    pub fn needs<'b>(
        &self,
        first: &FirstRun<'_>,
        tasks: &[&Value],
        split: &Split,
        kept: impl Iterator<Item = &'b Value>,
        notes: &mut Vec<String>,
    ) -> Result<Vec<Need>, RerunRefusal> {
        let (mut used, mut saved, mut needs) = (BTreeSet::new(), BTreeSet::new(), BTreeMap::new());
        for task in kept {
            for Injected { saves, config } in configs(task)? {
                for workspace in &config.workspaces {
                    used.insert(workspace.name.clone());
                    if saves {
                        saved.insert(workspace.name.clone());
                    }
                    let sure = |before: &&Predecessor| !before.optional && before.last.is_none();
                    for before in workspace.after.iter().filter(sure) {
                        self.need(&config, workspace, &before.task, before.order, &mut needs);
                    }
                }
            }
        }
        for task in tasks.iter().filter(|task| split.leaves_out(text(task, "name"))) {
            let name = text(task, "name");
            for Injected { config, .. } in configs(task)?.into_iter().filter(|step| step.saves) {
                let count = u32::try_from(first.runs_of(name)?.len()).unwrap_or(u32::MAX);
                for workspace in &config.workspaces {
                    let of_run = |tag: &str| tag.contains("$(");
                    let target = &workspace.target;
                    if !saved.contains(&workspace.name) && target.rsplit_once(':').is_some_and(|(_, tag)| of_run(tag)) {
                        let (workspace, target) = (&workspace.name, self.first.resolved(target));
                        let note =
                            format!("workspace {workspace:?} stays at {target}: no task that runs again saves it");
                        if !notes.contains(&note) {
                            notes.push(note);
                        }
                    }
                    for order in (config.order..).take(count as usize).filter(|_| used.contains(&workspace.name)) {
                        self.need(&config, workspace, name, order, &mut needs);
                    }
                }
            }
        }
        Ok(needs.into_values().collect())
    }

    /// Adds a snapshot, if it is one of an earlier run.
    fn need(
        &self,
        config: &StepConfig,
        workspace: &WorkspaceStep,
        task: &str,
        order: u32,
        needs: &mut BTreeMap<(String, u32), Need>,
    ) {
        if !self.earlier.iter().any(|earlier| StepConfig::in_ranges(&earlier.tasks, order)) {
            return;
        }
        let workspace = WorkspaceStep {
            target: self.first.resolved(&workspace.target),
            base: workspace.base.as_ref().map(|base| self.first.resolved(base)),
            ..workspace.clone()
        };
        let key = (workspace.name.clone(), order);
        let step = StepConfig {
            run: String::new(),
            earlier: self.earlier.clone(),
            results: BTreeMap::new(),
            workspaces: vec![workspace],
            ..config.clone()
        };
        needs.insert(key, Need { task: task.to_owned(), order, step });
    }
}

/// `target` in the repository that it is in for `first`, with the tag as it is.
fn pinned(first: Identity<'_>, target: &str) -> String {
    match target.rsplit_once(':').filter(|(_, tag)| !tag.contains('/')) {
        Some((repository, tag)) => format!("{}:{tag}", first.resolved(repository)),
        None => first.resolved(target),
    }
}

/// Pipeline order of a task, from the first combination of its matrix to the last.
fn places(config: &StepConfig) -> (u32, u32) {
    let more = config.matrix.as_ref().map_or(0, |matrix| matrix.most.saturating_sub(1));
    (config.order, config.order.saturating_add(more))
}

/// Ranges in ascending order, those that touch each other as one.
fn merged(mut ranges: Vec<(u32, u32)>) -> Vec<(u32, u32)> {
    ranges.sort_unstable();
    let mut merged: Vec<(u32, u32)> = Vec::new();
    for (start, end) in ranges {
        match merged.last_mut() {
            Some((_, last)) if start <= last.saturating_add(1) => *last = end.max(*last),
            _ => merged.push((start, end)),
        }
    }
    merged
}

/// Writes a configuration into the environment of its step.
fn write(env: &mut Vec<Value>, config: &StepConfig) {
    let variables = config.to_env();
    let is_unused = |name: &str| {
        RUNTIME_VARIABLES.iter().any(|own| own.env == name) && !variables.iter().any(|(used, _)| *used == name)
    };
    env.retain(|variable| !is_unused(text(variable, "name")));
    for (name, value) in &variables {
        match env.iter_mut().find(|variable| text(variable, "name") == *name) {
            Some(variable) => *variable = json!({"name": name, "value": value}),
            None => env.push(json!({"name": name, "value": value})),
        }
    }
}
