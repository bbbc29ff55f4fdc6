//! What a user changes in a PipelineRun to have it wrapped.

use serde_json::{Value, json};

/// The run for the resolver wrap, and behind it, where it had its pipeline inline, a Pipeline of that; none where no
/// workspace of the run is a volume for files.
pub fn to_wrap(run: &Value, target: &str) -> Option<Vec<Value>> {
    let spec = &run["spec"];
    let names: Vec<&str> = items(&spec["workspaces"]).iter().filter(|w| is_volume(w)).map(name).collect();
    if names.is_empty() {
        return None;
    }
    let pipeline = spec.get("pipelineSpec").map(|inline| pipeline(inline, run));
    let pipeline_name = pipeline.as_ref().map_or(&spec["pipelineRef"]["name"], |p| &p["metadata"]["name"]).clone();
    let mut run = run.clone();
    let params = [("pipelineref", pipeline_name), ("workspaces", json!(names)), ("target", json!(target))];
    let params = params.map(|(name, value)| json!({"name": name, "value": value}));
    run["spec"]["pipelineRef"] = json!({"resolver": "wrap", "params": params});
    let changed = run["spec"].as_object_mut().expect("a spec");
    changed.shift_remove("pipelineSpec");
    if let Some(Value::Array(bindings)) = changed.get_mut("workspaces") {
        bindings.retain(|binding| !is_volume(binding));
    }
    Some(std::iter::once(run).chain(pipeline).collect())
}

/// A Pipeline of its own has to declare what an inline one is simply given.
fn pipeline(inline: &Value, run: &Value) -> Value {
    let mut spec = inline.clone();
    for list in ["params", "workspaces"] {
        let declared: Vec<&str> = items(&inline[list]).iter().map(name).collect();
        let mut all = items(&inline[list]).to_vec();
        for given in items(&run["spec"][list]).iter().filter(|given| !declared.contains(&name(given))) {
            all.push(json!({"name": name(given)}));
        }
        spec[list] = json!(all);
    }
    json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "inlined"}, "spec": spec})
}

/// Whether tasks can find each other's files there.
fn is_volume(binding: &Value) -> bool {
    ["persistentVolumeClaim", "volumeClaimTemplate", "emptyDir"].iter().any(|kind| binding.get(*kind).is_some())
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn name(value: &Value) -> &str {
    value["name"].as_str().expect("a name")
}
