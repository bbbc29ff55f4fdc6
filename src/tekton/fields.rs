//! Fields of JSON objects as Go's `encoding/json` finds them: case-insensitively, and the last of several wins.
//!
//! Tekton's CRDs keep everything below `pipelineSpec` and `taskSpec` as it was written, so `workingdir` and `mountpath`
//! reach Tekton's decoder, which takes them for `workingDir` and `mountPath`.

use serde_json::{Map, Value};

/// The field `name` of `object`; none if it is absent or null, or `object` is not an object.
pub fn field<'a>(object: &'a Value, name: &str) -> Option<&'a Value> {
    let (_, value) = object.as_object()?.iter().rev().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value).filter(|value| !value.is_null())
}

/// The field `name`, mutable.
pub fn field_mut<'a>(object: &'a mut Value, name: &str) -> Option<&'a mut Value> {
    let (_, value) = object.as_object_mut()?.iter_mut().rev().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(value).filter(|value| !value.is_null())
}

/// The string in field `name`; empty if there is none, as Go's zero value.
pub fn text<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, name).and_then(Value::as_str).unwrap_or_default()
}

/// The items of the array in field `name`; empty if there is none.
pub fn items<'a>(object: &'a Value, name: &str) -> &'a [Value] {
    field(object, name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether field `name` is `true`.
pub fn flag(object: &Value, name: &str) -> bool {
    field(object, name).and_then(Value::as_bool).unwrap_or_default()
}

/// Sets field `name`, in the spelling that the object already has or as `name`.
pub fn set(object: &mut Map<String, Value>, name: &str, value: Value) {
    let key = last(object, name).map_or_else(|| name.to_owned(), str::to_owned);
    object.insert(key, value);
}

/// Removes field `name` in every spelling.
pub fn remove(object: &mut Map<String, Value>, name: &str) {
    object.retain(|key, _| !key.eq_ignore_ascii_case(name));
}

/// The array in field `name`, created if there is none.
pub fn items_mut<'a>(object: &'a mut Map<String, Value>, name: &str) -> Option<&'a mut Vec<Value>> {
    let key = last(object, name).map_or_else(|| name.to_owned(), str::to_owned);
    let value = object.entry(key).or_insert_with(|| Value::Array(Vec::new()));
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    value.as_array_mut()
}

/// Calls `found` with every string in `value`, except the keys of objects.
pub fn texts<'a>(value: &'a Value, found: &mut impl FnMut(&'a str)) {
    match value {
        Value::String(text) => found(text),
        Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
        Value::Object(map) => map.values().for_each(|item| texts(item, found)),
        _ => {}
    }
}

/// Replaces every string in `value` for which `change` returns another one.
pub fn change_texts(value: &mut Value, change: &mut impl FnMut(&str) -> Option<String>) {
    match value {
        Value::String(text) => {
            if let Some(new) = change(text) {
                *text = new;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| change_texts(item, change)),
        Value::Object(map) => map.values_mut().for_each(|item| change_texts(item, change)),
        _ => {}
    }
}

/// Maps with keys of the user's own, all of whose values are texts (Tekton: param_types.go; Kubernetes: ObjectMeta, PodSpec).
const MAPS: [&str; 6] = ["labels", "annotations", "value", "default", "nodeSelector", "matchLabels"];

/// A key in `value`, at any depth, of which it can't be told what Go's decoder makes of it: the object has it in a second spelling
/// too, and what is in both is merged; or letters in it count as others (Go: encoding/json `foldName`, which takes `ſ` for `s` and
/// the sign of Kelvin for `k`). Whoever stores the object may bring its keys into another order, so that neither spelling is sure
/// to be the last one.
pub fn ambiguous_key(value: &Value) -> Option<&str> {
    match value {
        Value::Array(items) => items.iter().find_map(ambiguous_key),
        Value::Object(map) => ambiguous_in(map).or_else(|| {
            let inner = map.iter().filter(|(key, _)| !MAPS.contains(&key.as_str()));
            inner.map(|(_, value)| value).find_map(ambiguous_key)
        }),
        _ => None,
    }
}

fn ambiguous_in(map: &Map<String, Value>) -> Option<&str> {
    /// Of so many keys each is compared with each.
    const FEW: usize = 16;
    let keys = || map.keys().map(String::as_str);
    if let Some(odd) = keys().find(|key| key.contains(['\u{17f}', '\u{212a}'])) {
        return Some(odd);
    }
    if map.len() <= FEW {
        let is_twice = |(place, key): &(usize, &str)| {
            keys().skip(place.saturating_add(1)).any(|other| other.eq_ignore_ascii_case(key))
        };
        return keys().enumerate().find(is_twice).map(|(_, key)| key);
    }
    let mut seen = std::collections::HashSet::new();
    keys().rev().filter(|key| !seen.insert(key.to_ascii_lowercase())).reduce(|_, first| first)
}

fn last<'a>(map: &'a Map<String, Value>, name: &str) -> Option<&'a str> {
    map.keys().rev().find(|key| key.eq_ignore_ascii_case(name)).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn any_case_last_one_wins() {
        let step = json!({"workingdir": "/a", "workingDir": "/b", "script": null});
        assert_eq!(text(&step, "workingDir"), "/b");
        assert_eq!(field(&step, "script"), None);
        let mut map = json!({"Steps": []}).as_object().unwrap().clone();
        items_mut(&mut map, "steps").unwrap().push(json!(1));
        assert_eq!(Value::Object(map), json!({"Steps": [1]}));
    }

    #[test]
    fn keys_that_could_be_others() {
        for (value, key) in [
            (json!({"steps": [{"volumeMounts": [], "VolumeMounts": []}]}), Some("volumeMounts")),
            (json!({"stepTemplate": {}, "StepTemplate": {"env": []}}), Some("stepTemplate")),
            (json!({"\u{17f}teps": []}), Some("\u{17f}teps")),
            (json!([{"wor\u{212a}spaces": []}]), Some("wor\u{212a}spaces")),
            ((0..40).map(|n| (format!("k{n}"), json!(n))).chain([("K7".to_owned(), json!(0))]).collect(), Some("k7")),
            (json!({"Steps": [{"workingdir": "/a", "\u{e4}": 1}]}), None),
            (
                json!({"params": [{"name": "p", "value": {"a": "x", "A": "y"}}], "metadata": {"labels": {"a": "", "A": ""}}}),
                None,
            ),
        ] {
            assert_eq!(ambiguous_key(&value), key, "{value}");
        }
        // However many keys there are, the first one that could be a later one is named.
        for more in [0, 12, 13] {
            let keys = ["a", "b", "B", "A"].map(str::to_owned).into_iter().chain((0..more).map(|n| format!("k{n}")));
            assert_eq!(ambiguous_key(&keys.map(|key| (key, json!(0))).collect()), Some("a"), "{more}");
        }
    }
}
