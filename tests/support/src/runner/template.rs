//! `stepTemplate`: what each step inherits (Tekton: v1/merge.go, a strategic merge in which the step wins).

use serde_json::Value;

use super::json::items;

/// The lists that are merged by item, and the key that tells which items are the same.
const LISTS: [(&str, &str); 3] = [("env", "name"), ("volumeMounts", "mountPath"), ("volumeDevices", "devicePath")];

/// Gives `step` what it lacks of `template`.
pub fn inherit(step: &mut Value, template: &Value) {
    for (key, value) in template.as_object().into_iter().flatten() {
        match LISTS.iter().find(|(list, _)| list == key) {
            Some((_, id)) => {
                let own = items(step, key);
                let missing = items(template, key).iter().filter(|t| own.iter().all(|o| o[id] != t[id]));
                // Kubernetes puts the patched list's own items first.
                step[key] = own.iter().chain(missing).cloned().collect();
            }
            None if key == "securityContext" && step[key].is_object() => inherit(&mut step[key], value),
            None if is_empty(&step[key]) => step[key] = value.clone(),
            None => {}
        }
    }
}

/// Whether Go would have left the field out (omitempty).
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}
