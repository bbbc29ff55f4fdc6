//! tekton.dev/v1beta1 objects in their v1 form, as Tekton converts them (Tekton: pkg/apis/pipeline/v1beta1/*_conversion.go).
//!
//! Fields that Tekton moves into an annotation for the way back (`tekton.dev/v1beta1.task-deprecations`) are dropped, as they
//! do nothing. Those that its validation of v1beta1 refuses are refused here: nobody else would see them.

use serde_json::{Map, Value, json};

use crate::tekton::fields::{field, field_mut, items, remove, set, text};

/// Fields of a step or stepTemplate without effect (Tekton: container_types.go, `Deprecated…`).
const WITHOUT_EFFECT: [&str; 10] = [
    "ports",
    "livenessProbe",
    "readinessProbe",
    "startupProbe",
    "lifecycle",
    "terminationMessagePath",
    "terminationMessagePolicy",
    "stdin",
    "stdinOnce",
    "tty",
];

/// `object`, a Pipeline, Task or PipelineRun of v1beta1, in v1. An error is a clause that says what is in the way.
pub fn to_v1(mut object: Value) -> Result<Value, String> {
    let kind = text(&object, "kind").to_owned();
    if let Some(spec) = field_mut(&mut object, "spec") {
        match kind.as_str() {
            "Task" => task_spec(spec, "spec")?,
            "Pipeline" => pipeline_spec(spec, "spec")?,
            "PipelineRun" => run_spec(spec)?,
            other => return Err(format!("a {other:?} can't be converted from tekton.dev/v1beta1")),
        }
    }
    if let Some(map) = object.as_object_mut() {
        set(map, "apiVersion", json!("tekton.dev/v1"));
        remove(map, "status");
    }
    Ok(object)
}

fn task_spec(spec: &mut Value, place: &str) -> Result<(), String> {
    refuse(spec, place, &["resources", "inputs", "outputs"])?;
    for (list, dropped) in [("steps", &WITHOUT_EFFECT[..]), ("sidecars", &[])] {
        for (index, container) in items_mut(spec, list).enumerate() {
            compute_resources(container, &format!("{place}.{list}[{index}]"))?;
            drop_all(container, dropped);
        }
    }
    if let Some(template) = field_mut(spec, "stepTemplate") {
        compute_resources(template, &format!("{place}.stepTemplate"))?;
        drop_all(template, &WITHOUT_EFFECT);
        drop_all(template, &["name"]);
    }
    Ok(())
}

fn pipeline_spec(spec: &mut Value, place: &str) -> Result<(), String> {
    refuse(spec, place, &["resources"])?;
    for list in ["tasks", "finally"] {
        for (index, task) in items_mut(spec, list).enumerate() {
            let place = format!("{place}.{list}[{index}]");
            refuse(task, &place, &["resources", "conditions"])?;
            if let Some(reference) = field(task, "taskRef") {
                refuse(reference, &format!("{place}.taskRef"), &["bundle"])?;
            }
            if let Some(inner) = field_mut(task, "pipelineSpec") {
                pipeline_spec(inner, &format!("{place}.pipelineSpec"))?;
            }
            // With apiVersion and kind it is the spec of a custom task.
            if let Some(inner) = field_mut(task, "taskSpec").filter(|spec| text(spec, "kind").is_empty()) {
                task_spec(inner, &format!("{place}.taskSpec"))?;
            }
        }
    }
    Ok(())
}

fn run_spec(spec: &mut Value) -> Result<(), String> {
    refuse(spec, "spec", &["resources"])?;
    if let Some(reference) = field(spec, "pipelineRef") {
        refuse(reference, "spec.pipelineRef", &["bundle"])?;
    }
    if let Some(inner) = field_mut(spec, "pipelineSpec") {
        pipeline_spec(inner, "spec.pipelineSpec")?;
    }
    for (index, own) in items_mut(spec, "taskRunSpecs").enumerate() {
        rename(own, "taskServiceAccountName", "serviceAccountName");
        rename(own, "taskPodTemplate", "podTemplate");
        for (old, new) in [("stepOverrides", "stepSpecs"), ("sidecarOverrides", "sidecarSpecs")] {
            rename(own, old, new);
            for container in items_mut(own, new) {
                compute_resources(container, &format!("spec.taskRunSpecs[{index}].{old}"))?;
            }
        }
    }
    let Some(map) = spec.as_object_mut() else { return Ok(()) };
    if let Some(timeout) = take(map, "timeout") {
        if map.keys().any(|key| key.eq_ignore_ascii_case("timeouts")) {
            return Err("spec has timeout beside timeouts: keep timeouts".to_owned());
        }
        set(map, "timeouts", json!({"pipeline": timeout}));
    }
    let mut template = Map::new();
    for name in ["serviceAccountName", "podTemplate"] {
        template.extend(take(map, name).map(|value| (name.to_owned(), value)));
    }
    if !template.is_empty() {
        set(map, "taskRunTemplate", Value::Object(template));
    }
    Ok(())
}

