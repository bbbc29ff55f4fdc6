//! Small views of JSON objects.

use serde_json::{Map, Value};

/// The text under `key`, none where it is absent or empty.
pub fn text<'a>(value: &'a Value, key: &str) -> Option<&'a str> {
    value[key].as_str().filter(|t| !t.is_empty())
}

/// The items under `key`, none where it is absent.
pub fn items<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

/// The items under `key`, to be changed.
pub fn items_mut<'a>(value: &'a mut Value, key: &str) -> impl Iterator<Item = &'a mut Value> {
    value.get_mut(key).and_then(Value::as_array_mut).into_iter().flatten()
}

/// The texts under `key`; other items are passed over.
pub fn texts<'a>(value: &'a Value, key: &str) -> impl Iterator<Item = &'a str> {
    items(value, key).iter().filter_map(Value::as_str)
}

/// The name of an item.
pub fn name(value: &Value) -> &str {
    value["name"].as_str().unwrap_or_default()
}

/// A scalar as Tekton shows it in text: strings as they are, others as JSON.
pub fn shown(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Keys of Tekton that people write in other cases. Go reads a key without regard to case
/// (encoding/json, "preferring exact matches but also accepting a case-insensitive match").
const KEYS: [&str; 24] = [
    "args",
    "command",
    "emptyDir",
    "env",
    "envFrom",
    "image",
    "mountPath",
    "onError",
    "optional",
    "params",
    "pipelineSpec",
    "readOnly",
    "results",
    "runAfter",
    "script",
    "stepTemplate",
    "steps",
    "subPath",
    "taskRef",
    "taskSpec",
    "valueFrom",
    "volumeMounts",
    "workingDir",
    "workspaces",
];

/// Gives every key of [`KEYS`] its proper case, except where users choose the keys.
pub fn canonical(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(canonical),
        Value::Object(map) => {
            let old = std::mem::take(map);
            *map = old.into_iter().map(|(key, value)| canonical_entry(key, value)).collect::<Map<_, _>>();
        }
        _ => {}
    }
}

fn canonical_entry(key: String, mut value: Value) -> (String, Value) {
    if !["labels", "annotations", "value", "default", "properties", "matchLabels"].contains(&key.as_str()) {
        canonical(&mut value);
    }
    let proper = KEYS.iter().find(|k| k.eq_ignore_ascii_case(&key));
    (proper.map_or(key, |k| (*k).to_owned()), value)
}
