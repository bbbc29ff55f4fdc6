//! The combinations of a matrix (Tekton: v1/matrix_types.go, FanOut).

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::json::{items, name};

type Combination = BTreeMap<String, Value>;

/// `task` once for each combination, without its matrix and with the combination among its params; none where it has no
/// matrix, or one without anything in it. All variables are replaced.
pub fn fan_out(task: &Value) -> Option<Vec<Value>> {
    let has_any = |matrix: &&Value| ["params", "include"].iter().any(|list| !items(matrix, list).is_empty());
    let matrix = task.get("matrix").filter(has_any)?;
    let params = |holder: &Value| -> Combination {
        items(holder, "params").iter().map(|param| (name(param).to_owned(), param["value"].clone())).collect()
    };
    let mut all: Vec<Combination> = Vec::new();
    for param in items(matrix, "params") {
        let values = items(param, "value");
        let with = |combination: &Combination, value: &Value| {
            let mut combination = combination.clone();
            combination.insert(name(param).to_owned(), value.clone());
            combination
        };
        all = match all.is_empty() {
            true => values.iter().map(|value| with(&Combination::new(), value)).collect(),
            false => values.iter().flat_map(|value| all.iter().map(|c| with(c, value)).collect::<Vec<_>>()).collect(),
        };
    }
    let has_params = !items(matrix, "params").is_empty();
    let includes: Vec<Combination> = items(matrix, "include").iter().map(params).collect();
    for combination in &mut all {
        for include in &includes {
            if include.iter().all(|(name, value)| combination.get(name).is_none_or(|own| own == value)) {
                combination.extend(include.clone());
            }
        }
    }
    for include in includes {
        let joined = |c: &Combination| include.iter().any(|(name, value)| c.get(name) == Some(value));
        if !has_params || !all.iter().any(joined) {
            all.push(include);
        }
    }
    let one = |combination: Combination| {
        let mut task = task.clone();
        task["matrix"] = Value::Null;
        let own = combination.into_iter().map(|(name, value)| json!({"name": name, "value": value}));
        task["params"] = items(&task, "params").iter().cloned().chain(own).collect();
        task
    };
    Some(all.into_iter().map(one).collect())
}
