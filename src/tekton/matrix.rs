//! How many TaskRuns a matrix makes (Tekton: pkg/apis/pipeline/v1/matrix_types.go).

use std::collections::HashMap;

use serde_json::Value;

use super::{
    fields::{field, items, text},
    run::Run,
    tasks::all_tasks,
    variables::{name_after, references, result_task},
};

/// The most combinations that are allowed for if their number is known only when the task starts.
pub const MAX_UNKNOWN: u32 = 256;

/// The number of TaskRuns that a task with a matrix has, as far as it is known when the run is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fan {
    /// At least this many, unless the task is skipped.
    pub least: u32,
    /// At most this many: one or more.
    pub most: u32,
    /// Whether an array from a result may turn out empty, so that the task is skipped.
    pub may_be_empty: bool,
}

/// The matrix of a pipeline task; none where it has neither params nor `include` (Tekton: matrix_types.go `HasParams`, `HasInclude`).
pub fn matrix_of(task: &Value) -> Option<&Value> {
    field(task, "matrix").filter(|matrix| !items(matrix, "params").is_empty() || !items(matrix, "include").is_empty())
}

/// The fan-out of a pipeline task; none where it has no matrix. `param` gives the value of a param of the pipeline.
pub fn fan<'a>(task: &'a Value, param: &impl Fn(&str) -> Option<&'a Value>) -> Option<Fan> {
    let matrix = matrix_of(task)?;
    let (params, include) = (items(matrix, "params"), items(matrix, "include"));
    let lists: Option<Vec<(&str, Vec<&str>)>> =
        params.iter().map(|given| Some((text(given, "name"), values(given, param)?))).collect();
    let Some(lists) = lists else {
        return Some(Fan { least: 1, most: MAX_UNKNOWN, may_be_empty: true });
    };
    if params.is_empty() {
        let count = length(include);
        return Some(Fan { least: count, most: count, may_be_empty: false });
    }
    let product = lists.iter().map(|(_, values)| length(values)).fold(1, u32::saturating_mul);
    if product == 0 {
        return Some(Fan { least: 0, most: 1, may_be_empty: true });
    }
    let (mut least, mut most) = (product, product);
    for include in include {
        let (sure, possible) = added(include, &lists);
        least = least.saturating_add(sure);
        most = most.saturating_add(possible);
    }
    Some(Fan { least, most, may_be_empty: false })
}

/// The fan-outs of all tasks of a Pipeline's spec, with the values that the run gives the params or the Pipeline's defaults.
pub fn fans<'a>(run: Run<'a>, spec: &'a Value) -> Vec<Option<Fan>> {
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

fn length<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}

/// The values of a matrix param; none where they come from results.
fn values<'a>(given: &'a Value, param: &impl Fn(&str) -> Option<&'a Value>) -> Option<Vec<&'a str>> {
    let value = field(given, "value")?;
    let whole = |text: &'a str| -> Option<Vec<&'a str>> {
        if references(text).any(|reference| result_task(reference).is_some()) && text.ends_with("[*])") {
            return None;
        }
        let reference = text.strip_prefix("$(").and_then(|text| text.strip_suffix("[*])"));
        let Some(name) = reference.and_then(|reference| name_after(reference, "params")) else {
            return Some(vec![text]);
        };
        let values = param(name)?.as_array()?;
        values.iter().map(Value::as_str).collect()
    };
    match value {
        Value::String(text) => whole(text),
        Value::Array(items) => {
            let lists: Option<Vec<Vec<&str>>> = items.iter().map(|item| whole(item.as_str()?)).collect();
            lists.map(|lists| lists.concat())
        }
        _ => None,
    }
}

