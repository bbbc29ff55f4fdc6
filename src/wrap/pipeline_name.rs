//! `$(context.pipeline.name)`: of a pipeline inlined in a run it would be the run's name, and in the run's own workspaces
//! nothing (Tekton: pipelinespec.go `pipelineMeta`, pipelinerun.go `getTaskrunWorkspaces`).

use serde_json::Value;

use super::{all_tasks_mut, task_spec::change_spec_texts};
use crate::tekton::{
    fields::{change_texts, field, field_mut, text},
    variables::substitute,
};

/// Writes the pipeline's `name` wherever Tekton would substitute it in the spec of the pipeline: in its tasks, except in a
/// pipeline in a pipeline and a custom task, and in the defaults of its params.
pub fn keep(spec: &mut Value, name: &str) {
    let change = &mut |text: &str| change(text, name);
    for task in all_tasks_mut(spec) {
        for (key, value) in task.as_object_mut().into_iter().flatten() {
            let is = |names: &[&str]| names.iter().any(|name| key.eq_ignore_ascii_case(name));
            if is(&["taskSpec"]) {
                if text(value, "apiVersion").is_empty() && text(value, "kind").is_empty() {
                    change_spec_texts(value, change);
                }
            } else if !is(&["pipelineSpec", "pipelineRef", "description"]) {
                change_texts(value, change);
            }
        }
    }
    for param in field_mut(spec, "params").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(default) = field_mut(param, "default") {
            change_texts(default, change);
        }
    }
}

/// The values of the run's params and the sub-paths of its workspaces that name the pipeline: each with its place in the run
/// and as it has to be.
pub fn in_run(run: &Value, name: &str) -> Vec<([String; 4], Value)> {
    let mut found = Vec::new();
    let spec = run.get("spec").unwrap_or(&Value::Null);
    for (list, of) in [("params", "value"), ("workspaces", "subPath")] {
        for (index, item) in spec.get(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            let Some(before) = field(item, of) else { continue };
            let mut after = before.clone();
            change_texts(&mut after, &mut |text| change(text, name));
            if after != *before {
                found.push((["spec".to_owned(), list.to_owned(), index.to_string(), of.to_owned()], after));
            }
        }
    }
    found
}

fn change(text: &str, name: &str) -> Option<String> {
    substitute(text, |reference| (reference == "context.pipeline.name").then(|| name.to_owned()))
}
