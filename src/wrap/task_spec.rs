//! Changes to the spec of a task that several parts of the rewrite make.

use serde_json::Value;

use crate::tekton::fields::{change_texts, field_mut, text};

/// Replaces every text of a task's spec in which Tekton substitutes variables and for which `change` gives another one:
/// all but what describes it.
pub fn change_spec_texts(spec: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    for (key, value) in spec.as_object_mut().into_iter().flatten() {
        if !["metadata", "description", "displayName"].iter().any(|name| key.eq_ignore_ascii_case(name)) {
            change_texts(value, change);
        }
    }
}

/// Takes workspaces out of the declarations of a task and of its steps and sidecars.
pub fn drop_declarations(task_spec: &mut Value, names: &[String]) {
    let keep = |list: &mut Value| {
        if let Value::Array(list) = list {
            list.retain(|item| !names.iter().any(|name| name == text(item, "name")));
        }
    };
    field_mut(task_spec, "workspaces").into_iter().for_each(keep);
    for list in ["steps", "sidecars"] {
        let Some(Value::Array(containers)) = field_mut(task_spec, list) else { continue };
        containers.iter_mut().filter_map(|container| field_mut(container, "workspaces")).for_each(keep);
    }
}
