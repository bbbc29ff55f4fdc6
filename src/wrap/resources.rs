//! The resources of the injected steps: small, and their own whatever a stepTemplate says.
//!
//! Kubernetes adds up the requests of all containers of a pod, though steps run one after the other. A LimitRange's defaults
//! fill in what is not set here, and the task-level resources of a run (`taskRunSpecs[].computeResources`) replace it: Tekton
//! spreads them over all steps, ours among them (Tekton: pkg/internal/computeresources).

use serde_json::{Map, Value, json};

use crate::tekton::fields::{field, items, text};

/// Sets resources and pull policy of a step that is injected into the task with this spec. `in_memory` tells that a workspace
/// is kept in memory, which counts for the container that fills it.
pub fn set(step: &mut Value, task_spec: &Value, in_memory: bool) {
    let template = field(task_spec, "stepTemplate").unwrap_or(&Value::Null);
    let resources = |container: &Value, kind: &str| -> Map<String, Value> {
        let found = field(container, "computeResources").and_then(|resources| field(resources, kind));
        found.and_then(Value::as_object).cloned().unwrap_or_default()
    };
    let mut requests = none_of(resources(template, "requests"));
    requests.insert("cpu".to_owned(), json!("50m"));
    requests.insert("memory".to_owned(), json!("64Mi"));

    // Where a quota asks for limits, all steps of the user have them.
    let inherited = resources(template, "limits");
    let mut limits = none_of(inherited.clone());
    let limits_of = |step: &Value| -> Map<String, Value> {
        inherited.clone().into_iter().chain(resources(step, "limits")).collect()
    };
    let steps: Vec<Map<String, Value>> = items(task_spec, "steps").iter().map(limits_of).collect();
    for (name, enough) in [("cpu", "2"), ("memory", "512Mi")] {
        if steps.iter().all(|limits| limits.contains_key(name)) || inherited.contains_key(name) {
            let theirs = steps.first().and_then(|limits| limits.get(name)).filter(|_| in_memory && name == "memory");
            limits.insert(name.to_owned(), theirs.cloned().unwrap_or_else(|| json!(enough)));
        }
    }
    step["computeResources"] = json!({"requests": requests});
    if !limits.is_empty() {
        step["computeResources"]["limits"] = Value::Object(limits);
    }
    if !text(template, "imagePullPolicy").is_empty() {
        step["imagePullPolicy"] = json!("IfNotPresent");
    }
}

/// Whether the run keeps a workspace of this name in memory.
pub fn in_memory(run: &Value, workspace: &str) -> bool {
    let bindings = run.get("spec").map_or(&[][..], |spec| items(spec, "workspaces"));
    let binding = bindings.iter().find(|binding| text(binding, "name") == workspace);
    binding.and_then(|binding| field(binding, "emptyDir")).is_some_and(|dir| text(dir, "medium") == "Memory")
}

/// Devices and the like that the template claims for every step: the steps of the user need them, ours don't
/// (Tekton: v1/merge.go merges by name).
fn none_of(mut resources: Map<String, Value>) -> Map<String, Value> {
    resources.values_mut().for_each(|value| *value = json!("0"));
    resources
}
