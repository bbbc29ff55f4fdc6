//! The rewrite itself, step by step.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    bindings,
    caches::NoTask,
    embed::{Embedded, Embedding, IsLate, check_time, too_large},
    explain::Explanation,
    failure,
    growth::Growth,
    inline, mounts, patch, paths, pipeline_name,
    plan::{Plan, PlanError},
    pod_template,
    refusal::Refusal,
    request::Request,
    same_on_volume, security,
    settings::Settings,
    steps,
    task_spec::all_tasks_mut,
    working_dir,
};
use crate::{
    limits::{Exceeded, MAX_INLINED, MAX_RESOLUTIONS, MAX_RUN_BYTES, MAX_USES},
    source::Found,
    tekton::{
        fields::text,
        graph::Graph,
        matrix::fans,
        reference::Reference,
        run::Run,
        scope::Scope,
        tasks::all_tasks,
        workspaces::{Use, uses},
    },
};

/// How the run has to change.
#[derive(Debug)]
pub struct Rewrite {
    /// A JSON patch (RFC 6902): explicit operations, never a diff.
    pub patch: String,
    /// How many operations it has.
    pub operations: usize,
    /// What the creator of the run should know, a line each.
    pub warnings: Vec<String>,
    /// What the patch must make of the run.
    pub run: Value,
    /// What happens to each task.
    pub explanation: Explanation,
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
    let scope = Scope::of_run(run, namespace).in_pipeline(spec, request.known_name(run, pipeline));
    let mut seen = HashSet::new();
    let mut references = Vec::new();
    let mut remote = 0;
    let what = || format!("pipeline {:?}", request.pipeline_name(pipeline));
    for task in all_tasks(spec).filter(|task| uses(task).iter().any(|used| request.wraps(&used.pipeline))) {
        if let Some(reference) = inline::referenced_task(task, &scope)?
            && seen.insert(reference.clone())
        {
            remote = usize::saturating_add(remote, reference.resolver().is_some().into());
            references.push(reference);
            Exceeded::check(references.len(), MAX_INLINED, "Tasks to inline", what)?;
            Exceeded::check(remote, MAX_RESOLUTIONS, "Tasks through resolvers", what)?;
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
    is_late: IsLate<'_>,
) -> Result<Rewrite, Refusal> {
    if request.uses_rsync() && !settings.has_rsync {
        return Err(Refusal::NoRsync);
    }
    let original = request.pipeline_spec(&pipeline.object)?;
    let name = request.pipeline_name(&pipeline.object);
    let scope = Scope::of_run(run, namespace).in_pipeline(original, request.known_name(run, &pipeline.object));
    let graph = Graph::new(original).map_err(|source| Refusal::Graph { pipeline: name.to_owned(), source })?;
    let mut spec = original.clone();
    let growth = &Growth::default();
    let embedding = Embedding { run, request, pipeline: name, scope: &scope, tasks, is_late, growth };
    let Embedded { uses, renamings } = embedding.apply_to(&mut spec, &graph)?;
    if request.only_if_same {
        same_on_volume::check(&spec, &graph, &uses)?;
    }
    let count = uses.iter().map(Vec::len).sum();
    Exceeded::check(count, MAX_USES, "uses of wrapped workspaces", || format!("pipeline {name:?}"))?;
    let too_large = |size| too_large(name, size);
    let mut plan =
        Plan::new(run, request, &spec, &graph, &uses, &fans(run, &spec), is_late).map_err(|error| match error {
            PlanError::TooManyTaskRuns(count) => Refusal::TooManyTaskRuns { pipeline: name.to_owned(), count },
            PlanError::TooLarge(size) => too_large(size),
            PlanError::Cache(NoTask { path, problem }) => Refusal::Cache { path, problem: problem.to_string() },
            PlanError::Late => Refusal::Late,
        })?;
    let mut failures = Vec::new();
    let injection = steps::Injection { run, request, settings, scope: &scope, growth };
    let run_sub_path = |name: &str| run.binding(name).map_or("", |binding| text(binding, "subPath")).to_owned();
    for ((task, plan), used) in all_tasks_mut(&mut spec).into_iter().zip(&mut plan.tasks).zip(&uses) {
        check_time(is_late)?;
        mounts::note(task, plan, used, &run_sub_path, &scope, growth);
        paths::note(task, plan, request)?;
        let restored: Vec<&Use> =
            used.iter().filter(|used| plan.restore.iter().any(|step| step.name == used.pipeline)).collect();
        let non_root = security::forbids_root(task, &security::pod_context(run, text(task, "name")));
        working_dir::enter_later(task, &restored, non_root, &scope, growth)?;
        failures.push(steps::inject(task, plan, used, injection)?);
        growth.check().map_err(too_large)?;
    }
    // Of an embedded pipeline the name is that of its run, as ever.
    let name_of_pipeline = request.pipeline.as_ref().map(|_| name);
    if let Some(name) = name_of_pipeline {
        pipeline_name::keep(&mut spec, name, growth);
    }
    let changes = patch::Changes {
        spec,
        bindings: bindings::bind(run, request)?,
        values: name_of_pipeline.map(|name| pipeline_name::in_run(run, name, growth)).unwrap_or_default(),
        task_run_specs: pod_template::rename(run, &renamings, growth).map_err(too_large)?,
    };
    growth.check().map_err(too_large)?;
    let patch::PatchedRun { patch, operations, run, size } = patch::build(run, pipeline, changes, request)?;
    if size > MAX_RUN_BYTES {
        return Err(too_large(size));
    }
    let idle = request.workspaces.iter().filter(|name| !uses.iter().flatten().any(|used| used.pipeline == **name));
    let mut warnings: Vec<String> =
        idle.map(|name| format!("workspace {name:?} is wrapped, but no task uses it")).collect();
    warnings.extend(failure::warnings(&graph.names, &failures));
    warnings.extend(origins(request, tasks));
    Ok(Rewrite { patch, operations, warnings, run, explanation: Explanation { graph, plan, uses, failures } })
}

/// Warnings that name the objects that came through resolvers: if Tekton refuses the run because of one, its message names only
/// a path in the run.
fn origins(request: &Request, tasks: &HashMap<Reference, Found>) -> Vec<String> {
    let remote = |kind: &str, reference: &Reference| {
        reference.resolver().map(|_| format!("spec.pipelineSpec has the {kind} {reference} in it"))
    };
    let mut tasks: Vec<String> = tasks.keys().filter_map(|reference| remote("task", reference)).collect();
    tasks.sort_unstable();
    let pipeline = request.pipeline.as_ref().and_then(|reference| remote("pipeline", reference));
    pipeline.into_iter().chain(tasks).collect()
}
