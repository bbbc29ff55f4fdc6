//! The values that a pipeline's variables have when its run is created.

use std::{
    borrow::Cow,
    collections::{HashMap, hash_map::Entry},
};

use serde_json::Value;

use super::{
    fields::{field, items, text, texts},
    run::Run,
    variables::{param_names, references, substitute},
};
use crate::limits::{MAX_PARAMS, MAX_STRING};

/// How deep the defaults of params may refer to each other (Tekton: resources/apply.go `maxParamReferenceDepth`).
const DEPTH: usize = 10;

/// The words that variables of Tekton's begin with.
const VARIABLES: [&str; 5] = ["params", "tasks", "finally", "context", "workspaces"];

/// Params of the run and, where it is known, of its Pipeline; and what is known of the run itself.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    params: HashMap<&'a str, Param<'a>>,
    context: Vec<(&'static str, &'a str)>,
}

#[derive(Clone, Debug)]
struct Param<'a> {
    /// Its place among all params: where a variable may mean two of them, it means the first.
    place: usize,
    value: Cow<'a, Value>,
}

/// Why a string can't be resolved when a run is created. Each holds the inner text of a variable, for example
/// `tasks.t.results.r`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VariableError {
    /// It has no value yet.
    #[error("$({0}) has no value when the run is created")]
    Unknown(String),
    /// With its value the string is longer than [`MAX_STRING`].
    #[error("$({0}) makes a string of more than {MAX_STRING} bytes: give it a shorter value")]
    TooLong(String),
}

impl<'a> Scope<'a> {
    /// The values that `run`, about to be created in `namespace`, gives.
    pub fn of_run(run: Run<'a>, namespace: &'a str) -> Self {
        let mut context = vec![("context.pipelineRun.namespace", namespace)];
        // With generateName there is none yet, and there never is a uid.
        context.extend(run.name().map(|name| ("context.pipelineRun.name", name)));
        let mut scope = Self { params: HashMap::new(), context };
        for param in run.params() {
            if let Some(value) = field(param, "value") {
                scope.add(text(param, "name"), Cow::Borrowed(value));
            }
        }
        scope
    }

    /// The same inside of a pipeline, whose `name` is that of the run if it is embedded and may not be known yet: the defaults of
    /// its params apply if the run gives no value. A default may refer to other params, whose defaults may refer to others (Tekton: resources/apply.go `ApplyParameters`). Versions of
    /// Tekton that leave such variables as they are can't use them.
    pub fn in_pipeline(mut self, spec: &'a Value, name: Option<&'a str>) -> Self {
        let default = |param| Some((text(param, "name"), field(param, "default")?));
        let mut open: Vec<(&str, &Value)> = items(spec, "params").iter().filter_map(default).collect();
        open.retain(|(name, _)| !self.params.contains_key(name));
        let mut room = MAX_STRING;
        for _ in 0..=DEPTH {
            let before = open.len();
            let mut found = Vec::new();
            open.retain(|(name, default)| match self.resolved(default, &mut room) {
                Some(value) => {
                    found.push((*name, value));
                    false
                }
                None => true,
            });
            found.into_iter().for_each(|(name, value)| self.add(name, value));
            if open.len() == before {
                break;
            }
        }
        self.context.extend(name.map(|name| ("context.pipeline.name", name)));
        self
    }

    /// The first one of a name counts.
    fn add(&mut self, name: &'a str, value: Cow<'a, Value>) {
        let place = self.params.len();
        if let Entry::Vacant(entry) = self.params.entry(name) {
            entry.insert(Param { place, value });
        }
    }

