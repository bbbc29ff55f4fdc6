//! Security context of the injected steps: the user and group of the user's steps, so that they can read what these wrote and
//! leave files that they may change, and what Pod Security requires. Never a privilege: `privileged`, added capabilities,
//! `procMount` and SELinux types are only for the steps that ask for them.
//!
//! The image of the injected steps names no user. If nothing in the run does either, they run as root, which restores
//! the owner of every file, or as the uid that a platform gives to all containers of a pod.

use serde_json::{Map, Value, json};

use super::growth::Growth;
use crate::tekton::{
    fields::{field, field_mut, items, remove, set, text},
    run::Run,
};

/// The user of an injected step if the run forbids root and names no user (the image names none that Kubernetes could check).
const NON_ROOT: u32 = 65532;

/// The security context of the injected steps of a task; `pod` is the one that applies to all containers.
pub fn context(task_spec: &Value, pod: &Value) -> Option<Value> {
    let empty = Map::new();
    let (template, steps) = effective(task_spec);
    let (first, others) = steps.split_first()?;
    let mut context = first.clone();
    context.retain(|key, value| others.iter().all(|step| step.get(key) == Some(value)));
    drop_rights(&mut context);
    restrict(&mut context, &steps);

    let pod = pod.as_object().unwrap_or(&empty);
    let of_step = |step: &Map<String, Value>, name: &str| step.get(name).or(pod.get(name)).cloned();
    let no_root = steps.iter().all(|step| of_step(step, "runAsNonRoot") == Some(json!(true)));
    let users: Vec<Option<Value>> = steps.iter().map(|step| of_step(step, "runAsUser")).collect();
    let user = if users.windows(2).all(|pair| pair.first() == pair.last()) {
        users.first().cloned().flatten()
    } else if !no_root {
        // Only root can read what they all wrote.
        Some(json!(0))
    } else {
        users.iter().rev().flatten().find(|user| **user != json!(0)).cloned()
    };
    let user = user.or_else(|| no_root.then(|| json!(NON_ROOT)));
    if let Some(user) =
        user.as_ref().filter(|user| pod.get("runAsUser") != Some(*user) || template.contains_key("runAsUser"))
    {
        context.insert("runAsUser".to_owned(), user.clone());
    }
    let forbids = [&template, pod].into_iter().any(is_non_root);
    if forbids && !no_root && user.is_none_or(|user| user == json!(0)) {
        context.insert("runAsNonRoot".to_owned(), json!(false));
    }
    // The template gives these to our step anyway.
    context.retain(|key, value| template.get(key) != Some(value));
    (!context.is_empty()).then_some(Value::Object(context))
}

/// The fields of a security context that only identify the user of a process.
const IDENTITY: [&str; 3] = ["runAsUser", "runAsGroup", "runAsNonRoot"];

/// Removes all fields of a security context that give rights (Kubernetes: core/v1 SecurityContext). The SELinux level stays, as it
/// decides which of a pod's containers may share a volume.
fn drop_rights(context: &mut Map<String, Value>) {
    let kept = |(key, value): (String, Value)| {
        let value = match key.as_str() {
            name if IDENTITY.contains(&name) => value,
            "allowPrivilegeEscalation" if value == json!(false) => value,
            "readOnlyRootFilesystem" => value,
            "capabilities" => json!({"drop": field(&value, "drop").filter(|drop| drop.is_array())?}),
            "seccompProfile" if is_confined(&value) => value,
            "seLinuxOptions" => json!({"level": field(&value, "level")?}),
            _ => return None,
        };
        Some((key, value))
    };
    *context = std::mem::take(context).into_iter().filter_map(kept).collect();
}

/// If the stepTemplate of `task_spec` gives rights, moves its security context into each of the user's steps, which inherit it
/// anyway, so that the injected ones don't (Tekton: v1/merge.go has no way to drop a capability again).
pub fn hand_down_rights(task_spec: &mut Value, growth: &Growth) {
    let template = field(task_spec, "stepTemplate").and_then(|template| field(template, "securityContext"));
    let Some(template) = template.and_then(Value::as_object).cloned() else { return };
    let mut harmless = template.clone();
    drop_rights(&mut harmless);
    let steps = items(task_spec, "steps").len();
    if harmless == template || !growth.fits_times(&Value::Object(template.clone()), steps) {
        return;
    }
    if let Some(Value::Array(steps)) = field_mut(task_spec, "steps") {
        for step in steps {
            let own = field(step, "securityContext").cloned().unwrap_or_else(|| json!({}));
            let merged = merged(&Value::Object(template.clone()), &own);
            step.as_object_mut().into_iter().for_each(|step| set(step, "securityContext", merged.clone()));
        }
    }
    let template = field_mut(task_spec, "stepTemplate").and_then(Value::as_object_mut);
    template.into_iter().for_each(|template| remove(template, "securityContext"));
}

