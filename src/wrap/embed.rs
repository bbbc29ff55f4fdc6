//! Embeds every Task that uses a wrapped workspace, with the values that it had as a reference.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    aliases, bounds,
    growth::Growth,
    inline,
    refusal::Refusal,
    request::{Request, check_keys},
    task_spec::all_tasks_mut,
    values::{self, PipelineTask, Renaming},
};
use crate::{
    annotations,
    limits::{Exceeded, MAX_NAME, MAX_RUN_BYTES, MAX_VALUES},
    source::Found,
    tekton::{
        fields::{field, field_mut, items, text},
        graph::Graph,
        reference::Reference,
        run::Run,
        scope::Scope,
        workspaces::{Use, uses},
    },
};

/// Whether there is no time left to finish a rewrite.
pub type IsLate<'a> = &'a dyn Fn() -> bool;

/// What a pipeline is embedded with.
pub struct Embedding<'a> {
    /// The run.
    pub run: Run<'a>,
    /// What it asks for.
    pub request: &'a Request,
    /// Name of the pipeline.
    pub pipeline: &'a str,
    /// The values of the pipeline's variables.
    pub scope: &'a Scope<'a>,
    /// The Tasks that its tasks refer to.
    pub tasks: &'a HashMap<Reference, Found>,
    /// Whether there is no time left.
    pub is_late: IsLate<'a>,
    /// How much is added.
    pub growth: &'a Growth,
}

/// A pipeline with all Tasks embedded.
pub struct Embedded {
    /// The wrapped workspaces that each task uses, by its index in the graph.
    pub uses: Vec<Vec<Use>>,
    /// The params that got other names.
    pub renamings: Vec<Renaming>,
}

impl Embedding<'_> {
    /// Changes `spec`, the pipeline's, whose graph is `graph`.
    pub fn apply_to(&self, spec: &mut Value, graph: &Graph) -> Result<Embedded, Refusal> {
        let Self { run, request, pipeline, scope, tasks, is_late, growth } = *self;
        let check_growth = || growth.check().map_err(|size| too_large(pipeline, size));
        let mut bindings = HashMap::new();
        for binding in run.bindings() {
            bindings.entry(text(binding, "name")).or_insert(binding);
        }
        let binds = |name: &str| request.wraps(name) || bindings.contains_key(name);
        let sub_path = |name: &str| bindings.get(name).map_or("", |binding| text(binding, "subPath")).to_owned();
        let spec_params = items(spec, "params").to_vec();

        let mut inlined = bounds::InlinedSize::default();
        let mut all_uses = Vec::new();
        let mut embedded = Vec::new();
        for (index, task) in all_tasks_mut(spec).into_iter().enumerate() {
            check_time(is_late)?;
            let mut used: Vec<Use> = uses(task).into_iter().filter(|used| request.wraps(&used.pipeline)).collect();
            let mut from = None;
            if let Some(own) = field_mut(task, "taskSpec") {
                annotations::strip(own);
            }
            if let Some(first) = used.first() {
                let workspace = first.pipeline.clone();
                from = inline::inline(task, &used, scope, tasks)?;
                check_inlined(task, from.as_deref(), pipeline, &mut inlined)?;
                inline::refuse_windows(task, &workspace, run)?;
                used = aliases::merge(task, used, &sub_path, growth)?;
                check_growth()?;
            }
            embedded.push(PipelineTask { task, from, in_dag: index < graph.dag_len });
            all_uses.push(used);
        }
        let renamings = values::keep(&mut embedded, run, &spec_params, &binds, growth);
        check_growth()?;
        Ok(Embedded { uses: all_uses, renamings })
    }
}

/// Refuses a `task` that holds too much, or with which the pipeline holds too much. `from` is the Task that was inlined in it.
fn check_inlined(
    task: &Value,
    from: Option<&str>,
    pipeline: &str,
    inlined: &mut bounds::InlinedSize,
) -> Result<(), Refusal> {
    let (Some(from), Some(spec)) = (from, field(task, "taskSpec")) else { return Ok(()) };
    let shown = format!("task {:?}", text(task, "name"));
    Exceeded::check(from.len(), MAX_NAME, "bytes in the name of its Task", || shown.clone())?;
    bounds::check_task_spec(spec, &shown)?;
    check_keys(spec, || format!("{shown}, with Task {from:?},"))?;
    inlined.add(spec);
    if inlined.bytes > MAX_RUN_BYTES {
        return Err(too_large(pipeline, inlined.bytes));
    }
    Ok(Exceeded::check(inlined.values, MAX_VALUES, "values", || format!("pipeline {pipeline:?} with its Tasks"))?)
}

/// That the wrapped form of `pipeline` has `size` bytes, or at least so many.
pub fn too_large(pipeline: &str, size: usize) -> Refusal {
    Refusal::TooLarge { pipeline: pipeline.to_owned(), size, limit: MAX_RUN_BYTES }
}

/// Refuses to go on if there is no time left.
pub fn check_time(is_late: IsLate<'_>) -> Result<(), Refusal> {
    if is_late() { Err(Refusal::Late) } else { Ok(()) }
}
