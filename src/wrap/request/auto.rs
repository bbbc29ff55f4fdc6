//! Which workspaces `auto` means.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::tekton::{
    fields::{field, flag, items, text},
    run::Run,
    tasks::all_tasks,
    workspaces::{uses, workspaces},
};

/// The workspaces of a Pipeline's spec that carry files between its tasks and nothing beyond the run: those that at least two
/// tasks use, and that the run binds to a claim template or an emptyDir, or not at all though the Pipeline needs them. A
/// claim by name holds data that outlives the run, and Secrets, ConfigMaps and the like bring files of their own.
pub fn shared_workspaces(run: Run<'_>, spec: &Value) -> Vec<String> {
    let mut users: HashMap<String, usize> = HashMap::new();
    for task in all_tasks(spec) {
        let names: HashSet<String> = uses(task).into_iter().map(|used| used.pipeline).collect();
        for name in names {
            let count = users.entry(name).or_default();
            *count = count.saturating_add(1);
        }
    }
    let optional = items(spec, "workspaces").iter().filter(|declared| flag(declared, "optional"));
    let optional: HashSet<&str> = optional.map(|declared| text(declared, "name")).collect();
    let is_temporary = |name: &str| match run.binding(name) {
        None => !optional.contains(name),
        Some(binding) => {
            let source = |name: &str| field(binding, name).is_some();
            source("volumeClaimTemplate") || source("emptyDir") || binding.as_object().is_none_or(|map| map.len() == 1)
        }
    };
    let is_shared = |name: &String| users.get(name).is_some_and(|users| *users > 1);
    workspaces(spec).into_iter().filter(|name| is_shared(name) && is_temporary(name)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_tasks_share_for_the_run_alone() {
        let tasks = ["a", "b"].map(|task| {
            json!({"name": task, "workspaces": [
                {"name": "template"}, {"name": "empty"}, {"name": "unbound"}, {"name": "optional"}, {"name": "claim"},
                {"name": "secret"}, {"name": "nothing"}, {"name": if task == "a" { "alone" } else { "claim" }},
            ]})
        });
        let spec = json!({
            "workspaces": [
                {"name": "template"}, {"name": "empty"}, {"name": "unbound"}, {"name": "optional", "optional": true},
                {"name": "claim"}, {"name": "secret"}, {"name": "alone"}, {"name": "nothing"},
            ],
            "tasks": tasks,
        });
        let run = json!({"spec": {"workspaces": [
            {"name": "template", "volumeClaimTemplate": {"spec": {}}}, {"name": "empty", "emptyDir": {}},
            {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}}, {"name": "secret", "secret": {"secretName": "s"}},
            {"name": "nothing"},
        ]}});
        assert_eq!(shared_workspaces(Run::new(&run), &spec), ["template", "empty", "unbound", "nothing"]);
    }
}
