//! Inlining a Task changes what Tekton substitutes in it; this undoes the change, so that every variable keeps its value.
//!
//! Tekton pushes the params and workspaces of the pipeline into embedded tasks before it makes their TaskRuns
//! (Tekton: pkg/reconciler/pipelinerun/resources/apply.go `propagateParams`, `ApplyWorkspaces`) and merges the params of all
//! embedded tasks when it validates a run (pkg/apis/pipeline/v1/pipelinerun_validation.go `validateInlineParameters`).
//! Neither happens for a Task that is referred to.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use crate::tekton::{
    fields::{change_texts, field, field_mut, items, items_mut, set, text, texts},
    variables::{name_after, references, substitute},
};

/// A task of the pipeline while it is rewritten.
pub struct Inlined<'a> {
    /// The task in the pipeline, with its spec embedded.
    pub task: &'a mut Value,
    /// Name of the Task that was inlined; none where the Pipeline itself embeds it.
    pub from: Option<String>,
    /// Whether it is in `tasks`, not in `finally`.
    pub in_dag: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Type {
    String,
    Array,
    Object,
}

/// A param that the run gives or the Pipeline declares.
struct Scoped {
    kind: Type,
    /// No value that it can have holds a variable: substituting it early gives the same text.
    plain: bool,
}

