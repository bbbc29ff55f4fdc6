//! A run again, from the task that failed: which tasks are left out, what stands for them, and the PipelineRun that does the
//! rest. Pure: it gets the first run and its TaskRuns as they are stored, and knows no cluster and no registry.
//!
//! A task that succeeded and comes after no task that runs again is left out. Its results and its status stand as values
//! wherever they are used; its snapshots are those of the first run, whose UID the injected steps are told
//! ([`crate::step::EarlierRun`]). A task that was skipped stays: its `when` says the same again, and costs no pod. `finally`
//! runs whole.
//!
//! | module | its one concept |
//! |---|---|
//! | [`first`] | how the tasks of the first run ended |
//! | [`split`] | which tasks run again |
//! | [`values`] | what stands for the variables of those that don't |
//! | [`results`] | the results of the pipeline |
//! | [`steps`] | what the injected steps are told |
//! | [`refusal`] | why there is no rerun |

mod first;
mod refusal;
mod results;
mod split;
mod steps;
#[cfg(test)]
mod tests;
mod values;

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use self::{
    first::FirstRun,
    split::Split,
    values::{KnownValues, Missing},
};
pub use self::{refusal::RerunRefusal, steps::Need};
use crate::{
    annotations::{PIPELINE, RERUN_OF, TEKTON_PIPELINE, is_ours, is_provenance_of_run},
    tekton::{
        fields::{field, items, remove, set, text},
        graph::Graph,
    },
};

/// Annotations that others made for the first run alone.
const OF_ONE_RUN: [&str; 3] =
    ["kubectl.kubernetes.io/last-applied-configuration", "chains.tekton.dev/", "results.tekton.dev/"];

/// What is to run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RerunScope {
    /// Every task of the first run.
    All,
    /// What did not succeed, and all that comes after it.
    Failed,
    /// This task, all that comes after it, and what did not succeed.
    From(String),
}

/// The run that does the rest.
#[derive(Clone, Debug)]
pub struct Rerun {
    /// The PipelineRun to create.
    pub run: Value,
    /// The tasks that don't run again.
    pub left_out: Vec<String>,
    /// The snapshots that stand for them: without any of these the rerun would fail, or end with other files.
    pub needs: Vec<Need>,
    /// What the user should know, a line each.
    pub notes: Vec<String>,
}

/// The rerun of `run`, a stored PipelineRun. `children` are the TaskRuns and CustomRuns that its status names, as far as they
/// still exist; `params` replace those of the first run.
pub fn plan(
    run: &Value,
    children: &[Value],
    scope: &RerunScope,
    params: &[(String, Value)],
) -> Result<Rerun, RerunRefusal> {
    let first = FirstRun::new(run, children)?;
    let graph = Graph::new(first.pipeline).map_err(RerunRefusal::Graph)?;
    let tasks = first.tasks();
    check_params(&first, params)?;
    let split = Split::new(&first, &graph, &tasks, scope, params)?;
    split.check_volumes(&first, &tasks)?;
    let known = KnownValues::new(&first, &tasks, &split)?;

    let mut notes = Vec::new();
    let (mut dag, mut finally) = (Vec::new(), Vec::new());
    for (index, task) in tasks.iter().enumerate().filter(|(index, _)| !split.is_left_out(*index)) {
        let mut task = (*task).clone();
        let missing = known.fill_task(&mut task);
        match (missing, index < graph.dag_len) {
            (None, true) => dag.push(task),
            (None, false) => finally.push(task),
            // Tekton skips it (Tekton: docs/pipelines.md, "Consuming Task execution results in finally").
            (Some(Missing::Absent { task: of, result }), false) => notes.push(format!(
                "finally task {:?} is left out: it uses the result {result:?} of task {of:?}, which has none",
                text(&task, "name")
            )),
            (Some(missing), _) => return Err(missing.refused(text(&task, "name"))),
        }
    }
    let only_finally = dag.is_empty();
    if only_finally {
        // A pipeline needs tasks (Tekton: pipeline_validation.go).
        dag = finally.drain(..).map(|task| known.as_task(task)).collect();
    }
    for task in &mut dag {
        drop_run_after(task, &split);
    }
    let told = steps::Told::new(&first, &tasks, &split)?;
    let mut spec = first.pipeline.clone();
    // Of tasks that run again only those count that still come before.
    let rest = Graph::new(&json!({"tasks": dag, "finally": finally})).map_err(RerunRefusal::Graph)?;
    let before = |index: usize| -> HashSet<&str> {
        rest.ancestors
            .get(index)
            .map(|all| all.ones().filter_map(|task| rest.names.get(task)).map(String::as_str).collect())
            .unwrap_or_default()
    };
    let results = results::of_rerun(&first, &known, only_finally, &dag, &finally, &mut notes)?;
    for (index, task) in dag.iter_mut().chain(&mut finally).enumerate() {
        told.tell(task, &before(index), results.given_by(text(task, "name")))?;
    }
    let needs = told.needs(&first, &tasks, &split, dag.iter().chain(&finally), &mut notes)?;
    let map = spec.as_object_mut().ok_or_else(|| RerunRefusal::NotWrapped(first.name.to_owned()))?;
    replace_list(map, "tasks", dag);
    replace_list(map, "finally", finally);
    replace_list(map, "results", results.declared);
    let left_out: Vec<String> = split.names_left_out(&tasks);
    Ok(Rerun { run: build(&first, spec, params, &left_out), left_out, needs, notes })
}

