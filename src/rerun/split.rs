//! Which tasks run again.

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

use std::collections::HashSet;

use serde_json::Value;

use super::{
    RerunRefusal, RerunScope,
    first::{Ended, FirstRun},
    refusal::list,
};
use crate::{
    annotations::RERUN_OF,
    tekton::{
        fields::{field, items, text, texts},
        graph::Graph,
        run::Run,
        variables::{param_names, references},
        workspaces::uses,
    },
};

/// The tasks of a pipeline in two parts.
pub struct Split {
    /// For each task whether it is left out.
    left_out: Vec<bool>,
    names: HashSet<String>,
}

impl Split {
    /// Splits the `tasks` of `first`, whose graph is `graph`.
    pub fn new(
        first: &FirstRun<'_>,
        graph: &Graph,
        tasks: &[&Value],
        scope: &RerunScope,
        params: &[(String, Value)],
    ) -> Result<Self, RerunRefusal> {
        let mut left_out = vec![false; tasks.len()];
        if *scope != RerunScope::All {
            let start = start(first, graph, scope)?;
            let ended = graph.names.iter().map(|name| first.ended(name)).collect::<Result<Vec<_>, _>>()?;
            let in_dag = |task: &usize| *task < graph.dag_len;
            let changed = changed_params(first, params);
            let fails = |task: usize| matches!(ended[task], Ended::Failed | Ended::NotStarted);
            let again = |task: usize| {
                start == Some(task)
                    || fails(task)
                    || uses_param(tasks[task], &changed)
                    || ended[task] == Ended::Skipped && may_start(tasks[task])
            };
            let again: Vec<bool> = (0..tasks.len()).map(again).collect();
            if *scope == RerunScope::Failed
                && !(0..tasks.len()).any(|task| again[task] && (in_dag(&task) || fails(task)))
            {
                return Err(RerunRefusal::NothingFailed(first.name.to_owned()));
            }
            for task in (0..tasks.len()).filter(in_dag) {
                let runs = again[task] || graph.ancestors[task].ones().any(|before| again[before]);
                left_out[task] = !runs && ended[task] == Ended::Succeeded;
            }
        }
        let names = tasks.iter().zip(&left_out).filter(|(_, left_out)| **left_out);
        let names = names.map(|(task, _)| text(task, "name").to_owned()).collect();
        Ok(Self { left_out, names })
    }

    /// Whether the task with this index is left out.
    pub fn is_left_out(&self, task: usize) -> bool {
        self.left_out.get(task).copied().unwrap_or_default()
    }

    /// Whether the task `name` is.
    pub fn leaves_out(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The names of those that are, in the order of the pipeline.
    pub fn names_left_out(&self, tasks: &[&Value]) -> Vec<String> {
        tasks.iter().map(|task| text(task, "name").to_owned()).filter(|name| self.leaves_out(name)).collect()
    }

    /// Refuses where files would be lost that are on a volume of the first run alone.
    pub fn check_volumes(&self, first: &FirstRun<'_>, tasks: &[&Value]) -> Result<(), RerunRefusal> {
        let run = Run::new(first.object);
        let is_lost =
            |name: &str| run.binding(name).is_some_and(|binding| field(binding, "volumeClaimTemplate").is_some());
        let mut left: Vec<(String, &str)> = Vec::new();
        for task in tasks.iter().filter(|task| self.leaves_out(text(task, "name"))) {
            let lost = uses(task).into_iter().filter(|used| is_lost(&used.pipeline));
            left.extend(lost.map(|used| (used.pipeline, text(task, "name"))));
        }
        for user in tasks.iter().filter(|task| !self.leaves_out(text(task, "name"))) {
            for used in uses(user) {
                if let Some((workspace, task)) = left.iter().find(|(workspace, _)| *workspace == used.pipeline) {
                    return Err(RerunRefusal::Volume {
                        user: text(user, "name").to_owned(),
                        workspace: workspace.clone(),
                        task: (*task).to_owned(),
                    });
                }
            }
        }
        Ok(())
    }
}

/// The index of the task of `--from`.
fn start(first: &FirstRun<'_>, graph: &Graph, scope: &RerunScope) -> Result<Option<usize>, RerunRefusal> {
    let RerunScope::From(name) = scope else { return Ok(None) };
    let found = graph.names.iter().position(|task| task == name);
    if found.is_some() {
        return Ok(found);
    }
    let annotations = Run::new(first.object).metadata("annotations");
    let hint = match annotations.map_or("", |annotations| text(annotations, RERUN_OF)) {
        "" => String::new(),
        earlier => format!("; it is a rerun of {earlier:?}, which may have it"),
    };
    let tasks: Vec<&str> = graph.names.iter().map(String::as_str).collect();
    Err(RerunRefusal::NoTask { run: first.name.to_owned(), task: name.clone(), tasks: list(&tasks), hint })
}

/// The params whose value is another one than in the first run, with those whose defaults refer to them.
fn changed_params(first: &FirstRun<'_>, params: &[(String, Value)]) -> HashSet<String> {
    let run = Run::new(first.object);
    let declared = items(first.pipeline, "params");
    let given = |name: &str| run.params().iter().find(|param| text(param, "name") == name);
    let default =
        |name: &str| declared.iter().find(|param| text(param, "name") == name).and_then(|p| field(p, "default"));
    let before = |name: &str| given(name).and_then(|param| field(param, "value")).or_else(|| default(name));
    let mut changed: HashSet<String> =
        params.iter().filter(|(name, value)| before(name) != Some(value)).map(|(name, _)| name.clone()).collect();
    loop {
        let refers = |param: &&Value| {
            let name = text(param, "name");
            given(name).is_none()
                && !changed.contains(name)
                && field(param, "default").is_some_and(|v| refers(v, &changed))
        };
        let more: Vec<String> = declared.iter().filter(refers).map(|param| text(param, "name").to_owned()).collect();
        if more.is_empty() {
            return changed;
        }
        changed.extend(more);
    }
}

/// Whether a task uses one of these params, in an embedded task too.
fn uses_param(task: &Value, changed: &HashSet<String>) -> bool {
    !changed.is_empty() && refers(task, changed)
}

fn refers(value: &Value, changed: &HashSet<String>) -> bool {
    let mut found = false;
    texts(value, &mut |text| {
        found |= references(text).any(|reference| {
            reference.starts_with("params") && param_names(reference).any(|(name, _)| changed.contains(name))
        });
    });
    found
}

/// Whether the `when` of a skipped task may hold in another run, though all that is before it ends as it did.
fn may_start(task: &Value) -> bool {
    let mut found = false;
    texts(field(task, "when").unwrap_or(&Value::Null), &mut |text| {
        found |= references(text).any(|reference| reference.starts_with("context."));
    });
    found
}
