//! One workspace of the pipeline under two names in one task: one directory, as on a volume.
//!
//! Tekton mounts a volume claim once and shares it, but makes two volumes of an emptyDir that is bound twice
//! (Tekton: pkg/workspace/apply.go). The second name becomes a plain mount of the first one's volume.

use serde_json::{Value, json};

use super::{
    growth::Growth,
    refusal::{Refusal, TaskProblem},
    task_spec::drop_declarations,
};
use crate::tekton::{
    fields::{field, field_mut, flag, items, items_mut, text},
    texts::change_spec_texts,
    variables::substitute,
    workspaces::{Use, is_read_only, mount_path},
};

/// Leaves each wrapped workspace under one name only, the first writable one; returns the uses that remain.
pub fn merge(
    task: &mut Value,
    mut used: Vec<Use>,
    run_sub_path: &impl Fn(&str) -> String,
    growth: &Growth,
) -> Result<Vec<Use>, Refusal> {
    let mut kept: Vec<Use> = Vec::new();
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    used.sort_by_key(|used| is_read_only(spec, &used.task));
    for second in used {
        let Some(first) = kept.iter().find(|first| first.pipeline == second.pipeline) else {
            kept.push(second);
            continue;
        };
        fold(task, first, &second, &run_sub_path(&second.pipeline), growth)?;
    }
    Ok(kept)
}

#[allow(clippy::indexing_slicing, reason = "of an object that is made here")]
fn fold(task: &mut Value, first: &Use, second: &Use, run_sub_path: &str, growth: &Growth) -> Result<(), Refusal> {
    refuse_isolated(task, first, second)?;
    let binding = items(task, "workspaces").iter().find(|binding| text(binding, "name") == second.task);
    let sub_path = binding.map_or("", |binding| text(binding, "subPath"));
    let sub_path =
        [run_sub_path, sub_path].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>().join("/");
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    let declared = items(spec, "workspaces").iter().find(|declared| text(declared, "name") == second.task);
    let path = declared.map_or_else(|| format!("/workspace/{}", second.task), mount_path);
    let mut mount = json!({"name": format!("$(workspaces.{}.volume)", first.task), "mountPath": path});
    if !sub_path.is_empty() {
        mount["subPath"] = json!(sub_path);
    }
    if declared.is_some_and(|declared| flag(declared, "readOnly")) {
        mount["readOnly"] = json!(true);
    }

    if let Some(Value::Array(bindings)) = field_mut(task, "workspaces") {
        bindings.retain(|binding| text(binding, "name") != second.task);
    }
    let Some(spec) = field_mut(task, "taskSpec") else { return Ok(()) };
    drop_declarations(spec, std::slice::from_ref(&second.task));
    let value = |reference: &str| {
        let field = reference.strip_prefix("workspaces.")?.strip_prefix(second.task.as_str())?.strip_prefix('.')?;
        match field {
            "path" => Some(path.clone()),
            "bound" => Some("true".to_owned()),
            "volume" => Some(format!("$(workspaces.{}.volume)", first.task)),
            "claim" => Some(String::new()),
            _ => None,
        }
    };
    change_spec_texts(spec, &mut |text| substitute(text, |reference| growth.in_place_of(reference, value(reference)?)));
    let Some(spec) = spec.as_object_mut() else { return Ok(()) };
    // Steps inherit the mount from the stepTemplate; sidecars don't have one.
    let key = spec.keys().find(|key| key.eq_ignore_ascii_case("stepTemplate")).cloned();
    let template = spec.entry(key.unwrap_or_else(|| "stepTemplate".to_owned())).or_insert_with(|| json!({}));
    add_mount(template, mount.clone());
    if spec.keys().any(|key| key.eq_ignore_ascii_case("sidecars")) {
        items_mut(spec, "sidecars").into_iter().flatten().for_each(|sidecar| add_mount(sidecar, mount.clone()));
    }
    Ok(())
}

fn add_mount(container: &mut Value, mount: Value) {
    if let Some(mounts) = container.as_object_mut().and_then(|map| items_mut(map, "volumeMounts")) {
        mounts.push(mount);
    }
}

/// Refuses a workspace that only some steps mount: a mount in the stepTemplate would be in all of them.
fn refuse_isolated(task: &Value, first: &Use, second: &Use) -> Result<(), Refusal> {
    let spec = field(task, "taskSpec").unwrap_or(&Value::Null);
    let containers = items(spec, "steps").iter().chain(items(spec, "sidecars"));
    let names = |container| items(container, "workspaces").iter().map(|workspace| text(workspace, "name"));
    if !containers.flat_map(names).any(|name| name == first.task || name == second.task) {
        return Ok(());
    }
    let problem = TaskProblem::BoundTwice { first: first.task.clone(), second: second.task.clone() };
    Err(Refusal::Task { task: text(task, "name").to_owned(), workspace: first.pipeline.clone(), problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A task that binds the pipeline's workspace `w` as `a` and as `b`, with these steps and sidecars.
    fn task(steps: &Value, sidecars: &Value) -> Value {
        json!({"name": "t", "workspaces": [{"name": "a", "workspace": "w"}, {"name": "b", "workspace": "w"}],
            "taskSpec": {"workspaces": [{"name": "a"}, {"name": "b"}], "steps": steps, "sidecars": sidecars}})
    }

    fn uses() -> Vec<Use> {
        let named = |task: &str| Use { pipeline: "w".to_owned(), task: task.to_owned(), bound: true };
        vec![named("a"), named("b")]
    }

    #[test]
    fn what_the_second_name_stands_for() {
        let script = "$(workspaces.b.path) $(workspaces.b.bound) $(workspaces.b.volume) [$(workspaces.b.claim)] $(workspaces.a.path)";
        let mut task = task(&json!([{"name": "s", "script": script}]), &json!([{"name": "c"}]));
        let left = merge(&mut task, uses(), &|_: &str| "sub".to_owned(), &Growth::default()).unwrap();
        assert_eq!(left, uses()[..1]);
        let spec = &task["taskSpec"];
        assert_eq!(spec["steps"][0]["script"], "/workspace/b true $(workspaces.a.volume) [] $(workspaces.a.path)");
        let mount = json!({"name": "$(workspaces.a.volume)", "mountPath": "/workspace/b", "subPath": "sub"});
        assert_eq!(spec["stepTemplate"]["volumeMounts"], json!([mount]));
        assert_eq!(spec["sidecars"][0]["volumeMounts"], json!([mount]));
    }

    #[test]
    fn one_that_only_some_steps_mount_is_refused() {
        let with = |name: &str| json!([{"name": "s", "workspaces": [{"name": name}]}]);
        let none = json!([{"name": "s"}]);
        for (steps, sidecars, is_refused) in [
            (&none, &none, false),
            (&with("other"), &none, false),
            (&with("a"), &none, true),
            (&with("b"), &none, true),
            (&none, &with("b"), true),
        ] {
            let outcome = merge(&mut task(steps, sidecars), uses(), &|_: &str| String::new(), &Growth::default());
            assert_eq!(outcome.is_err(), is_refused, "{steps} {sidecars}");
        }
    }
}