    /// A default, if all params that stand in its texts are known and are texts. What is made of it takes of `room`.
    fn resolved(&self, default: &'a Value, room: &mut usize) -> Option<Cow<'a, Value>> {
        let mut variables = false;
        texts(default, &mut |text| variables |= references(text).any(|reference| reference.starts_with("params")));
        if !variables {
            return Some(Cow::Borrowed(default));
        }
        let mut text = |value: &Value| self.applied_text(value.as_str()?, room).ok().map(Value::String);
        let value = match default {
            Value::Array(items) => Value::Array(items.iter().map(text).collect::<Option<_>>()?),
            Value::Object(map) => {
                Value::Object(map.iter().map(|(key, value)| Some((key.clone(), text(value)?))).collect::<Option<_>>()?)
            }
            single => text(single)?,
        };
        Some(Cow::Owned(value))
    }

    /// The string that `$(reference)` stands for; none if it has no value yet, or one that is not a string.
    pub fn text(&self, reference: &str) -> Option<&str> {
        let context = self.context.iter().find(|(name, _)| *name == reference).map(|(_, value)| *value);
        context.or_else(|| self.value(reference)?.as_str())
    }

    /// `value` with every variable resolved, in strings at any depth.
    pub fn apply(&self, value: &Value) -> Result<Value, VariableError> {
        self.applied(value, &mut MAX_STRING.clone())
    }

    /// The same for a text that stays one. What is no variable of Tekton's is left as it is.
    pub fn apply_text(&self, value: &str) -> Result<String, VariableError> {
        self.applied_text(value, &mut MAX_STRING.clone())
    }

    /// What is made of `value` takes of `room`, which is in bytes.
    fn applied(&self, value: &Value, room: &mut usize) -> Result<Value, VariableError> {
        match value {
            Value::String(text) => match self.whole(text) {
                Some(value) => {
                    take(room, size(value), inner(text))?;
                    Ok(value.clone())
                }
                None => self.applied_text(text, room).map(Value::String),
            },
            Value::Array(items) => {
                let mut applied = Vec::new();
                for item in items {
                    match item.as_str().and_then(|text| Some((text, self.whole(text)?))) {
                        Some((text, Value::Array(more))) => {
                            take(room, more.iter().map(size).sum(), inner(text))?;
                            applied.extend(more.iter().cloned());
                        }
                        _ => applied.push(self.applied(item, room)?),
                    }
                }
                Ok(Value::Array(applied))
            }
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Ok((key.clone(), self.applied(value, room)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
            other => Ok(other.clone()),
        }
    }

    fn applied_text(&self, value: &str, room: &mut usize) -> Result<String, VariableError> {
        for reference in references(value) {
            match self.text(reference) {
                Some(text) => take(room, text.len(), reference)?,
                None if is_variable(reference) => return Err(VariableError::Unknown(reference.to_owned())),
                None => {}
            }
        }
        let new = |reference: &str| self.text(reference).map(str::to_owned);
        Ok(substitute(value, new).unwrap_or_else(|| value.to_owned()))
    }

    /// The array or object that `text` stands for if it consists of exactly one variable
    /// (Tekton: param_types.go `applyOrCorrect`).
    fn whole(&self, text: &str) -> Option<&Value> {
        let reference = text.strip_prefix("$(")?.strip_suffix(')')?;
        let value = self.value(reference.strip_suffix("[*]").unwrap_or(reference))?;
        (!value.is_string()).then_some(value)
    }

    /// The value of `params.x`, `params["x"]`, `params['x']`, and of `[0]` or `.key` after these. A name may have dots.
    fn value(&self, reference: &str) -> Option<&Value> {
        let values = param_names(reference).filter_map(|(name, rest)| {
            let param = self.params.get(name)?;
            Some((param.place, element(&param.value, rest)?))
        });
        values.min_by_key(|(place, _)| *place).map(|(_, value)| value)
    }
}

/// The whole of `value`, its item at `[0]` or its field `.key`.
fn element<'a>(value: &'a Value, rest: &str) -> Option<&'a Value> {
    match (rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), rest.strip_prefix('.')) {
        _ if rest.is_empty() => Some(value),
        (Some(index), _) => value.as_array()?.get(index.parse::<usize>().ok()?),
        (None, key) => value.as_object()?.get(key?),
    }
}

fn is_variable(reference: &str) -> bool {
    let starts = |word: &&str| reference.strip_prefix(*word).is_some_and(|rest| rest.starts_with(['.', '[']));
    VARIABLES.iter().any(starts)
}

/// The reference in `$(reference)`.
fn inner(text: &str) -> &str {
    text.trim_start_matches("$(").trim_end_matches(')')
}

fn take(room: &mut usize, bytes: usize, reference: &str) -> Result<(), VariableError> {
    *room = room.checked_sub(bytes).ok_or_else(|| VariableError::TooLong(reference.to_owned()))?;
    Ok(())
}

