//! How many TaskRuns a matrix makes (Tekton: pkg/apis/pipeline/v1/matrix_types.go).

use std::collections::BTreeMap;

use serde_json::Value;

use super::{
    fields::{field, items, text, texts},
    variables::{name_after, references, result_task},
};

/// The most combinations that are reckoned with where their number is known only when the task starts.
pub const MAX_UNKNOWN: u32 = 256;

/// The number of TaskRuns that a task with a matrix has, as far as it is known when the run is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fan {
    /// At least so many, unless the task is skipped.
    pub least: u32,
    /// At most so many.
    pub most: u32,
    /// Whether an array from a result may turn out empty, so that the task is skipped.
    pub may_be_empty: bool,
}

/// One combination of param values.
type Combination = BTreeMap<String, String>;

/// The fan-out of a pipeline task; none where it has no matrix. `param` gives the value of a param of the pipeline.
pub fn fan<'a>(task: &'a Value, param: &impl Fn(&str) -> Option<&'a Value>) -> Option<Fan> {
    let matrix = field(task, "matrix")?;
    let (params, include) = (items(matrix, "params"), items(matrix, "include"));
    let lists: Option<Vec<(&str, Vec<&str>)>> =
        params.iter().map(|given| Some((text(given, "name"), values(given, param)?))).collect();
    let Some(lists) = lists else {
        return Some(Fan { least: 1, most: MAX_UNKNOWN, may_be_empty: true });
    };
    let product = lists.iter().map(|(_, values)| values.len() as u32).fold(1, u32::saturating_mul);
    if params.is_empty() {
        let count = include.len() as u32;
        return Some(Fan { least: count, most: count, may_be_empty: false });
    }
    if product == 0 {
        return Some(Fan { least: 0, most: 1, may_be_empty: true });
    }
    let mut literal = true;
    include.iter().for_each(|include| texts(include, &mut |text| literal &= !text.contains("$(")));
    literal &= lists.iter().all(|(_, values)| values.iter().all(|value| !value.contains("$(")));
    let (least, most) = match literal {
        _ if include.is_empty() => (product, product),
        true => {
            let count = combinations(&lists, include);
            (count, count)
        }
        false => (product, product.saturating_add(include.len() as u32)),
    };
    Some(Fan { least, most, may_be_empty: false })
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

/// The number of combinations with those that `include` adds (Tekton: matrix_types.go `FanOut`).
fn combinations(lists: &[(&str, Vec<&str>)], include: &[Value]) -> u32 {
    let mut all = vec![Combination::new()];
    for (name, values) in lists {
        let with = |combination: &Combination, value: &str| {
            let mut combination = combination.clone();
            combination.insert((*name).to_owned(), value.to_owned());
            combination
        };
        all = values.iter().flat_map(|value| all.iter().map(move |combination| with(combination, value))).collect();
    }
    let include: Vec<Combination> = include
        .iter()
        .map(|include| {
            items(include, "params").iter().map(|p| (text(p, "name").to_owned(), text(p, "value").to_owned())).collect()
        })
        .collect();
    for combination in &mut all {
        for extra in &include {
            if extra.iter().all(|(name, value)| combination.get(name).is_none_or(|have| have == value)) {
                combination.extend(extra.clone());
            }
        }
    }
    for extra in include {
        let known = |combination: &Combination| extra.iter().any(|(name, value)| combination.get(name) == Some(value));
        if !extra.is_empty() && !all.iter().any(known) {
            all.push(extra);
        }
    }
    all.len() as u32
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
            (
                json!({"params": [{"name": "p", "value": ["x", "y"]}], "include": [{"params": [{"name": "p", "value": "$(params.v)"}]}]}),
                Fan { least: 2, most: 3, may_be_empty: false },
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
        let plain = json!({});
        assert_eq!(fan(&plain, &|_: &str| None), None);
    }
}
