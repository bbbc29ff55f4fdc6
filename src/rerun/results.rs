//! The results of the pipeline. Tekton takes only references to results of its tasks there (Tekton: pipeline_validation.go
//! `validatePipelineResults`): a value that is known already is given by an injected step of a task that runs again.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    RerunRefusal,
    first::FirstRun,
    steps,
    values::{KnownValues, Missing},
};
use crate::tekton::{
    fields::{change_texts, field, items, text, texts},
    matrix::matrix_of,
    variables::{references, result_task, substitute},
};

/// The results of the rest of a pipeline.
pub struct Results {
    /// As the pipeline declares them.
    pub declared: Vec<Value>,
    /// The task that gives those that are known, and their values by name.
    given: Option<(String, BTreeMap<String, Value>)>,
}

impl Results {
    /// What the task `name` gives.
    pub fn given_by(&self, name: &str) -> Option<&BTreeMap<String, Value>> {
        self.given.as_ref().filter(|(task, _)| task == name).map(|(_, values)| values)
    }
}

/// The results of `first` for a pipeline of the tasks `dag` and `finally`, which were all in `finally` if `only_finally`.
pub fn of_rerun(
    first: &FirstRun<'_>,
    known: &KnownValues<'_>,
    only_finally: bool,
    dag: &[Value],
    finally: &[Value],
    notes: &mut Vec<String>,
) -> Result<Results, RerunRefusal> {
    let giver = giver(dag, finally);
    let mut results = Results { declared: Vec::new(), given: None };
    let mut values = BTreeMap::new();
    for result in items(first.pipeline, "results") {
        let mut result = result.clone();
        let name = text(&result, "name").to_owned();
        let Some(value) = result.get_mut("value") else { continue };
        let lost = |why: &str| format!("the pipeline's result {name:?} is left out: {why}");
        match known.fill_value(value) {
            None => {}
            Some(Missing::Absent { task, .. }) => {
                notes.push(lost(&format!("task {task:?} left none")));
                continue;
            }
            Some(missing) => return Err(missing.refused(&name)),
        }
        if only_finally {
            change_texts(value, &mut |text| substitute(text, moved));
        }
        if !is_reference(value) {
            let Some((task, list)) = giver else {
                notes.push(lost("its value is known, but no task that runs again could give it"));
                continue;
            };
            let own = free_name(task, &values);
            let form = if value.is_string() { "" } else { "[*]" };
            let reference = format!("$({list}.{}.results.{own}{form})", text(task, "name"));
            values.insert(own, std::mem::replace(value, json!(reference)));
        }
        results.declared.push(result);
    }
    results.given = giver.map(|(task, _)| (text(task, "name").to_owned(), values));
    Ok(results)
}

/// The declaration of a result of a task with this value.
pub fn declaration(name: &str, value: &Value) -> Value {
    match value {
        Value::Array(_) => json!({"name": name, "type": "array"}),
        Value::Object(map) => {
            let properties: serde_json::Map<String, Value> =
                map.keys().map(|key| (key.clone(), json!({"type": "string"}))).collect();
            json!({"name": name, "type": "object", "properties": properties})
        }
        _ => json!({"name": name, "type": "string"}),
    }
}

/// The task that can give results most surely, and the word for its list.
fn giver<'a>(dag: &'a [Value], finally: &'a [Value]) -> Option<(&'a Value, &'static str)> {
    let all = dag.iter().map(|task| (task, "tasks")).chain(finally.iter().map(|task| (task, "finally")));
    let able = all.filter(|(task, _)| matrix_of(task).is_none() && steps::is_told(task));
    able.min_by_key(|(task, _)| field(task, "when").is_some())
}

fn is_reference(value: &Value) -> bool {
    let mut found = false;
    texts(value, &mut |text| found |= references(text).any(|reference| result_task(reference).is_some()));
    found
}

/// A result of a task of `finally`, as that of a task of `tasks`.
fn moved(reference: &str) -> Option<String> {
    reference.strip_prefix("finally.").map(|rest| format!("$(tasks.{rest})"))
}

/// The name of a result that `task` does not declare and that is not taken.
fn free_name(task: &Value, taken: &BTreeMap<String, Value>) -> String {
    let declared = field(task, "taskSpec").map_or(&[][..], |spec| items(spec, "results"));
    let is_free = |name: &String| !taken.contains_key(name) && declared.iter().all(|own| text(own, "name") != name);
    (0..).map(|number| format!("tekton-wrap-result-{number}")).find(is_free).unwrap_or_default()
}
