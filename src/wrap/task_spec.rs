//! Views of and changes to task specs that several parts of the rewrite need.

use serde_json::{Value, json};

use crate::tekton::fields::{field_mut, set, text};

/// Removes workspaces from the declarations of a task and of its steps and sidecars.
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

/// Gives every step without a name the one that Tekton would derive from its index, so that a step added in front does not
/// change it (Tekton: pkg/pod/entrypoint.go, `unnamed-<index>`).
pub fn name_steps(steps: &mut [Value]) {
    for (index, step) in steps.iter_mut().enumerate() {
        if text(step, "name").is_empty()
            && let Some(map) = step.as_object_mut()
        {
            set(map, "name", json!(format!("unnamed-{index}")));
        }
    }
}

/// The tasks of [`crate::tekton::tasks::all_tasks`] in the same order, mutable.
pub fn all_tasks_mut(spec: &mut Value) -> Vec<&mut Value> {
    let (mut tasks, mut finally) = (Vec::new(), Vec::new());
    for (key, value) in spec.as_object_mut().into_iter().flatten() {
        if key.eq_ignore_ascii_case("tasks") {
            tasks = value.as_array_mut().into_iter().flatten().collect();
        } else if key.eq_ignore_ascii_case("finally") {
            finally = value.as_array_mut().into_iter().flatten().collect();
        }
    }
    tasks.append(&mut finally);
    tasks
}