/// A security context of a step on top of that of the template: objects field by field, everything else as the step has it
/// (Tekton: v1/merge.go, a strategic merge patch).
fn merged(template: &Value, step: &Value) -> Value {
    match (template, step) {
        (Value::Object(template), Value::Object(step)) => {
            let mut all = template.clone();
            for (key, value) in step.iter().filter(|(_, value)| !value.is_null()) {
                let value = template.get(key).map_or_else(|| value.clone(), |template| merged(template, value));
                all.insert(key.clone(), value);
            }
            Value::Object(all)
        }
        (_, step) => step.clone(),
    }
}

fn is_confined(profile: &Value) -> bool {
    ["RuntimeDefault", "Localhost"].contains(&text(profile, "type"))
}

/// A pod is admitted as "restricted" only if every container is: if all steps are, each in its own way, so is ours (Kubernetes: Pod Security Standards).
fn restrict(context: &mut Map<String, Value>, steps: &[Map<String, Value>]) {
    let drops_all = |step: &Map<String, Value>| {
        let capabilities = step.get("capabilities").unwrap_or(&Value::Null);
        items(capabilities, "drop").contains(&json!("ALL"))
    };
    if !context.contains_key("capabilities") && steps.iter().all(drops_all) {
        context.insert("capabilities".to_owned(), json!({"drop": ["ALL"]}));
    }
    let confined = |step: &Map<String, Value>| step.get("seccompProfile").is_some_and(is_confined);
    if !context.contains_key("seccompProfile") && steps.iter().all(confined) {
        context.insert("seccompProfile".to_owned(), json!({"type": "RuntimeDefault"}));
    }
}

/// Whether some step of the pipeline's `task` may not run as root.
pub fn forbids_root(task: &Value, pod: &Value) -> bool {
    let other_user = |map: &Map<String, Value>| map.get("runAsUser").is_some_and(|user| *user != json!(0));
    let forbids = |map: &Map<String, Value>| is_non_root(map) || other_user(map);
    let steps = field(task, "taskSpec").map(|spec| effective(spec).1).unwrap_or_default();
    steps.iter().any(forbids) || pod.as_object().is_some_and(forbids)
}

