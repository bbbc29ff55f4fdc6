//! The resources of the injected steps: no more than necessary, and independent of a stepTemplate.
//!
//! Kubernetes adds up the requests of all containers of a pod, though steps run one after the other, and a quota requires them
//! of every container. So the injected steps have small ones if the user's steps have some. If these have none, the defaults
//! of a LimitRange apply to all alike: Tekton divides them by the number of steps, and keeps to its minimum
//! (Tekton: pkg/internal/computeresources/transformer.go). The task-level resources of a run
//! (`taskRunSpecs[].computeResources`) replace all of them: Tekton spreads them over all steps, ours among them.

use serde_json::{Map, Value, json};

use crate::tekton::{
    fields::{field, items, text},
    quantity::Quantity,
    run::Run,
};

/// A resource, and how much of it an injected step requests; its limit is the largest of the user's steps, within these bounds.
struct ResourceBounds {
    name: &'static str,
    request: &'static str,
    least: &'static str,
    most: &'static str,
}

const RESOURCES: [ResourceBounds; 2] = [
    ResourceBounds { name: "cpu", request: "50m", least: "50m", most: "2" },
    ResourceBounds { name: "memory", request: "64Mi", least: "128Mi", most: "512Mi" },
];

/// Sets resources and pull policy of a step that is injected into the task with this spec. `in_memory`: a workspace
/// is kept in memory, which counts towards the limit of the container that fills it.
pub fn set(step: &mut Value, task_spec: &Value, in_memory: bool) {
    let nothing = Value::Null;
    let template = field(task_spec, "stepTemplate").unwrap_or(&nothing);
    let steps = items(task_spec, "steps");
    let of_each_step = |kind: &str, name: &str| -> Vec<Option<&Value>> {
        steps.iter().map(|step| named(step, kind, name).or_else(|| named(template, kind, name))).collect()
    };
    let mut requests = none_of(template, "requests");
    let mut limits = none_of(template, "limits");
    for ResourceBounds { name, request, least, most } in RESOURCES {
        let theirs = of_each_step("limits", name);
        let limit = theirs.iter().all(Option::is_some).then(|| match theirs.first() {
            Some(Some(first)) if in_memory && name == "memory" => (*first).clone(),
            _ => largest(&theirs, least, most),
        });
        let has_some = |(request, limit): (&Option<&Value>, &Option<&Value>)| request.is_some() || limit.is_some();
        if of_each_step("requests", name).iter().zip(&theirs).all(has_some) {
            // A request above the limit is refused.
            let request = [Some(json!(request)), limit.clone()].into_iter().flatten().min_by_key(Quantity::of);
            requests.extend(request.map(|request| (name.to_owned(), request)));
        }
        limits.extend(limit.map(|limit| (name.to_owned(), limit)));
    }
    let mut resources = Map::new();
    for (kind, amounts) in [("requests", requests), ("limits", limits)] {
        if !amounts.is_empty() {
            resources.insert(kind.to_owned(), Value::Object(amounts));
        }
    }
    if !resources.is_empty() {
        step["computeResources"] = Value::Object(resources);
    }
    if !text(template, "imagePullPolicy").is_empty() {
        step["imagePullPolicy"] = json!("IfNotPresent");
    }
}

/// Adds a request of as much disk as `sizes` say together, so that the pod comes to a node that has it.
pub fn request_room(step: &mut Value, sizes: impl Iterator<Item = String>) {
    let sizes: Vec<String> = sizes.collect();
    let bytes: u64 = sizes.iter().map(|size| Quantity::of(&json!(size)).bytes()).fold(0, u64::saturating_add);
    let request = match &sizes[..] {
        [] => return,
        [only] => json!(only),
        _ => json!(bytes.to_string()),
    };
    let resources = step.as_object_mut().map(|step| step.entry("computeResources").or_insert_with(|| json!({})));
    let requests =
        resources.and_then(Value::as_object_mut).map(|map| map.entry("requests").or_insert_with(|| json!({})));
    if let Some(requests) = requests.and_then(Value::as_object_mut) {
        requests.insert("ephemeral-storage".to_owned(), request);
    }
}

/// Whether the run keeps a workspace of this name in memory.
pub fn in_memory(run: Run<'_>, workspace: &str) -> bool {
    run.binding(workspace)
        .and_then(|binding| field(binding, "emptyDir"))
        .is_some_and(|dir| text(dir, "medium") == "Memory")
}

/// The amount of a resource in a step or template.
fn named<'a>(container: &'a Value, kind: &str, name: &str) -> Option<&'a Value> {
    field(field(field(container, "computeResources")?, kind)?, name)
}