/// How many TaskRuns one `include` adds: at least, and at most. Tekton names TaskRuns by this count and not by the number of
/// combinations, which is smaller where one `include` has several new values (Tekton: matrix_types.go
/// `countNewCombinationsFromInclude`, pipelinerunresolution.go).
fn added(include: &Value, lists: &[(&str, Vec<&str>)]) -> (u32, u32) {
    let (mut sure, mut possible, mut known) = (0, 0, true);
    for given in items(include, "params") {
        let Some((_, values)) = lists.iter().find(|(name, _)| *name == text(given, "name")) else { continue };
        let value = text(given, "value");
        if values.contains(&value) {
            break;
        }
        known &= !value.contains("$(") && !values.iter().any(|value| value.contains("$("));
        possible = u32::saturating_add(possible, 1);
        sure = u32::saturating_add(sure, known.into());
    }
    (sure, possible)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts() {
        let platforms = json!(["a", "b", "c"]);
        let exact = |count| Fan { least: count, most: count, may_be_empty: false };
        for (matrix, expected) in [
            (json!({"params": [{"name": "p", "value": ["x", "y"]}]}), exact(2)),
            (json!({"params": [{"name": "p", "value": ["x"]}]}), exact(1)),
            (
                json!({"params": [{"name": "p", "value": ["x", "y"]}, {"name": "q", "value": ["1", "2", "3"]}]}),
                exact(6),
            ),
            (json!({"params": [{"name": "p", "value": "$(params.platforms[*])"}]}), exact(3)),
            (json!({"params": [{"name": "p", "value": ["$(params.platforms[*])", "z"]}]}), exact(4)),
            (json!({"params": [{"name": "p", "value": ["$(tasks.t.results.r)"]}]}), exact(1)),
            (json!({"include": [{"name": "i", "params": []}, {"name": "j", "params": []}]}), exact(2)),
            // One include joins a combination, the other is new.
            (
                json!({"params": [{"name": "p", "value": ["x", "y"]}], "include": [
                    {"params": [{"name": "p", "value": "x"}, {"name": "flag", "value": "f"}]},
                    {"params": [{"name": "p", "value": "z"}]},
                ]}),
                exact(3),
            ),
            // Two new values in one include count twice, and a known one ends the count.
            (
                json!({"params": [{"name": "p", "value": ["x"]}, {"name": "q", "value": ["1"]}], "include": [
                    {"params": [{"name": "p", "value": "z"}, {"name": "q", "value": "2"}]},
                    {"params": [{"name": "q", "value": "1"}, {"name": "p", "value": "z"}]},
                    {"params": [{"name": "other", "value": "z"}]},
                ]}),
                exact(3),
            ),
            (
                json!({"params": [{"name": "p", "value": ["x", "y"]}, {"name": "q", "value": ["1"]}], "include": [
                    {"params": [{"name": "q", "value": "2"}, {"name": "p", "value": "$(params.v)"}, {"name": "q", "value": "3"}]},
                ]}),
                Fan { least: 3, most: 5, may_be_empty: false },
            ),
            (
                json!({"params": [{"name": "p", "value": ["$(params.v)"]}], "include": [{"params": [{"name": "p", "value": "x"}]}]}),
                Fan { least: 1, most: 2, may_be_empty: false },
            ),
            (
                json!({"params": [{"name": "p", "value": ["x", "y"]}, {"name": "q", "value": []}]}),
                Fan { least: 0, most: 1, may_be_empty: true },
            ),
            (
                json!({"params": [{"name": "p", "value": "$(tasks.t.results.r[*])"}]}),
                Fan { least: 1, most: MAX_UNKNOWN, may_be_empty: true },
            ),
            (json!({"params": [{"name": "p", "value": []}]}), Fan { least: 0, most: 1, may_be_empty: true }),
        ] {
            let task = json!({"matrix": matrix});
            let param = |name: &str| (name == "platforms").then_some(&platforms);
            assert_eq!(fan(&task, &param), Some(expected), "{matrix}");
        }
        // One without anything in it is none.
        for plain in [json!({}), json!({"matrix": {}}), json!({"matrix": {"params": [], "include": []}})] {
            assert_eq!(fan(&plain, &|_: &str| None), None, "{plain}");
        }
    }
}
