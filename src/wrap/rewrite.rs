//! The rewrite itself, step by step.

use std::{collections::HashMap, io};

use serde_json::Value;

use super::{
    aliases, bindings, explain, inline,
    limits::MAX_RUN_BYTES,
    patch, pipeline_name, plan, pod_template, provenance,
    refusal::Refusal,
    request::Request,
    security,
    settings::Settings,
    steps,
    task_spec::{all_tasks, all_tasks_mut},
    values, working_dir,
};
use crate::{
    source::Found,
    tekton::{
        fields::{field, field_mut, items, text},
        graph::Graph,
        matrix::{Fan, fan},
        reference::Reference,
        run::Run,
        scope::Scope,
        workspaces::{Use, uses},
    },
};

/// How the run has to change.
#[derive(Clone, Debug)]
pub struct Rewrite {
    /// Explicit operations, never a diff.
    pub patch: json_patch::Patch,
    /// What the creator of the run should know, a line each.
    pub warnings: Vec<String>,
    /// The run with the patch applied.
    pub run: Value,
    /// What happens to each task, in pipeline order.
    pub notes: Vec<explain::TaskNote>,
}

/// The Tasks that have to be inlined, each once: those that a task refers to and that get a wrapped workspace. A referenced
/// Task gets only the workspaces that the pipeline binds, so this is known before the Task is read.
pub fn tasks_to_inline(
    run: Run<'_>,
    namespace: &str,
    request: &Request,
    pipeline: &Value,
) -> Result<Vec<Reference>, Refusal> {
    let spec = request.pipeline_spec(pipeline)?;
    let scope = Scope::of_run(run, namespace).in_pipeline(spec, request.pipeline_name(pipeline));
    let mut references = Vec::new();
    for task in all_tasks(spec).filter(|task| uses(task).iter().any(|used| request.wraps(&used.pipeline))) {
        if let Some(reference) = inline::referenced_task(task, &scope)?
            && !references.contains(&reference)
        {
            references.push(reference);
        }
    }
    Ok(references)
}

/// The wrapped form of `run`, about to be created in `namespace`. `pipeline` is what [`Request::pipeline`] names, `tasks`
/// holds what [`tasks_to_inline`] names.
pub fn rewrite(
    run: Run<'_>,
    namespace: &str,
    request: &Request,
    pipeline: &Found,
    tasks: &HashMap<Reference, Found>,
    settings: &Settings,
) -> Result<Rewrite, Refusal> {
    let mut spec = request.pipeline_spec(&pipeline.object)?.clone();
    let name = request.pipeline_name(&pipeline.object);
    let scope = Scope::of_run(run, namespace).in_pipeline(request.pipeline_spec(&pipeline.object)?, name);
    let graph = Graph::new(&spec).map_err(|source| Refusal::Graph { pipeline: name.to_owned(), source })?;
    let (used, renamings) = embed(run, request, &mut spec, &graph, &scope, tasks)?;
    let plan = plan::Plan::new(request, &spec, &graph, &used, &fans(run, &spec))
        .map_err(|plan::TooManyTaskRuns { count }| Refusal::TooManyTaskRuns { pipeline: name.to_owned(), count })?;
    for ((task, plan), used) in all_tasks_mut(&mut spec).into_iter().zip(&plan.tasks).zip(&used) {
        let restored: Vec<&Use> =
            used.iter().filter(|used| plan.restore.iter().any(|step| step.name == used.pipeline)).collect();
        let non_root = security::forbids_root(task, &security::pod_context(run, text(task, "name")));
        working_dir::enter_later(task, &restored, non_root, &scope)?;
        steps::inject(task, plan, used, run, request, settings, &scope)?;
    }
    // Of an embedded pipeline the name is that of its run, as ever.
    let name_of_pipeline = request.pipeline.as_ref().map(|_| name);
    if let Some(name) = name_of_pipeline {
        pipeline_name::keep(&mut spec, name);
    }
    let changes = patch::Changes {
        spec,
        bindings: bindings::bind(run, request)?,
        values: name_of_pipeline.map(|name| pipeline_name::in_run(run, name)).unwrap_or_default(),
        task_run_specs: pod_template::rename(run, &renamings),
    };
    let (patch, run) = patch::build(run, pipeline, changes, request)?;
    let size = size(&run);
    if size > MAX_RUN_BYTES {
        return Err(Refusal::TooLarge { pipeline: name.to_owned(), size, limit: MAX_RUN_BYTES });
    }
    let idle = request.workspaces.iter().filter(|name| !used.iter().flatten().any(|used| used.pipeline == **name));
    let mut warnings: Vec<String> =
        idle.map(|name| format!("workspace {name:?} is wrapped, but no task uses it")).collect();
    warnings.extend(origins(request, tasks));
    let notes = explain::notes(&graph, &plan, &used);
    Ok(Rewrite { patch, warnings, run, notes })
}