/// The template's security context, and what each step ends up with beside the pod's (Tekton: v1/merge.go, the step's
/// fields win).
fn effective(task_spec: &Value) -> (Map<String, Value>, Vec<Map<String, Value>>) {
    let context = |container: &Value| field(container, "securityContext").and_then(Value::as_object).cloned();
    let template = field(task_spec, "stepTemplate").and_then(context).unwrap_or_default();
    let whole = |step: &Value| {
        let own = context(step).map_or_else(|| json!({}), Value::Object);
        match merged(&Value::Object(template.clone()), &own) {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    };
    let steps = items(task_spec, "steps").iter().map(whole).collect();
    (template, steps)
}

fn is_non_root(context: &Map<String, Value>) -> bool {
    context.get("runAsNonRoot") == Some(&json!(true))
}

/// The pod's security context for the task `name` of `run`: that of its taskRunSpecs, else that of the taskRunTemplate.
pub fn pod_context(run: Run<'_>, name: &str) -> Value {
    let mut templates = run.task_pod_template(name).into_iter().chain(run.pod_template());
    templates.find_map(|template| field(template, "securityContext").cloned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_the_steps_do() {
        let restricted =
            json!({"allowPrivilegeEscalation": false, "runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}});
        for (spec, pod, expected) in [
            (json!({"steps": [{}]}), json!({}), Value::Null),
            (json!({"steps": [{}, {}]}), json!({"runAsUser": 1000}), Value::Null),
            // All the same.
            (
                json!({"steps": [{"securityContext": {"runAsUser": 5}}, {"securityContext": {"runAsUser": 5}}]}),
                json!({}),
                json!({"runAsUser": 5}),
            ),
            // Different users: only root can read what both wrote.
            (json!({"steps": [{"securityContext": {"runAsUser": 5}}, {}]}), json!({}), json!({"runAsUser": 0})),
            (
                json!({"steps": [{"securityContext": {"runAsUser": 0}}, {}]}),
                json!({"runAsUser": 7}),
                json!({"runAsUser": 0}),
            ),
            (
                json!({"steps": [{"securityContext": {"runAsUser": 5}}, {"securityContext": {"runAsUser": 6}}]}),
                json!({"runAsNonRoot": true}),
                json!({"runAsUser": 6}),
            ),
            // Some steps may run as root: so may ours, which has to read what these wrote.
            (
                json!({"stepTemplate": {"securityContext": {"runAsNonRoot": true}}, "steps": [
                    {"securityContext": {"runAsNonRoot": false, "runAsUser": 0}}, {"securityContext": {"runAsUser": 5}},
                ]}),
                json!({}),
                json!({"runAsUser": 0, "runAsNonRoot": false}),
            ),
            (
                json!({"steps": [{"securityContext": {"runAsNonRoot": false}}, {}]}),
                json!({"runAsNonRoot": true}),
                json!({"runAsNonRoot": false}),
            ),
            (
                json!({"steps": [{"securityContext": {"runAsNonRoot": false}}, {}]}),
                json!({"runAsNonRoot": true, "runAsUser": 7}),
                Value::Null,
            ),
            // Restricted in different ways.
            (
                json!({"steps": [
                    {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["NET_BIND_SERVICE"]}, "seccompProfile": {"type": "RuntimeDefault"}}},
                    {"securityContext": {"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "Localhost", "localhostProfile": "p"}}},
                ]}),
                json!({"runAsUser": 7}),
                json!({"capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}),
            ),
            // The template's user is not ours where the steps have another.
            (
                json!({"stepTemplate": {"securityContext": {"runAsUser": 3}}, "steps": [{"securityContext": {"runAsUser": 7}}]}),
                json!({"runAsUser": 7}),
                json!({"runAsUser": 7}),
            ),
            // Root forbidden and nobody named.
            (json!({"steps": [{}]}), json!({"runAsNonRoot": true}), json!({"runAsUser": NON_ROOT})),
            (json!({"steps": [{}]}), json!({"runAsNonRoot": true, "runAsUser": 9}), Value::Null),
            (
                json!({"stepTemplate": {"securityContext": restricted}, "steps": [{}]}),
                json!({}),
                json!({"runAsUser": NON_ROOT}),
            ),
            (json!({"steps": [{"securityContext": restricted}]}), json!({"runAsUser": 9}), restricted.clone()),
        ] {
            assert_eq!(context(&spec, &pod).unwrap_or_default(), expected, "{spec} {pod}");
        }
    }

    #[test]
    fn who_may_not_be_root() {
        let task = |context: Value| json!({"taskSpec": {"steps": [{}, {"securityContext": context}]}});
        for (step, pod, forbids) in [
            (json!({}), json!({}), false),
            (json!({"runAsUser": 0}), json!({}), false),
            (json!({"runAsUser": 7}), json!({}), true),
            (json!({"runAsNonRoot": true}), json!({}), true),
            (json!({"runAsNonRoot": false}), json!({}), false),
            (json!({}), json!({"runAsUser": 7}), true),
            (json!({}), json!({"runAsNonRoot": true}), true),
            (json!({}), json!({"fsGroup": 7}), false),
        ] {
            assert_eq!(forbids_root(&task(step.clone()), &pod), forbids, "{step} {pod}");
        }
    }

    #[test]
    fn no_rights() {
        let privileged = json!({
            "privileged": true, "allowPrivilegeEscalation": true, "procMount": "Unmasked", "runAsGroup": 7,
            "capabilities": {"add": ["SYS_ADMIN"], "drop": ["NET_RAW"]}, "seccompProfile": {"type": "Unconfined"},
            "seLinuxOptions": {"type": "spc_t", "level": "s0:c1"}, "appArmorProfile": {"type": "Unconfined"},
        });
        let expected = json!({
            "runAsGroup": 7, "capabilities": {"drop": ["NET_RAW"]}, "seLinuxOptions": {"level": "s0:c1"},
        });
        let of_steps = json!({"steps": [{"securityContext": privileged}, {"securityContext": privileged}]});
        assert_eq!(context(&of_steps, &json!({})), Some(expected.clone()));

        let mut of_template = json!({
            "stepTemplate": {"securityContext": privileged, "env": []},
            "steps": [{"name": "a"}, {"name": "b", "securityContext": {"privileged": false, "capabilities": {"drop": ["ALL"]}}}],
        });
        hand_down_rights(&mut of_template, &Growth::default());
        assert_eq!(of_template["stepTemplate"], json!({"env": []}));
        let [a, b] = [0, 1].map(|step| &of_template["steps"][step]["securityContext"]);
        assert_eq!((a, &b["privileged"], &b["procMount"]), (&privileged, &json!(false), &json!("Unmasked")));
        assert_eq!(b["capabilities"], json!({"add": ["SYS_ADMIN"], "drop": ["ALL"]}));
        assert_eq!(context(&of_template, &json!({})).unwrap()["seLinuxOptions"], json!({"level": "s0:c1"}));

        for (profile, is_kept) in [("RuntimeDefault", true), ("Localhost", true), ("Unconfined", false), ("", false)] {
            let profile = json!({"type": profile});
            let step = json!({"securityContext": {"runAsUser": 7, "seccompProfile": profile}});
            let kept = context(&json!({"steps": [step, step]}), &json!({})).unwrap();
            assert_eq!(kept.get("seccompProfile"), is_kept.then_some(&profile), "{profile}");
        }

        let mut harmless = json!({"stepTemplate": {"securityContext": {"runAsUser": 5}}, "steps": [{}]});
        let before = harmless.clone();
        hand_down_rights(&mut harmless, &Growth::default());
        assert_eq!(harmless, before);
    }

    #[test]
    fn the_pod_of_a_task() {
        let run = json!({"spec": {
            "taskRunTemplate": {"podTemplate": {"securityContext": {"runAsUser": 1}}},
            "taskRunSpecs": [{"pipelineTaskName": "a", "podTemplate": {"securityContext": {"runAsUser": 2}}}],
        }});
        assert_eq!(pod_context(Run::new(&run), "a"), json!({"runAsUser": 2}));
        assert_eq!(pod_context(Run::new(&run), "b"), json!({"runAsUser": 1}));
    }
}
