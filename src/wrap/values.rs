//! Inlining a Task changes what Tekton substitutes in it; this compensates for that, so that every variable keeps its value.
//!
//! Tekton pushes the params and workspaces of the pipeline into embedded tasks before it makes their TaskRuns
//! (Tekton: pkg/reconciler/pipelinerun/resources/apply.go `propagateParams`, `ApplyWorkspaces`) and merges the params of all
//! embedded tasks when it validates a run (pkg/apis/pipeline/v1/pipelinerun_validation.go `validateInlineParameters`).
//! Neither happens for a Task that is referred to.

mod clashes;
mod early_substitution;
mod params;
mod rename;

use std::collections::HashSet;

use serde_json::Value;

use super::growth::Growth;
use crate::tekton::{
    fields::{field, items, text},
    run::Run,
};
use rename::TakenNames;
pub use rename::{Renaming, references_in};

/// A task of the pipeline while it is rewritten.
pub struct PipelineTask<'a> {
    /// The task in the pipeline, with its spec embedded.
    pub task: &'a mut Value,
    /// Name of the Task that was inlined; none where the Pipeline itself embeds it.
    pub from: Option<String>,
    /// Whether it is in `tasks`, not in `finally`.
    pub in_dag: bool,
}

/// Gives every inlined Task the values that it would have had as a reference. `binds`: whether the run binds a
/// workspace. Returns the params that were renamed, in the order of renaming.
pub fn keep(
    tasks: &mut [PipelineTask<'_>],
    run: Run<'_>,
    spec_params: &[Value],
    binds: &impl Fn(&str) -> bool,
    growth: &Growth,
) -> Vec<Renaming> {
    let scope = params::scope(run, spec_params);
    let mut names: HashSet<String> = scope.keys().cloned().collect();
    for inlined in tasks.iter() {
        names.extend(declared(inlined.task).map(str::to_owned));
    }
    let mut names = TakenNames::new(names);
    let mut all = Vec::new();
    let mut rename = |task: &mut Value, old: &[String]| {
        if old.is_empty() {
            return;
        }
        let renaming = Renaming::new(task, old, &mut names);
        renaming.apply(task, |old| scope.contains_key(old), growth);
        all.push(renaming);
    };
    let dotted = params::Dotted::new(&scope);
    for inlined in tasks.iter_mut() {
        if let Some(from) = &inlined.from {
            early_substitution::substitute_early(inlined.task, from, binds, growth);
            let shadowed = params::shadowed(inlined.task, &scope, &dotted);
            rename(inlined.task, &shadowed);
        }
    }
    clashes::resolve(tasks, &scope, &mut rename);
    all
}

/// The names of the params that an embedded task declares.
fn declared(task: &Value) -> impl Iterator<Item = &str> {
    let spec = field(task, "taskSpec");
    spec.into_iter().flat_map(|spec| items(spec, "params")).map(|param| text(param, "name"))
}
