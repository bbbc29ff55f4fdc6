//! What a stepTemplate gives to every step, given to the user's steps alone: with the param `credentials`, environment and mounts
//! of the injected steps are nothing that the author of a Task decides. A proxy, an authority or a credential helper of theirs
//! could have the Secret.

use serde_json::Value;

use super::{growth::Growth, refusal::TaskProblem};
use crate::tekton::fields::{field, field_mut, items, remove, set, text};

/// Lists that steps inherit, with the field by which items are the same (Tekton: v1/merge.go, a strategic merge patch; Kubernetes:
/// core/v1 Container). Without one, a list of the step's own takes the whole one's place.
const LISTS: [(&str, Option<&str>); 4] = [
    ("env", Some("name")),
    ("envFrom", None),
    ("volumeMounts", Some("mountPath")),
    ("volumeDevices", Some("devicePath")),
];

/// Moves the variables of the stepTemplate of `task_spec` into each of the user's steps, so that something can stand before them. A
/// task with StepActions, which can't be given any, stays as it is.
pub fn hand_down_env(task_spec: &mut Value, growth: &Growth) {
    let env = LISTS.iter().filter(|(list, _)| *list == "env").collect();
    // Only a StepAction is in the way.
    let _ = hand_down_lists(task_spec, env, growth);
}

/// Moves environment and mounts of the stepTemplate of `task_spec` into each of the user's steps, which have them anyway. A
/// StepAction can't be given any.
pub fn hand_down(task_spec: &mut Value, growth: &Growth) -> Result<(), TaskProblem> {
    hand_down_lists(task_spec, LISTS.iter().collect(), growth)
}

fn hand_down_lists(
    task_spec: &mut Value,
    mut lists: Vec<&(&'static str, Option<&str>)>,
    growth: &Growth,
) -> Result<(), TaskProblem> {
    let Some(template) = field(task_spec, "stepTemplate").cloned() else { return Ok(()) };
    lists.retain(|(list, _)| !items(&template, list).is_empty());
    if let Some((list, _)) = lists.first()
        && let Some(action) = items(task_spec, "steps").iter().find(|step| field(step, "ref").is_some())
    {
        return Err(TaskProblem::TemplateOfAction { step: text(action, "name").to_owned(), list });
    }
    let steps = items(task_spec, "steps").len();
    let fits = |list: &str| field(&template, list).is_none_or(|list| growth.fits_times(list, steps));
    if !lists.iter().all(|(list, _)| fits(list)) {
        return Ok(());
    }
    if let Some(Value::Array(steps)) = field_mut(task_spec, "steps") {
        for step in steps {
            for (list, key) in &lists {
                let all = merged(items(&template, list), items(step, list), *key);
                step.as_object_mut().into_iter().for_each(|step| set(step, list, Value::Array(all.clone())));
            }
        }
    }
    if let Some(template) = field_mut(task_spec, "stepTemplate").and_then(Value::as_object_mut) {
        lists.iter().for_each(|(list, _)| remove(template, list));
    }
    Ok(())
}

fn merged(template: &[Value], own: &[Value], key: Option<&str>) -> Vec<Value> {
    let Some(key) = key else { return if own.is_empty() { template } else { own }.to_vec() };
    let mut all = template.to_vec();
    for item in own {
        match all.iter_mut().find(|other| text(other, key) == text(item, key)) {
            Some(same) if key == "mountPath" => {
                for (name, value) in item.as_object().into_iter().flatten() {
                    same.as_object_mut().into_iter().for_each(|same| set(same, name, value.clone()));
                }
            }
            Some(same) => *same = item.clone(),
            None => all.push(item.clone()),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn steps_have_what_they_had() {
        let mut spec = json!({
            "stepTemplate": {
                "image": "i", "env": [{"name": "A", "value": "t"}, {"name": "B", "valueFrom": {"secretKeyRef": {}}}],
                "envFrom": [{"configMapRef": {"name": "t"}}],
                "volumeMounts": [{"name": "v", "mountPath": "/v", "readOnly": true}],
            },
            "steps": [
                {"name": "one"},
                {"name": "two", "env": [{"name": "B", "value": "s"}, {"name": "C", "value": "s"}],
                    "envFrom": [{"secretRef": {"name": "s"}}],
                    "volumeMounts": [{"name": "w", "mountPath": "/v"}, {"name": "v", "mountPath": "/w"}]},
            ],
        });
        let template = spec["stepTemplate"].clone();
        hand_down(&mut spec, &Growth::default()).unwrap();
        assert_eq!(spec["stepTemplate"], json!({"image": "i"}));
        for list in ["env", "envFrom", "volumeMounts"] {
            assert_eq!(spec["steps"][0][list], template[list]);
        }
        let two = &spec["steps"][1];
        let env = json!([{"name": "A", "value": "t"}, {"name": "B", "value": "s"}, {"name": "C", "value": "s"}]);
        assert_eq!(two["env"], env);
        assert_eq!(two["envFrom"], json!([{"secretRef": {"name": "s"}}]));
        let mounts = json!([{"name": "w", "mountPath": "/v", "readOnly": true}, {"name": "v", "mountPath": "/w"}]);
        assert_eq!(two["volumeMounts"], mounts);
    }

    #[test]
    fn a_step_action_has_no_room_for_it() {
        let mut spec =
            json!({"stepTemplate": {"env": [{"name": "A"}]}, "steps": [{"name": "s", "ref": {"name": "a"}}]});
        assert!(hand_down(&mut spec, &Growth::default()).unwrap_err().to_string().contains("step \"s\""));
        spec["stepTemplate"] = json!({"image": "i"});
        hand_down(&mut spec, &Growth::default()).unwrap();
    }
}
