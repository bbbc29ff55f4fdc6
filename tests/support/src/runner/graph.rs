//! The edges between a pipeline's tasks (Tekton: v1/pipeline_types.go, Deps; v1/resultref.go).

use serde_json::Value;

use super::{
    json::{items, texts},
    vars,
};

/// Fields of embedded steps and sidecars in which a result reference makes an edge.
const STEP_FIELDS: [&str; 8] = ["name", "image", "imagePullPolicy", "script", "workingDir", "command", "args", "env"];

/// The names of the tasks that `task` follows: `runAfter` and [`result_references`].
pub fn parents(task: &Value) -> Vec<String> {
    let results = result_references(task).into_iter().map(|(task, _)| task);
    let mut names: Vec<_> = texts(task, "runAfter").map(str::to_owned).chain(results).collect();
    names.sort();
    names.dedup();
    names
}

/// The results that `task` uses, as task and result.
pub fn result_references(task: &Value) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for param in items(task, "params") {
        collect(&param["value"], &mut found);
    }
    collect(&task["matrix"], &mut found);
    collect(&task["when"], &mut found);
    for key in ["steps", "sidecars"] {
        for step in items(&task["taskSpec"], key) {
            STEP_FIELDS.iter().for_each(|field| collect(&step[field], &mut found));
        }
    }
    found
}

fn collect(value: &Value, found: &mut Vec<(String, String)>) {
    match value {
        Value::String(text) => found.extend(vars::names(text).filter_map(result_reference)),
        Value::Array(items) => items.iter().for_each(|v| collect(v, found)),
        Value::Object(map) => map.values().for_each(|v| collect(v, found)),
        _ => {}
    }
}

/// `tasks.T.results.R`, with `[0]`, `[*]` or `.key` behind. Tekton knows no other spelling here: a result whose name has a
/// dot can't be used (Tekton: v1/resultref.go, variableSubstitutionFormat; pkg/internal/resultref/resultref.go).
fn result_reference(name: &str) -> Option<(String, String)> {
    let plain = match name.strip_suffix(']').and_then(|name| name.rsplit_once('[')) {
        Some((plain, index)) if index == "*" || index.bytes().all(|byte| byte.is_ascii_digit()) => plain,
        _ => name,
    };
    if !plain.chars().all(|c| c.is_ascii_alphanumeric() || "_.-".contains(c)) {
        return None;
    }
    match plain.split('.').collect::<Vec<_>>()[..] {
        ["tasks", task, "results", result] | ["tasks", task, "results", result, _] => {
            Some((task.to_owned(), result.to_owned()))
        }
        _ => None,
    }
}