/// `resources` of a container, which v1 calls `computeResources`.
fn compute_resources(container: &mut Value, place: &str) -> Result<(), String> {
    if field(container, "computeResources").is_some() {
        return Err(format!(
            "{place} has computeResources, which v1beta1 calls resources: rename it, or write the object as tekton.dev/v1"
        ));
    }
    rename(container, "resources", "computeResources");
    Ok(())
}

/// Fields that Tekton has no longer.
fn refuse(object: &Value, place: &str, names: &[&str]) -> Result<(), String> {
    match names.iter().find(|name| field(object, name).is_some_and(|value| !is_empty(value))) {
        Some(name) => Err(format!("{place} has {name}, which Tekton takes no longer: take it out")),
        None => Ok(()),
    }
}

fn is_empty(value: &Value) -> bool {
    matches!(value, Value::String(text) if text.is_empty())
}

fn drop_all(object: &mut Value, names: &[&str]) {
    if let Some(map) = object.as_object_mut() {
        names.iter().for_each(|name| remove(map, name));
    }
}

/// Renames a field in its place; one that is null or absent stays as it is.
fn rename(object: &mut Value, old: &str, new: &str) {
    if field(object, old).is_none() {
        return;
    }
    if let Some(map) = object.as_object_mut() {
        let renamed =
            |(key, value): (String, Value)| (if key.eq_ignore_ascii_case(old) { new.to_owned() } else { key }, value);
        *map = std::mem::take(map).into_iter().map(renamed).collect();
    }
}

/// Takes a field out, unless it is null.
fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let key = map.keys().rev().find(|key| key.eq_ignore_ascii_case(name))?.clone();
    let value = map.get(&key).filter(|value| !value.is_null()).cloned();
    remove(map, name);
    value
}

