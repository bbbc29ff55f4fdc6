//! `$(context.pipeline.name)`: in a run with an inlined pipeline it would be the run's name, and empty in the run's own
//! workspaces (Tekton: pipelinespec.go `pipelineMeta`, pipelinerun.go `getTaskrunWorkspaces`).

use serde_json::Value;

use super::{growth::Growth, task_spec::all_tasks_mut};
use crate::tekton::{
    fields::{change_texts, field, field_mut},
    run::Run,
    texts::change_task_texts,
    variables::substitute,
};

/// A value of the run that becomes another one.
pub struct Replacement {
    /// The field names and indexes that lead to it.
    pub path: Vec<String>,
    /// Its new value.
    pub value: Value,
}

/// Writes the pipeline's `name` wherever Tekton would substitute it in the spec of the pipeline: in its tasks, except in a
/// pipeline in a pipeline and a custom task, and in the defaults of its params.
pub fn keep(spec: &mut Value, name: &str, growth: &Growth) {
    let change = &mut |text: &str| change(text, name, growth);
    all_tasks_mut(spec).into_iter().for_each(|task| change_task_texts(task, change));
    for param in field_mut(spec, "params").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(default) = field_mut(param, "default") {
            change_texts(default, change);
        }
    }
}

/// The values of the run's params and the sub-paths of its workspaces that name the pipeline.
pub fn in_run(run: Run<'_>, name: &str, growth: &Growth) -> Vec<Replacement> {
    let mut found = Vec::new();
    for (list, items, key) in [("params", run.params(), "value"), ("workspaces", run.bindings(), "subPath")] {
        for (index, item) in items.iter().enumerate() {
            let Some(before) = field(item, key) else { continue };
            let mut after = before.clone();
            change_texts(&mut after, &mut |text| change(text, name, growth));
            if after != *before {
                let path = vec!["spec".to_owned(), list.to_owned(), index.to_string(), key.to_owned()];
                found.push(Replacement { path, value: after });
            }
        }
    }
    found
}

fn change(text: &str, name: &str, growth: &Growth) -> Option<String> {
    substitute(text, |reference| match reference {
        "context.pipeline.name" => growth.in_place_of(reference, name.to_owned()),
        _ => None,
    })
}