/// Embeds every task that uses a wrapped workspace, so that its variables keep their values; returns what each task uses, and
/// the params that were renamed.
fn embed(
    run: Run<'_>,
    request: &Request,
    spec: &mut Value,
    graph: &Graph,
    scope: &Scope<'_>,
    tasks: &HashMap<Reference, Found>,
) -> Result<(Vec<Vec<Use>>, Vec<values::Renaming>), Refusal> {
    let binds = |name: &str| request.wraps(name) || run.binding(name).is_some();
    let sub_path = |name: &str| run.binding(name).map_or("", |binding| text(binding, "subPath")).to_owned();
    let spec_params = items(spec, "params").to_vec();

    let mut all_used = Vec::new();
    let mut embedded = Vec::new();
    for (index, task) in all_tasks_mut(spec).into_iter().enumerate() {
        let mut used: Vec<Use> = uses(task).into_iter().filter(|used| request.wraps(&used.pipeline)).collect();
        let mut from = None;
        if let Some(own) = field_mut(task, "taskSpec") {
            provenance::strip(own);
        }
        if let Some(first) = used.first() {
            let workspace = first.pipeline.clone();
            from = inline::inline(task, &used, scope, tasks)?;
            inline::refuse_windows(task, &workspace, run)?;
            used = aliases::merge(task, used, &sub_path)?;
        }
        embedded.push(values::Inlined { task, from, in_dag: index < graph.dag_len });
        all_used.push(used);
    }
    let renamings = values::keep(&mut embedded, run, &spec_params, &binds);
    Ok((all_used, renamings))
}

/// The fan-outs of the tasks' matrices, with the values that the run gives the params or the Pipeline's defaults.
fn fans<'a>(run: Run<'a>, spec: &'a Value) -> Vec<Option<Fan>> {
    fn named<'a>(params: &'a [Value], name: &str) -> Option<&'a Value> {
        params.iter().find(|param| text(param, "name") == name)
    }
    let param = |name: &str| match named(run.params(), name) {
        Some(given) => field(given, "value"),
        None => named(items(spec, "params"), name).and_then(|declared| field(declared, "default")),
    };
    all_tasks(spec).map(|task| fan(task, &param)).collect()
}

/// Bytes of a value as JSON.
fn size(value: &Value) -> usize {
    struct Counter(usize);
    impl io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0 += bytes.len();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    // A counter never fails, and a value is always JSON.
    serde_json::to_writer(&mut counter, value).map_or(usize::MAX, |()| counter.0)
}

/// Warnings that name the objects that came through resolvers: if Tekton refuses the run because of one, its message names only
/// a path in the run.
fn origins(request: &Request, tasks: &HashMap<Reference, Found>) -> Vec<String> {
    let remote = |(kind, reference): (&str, &Reference)| {
        reference.resolver().map(|_| format!("spec.pipelineSpec has the {kind} {reference} in it"))
    };
    let mut tasks: Vec<String> = tasks.keys().filter_map(|reference| remote(("task", reference))).collect();
    tasks.sort_unstable();
    let pipeline = request.pipeline.as_ref().and_then(|reference| remote(("pipeline", reference)));
    pipeline.into_iter().chain(tasks).collect()
}
