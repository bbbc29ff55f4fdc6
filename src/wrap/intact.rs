//! Whether a run that was wrapped before is still what it was: it is created again by a rerun, or shown a second time because
//! another webhook changed it (Kubernetes: `reinvocationPolicy`).
//!
//! What matters is what a task sees: each one has to restore what exactly those ancestors saved that also come before it in
//! the graph as it is now, first of all, and to save last, to where the others look for it. How the steps are configured beside
//! that is for the version that injected them. Whoever creates runs may as well create one that is not wrapped: this finds what
//! others changed without knowing what it means.
//!
//! | module | contents |
//! |---|---|
//! | [`steps`] | what the injected steps of a task say |

#![allow(
    clippy::indexing_slicing,
    reason = "tasks are numbered by their graph, and each list here has a place for all of them"
)]

mod steps;

use std::collections::{BTreeSet, HashMap};

use fixedbitset::FixedBitSet;
use serde_json::Value;

use self::steps::{TaskSteps, tells_steps};
use super::refusal::Refusal;
use crate::{
    limits::{Exceeded, MAX_TASKS, MAX_USES},
    tekton::{
        fields::{field, items, text},
        graph::Graph,
        matrix::fans,
        run::Run,
        tasks::all_tasks,
        workspaces::is_read_only,
    },
};

/// Refuses `run`, whose embedded pipeline is wrapped, if a task would not see what it should.
pub fn check(run: Run<'_>) -> Result<(), Refusal> {
    let Some(spec) = run.pipeline_spec() else { return Ok(()) };
    let tasks: Vec<&Value> = all_tasks(spec).collect();
    let what = || "the pipeline".to_owned();
    Exceeded::check(tasks.len(), MAX_TASKS, "tasks", what)?;
    // Tekton refuses what is no graph.
    let Ok(graph) = Graph::new(spec) else { return Ok(()) };
    let mut injected = Vec::with_capacity(tasks.len());
    for (task, name) in tasks.iter().zip(&graph.names) {
        injected.push(TaskSteps::read(task).map_err(|problem| changed(name, problem))?);
    }
    Exceeded::check(injected.iter().map(|task| task.uses.len()).sum(), MAX_USES, "uses of workspaces", what)?;
    for ((own, name), fan) in injected.iter().zip(&graph.names).zip(fans(run, spec)) {
        if own.task.as_ref().is_some_and(|injected_into| injected_into != name) {
            return Err(changed(name, "has the injected steps of another task"));
        }
        if own.displaced {
            return Err(changed(name, "has a step before the injected restore step or after the injected save step"));
        }
        if own.task.is_some() && fan.map_or(1, |fan| fan.most) > own.combinations {
            return Err(changed(name, "has a matrix with more combinations than it had"));
        }
    }
    check_pod_templates(run, &graph, &injected)?;
    let wrapped: BTreeSet<&String> =
        injected.iter().flat_map(|task| task.saved.iter().chain(task.restored.keys())).collect();
    for workspace in wrapped {
        check_places(run, workspace, &graph, &injected)?;
        check_workspace(workspace, &graph, &injected)?;
    }
    Ok(())
}

/// Checks that no pod template changes what the steps are told: its variables go before theirs (Tekton: docs/podtemplates.md).
fn check_pod_templates(run: Run<'_>, graph: &Graph, injected: &[TaskSteps<'_>]) -> Result<(), Refusal> {
    let mut variables = run.pod_templates().flat_map(|template| items(template, "env"));
    let first = injected.iter().zip(&graph.names).find(|(own, _)| own.task.is_some());
    match first {
        Some((_, name)) if variables.any(|variable| tells_steps(text(variable, "name"))) => {
            Err(changed(name, "has a pod template that tells its injected steps something else"))
        }
        _ => Ok(()),
    }
}

/// Checks that all tasks look for `workspace` in the same place, and find there what the steps bring.
fn check_places(run: Run<'_>, workspace: &str, graph: &Graph, injected: &[TaskSteps<'_>]) -> Result<(), Refusal> {
    let (mut first, mut base) = (None, None);
    for (own, name) in injected.iter().zip(&graph.names) {
        let Some(place) = own.places.get(workspace) else { continue };
        if field(run.binding(workspace).unwrap_or(&Value::Null), "emptyDir").is_none() {
            return Err(changed(name, "has a workspace that is no emptyDir any more"));
        }
        if place.is_mounted_elsewhere {
            return Err(changed(name, "has a workspace that is not mounted where its injected steps look for it"));
        }
        if place.targets.len() > 1 || *first.get_or_insert(&place.targets) != &place.targets {
            return Err(changed(name, "has another target than the tasks before it"));
        }
        if place.bases.len() > 1 || *base.get_or_insert(&place.bases) != &place.bases {
            return Err(changed(name, "has another base than the tasks before it"));
        }
    }
    Ok(())
}

/// Checks what each task restores and saves of `workspace`.
fn check_workspace(workspace: &str, graph: &Graph, injected: &[TaskSteps<'_>]) -> Result<(), Refusal> {
    let count = graph.names.len();
    let by_name: HashMap<&str, usize> =
        graph.names.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
    let use_of = |task: usize| injected[task].uses.iter().find(|used| used.pipeline == workspace);
    let users: Vec<usize> = (0..count).filter(|&task| use_of(task).is_some()).collect();
    let savers: FixedBitSet = (0..count).filter(|&task| injected[task].saved.contains(workspace)).collect();
    let has_base =
        injected.iter().filter_map(|task| task.places.get(workspace)).any(|place| !place.bases.contains(&None));
    // The tasks whose changes are in what each one restores: those that it names, and those that their snapshots name.
    let mut restored = vec![FixedBitSet::with_capacity(count); count];
    let is_rerun = injected.iter().any(|task| task.goes_on);
    for task in graph.in_order() {
        let wrong = || changed(&graph.names[task], "does not restore what the tasks before it save");
        for (name, order) in injected[task].restored.get(workspace).into_iter().flatten() {
            let before = by_name.get(name.as_str()).copied().filter(|&before| graph.ancestors[task].contains(before));
            let before = before.filter(|&before| injected[before].has_order(*order)).ok_or_else(wrong)?;
            let known = restored[before].clone();
            restored[task].union_with(&known);
            restored[task].insert(before);
        }
        let Some(used) = use_of(task) else { continue };
        if has_base && !injected[task].restored.contains_key(workspace) {
            return Err(changed(&graph.names[task], "does not restore the base"));
        }
        let mut expected = graph.ancestors[task].clone();
        expected.intersect_with(&savers);
        // In a rerun the snapshots of tasks that are left out name more than is known here.
        let agrees = if is_rerun && injected[task].task.is_some() {
            restored[task].is_subset(&expected)
        } else {
            restored[task].ones().eq(expected.ones())
        };
        if !agrees {
            return Err(wrong());
        }
        let changes_it = injected[task].spec.is_none_or(|spec| !is_read_only(spec, &used.task));
        // What no later task uses need not be saved.
        let is_used_later = users.iter().any(|&later| graph.ancestors[later].contains(task));
        if changes_it && is_used_later && !injected[task].saved.contains(workspace) {
            return Err(changed(&graph.names[task], "does not save what it changes"));
        }
    }
    Ok(())
}

fn changed(task: &str, problem: &'static str) -> Refusal {
    Refusal::ChangedAfterWrapping { task: task.to_owned(), problem }
}

#[cfg(test)]
mod tests;
