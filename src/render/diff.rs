//! What a wrapped run is compared with.

use serde_json::{Value, json};

use super::objects::metadata;
use crate::{
    source::Kind,
    tekton::fields::{field, field_mut, items, remove, text},
};

/// `run` as if it had the Pipeline and the Tasks that it names inlined as they are, at the places where `wrapped` has them:
/// then a diff shows what wrapping changes, and not all of them as new. `found` are the objects that were read for it.
pub fn unwrapped(run: &Value, wrapped: &Value, found: &[(Kind, Value)]) -> Value {
    let mut before = run.clone();
    let pipeline = found.iter().find(|(kind, _)| *kind == Kind::Pipeline).and_then(|(_, object)| field(object, "spec"));
    let (Some(pipeline), Some(spec)) = (pipeline, field_mut(&mut before, "spec").and_then(Value::as_object_mut)) else {
        return before;
    };
    let mut pipeline = pipeline.clone();
    let inlined = field(wrapped, "spec").and_then(|spec| field(spec, "pipelineSpec"));
    for list in ["tasks", "finally"] {
        let wrapped = inlined.map_or(&[][..], |spec| items(spec, list));
        let Some(Value::Array(tasks)) = field_mut(&mut pipeline, list) else { continue };
        tasks.iter_mut().zip(wrapped).for_each(|(task, wrapped)| inline(task, wrapped, found));
    }
    remove(spec, "pipelineRef");
    spec.insert("pipelineSpec".to_owned(), pipeline);
    before
}

/// Puts the Task that `task` refers to in its place, where `wrapped` has one inlined.
fn inline(task: &mut Value, wrapped: &Value, found: &[(Kind, Value)]) {
    let labels = field(wrapped, "taskSpec").and_then(|spec| field(field(spec, "metadata")?, "labels"));
    let Some(name) = labels.map(|labels| text(labels, "tekton.dev/task")).filter(|name| !name.is_empty()) else {
        return;
    };
    let is_it = |(kind, object): &&(Kind, Value)| *kind == Kind::Task && metadata(object, "name") == name;
    let Some(spec) = found.iter().find(is_it).and_then(|(_, object)| field(object, "spec")) else { return };
    let Some(map) = task.as_object_mut().filter(|map| map.keys().any(|key| key.eq_ignore_ascii_case("taskRef"))) else {
        return;
    };
    remove(map, "taskRef");
    let mut spec = spec.clone();
    if let (Some(map), Some(labels)) = (spec.as_object_mut(), labels) {
        map.insert("metadata".to_owned(), json!({"labels": labels}));
    }
    map.insert("taskSpec".to_owned(), spec);
}
