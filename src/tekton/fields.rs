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
}