fn items_mut<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    let found = if items(object, name).is_empty() { None } else { field_mut(object, name) };
    found.and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(kind: &str, spec: Value) -> Value {
        json!({"apiVersion": "tekton.dev/v1beta1", "kind": kind, "metadata": {"name": "o"}, "spec": spec})
    }

    #[test]
    fn converted() {
        let task = json!({
            "params": [{"name": "p", "default": "d"}],
            "stepTemplate": {"name": "x", "tty": true, "resources": {"limits": {"cpu": "1"}}, "env": []},
            "steps": [
                {"name": "s", "image": "i", "resources": {"requests": {"cpu": "1"}}, "script": "x", "ports": [], "lifecycle": {},
                 "livenessProbe": {}, "readinessProbe": {}, "startupProbe": {}, "terminationMessagePath": "/x",
                 "terminationMessagePolicy": "File", "stdin": true, "stdinOnce": true, "tty": true, "future": 1},
                {"ref": {"name": "action"}, "params": [], "onError": "continue"},
            ],
            "sidecars": [{"name": "c", "image": "i", "Resources": {}, "readinessProbe": {"exec": {}}, "ports": [1]}],
            "workspaces": [{"name": "w", "readOnly": true}],
        });
        let task_v1 = json!({
            "params": [{"name": "p", "default": "d"}],
            "stepTemplate": {"computeResources": {"limits": {"cpu": "1"}}, "env": []},
            "steps": [
                {"name": "s", "image": "i", "computeResources": {"requests": {"cpu": "1"}}, "script": "x", "future": 1},
                {"ref": {"name": "action"}, "params": [], "onError": "continue"},
            ],
            "sidecars": [{"name": "c", "image": "i", "computeResources": {}, "readinessProbe": {"exec": {}}, "ports": [1]}],
            "workspaces": [{"name": "w", "readOnly": true}],
        });
        let when = json!([{"input": "a", "operator": "in", "values": ["a"]}]);
        let pipeline = |task: &Value| {
            json!({
                "tasks": [
                    {"name": "a", "taskSpec": task, "when": when, "timeout": "1h", "matrix": {"params": []}},
                    {"name": "b", "taskRef": {"resolver": "git", "params": []}, "runAfter": ["a"], "bundle": ""},
                    {"name": "c", "taskSpec": {"apiVersion": "x/v1", "kind": "K", "spec": {"resources": 1}}},
                ],
                "finally": [{"name": "d", "taskSpec": task}],
                "results": [{"name": "r", "value": "v"}],
            })
        };
        for (kind, before, after) in [
            ("Task", task.clone(), task_v1.clone()),
            ("Pipeline", pipeline(&task), pipeline(&task_v1)),
            (
                "PipelineRun",
                json!({
                    "pipelineSpec": pipeline(&task), "serviceAccountName": "sa", "podTemplate": {"nodeSelector": {}},
                    "timeout": "2h", "workspaces": [{"name": "w", "emptyDir": {}}],
                    "taskRunSpecs": [{
                        "pipelineTaskName": "a", "taskServiceAccountName": "t", "taskPodTemplate": {},
                        "stepOverrides": [{"name": "s", "resources": {}}], "sidecarOverrides": [{"name": "c", "resources": {}}],
                        "metadata": {}, "computeResources": {"requests": {}}, "timeout": "1m",
                    }],
                }),
                json!({
                    "pipelineSpec": pipeline(&task_v1), "workspaces": [{"name": "w", "emptyDir": {}}],
                    "taskRunSpecs": [{
                        "pipelineTaskName": "a", "serviceAccountName": "t", "podTemplate": {},
                        "stepSpecs": [{"name": "s", "computeResources": {}}], "sidecarSpecs": [{"name": "c", "computeResources": {}}],
                        "metadata": {}, "computeResources": {"requests": {}}, "timeout": "1m",
                    }],
                    "timeouts": {"pipeline": "2h"},
                    "taskRunTemplate": {"serviceAccountName": "sa", "podTemplate": {"nodeSelector": {}}},
                }),
            ),
        ] {
            let converted = to_v1(object(kind, before)).unwrap();
            assert_eq!(converted["apiVersion"], "tekton.dev/v1");
            assert_eq!(converted["spec"], after, "{kind}");
        }
        // The order of fields stays.
        let step = json!({"image": "i", "resources": {}, "script": "x"});
        let converted = to_v1(object("Task", json!({"steps": [step]}))).unwrap();
        assert_eq!(converted["spec"]["steps"][0].to_string(), r#"{"image":"i","computeResources":{},"script":"x"}"#);
    }

    #[test]
    fn refused() {
        for (kind, spec, why) in [
            (
                "Task",
                json!({"resources": {"inputs": []}}),
                "spec has resources, which Tekton takes no longer: take it out",
            ),
            ("Task", json!({"inputs": {}}), "spec has inputs, which Tekton takes no longer: take it out"),
            (
                "Task",
                json!({"steps": [{"computeResources": {}}]}),
                "spec.steps[0] has computeResources, which v1beta1 calls resources: rename it, or write the object as tekton.dev/v1",
            ),
            ("Pipeline", json!({"resources": []}), "spec has resources, which Tekton takes no longer: take it out"),
            (
                "Pipeline",
                json!({"tasks": [{}, {"resources": {}}]}),
                "spec.tasks[1] has resources, which Tekton takes no longer: take it out",
            ),
            (
                "Pipeline",
                json!({"finally": [{"taskRef": {"name": "t", "bundle": "b"}}]}),
                "spec.finally[0].taskRef has bundle, which Tekton takes no longer: take it out",
            ),
            (
                "PipelineRun",
                json!({"pipelineRef": {"name": "t", "bundle": "b"}}),
                "spec.pipelineRef has bundle, which Tekton takes no longer: take it out",
            ),
            (
                "PipelineRun",
                json!({"timeout": "1h", "timeouts": {"tasks": "1h"}}),
                "spec has timeout beside timeouts: keep timeouts",
            ),
            ("StepAction", json!({}), r#"a "StepAction" can't be converted from tekton.dev/v1beta1"#),
        ] {
            assert_eq!(to_v1(object(kind, spec)), Err(why.to_owned()));
        }
    }
}