/// About the bytes that a value takes.
fn size(value: &Value) -> usize {
    const EACH: usize = MAX_STRING / MAX_PARAMS;
    let content = match value {
        Value::String(text) => text.len(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Object(map) => map.iter().map(|(key, value)| key.len().saturating_add(size(value))).sum(),
        _ => 0,
    };
    content.saturating_add(EACH)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values() {
        let run = json!({"metadata": {"name": "r"}, "spec": {"params": [
            {"name": "s", "value": "text"}, {"name": "a", "value": ["x", "y"]}, {"name": "o", "value": {"k": "v"}},
            {"name": "s.t", "value": "dotted"},
        ]}});
        let spec = json!({"params": [{"name": "s", "default": "unused"}, {"name": "d", "default": "default"}, {"name": "none"},
            {"name": "two", "default": "$(params.one)2"}, {"name": "one", "default": "$(params.s)1"},
            {"name": "list", "default": ["$(params.two)", "$(params.d)"]}, {"name": "map", "default": {"k": "$(params.two)"}},
            {"name": "circle", "default": "$(params.back)"}, {"name": "back", "default": "$(params.circle)"},
            {"name": "arrays", "default": ["$(params.a[*])"]}]});
        let scope = Scope::of_run(Run::new(&run), "ns").in_pipeline(&spec, Some("p"));
        for (value, expected) in [
            (json!("plain $(x) $HOME $(date)"), json!("plain $(x) $HOME $(date)")),
            (json!("a $(params.s) $(params[\"s\"]) $(params['s'])"), json!("a text text text")),
            (json!("$(params.s.t) $(params[\"s.t\"]) $(params.d)"), json!("dotted dotted default")),
            (json!("$(params.a[1])-$(params.o.k)"), json!("y-v")),
            (json!("$(params.two) $(params.list[1]) $(params.map.k)"), json!("text12 default text12")),
            (json!("$(params.list[*])"), json!(["text12", "default"])),
            (json!("$(params.a[*])"), json!(["x", "y"])),
            (json!("$(params.a)"), json!(["x", "y"])),
            (json!("$(params.o[*])"), json!({"k": "v"})),
            (json!(["0", "$(params.a[*])", "$(params.s)"]), json!(["0", "x", "y", "text"])),
            (json!({"key": "$(params.s)"}), json!({"key": "text"})),
            (
                json!("$(context.pipelineRun.namespace)/$(context.pipelineRun.name)/$(context.pipeline.name)"),
                json!("ns/r/p"),
            ),
        ] {
            assert_eq!(scope.apply(&value), Ok(expected), "{value}");
        }
        for (value, unknown) in [
            ("$(params.none)", "params.none"),
            ("$(params.circle)", "params.circle"),
            ("$(params.arrays[0])", "params.arrays[0]"),
            ("x $(params.a[*])", "params.a[*]"),
            ("$(params.a[2])", "params.a[2]"),
            ("$(params.o.no)", "params.o.no"),
            ("$(tasks.t.results.r)", "tasks.t.results.r"),
            ("$(context.pipelineRun.uid)", "context.pipelineRun.uid"),
        ] {
            assert_eq!(scope.apply(&json!(value)), Err(VariableError::Unknown(unknown.to_owned())), "{value}");
        }
        let unnamed = json!({"metadata": {"generateName": "r-"}});
        assert_eq!(Scope::of_run(Run::new(&unnamed), "ns").text("context.pipelineRun.name"), None);
    }

    #[test]
    fn what_is_made_of_params_is_bounded() {
        let refer = |name: &str, times: usize| format!("$(params.{name})").repeat(times);
        // Each default is the one before a hundred times.
        let params: Vec<Value> = (0..10)
            .map(|level| match level {
                0 => json!({"name": "p0", "default": "x".repeat(100)}),
                _ => json!({"name": format!("p{level}"), "default": refer(&format!("p{}", level - 1), 100)}),
            })
            .collect();
        let run = json!({"spec": {"params": [
            {"name": "long", "value": "x".repeat(1000)}, {"name": "list", "value": vec!["x"; 1000]}]}});
        let spec = json!({"params": params});
        let scope = Scope::of_run(Run::new(&run), "ns").in_pipeline(&spec, Some("p"));
        assert_eq!(scope.text("params.p1").map(str::len), Some(10_000));
        assert_eq!(scope.text("params.p2"), None);
        assert_eq!(scope.apply_text(&refer("long", 65)).map(|text| text.len()), Ok(65_000));
        assert_eq!(scope.apply_text(&refer("long", 66)), Err(VariableError::TooLong("params.long".to_owned())));
        assert!(scope.apply(&json!(["$(params.list[*])"])).is_ok());
        assert!(scope.apply(&json!(vec!["$(params.list[*])"; 10])).is_err());
        // An array or an object counts with all that is in it, wherever it is put.
        let half = json!({"spec": {"params": [
            {"name": "list", "value": ["x".repeat(20_000), "x".repeat(20_000)]},
            {"name": "map", "value": {"k": "x".repeat(20_000), "l": "x".repeat(20_000)}}]}});
        let scope = Scope::of_run(Run::new(&half), "ns").in_pipeline(&spec, Some("p"));
        for name in ["list", "map"] {
            let whole = format!("$(params.{name}[*])");
            assert!(scope.apply(&json!({"a": whole})).is_ok(), "{name}");
            let twice = scope.apply(&json!({"a": whole, "b": whole}));
            assert_eq!(twice, Err(VariableError::TooLong(format!("params.{name}[*]"))));
        }
        // Long references are not looked for at every dot.
        let dots = format!("$(params.{})", "a.".repeat(70_000));
        assert!(scope.apply_text(&dots).is_err());
    }
}
