//! The rewrite itself, step by step.

use std::{
    collections::{HashMap, HashSet},
    io,
};

use serde_json::Value;

use super::{
    after_failure, aliases, bindings, bounds, explain, inline, mounts, patch, paths, pipeline_name,
    plan::{Plan, PlanError},
    pod_template, provenance,
    refusal::Refusal,
    request::{Request, check_keys},
    security,
    settings::Settings,
    steps,
    task_spec::{all_tasks, all_tasks_mut},
    values, working_dir,
};
use crate::{
    limits::{Exceeded, MAX_INLINED, MAX_NAME, MAX_RESOLUTIONS, MAX_RUN_BYTES, MAX_USES, MAX_VALUES},
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
    let name = request.pipeline_name(pipeline);
    let scope = Scope::of_run(run, namespace).in_pipeline(spec, name);
    let mut seen = HashSet::new();
    let mut references = Vec::new();
    let mut remote = 0;
    let what = || format!("pipeline {name:?}");
    for task in all_tasks(spec).filter(|task| uses(task).iter().any(|used| request.wraps(&used.pipeline))) {
        if let Some(reference) = inline::referenced_task(task, &scope)?
            && seen.insert(reference.clone())
        {
            remote += usize::from(reference.resolver().is_some());
            references.push(reference);
            Exceeded::check(references.len(), MAX_INLINED, "Tasks to inline", what)?;
            Exceeded::check(remote, MAX_RESOLUTIONS, "Tasks through resolvers", what)?;
        }
    }
    Ok(references)
}

/// Whether there is no time left to finish a rewrite.
pub type IsLate<'a> = &'a dyn Fn() -> bool;

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
    let mut spec = request.pipeline_spec(&pipeline.object)?.clone();
    let name = request.pipeline_name(&pipeline.object);
    let scope = Scope::of_run(run, namespace).in_pipeline(request.pipeline_spec(&pipeline.object)?, name);
    let graph = Graph::new(&spec).map_err(|source| Refusal::Graph { pipeline: name.to_owned(), source })?;
    let given = Given { run, request, name, scope: &scope, tasks, is_late };
    let (used, renamings) = embed(&given, &mut spec, &graph)?;
    if request.only_if_same {
        after_failure::check(&spec, &graph, &used)?;
    }
    let (uses, what) = (used.iter().map(Vec::len).sum(), || format!("pipeline {name:?}"));
    Exceeded::check(uses, MAX_USES, "uses of wrapped workspaces", what)?;
    let too_large = |size| Refusal::TooLarge { pipeline: name.to_owned(), size, limit: MAX_RUN_BYTES };
    let mut plan =
        Plan::new(request, &spec, &graph, &used, &fans(run, &spec), is_late).map_err(|error| match error {
            PlanError::TooManyTaskRuns(count) => Refusal::TooManyTaskRuns { pipeline: name.to_owned(), count },
            PlanError::TooLarge(size) => too_large(size),
            PlanError::Late => Refusal::Late,
        })?;
    let run_sub_path = |name: &str| run.binding(name).map_or("", |binding| text(binding, "subPath")).to_owned();
    for ((task, plan), used) in all_tasks_mut(&mut spec).into_iter().zip(&mut plan.tasks).zip(&used) {
        check_time(is_late)?;
        mounts::note(task, plan, used, &run_sub_path, &scope);
        paths::note(task, plan, request)?;
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
        task_run_specs: pod_template::rename(run, &renamings).map_err(too_large)?,
    };
    let (patch, run) = patch::build(run, pipeline, changes, request)?;
    let size = size(&run);
    if size > MAX_RUN_BYTES {
        return Err(too_large(size));
    }
    let idle = request.workspaces.iter().filter(|name| !used.iter().flatten().any(|used| used.pipeline == **name));
    let mut warnings: Vec<String> =
        idle.map(|name| format!("workspace {name:?} is wrapped, but no task uses it")).collect();
    warnings.extend(origins(request, tasks));
    let notes = explain::notes(&graph, &plan, &used);
    Ok(Rewrite { patch, warnings, run, notes })
}

/// What a pipeline is embedded for.
struct Given<'a> {
    run: Run<'a>,
    request: &'a Request,
    /// Name of the pipeline.
    name: &'a str,
    scope: &'a Scope<'a>,
    tasks: &'a HashMap<Reference, Found>,
    is_late: IsLate<'a>,
}

/// Embeds every task that uses a wrapped workspace, with the values that it had; gives what each task uses, and the params
/// that got another name.
fn embed(
    given: &Given<'_>,
    spec: &mut Value,
    graph: &Graph,
) -> Result<(Vec<Vec<Use>>, Vec<values::Renaming>), Refusal> {
    let Given { run, request, name, scope, tasks, is_late } = *given;
    let mut bindings = HashMap::new();
    for binding in run.bindings() {
        bindings.entry(text(binding, "name")).or_insert(binding);
    }
    let binds = |name: &str| request.wraps(name) || bindings.contains_key(name);
    let sub_path = |name: &str| bindings.get(name).map_or("", |binding| text(binding, "subPath")).to_owned();
    let spec_params = items(spec, "params").to_vec();

    let mut inlined = bounds::Inlined::default();
    let mut all_used = Vec::new();
    let mut embedded = Vec::new();
    for (index, task) in all_tasks_mut(spec).into_iter().enumerate() {
        check_time(is_late)?;
        let mut used: Vec<Use> = uses(task).into_iter().filter(|used| request.wraps(&used.pipeline)).collect();
        let mut from = None;
        if let Some(own) = field_mut(task, "taskSpec") {
            provenance::strip(own);
        }
        if let Some(first) = used.first() {
            let workspace = first.pipeline.clone();
            from = inline::inline(task, &used, scope, tasks)?;
            check_inlined(task, from.as_deref(), name, &mut inlined)?;
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
    let mut values: HashMap<&str, Option<&Value>> = HashMap::new();
    for given in run.params() {
        values.entry(text(given, "name")).or_insert_with(|| field(given, "value"));
    }
    for declared in items(spec, "params") {
        values.entry(text(declared, "name")).or_insert_with(|| field(declared, "default"));
    }
    let param = |name: &str| values.get(name).copied().flatten();
    all_tasks(spec).map(|task| fan(task, &param)).collect()
}

/// Refuses a `task` that holds too much, or with which the pipeline holds too much. `from` is the Task that was inlined in it.
fn check_inlined(
    task: &Value,
    from: Option<&str>,
    pipeline: &str,
    inlined: &mut bounds::Inlined,
) -> Result<(), Refusal> {
    let (Some(from), Some(spec)) = (from, field(task, "taskSpec")) else { return Ok(()) };
    let shown = format!("task {:?}", text(task, "name"));
    Exceeded::check(from.len(), MAX_NAME, "bytes in the name of its Task", || shown.clone())?;
    bounds::check_task_spec(spec, &shown)?;
    check_keys(spec, || format!("{shown}, with Task {from:?},"))?;
    inlined.add(spec);
    if inlined.bytes > MAX_RUN_BYTES {
        let pipeline = pipeline.to_owned();
        return Err(Refusal::TooLarge { pipeline, size: inlined.bytes, limit: MAX_RUN_BYTES });
    }
    Ok(Exceeded::check(inlined.values, MAX_VALUES, "values", || format!("pipeline {pipeline:?} with its Tasks"))?)
}

fn check_time(is_late: IsLate<'_>) -> Result<(), Refusal> {
    if is_late() { Err(Refusal::Late) } else { Ok(()) }
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