/// The PipelineRun with the rest of the pipeline `spec`.
fn build(first: &FirstRun<'_>, pipeline: Value, params: &[(String, Value)], left_out: &[String]) -> Value {
    let mut spec = field(first.object, "spec").cloned().unwrap_or_default();
    if let Some(map) = spec.as_object_mut() {
        remove(map, "status");
        set(map, "pipelineSpec", pipeline);
        let mut given = map.get("params").and_then(Value::as_array).cloned().unwrap_or_default();
        for (name, value) in params {
            given.retain(|param| text(param, "name") != name);
            given.push(json!({"name": name, "value": value}));
        }
        replace_list(map, "params", given);
        let mut own = map.get("taskRunSpecs").and_then(Value::as_array).cloned().unwrap_or_default();
        own.retain(|own| !left_out.iter().any(|name| name == text(own, "pipelineTaskName")));
        replace_list(map, "taskRunSpecs", own);
    }
    let metadata = field(first.object, "metadata").unwrap_or(&Value::Null);
    let map = |name: &str| field(metadata, name).and_then(Value::as_object).cloned().unwrap_or_default();
    let mut annotations = map("annotations");
    // Those that ask for wrapping are not for a rerun, which is wrapped already.
    annotations.retain(|name, _| {
        if is_ours(name) { is_provenance_of_run(name) } else { !OF_ONE_RUN.iter().any(|other| name.starts_with(other)) }
    });
    annotations.insert(RERUN_OF.to_owned(), json!(first.name));
    let generate_name = match text(metadata, "generateName") {
        "" => format!("{}-rerun-", first.name),
        prefix => prefix.to_owned(),
    };
    let mut of_new = Map::new();
    of_new.insert("generateName".to_owned(), json!(generate_name));
    of_new.insert("namespace".to_owned(), json!(first.namespace));
    let mut labels = map("labels");
    // Tekton has put the run's own name there.
    if let (Some(label), Some(name)) = (labels.get_mut(TEKTON_PIPELINE), annotations.get(PIPELINE)) {
        *label = name.clone();
    }
    if !labels.is_empty() {
        of_new.insert("labels".to_owned(), Value::Object(labels));
    }
    of_new.insert("annotations".to_owned(), Value::Object(annotations));
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": of_new, "spec": spec})
}

fn check_params(first: &FirstRun<'_>, params: &[(String, Value)]) -> Result<(), RerunRefusal> {
    let declared: Vec<&str> = items(first.pipeline, "params").iter().map(|param| text(param, "name")).collect();
    match params.iter().find(|(name, _)| !declared.contains(&name.as_str())) {
        Some((name, _)) => Err(RerunRefusal::NoParam { name: name.clone(), declared: refusal::list(&declared) }),
        None => Ok(()),
    }
}

/// Tasks that are left out are over.
fn drop_run_after(task: &mut Value, split: &Split) {
    let Some(map) = task.as_object_mut() else { return };
    let Some(after) = map.get_mut("runAfter").and_then(Value::as_array_mut) else { return };
    after.retain(|name| !name.as_str().is_some_and(|name| split.leaves_out(name)));
    if after.is_empty() {
        remove(map, "runAfter");
    }
}

/// Sets the list `name`, in its place, or removes it where it is empty.
fn replace_list(map: &mut Map<String, Value>, name: &str, list: Vec<Value>) {
    if list.is_empty() {
        remove(map, name);
    } else {
        set(map, name, Value::Array(list));
    }
}