/// A LimitRange that admits the user's steps admits what is not above the largest of their limits.
fn largest(theirs: &[Option<&Value>], least: &str, most: &str) -> Value {
    let largest = theirs.iter().flatten().map(|limit| (*limit).clone()).max_by_key(Quantity::of);
    let (least, most) = (json!(least), json!(most));
    match largest.as_ref().map(Quantity::of) {
        Some(amount) if amount < Quantity::of(&least) => least,
        Some(amount) if amount < Quantity::of(&most) => largest.unwrap_or(most),
        _ => most,
    }
}

/// Devices and other resources that the template claims for every step: the user's steps need them, ours don't
/// (Tekton: v1/merge.go merges by name).
fn none_of(template: &Value, kind: &str) -> Map<String, Value> {
    let found = field(template, "computeResources").and_then(|resources| field(resources, kind));
    let mut amounts = found.and_then(Value::as_object).cloned().unwrap_or_default();
    amounts.values_mut().for_each(|value| *value = json!("0"));
    amounts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resources(template: Value, steps: Value, in_memory: bool) -> Value {
        let mut step = json!({});
        set(&mut step, &json!({"stepTemplate": {"computeResources": template}, "steps": steps}), in_memory);
        step["computeResources"].take()
    }

    fn step(requests: Value, limits: Value) -> Value {
        json!({"computeResources": {"requests": requests, "limits": limits}})
    }

    #[test]
    fn as_little_as_has_to_be_said() {
        let none = || step(json!({}), json!({}));
        for (template, steps, expected) in [
            (json!({}), json!([{}]), json!(null)),
            (json!({}), json!([step(json!({"cpu": "1"}), json!({})), none()]), json!(null)),
            (json!({}), json!([step(json!({"cpu": "1"}), json!({}))]), json!({"requests": {"cpu": "50m"}})),
            (json!({"requests": {"memory": "4Gi"}}), json!([{}]), json!({"requests": {"memory": "64Mi"}})),
            // A limit alone is a request as well.
            (
                json!({}),
                json!([step(json!({}), json!({"memory": "1Gi"})), step(json!({"memory": "1"}), json!({}))]),
                json!({"requests": {"memory": "64Mi"}}),
            ),
            (json!({"limits": {"nvidia.com/gpu": 1}}), json!([{}]), json!({"limits": {"nvidia.com/gpu": "0"}})),
        ] {
            assert_eq!(resources(template.clone(), steps.clone(), false), expected, "{template} {steps}");
        }
    }

    #[test]
    fn limits_are_within_those_of_the_user() {
        for (limits, expected) in [
            ([json!({"cpu": "100m", "memory": "200Mi"}), json!({"cpu": 1, "memory": "100Mi"})], ["1", "200Mi", "50m"]),
            ([json!({"cpu": "20m", "memory": "1Mi"}), json!({"cpu": "10m", "memory": "2Mi"})], ["50m", "128Mi", "50m"]),
            ([json!({"cpu": 64, "memory": "9Gi"}), json!({"cpu": "1", "memory": "1Ti"})], ["2", "512Mi", "50m"]),
        ] {
            let steps: Vec<Value> = limits.iter().map(|limits| step(json!({}), limits.clone())).collect();
            let found = resources(json!({}), json!(steps), false);
            let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let found = [&found["limits"]["cpu"], &found["limits"]["memory"], &found["requests"]["cpu"]].map(text);
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn room_for_all_workspaces_is_requested() {
        for (sizes, expected) in
            [(vec![], json!(null)), (vec!["5Gi"], json!("5Gi")), (vec!["1Ki", "1500m", "2"], json!("1028"))]
        {
            let mut step = json!({"computeResources": {"requests": {"cpu": "1"}}});
            request_room(&mut step, sizes.iter().map(|size| (*size).to_owned()));
            assert_eq!(step["computeResources"]["requests"]["ephemeral-storage"], expected, "{sizes:?}");
            assert_eq!(step["computeResources"]["requests"]["cpu"], "1");
        }
    }

    #[test]
    fn a_workspace_in_memory_counts_for_the_step_that_fills_it() {
        let steps = json!([step(json!({}), json!({"memory": "4Gi"})), step(json!({}), json!({"memory": "8Gi"}))]);
        assert_eq!(resources(json!({}), steps, true)["limits"], json!({"memory": "4Gi"}));
        let small = json!([step(json!({}), json!({"memory": "1Mi"}))]);
        assert_eq!(resources(json!({}), small, true)["requests"], json!({"memory": "1Mi"}));
    }
}
