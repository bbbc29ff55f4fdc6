//! The params that the run gives or the Pipeline declares, and which params of a Task they would reach.

use std::collections::{BTreeSet, HashMap};

use serde_json::Value;

use crate::tekton::{
    fields::{field, items, text, texts},
    run::Run,
    variables::references,
};

/// The type of a param.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    String,
    Array,
    Object,
}

/// A param that the run gives or the Pipeline declares.
pub struct Scoped {
    /// Its type.
    pub kind: Type,
    /// Whether none of its possible values contains a variable, so that substituting it early gives the same string.
    plain: bool,
}

/// All params of the pipeline by name, also those that the run gives though the Pipeline does not declare them
/// (Tekton: apply.go `paramsFromPipelineRun`).
pub fn scope(run: Run<'_>, spec_params: &[Value]) -> HashMap<String, Scoped> {
    let mut scope: HashMap<String, Scoped> = HashMap::new();
    for param in run.params() {
        let value = field(param, "value").unwrap_or(&Value::Null);
        scope.insert(text(param, "name").to_owned(), Scoped { kind: type_of(value), plain: is_plain(value) });
    }
    for param in spec_params {
        let plain = field(param, "default").is_none_or(is_plain);
        let scoped =
            scope.entry(text(param, "name").to_owned()).or_insert(Scoped { kind: declared_type(param), plain });
        scoped.plain &= plain;
    }
    scope
}

/// The names of the pipeline's params in their order, to find those with dots.
pub struct Dotted<'a>(BTreeSet<&'a str>);

impl<'a> Dotted<'a> {
    /// Those of `scope`.
    pub fn new(scope: &'a HashMap<String, Scoped>) -> Self {
        Self(scope.keys().map(String::as_str).collect())
    }

    /// Whether `$(params.a.b)` may be the param `a.b` as well as key `b` of the object `a`, where one of the two is `name`.
    fn overlap(&self, name: &str) -> bool {
        let below = format!("{name}.");
        let first_below = self.0.range(below.as_str()..).next();
        first_below.is_some_and(|other| other.starts_with(&below))
            || name.match_indices('.').any(|(end, _)| name.get(..end).is_some_and(|above| self.0.contains(above)))
    }
}

/// The params of the task that the pipeline's value of the same name would reach, wholly or in part.
pub fn shadowed(task: &Value, scope: &HashMap<String, Scoped>, dotted: &Dotted<'_>) -> Vec<String> {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    let mut all_passed = HashMap::new();
    for passed in items(task, "params") {
        all_passed.entry(text(passed, "name")).or_insert(passed);
    }
    let reached = |param: &&Value| {
        let name = text(param, "name");
        let Some(scoped) = scope.get(name) else { return dotted.overlap(name) };
        let both_strings = declared_type(param) == Type::String && scoped.kind == Type::String;
        // A string that the pipeline's task passes takes the outer one's place, unless its text is substituted once more.
        let passed_plainly = all_passed
            .get(name)
            .and_then(|passed| field(passed, "value"))
            .is_some_and(|value| value.as_str().is_some_and(|text| references(text).all(is_settled_in_a_task)));
        !(both_strings && scoped.plain && passed_plainly)
    };
    items(spec, "params").iter().filter(reached).map(|param| text(param, "name").to_owned()).collect()
}

/// The type of a declared param (Tekton: param_types.go `SetDefaults`).
pub fn declared_type(param: &Value) -> Type {
    match text(param, "type") {
        "array" => Type::Array,
        "object" => Type::Object,
        "string" => Type::String,
        _ if field(param, "properties").is_some() => Type::Object,
        _ => field(param, "default").map_or(Type::String, type_of),
    }
}

/// The type of a param with this value.
pub fn type_of(value: &Value) -> Type {
    match value {
        Value::Array(_) => Type::Array,
        Value::Object(_) => Type::Object,
        _ => Type::String,
    }
}

/// Whether Tekton substitutes the reference in an embedded task as it does in what the pipeline passes to it.
fn is_settled_in_a_task(reference: &str) -> bool {
    reference.starts_with("params.")
        || reference.starts_with("context.pipelineRun.")
        || reference == "context.pipeline.name"
}

fn is_plain(value: &Value) -> bool {
    let mut plain = true;
    texts(value, &mut |text| plain &= !text.contains("$("));
    plain
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Whether the param `p` of a task, which is passed `passed`, is reached by the pipeline's, which the run gives `given`.
    fn is_shadowed(task_default: Value, passed: Value, given: Option<Value>, pipeline_default: Value) -> bool {
        let task = json!({
            "name": "t", "params": [{"name": "p", "value": passed}],
            "taskSpec": {"params": [{"name": "p", "default": task_default}]},
        });
        let given: Vec<Value> = given.map(|value| json!({"name": "p", "value": value})).into_iter().collect();
        let scope =
            scope(Run::new(&json!({"spec": {"params": given}})), &[json!({"name": "p", "default": pipeline_default})]);
        shadowed(&task, &scope, &Dotted::new(&scope)) == ["p"]
    }

    #[test]
    fn only_a_plain_string_for_a_string_is_the_same_either_way() {
        let text = || json!("text");
        for (task_default, passed, given, pipeline_default, expected) in [
            (text(), text(), None, text(), false),
            (text(), text(), Some(text()), text(), false),
            (text(), json!("$(params.q)"), None, text(), false),
            (text(), json!("$(context.pipelineRun.name)"), None, text(), false),
            (text(), json!("$(context.pipeline.name)"), None, text(), false),
            (text(), json!("$(tasks.a.results.r)"), None, text(), true),
            (json!(["a"]), text(), None, text(), true),
            (text(), text(), None, json!(["a"]), true),
            (text(), text(), None, json!("$(params.q)"), true),
            (text(), text(), Some(json!("$(params.q)")), text(), true),
            (text(), text(), Some(text()), json!("$(params.q)"), true),
        ] {
            let case = format!("{task_default} {passed} {given:?} {pipeline_default}");
            assert_eq!(is_shadowed(task_default, passed, given, pipeline_default), expected, "{case}");
        }
    }

    #[test]
    fn types() {
        for (param, kind) in [
            (json!({"name": "p"}), Type::String),
            (json!({"type": "array"}), Type::Array),
            (json!({"type": "object"}), Type::Object),
            (json!({"type": "string", "default": ["a"]}), Type::String),
            (json!({"properties": {"k": {}}}), Type::Object),
            (json!({"default": ["a"]}), Type::Array),
            (json!({"default": {"k": "v"}}), Type::Object),
        ] {
            assert_eq!(declared_type(&param), kind, "{param}");
        }
    }
}
