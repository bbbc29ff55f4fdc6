//! Variables of an inlined Task whose values are known when it is inlined, and strings that only look like variables.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::{
    tekton::{
        fields::{change_texts, field, field_mut, flag, items, text},
        texts::change_spec_texts,
        variables::{name_after, result_task, substitute},
        workspaces::mount_path,
    },
    wrap::{growth::Growth, task_spec::drop_declarations},
};

/// Gives the variables of `task` the values that they have in the Task `from`, which it refers to. `binds`: whether the run
/// binds a workspace.
pub fn substitute_early(task: &mut Value, from: &str, binds: &impl Fn(&str) -> bool, growth: &Growth) {
    // In an embedded task this is the TaskRun's name (Tekton: taskspec.go, taskMeta).
    let mut known = HashMap::from([("context.task.name".to_owned(), from.to_owned())]);
    for part in ["params", "matrix"] {
        if let Some(part) = field_mut(task, part) {
            change_texts(part, &mut |text| {
                substitute(text, |reference| growth.in_place_of(reference, known.get(reference)?.clone()))
            });
        }
    }
    let unbound = settle_workspaces(task, binds, &mut known);
    let Some(spec) = field_mut(task, "taskSpec") else { return };
    let declared: HashSet<String> =
        items(spec, "workspaces").iter().map(|declared| text(declared, "name").to_owned()).collect();
    let all_unbound: HashSet<&str> = unbound.iter().map(String::as_str).collect();
    let value = |reference: &str| {
        let value = known.get(reference).cloned();
        value.or_else(|| is_plain_text(reference, &declared, &all_unbound).then(|| format!("$( {reference})")))
    };
    change_spec_texts(spec, &mut |text| substitute(text, |reference| growth.in_place_of(reference, value(reference)?)));
    drop_declarations(spec, &unbound);
}

/// Adds the variables of the task's workspaces to `known`: in an embedded task `$(workspaces.x.bound)` is about the *pipeline's*
/// workspace x, and a workspace that the pipeline's task does not bind is bound to the run's of that name if a string names it
/// (Tekton: pipelinerun.go `propagateWorkspaces`). Returns those that are optional and not bound.
fn settle_workspaces(task: &Value, binds: &impl Fn(&str) -> bool, known: &mut HashMap<String, String>) -> Vec<String> {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    let mut unbound = Vec::new();
    for declared in items(spec, "workspaces") {
        let name = text(declared, "name");
        let binding = items(task, "workspaces").iter().find(|binding| text(binding, "name") == name);
        let bound = match binding.map(|binding| text(binding, "workspace")) {
            Some("") => binds(name),
            Some(other) => binds(other),
            // Tekton's own default binding, or its refusal.
            None => !flag(declared, "optional"),
        };
        known.insert(format!("workspaces.{name}.bound"), bound.to_string());
        if binding.is_none() {
            let path = if bound { mount_path(declared) } else { String::new() };
            known.insert(format!("workspaces.{name}.path"), path);
            if !bound {
                unbound.push(name.to_owned());
            }
        }
    }
    unbound
}

/// Whether a reference means nothing in a Task but something in an embedded one. A space keeps it as it is for Tekton and
/// for a shell (Tekton: substitution.go, resultref.go: names begin right behind the parenthesis).
fn is_plain_text(reference: &str, declared: &HashSet<String>, unbound: &HashSet<&str>) -> bool {
    if let Some(name) = name_after(reference, "workspaces") {
        return unbound.contains(name) || !declared.contains(name) || !reference.starts_with("workspaces.");
    }
    ["context.pipelineRun.name", "context.pipelineRun.namespace", "context.pipelineRun.uid", "context.pipeline.name"]
        .contains(&reference)
        || result_task(reference).is_some()
}
