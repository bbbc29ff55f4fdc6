//! Params of embedded tasks that Tekton's admission would take for each other.

use std::collections::HashMap;

use serde_json::Value;

use super::{
    Inlined,
    params::{Scoped, Type, declared_type, type_of},
};
use crate::tekton::fields::{field, items, text};

/// Renames the later of two params with one name and types that Tekton's admission can't merge: the first one seen decides
/// about the type for all tasks (Tekton: pipelinerun_validation.go `validateInlineParameters`, which does not look at
/// `finally`).
pub fn resolve(tasks: &mut [Inlined<'_>], scope: &HashMap<String, Scoped>, rename: &mut impl FnMut(&mut Value, &str)) {
    let mut seen: HashMap<String, Type> = scope.iter().map(|(name, scoped)| (name.clone(), scoped.kind)).collect();
    // Names under which a task passes something that it does not declare itself stay: so in every task that is only
    // referred to.
    for inlined in tasks.iter().filter(|inlined| inlined.in_dag) {
        let own = own(inlined.task);
        for passed in items(inlined.task, "params") {
            if own.iter().any(|(name, _)| name == text(passed, "name")) {
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
        for (name, kind) in own(inlined.task) {
            // What Tekton makes of a pipeline's param in a task that the Pipeline embeds is left to Tekton.
            let ours = inlined.from.is_some() || !scope.contains_key(&name);
            match seen.get(&name) {
                Some(&other) if ours && clash(other, kind) => rename(inlined.task, &name),
                Some(_) => {}
                None => {
                    // An array may be passed as a text, `$(params.x[*])`, and counts as what it is passed as.
                    let passed = items(inlined.task, "params").iter().find(|passed| text(passed, "name") == name);
                    let kind = passed.and_then(|passed| field(passed, "value")).map_or(kind, type_of);
                    seen.insert(name, kind);
                }
            }
        }
    }
}

/// Whether a param of type `kind` can't stand beside an earlier one: a string may be used in every way, an array not as a
/// string, and the keys of two objects are taken for each other's.
fn clash(earlier: Type, kind: Type) -> bool {
    earlier == Type::Object || kind == Type::Object || (earlier == Type::Array && kind == Type::String)
}

/// The params that an embedded task declares.
fn own(task: &Value) -> Vec<(String, Type)> {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    items(spec, "params").iter().map(|param| (text(param, "name").to_owned(), declared_type(param))).collect()
}
