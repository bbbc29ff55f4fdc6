//! The values that a pipeline's variables have when its run is created.

use std::borrow::Cow;

use serde_json::Value;

use super::{
    fields::{field, items, text, texts},
    run::Run,
    variables::{references, substitute},
};

/// How deep the defaults of params may refer to each other (Tekton: resources/apply.go `maxParamReferenceDepth`).
const DEPTH: usize = 10;

/// Params of the run and, where it is known, of its Pipeline; and what is known of the run itself.
#[derive(Clone, Debug)]
pub struct Scope<'a> {
    params: Vec<(&'a str, Cow<'a, Value>)>,
    context: Vec<(&'static str, &'a str)>,
}

/// A variable that has no value when a run is created: its reference, for example `tasks.t.results.r`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("$({0}) has no value when the run is created")]
pub struct UnknownVariable(pub String);

impl<'a> Scope<'a> {
    /// The values that `run`, about to be created in `namespace`, gives.
    pub fn of_run(run: Run<'a>, namespace: &'a str) -> Self {
        let params =
            run.params().iter().filter_map(|param| Some((text(param, "name"), Cow::Borrowed(field(param, "value")?))));
        let params = params.collect();
        let mut context = vec![("context.pipelineRun.namespace", namespace)];
        // With generateName there is none yet, and there never is a uid.
        context.extend(run.name().map(|name| ("context.pipelineRun.name", name)));
        Self { params, context }
    }

    /// The same inside of the pipeline `name`: the defaults of its params apply where the run gives no value. A default may
    /// refer to other params, whose defaults may refer to others (Tekton: resources/apply.go `ApplyParameters`). Versions of
    /// Tekton that leave such variables as they are can't use them.
    pub fn in_pipeline(mut self, spec: &'a Value, name: &'a str) -> Self {
        let default = |param| Some((text(param, "name"), field(param, "default")?));
        let mut open: Vec<(&str, &Value)> = items(spec, "params").iter().filter_map(default).collect();
        open.retain(|(name, _)| self.param(name).is_none());
        for _ in 0..=DEPTH {
            let found: Vec<_> =
                open.iter().filter_map(|(name, default)| Some((*name, self.resolved(default)?))).collect();
            open.retain(|(name, _)| found.iter().all(|(known, _)| known != name));
            self.params.extend(found);
        }
        self.context.push(("context.pipeline.name", name));
        self
    }

    /// A default, resolved; none unless all params that its strings refer to are known strings.
    fn resolved(&self, default: &'a Value) -> Option<Cow<'a, Value>> {
        let mut variables = false;
        texts(default, &mut |text| variables |= references(text).any(|reference| reference.starts_with("params")));
        if !variables {
            return Some(Cow::Borrowed(default));
        }
        let text = |value: &Value| self.apply_text(value.as_str()?).ok().map(Value::String);
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
    pub fn apply(&self, value: &Value) -> Result<Value, UnknownVariable> {
        match value {
            Value::String(text) => match self.whole(text) {
                Some(value) => Ok(value.clone()),
                None => self.apply_text(text).map(Value::String),
            },
            Value::Array(items) => {
                let mut applied = Vec::new();
                for item in items {
                    match item.as_str().and_then(|text| self.whole(text)) {
                        Some(Value::Array(more)) => applied.extend(more.iter().cloned()),
                        _ => applied.push(self.apply(item)?),
                    }
                }
                Ok(Value::Array(applied))
            }
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| Ok((key.clone(), self.apply(value)?)))
                .collect::<Result<_, _>>()
                .map(Value::Object),
            other => Ok(other.clone()),
        }
    }

    /// The same for a string that stays a string. What is not a variable of Tekton's is left as it is.
    pub fn apply_text(&self, value: &str) -> Result<String, UnknownVariable> {
        let variable = |reference: &&str| {
            ["params", "tasks", "finally", "context", "workspaces"]
                .iter()
                .any(|start| reference.strip_prefix(start).is_some_and(|rest| rest.starts_with(['.', '['])))
        };
        match references(value).filter(variable).find(|reference| self.text(reference).is_none()) {
            Some(unknown) => Err(UnknownVariable(unknown.to_owned())),
            None => {
                let new = |reference: &str| self.text(reference).map(str::to_owned);
                Ok(substitute(value, new).unwrap_or_else(|| value.to_owned()))
            }
        }
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
        let rest = reference.strip_prefix("params")?;
        self.params.iter().find_map(|(name, value)| {
            let forms = [format!(".{name}"), format!("[\"{name}\"]"), format!("['{name}']")];
            let rest = forms.iter().find_map(|form| rest.strip_prefix(form.as_str()))?;
            match (rest.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')), rest.strip_prefix('.')) {
                _ if rest.is_empty() => Some(value.as_ref()),
                (Some(index), _) => value.as_array()?.get(index.parse::<usize>().ok()?),
                (None, key) => value.as_object()?.get(key?),
            }
        })
    }

    fn param(&self, name: &str) -> Option<&Value> {
        self.params.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
    }
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
        let scope = Scope::of_run(Run::new(&run), "ns").in_pipeline(&spec, "p");
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
            assert_eq!(scope.apply(&json!(value)), Err(UnknownVariable(unknown.to_owned())), "{value}");
        }
        let unnamed = json!({"metadata": {"generateName": "r-"}});
        assert_eq!(Scope::of_run(Run::new(&unnamed), "ns").text("context.pipelineRun.name"), None);
    }
}
