//! Params of embedded tasks that Tekton's admission would confuse with each other.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use super::{
    PipelineTask, declared,
    params::{Scoped, Type, declared_type, type_of},
};
use crate::tekton::fields::{field, items, text};

/// Renames the later of two params with one name and types that Tekton's admission can't merge: the first one seen decides
/// about the type for all tasks (Tekton: pipelinerun_validation.go `validateInlineParameters`, which does not look at
/// `finally`).
pub fn resolve(
    tasks: &mut [PipelineTask<'_>],
    scope: &HashMap<String, Scoped>,
    rename: &mut impl FnMut(&mut Value, &[String]),
) {
    let mut seen: HashMap<String, Type> = scope.iter().map(|(name, scoped)| (name.clone(), scoped.kind)).collect();
    // Names of params that a task passes without declaring them itself stay: every task that refers to a Task has such.
    for inlined in tasks.iter().filter(|inlined| inlined.in_dag) {
        let own: HashSet<&str> = declared(inlined.task).collect();
        for passed in items(inlined.task, "params") {
            if own.contains(text(passed, "name")) {
                continue;
            }
            let kind = field(passed, "value").map_or(Type::String, type_of);
            let seen = seen.entry(text(passed, "name").to_owned()).or_insert(kind);
            // Tekton fails to add an object's keys to anything else.
            if kind == Type::Object {
                *seen = kind;
            }
        }
    }
    for inlined in tasks.iter_mut().filter(|inlined| inlined.in_dag) {
        let mut clashing = Vec::new();
        let mut all_passed = HashMap::new();
        for passed in items(inlined.task, "params") {
            all_passed.entry(text(passed, "name")).or_insert(passed);
        }
        for (name, kind) in own(inlined.task) {
            // If a task that the Pipeline embeds declares a param of the pipeline with the same type, Tekton substitutes it by
            // name. Only one of another type has to be renamed, as the pipeline's value never reaches it (Tekton: apply.go
            // `propagateParams` looks for a replacement of the same type).
            let embedded = inlined.from.is_none();
            let left = |other: Type| embedded && scope.contains_key(&name) && other == kind;
            match seen.get(&name) {
                Some(&other) if clash(other, kind) && !left(other) => clashing.push(name),
                Some(_) => {}
                None => {
                    // An array may be passed as a text, `$(params.x[*])`, and counts as what it is passed as.
                    let kind =
                        all_passed.get(name.as_str()).and_then(|passed| field(passed, "value")).map_or(kind, type_of);
                    seen.insert(name, kind);
                }
            }
        }
        rename(inlined.task, &clashing);
    }
}

/// Whether a param of type `kind` can't stand beside an earlier one: a string may be used in every way, an array not as a
/// string, and the keys of two objects are confused with each other.
fn clash(earlier: Type, kind: Type) -> bool {
    earlier == Type::Object || kind == Type::Object || (earlier == Type::Array && kind == Type::String)
}

/// The params that an embedded task declares.
fn own(task: &Value) -> Vec<(String, Type)> {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    items(spec, "params").iter().map(|param| (text(param, "name").to_owned(), declared_type(param))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::params, *};
    use crate::tekton::run::Run;

    /// A task that declares the param `p` with a type, or passes it without declaring it.
    fn task(name: &str, declared: Option<&str>, passed: Option<Value>) -> Value {
        let declared: Vec<Value> = declared.map(|kind| json!({"name": "p", "type": kind})).into_iter().collect();
        let passed: Vec<Value> = passed.map(|value| json!({"name": "p", "value": value})).into_iter().collect();
        json!({"name": name, "params": passed, "taskSpec": {"params": declared}})
    }

    /// Which tasks have their `p` renamed: `inlined` are those that were only referred to. `default` is that of the
    /// pipeline's own `p`.
    fn renamed(mut tasks: Vec<Value>, inlined: &[&str], default: Option<Value>) -> Vec<String> {
        let spec_params: Vec<Value> =
            default.map(|default| json!({"name": "p", "default": default})).into_iter().collect();
        let scope = params::scope(Run::new(&json!({})), &spec_params);
        let from = |task: &Value| inlined.contains(&text(task, "name")).then(|| "t".to_owned());
        let mut tasks: Vec<PipelineTask<'_>> =
            tasks.iter_mut().map(|task| PipelineTask { from: from(task), task, in_dag: true }).collect();
        let mut renamed = Vec::new();
        resolve(&mut tasks, &scope, &mut |task, names| {
            renamed.extend(names.iter().map(|name| format!("{} {name}", text(task, "name"))));
        });
        renamed
    }

    #[test]
    fn the_first_type_decides() {
        for (first, second, clashes) in [
            ("string", "string", false),
            ("string", "array", false),
            ("array", "array", false),
            ("array", "string", true),
            ("object", "object", true),
            ("object", "string", true),
            ("object", "array", true),
            ("string", "object", true),
            ("array", "object", true),
        ] {
            let tasks = vec![task("one", Some(first), None), task("two", Some(second), None)];
            let expected = if clashes { vec!["two p"] } else { vec![] };
            assert_eq!(renamed(tasks.clone(), &["one", "two"], None), expected, "{first} {second}");
            // Embedded by the pipeline they clash as well, unless its own param has the later one's type.
            assert_eq!(renamed(tasks, &[], None), expected, "{first} {second}, embedded");
        }
    }

    #[test]
    fn what_is_passed_counts_before_what_is_declared() {
        let array = || task("array", Some("array"), None);
        let passed = |name: &str, value: Value| task(name, None, Some(value));
        for (others, clashes) in [
            (vec![passed("a", json!("text"))], false),
            (vec![passed("a", json!({"k": "v"}))], true),
            // An object decides, whatever was passed first.
            (vec![passed("a", json!("text")), passed("b", json!({"k": "v"}))], true),
            (vec![passed("a", json!({"k": "v"})), passed("b", json!("text"))], true),
        ] {
            let tasks = std::iter::once(array()).chain(others.clone()).collect();
            assert_eq!(!renamed(tasks, &["array"], None).is_empty(), clashes, "{others:?}");
        }
    }

    #[test]
    fn a_param_of_the_pipeline_in_a_task_that_it_embeds_has_its_own_type() {
        for (inlined, default, expected) in [
            (&["one"][..], Some(json!(["a"])), vec!["one p"]),
            (&[], Some(json!(["a"])), vec!["one p"]),
            (&[], Some(json!("a")), vec![]),
            (&[], None, vec!["two p"]),
        ] {
            let tasks = vec![task("one", Some("string"), None), task("two", Some("object"), None)];
            let tasks = if default.is_some() { tasks[..1].to_vec() } else { tasks };
            assert_eq!(renamed(tasks, inlined, default.clone()), expected, "{inlined:?} {default:?}");
        }
    }
}