/// Gives every inlined Task the values that it would have had as a reference. `binds` tells whether the run binds a workspace.
pub fn keep(tasks: &mut [Inlined<'_>], run: &Value, spec_params: &[Value], binds: &impl Fn(&str) -> bool) {
    let scope = scope(run, spec_params);
    let mut names: HashSet<String> = scope.keys().cloned().collect();
    for inlined in tasks.iter() {
        names.extend(declared(inlined.task).map(str::to_owned));
    }
    for inlined in tasks.iter_mut() {
        if let Some(from) = inlined.from.clone() {
            settle_workspaces(inlined.task, binds);
            settle_task_name(inlined.task, &from);
            for name in shadowed(inlined.task, &scope) {
                rename(inlined.task, &name, &mut names);
            }
        }
    }
    rename_clashes(tasks, &scope, &mut names);
}

fn scope(run: &Value, spec_params: &[Value]) -> HashMap<String, Scoped> {
    let mut scope: HashMap<String, Scoped> = HashMap::new();
    let given = run.get("spec").map_or(&[][..], |spec| items(spec, "params"));
    for param in given {
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

/// The params of the task that the pipeline's value of the same name would reach, wholly or in part.
fn shadowed(task: &Value, scope: &HashMap<String, Scoped>) -> Vec<String> {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    let reached = |param: &&Value| {
        let name = text(param, "name");
        let Some(scoped) = scope.get(name) else { return false };
        let both_strings = declared_type(param) == Type::String && scoped.kind == Type::String;
        // A string that the pipeline's task passes takes the outer one's place, unless its text is substituted once more.
        let passed = items(task, "params").iter().find(|passed| text(passed, "name") == name);
        let passed_plainly = passed.and_then(|passed| field(passed, "value")).is_some_and(|value| {
            let settled =
                |reference: &str| reference.starts_with("params.") || reference.starts_with("context.pipeline");
            value.as_str().is_some_and(|text| references(text).all(settled))
        });
        !(both_strings && scoped.plain && passed_plainly)
    };
    items(spec, "params").iter().filter(reached).map(|param| text(param, "name").to_owned()).collect()
}

/// Two embedded tasks with one param name and different types are refused by Tekton's admission: the later one is renamed.
fn rename_clashes(tasks: &mut [Inlined<'_>], scope: &HashMap<String, Scoped>, names: &mut HashSet<String>) {
    let mut types: HashMap<String, Type> = scope.iter().map(|(name, scoped)| (name.clone(), scoped.kind)).collect();
    for inlined in tasks.iter_mut().filter(|inlined| inlined.in_dag) {
        let spec = field(inlined.task, "taskSpec").unwrap_or(&Value::Null);
        let own: Vec<(String, Type)> =
            items(spec, "params").iter().map(|param| (text(param, "name").to_owned(), declared_type(param))).collect();
        let clashes = |(name, kind): &&(String, Type)| {
            // What Tekton makes of a pipeline's param in a task that the Pipeline embeds is left to Tekton.
            let ours = inlined.from.is_some() || !scope.contains_key(name);
            ours && types.get(name).is_some_and(|other| other != kind)
        };
        let clashing: Vec<String> = own.iter().filter(clashes).map(|(name, _)| name.clone()).collect();
        for name in &clashing {
            rename(inlined.task, name, names);
        }
        // The first one seen decides, and a task that is only referred to counts with what it is passed.
        for passed in items(inlined.task, "params") {
            let kind = field(passed, "value").map_or(Type::String, type_of);
            types.entry(text(passed, "name").to_owned()).or_insert(kind);
        }
        for (name, kind) in own.into_iter().filter(|(name, _)| !clashing.contains(name)) {
            types.entry(name).or_insert(kind);
        }
    }
}

/// Renames the param `old` of an embedded task inside of it and where the pipeline's task passes it.
fn rename(task: &mut Value, old: &str, names: &mut HashSet<String>) {
    let wanted = format!("{}-{}", text(task, "name"), old.replace('.', "-"));
    let numbered = (1..).map(|number| format!("{wanted}-{number}"));
    let free = std::iter::once(wanted.clone()).chain(numbered).find(|name| !names.contains(name));
    let new = free.unwrap_or(wanted);
    names.insert(new.clone());

    let all: Vec<String> = declared(task).map(str::to_owned).collect();
    let change = |text: &str| substitute(text, |reference| renamed(reference, old, &new, &all));
    if let Some(spec) = field_mut(task, "taskSpec") {
        change_texts(spec, &mut { change });
        rename_in(spec, "params", old, &new);
    }
    rename_in(task, "params", old, &new);
    if let Some(matrix) = field_mut(task, "matrix") {
        rename_in(matrix, "params", old, &new);
        let includes = matrix.as_object_mut().filter(|matrix| matrix.contains_key("include"));
        for include in includes.and_then(|matrix| items_mut(matrix, "include")).into_iter().flatten() {
            rename_in(include, "params", old, &new);
        }
    }
}

fn rename_in(object: &mut Value, list: &str, old: &str, new: &str) {
    let Some(Value::Array(params)) = field_mut(object, list) else { return };
    for param in params.iter_mut().filter(|param| text(param, "name") == old) {
        if let Some(map) = param.as_object_mut() {
            set(map, "name", json!(new));
        }
    }
}

/// `reference` with the param `old` under its new name; none where it is to something else. `all` are the task's params:
/// `params.a.b` is the param `a.b` where there is one, else key `b` of the object `a`.
fn renamed(reference: &str, old: &str, new: &str, all: &[String]) -> Option<String> {
    let rest = reference.strip_prefix("inputs.").unwrap_or(reference);
    name_after(rest, "params")?;
    if let Some(dotted) = rest.strip_prefix("params.") {
        let is = |name: &&String| {
            dotted.strip_prefix(name.as_str()).is_some_and(|tail| tail.is_empty() || tail.starts_with(['.', '[']))
        };
        let name = all.iter().filter(is).max_by_key(|name| name.len())?;
        return (name == old).then(|| format!("$(params.{new}{})", &dotted[name.len()..]));
    }
    let quoted = [format!("params[\"{old}\"]"), format!("params['{old}']")];
    quoted.iter().find_map(|form| rest.strip_prefix(form.as_str())).map(|tail| format!("$(params.{new}{tail})"))
}

/// `$(workspaces.x.bound)` of an embedded task tells of the *pipeline's* workspace x, and an optional workspace that the
/// pipeline's task does not bind is bound to the run's of that name (Tekton: pipelinerun.go `propagateWorkspaces`).
fn settle_workspaces(task: &mut Value, binds: &impl Fn(&str) -> bool) {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    let names: Vec<String> =
        items(spec, "workspaces").iter().map(|declared| text(declared, "name").to_owned()).collect();
    let mut known: HashMap<String, String> = HashMap::new();
    let mut dropped = Vec::new();
    for name in names {
        let binding = items(task, "workspaces").iter().find(|binding| text(binding, "name") == name);
        let bound = binding.is_some_and(|binding| match text(binding, "workspace") {
            "" => binds(&name),
            other => binds(other),
        });
        known.insert(format!("workspaces.{name}.bound"), bound.to_string());
        if !bound && binds(&name) {
            for kind in ["path", "volume", "claim"] {
                known.insert(format!("workspaces.{name}.{kind}"), String::new());
            }
            dropped.push(name);
        }
    }
    let Some(spec) = field_mut(task, "taskSpec") else { return };
    change_texts(spec, &mut |text| substitute(text, |reference| known.get(reference).cloned()));
    drop_declarations(spec, &dropped);
}

/// Takes workspaces out of the declarations of a task and of its steps and sidecars.
pub fn drop_declarations(task_spec: &mut Value, names: &[String]) {
    let keep = |list: &mut Value| {
        if let Value::Array(list) = list {
            list.retain(|item| !names.iter().any(|name| name == text(item, "name")));
        }
    };
    field_mut(task_spec, "workspaces").into_iter().for_each(keep);
    for list in ["steps", "sidecars"] {
        let Some(Value::Array(containers)) = field_mut(task_spec, list) else { continue };
        containers.iter_mut().filter_map(|container| field_mut(container, "workspaces")).for_each(keep);
    }
}

/// In an embedded task `$(context.task.name)` is the TaskRun's name (Tekton: taskspec.go, taskMeta).
fn settle_task_name(task: &mut Value, name: &str) {
    let mut change =
        |text: &str| substitute(text, |reference| (reference == "context.task.name").then(|| name.to_owned()));
    for part in ["taskSpec", "params", "matrix"] {
        if let Some(part) = field_mut(task, part) {
            change_texts(part, &mut change);
        }
    }
}

fn declared(task: &Value) -> impl Iterator<Item = &str> {
    let spec = field(task, "taskSpec");
    spec.into_iter().flat_map(|spec| items(spec, "params")).map(|param| text(param, "name"))
}

/// The type of a declared param (Tekton: param_types.go `SetDefaults`).
fn declared_type(param: &Value) -> Type {
    match text(param, "type") {
        "array" => Type::Array,
        "object" => Type::Object,
        "string" => Type::String,
        _ if field(param, "properties").is_some() => Type::Object,
        _ => field(param, "default").map_or(Type::String, type_of),
    }
}

fn type_of(value: &Value) -> Type {
    match value {
        Value::Array(_) => Type::Array,
        Value::Object(_) => Type::Object,
        _ => Type::String,
    }
}

fn is_plain(value: &Value) -> bool {
    let mut plain = true;
    texts(value, &mut |text| plain &= !text.contains("$("));
    plain
}
