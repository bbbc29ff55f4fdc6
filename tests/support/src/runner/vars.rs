//! Variables `$(name)` and what they stand for (Tekton: pkg/substitution).

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::json::shown;

/// What variables stand for at one stage of Tekton's substitution.
#[derive(Clone, Debug, Default)]
pub struct Vars {
    strings: HashMap<String, String>,
    lists: HashMap<String, Vec<Value>>,
    objects: HashMap<String, Map<String, Value>>,
}

impl Vars {
    /// `$(name)` stands for `value`.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<String>) {
        self.strings.insert(name.into(), value.into());
    }

    /// `$(name)` stands for a string, an array or an object, with the forms `[*]`, `[0]` and `.key` of the latter two.
    pub fn define(&mut self, name: &str, value: &Value) {
        match value {
            Value::Array(items) => {
                for (i, item) in items.iter().enumerate() {
                    self.set(format!("{name}[{i}]"), shown(item));
                }
                self.lists.insert(name.to_owned(), items.clone());
                self.lists.insert(format!("{name}[*]"), items.clone());
            }
            Value::Object(map) => {
                for (key, item) in map {
                    self.set(format!("{name}.{key}"), shown(item));
                }
                self.objects.entry(format!("{name}[*]")).or_default().extend(map.clone());
            }
            scalar => self.set(name, shown(scalar)),
        }
    }

    /// A param under all its spellings.
    pub fn define_param(&mut self, name: &str, value: &Value) {
        self.define_spelled("params", name, value);
    }

    /// A result of a task under all its spellings.
    pub fn define_result(&mut self, task: &str, result: &str, value: &Value) {
        self.define_spelled(&format!("tasks.{task}.results"), result, value);
    }

    /// The key of an object is known only behind a dot: `params.name.key`.
    fn define_spelled(&mut self, prefix: &str, name: &str, value: &Value) {
        let [dotted, bracketed @ ..] = spellings(prefix, name);
        self.define(&dotted, value);
        for spelling in bracketed {
            match value {
                Value::Object(map) => drop(self.objects.insert(format!("{spelling}[*]"), map.clone())),
                other => self.define(&spelling, other),
            }
        }
    }

    /// What an embedded task sees whose pipeline task passes `params`: of the pipeline's own params only those that have the
    /// name of a passed one change, and only in the forms that Tekton looks at (Tekton: pipelinerun/resources/apply.go,
    /// propagateParams). A default of the task does not count: that is Tekton's way.
    pub fn shadowed(&self, params: &[Value]) -> Self {
        let mut seen = self.clone();
        for param in params {
            let value = &param["value"];
            for name in spellings("params", super::json::name(param)) {
                if let Some(old) = seen.strings.get_mut(&name) {
                    *old = if value.is_array() || value.is_object() { String::new() } else { shown(value) };
                } else if self.lists.contains_key(&name) {
                    let items = value.as_array().cloned().unwrap_or_default();
                    seen.lists.insert(format!("{name}[*]"), items.clone());
                    seen.lists.insert(name, items);
                } else if self.objects.contains_key(&format!("{name}[*]")) && value.is_object() {
                    seen.define(&name, value);
                }
            }
        }
        seen
    }

    /// `text` with every known variable replaced; what is not known stays.
    pub fn text(&self, text: &str) -> String {
        replace(text, |name| self.strings.get(name).cloned())
    }

    /// The items of `args`, `command` or `values`: an item that is one array variable becomes the array's items.
    pub fn list(&self, items: &[Value]) -> Vec<Value> {
        let mut out = Vec::new();
        for item in items {
            match item.as_str() {
                Some(text) => match whole(text).and_then(|name| self.lists.get(name)) {
                    Some(list) => out.extend(list.iter().cloned()),
                    None => out.push(Value::String(self.text(text))),
                },
                None => out.push(item.clone()),
            }
        }
        out
    }

    /// A param's value: a text that is one array or object variable becomes that array or object.
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match whole(text) {
                Some(name) if self.lists.contains_key(name) => Value::Array(self.lists[name].clone()),
                Some(name) if self.objects.contains_key(name) => Value::Object(self.objects[name].clone()),
                _ => Value::String(self.text(text)),
            },
            Value::Array(items) => Value::Array(self.list(items)),
            Value::Object(map) => Value::Object(map.iter().map(|(k, v)| (k.clone(), self.value(v))).collect()),
            scalar => scalar.clone(),
        }
    }

    /// Replaces in every text below `value`.
    pub fn deep(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(text),
            Value::Array(items) => items.iter_mut().for_each(|v| self.deep(v)),
            Value::Object(map) => map.values_mut().for_each(|v| self.deep(v)),
            _ => {}
        }
    }
}

/// `text` with every `$(name)` replaced for which `value` gives something. What it gives is not looked at again.
pub fn replace(text: &str, value: impl Fn(&str) -> Option<String>) -> String {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("$(") {
        let (before, inner) = (&rest[..start], &rest[start + 2..]);
        out.push_str(before);
        match inner.split_once(')').and_then(|(name, after)| Some((value(name)?, after))) {
            Some((value, after)) => {
                out.push_str(&value);
                rest = after;
            }
            None => {
                out.push_str("$(");
                rest = inner;
            }
        }
    }
    out + rest
}

/// All names in `$(…)` in `text`.
pub fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split("$(").skip(1).filter_map(|t| t.split_once(')')).map(|(name, _)| name)
}

/// The name where `text` is one variable and nothing else.
fn whole(text: &str) -> Option<&str> {
    text.strip_prefix("$(")?.strip_suffix(')').filter(|name| !name.contains(['$', ')']))
}

fn spellings(prefix: &str, name: &str) -> [String; 3] {
    [format!("{prefix}.{name}"), format!("{prefix}['{name}']"), format!("{prefix}[\"{name}\"]")]
}
