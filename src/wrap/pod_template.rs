//! Params in the pod templates of a run: Tekton substitutes those of each TaskRun, under the names that they have
//! there (Tekton: taskrun/resources/apply.go `ApplyPodTemplateReplacements`).

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::{
    bounds::InlinedSize,
    growth::Growth,
    values::{Renaming, references_in},
};
use crate::{
    annotations::strip,
    limits::MAX_RUN_BYTES,
    tekton::{
        fields::{field, field_mut, set, text},
        run::Run,
    },
};

/// The run's `taskRunSpecs` with the params under their new names and without forged provenance; none where nothing changes.
/// An error is at least how many bytes they would have, more than [`MAX_RUN_BYTES`].
pub fn rename(run: Run<'_>, renamings: &[Renaming], growth: &Growth) -> Result<Option<Value>, usize> {
    let mut adopted = InlinedSize::default();
    let mut all = run.task_run_specs().to_vec();
    let before = all.clone();
    all.iter_mut().for_each(strip);
    let shared = run.pod_template().and_then(Value::as_object).into_iter().flatten();
    let shared: Vec<(&String, &Value, Vec<&str>)> =
        shared.map(|(name, value)| (name, value, references_in(value))).collect();
    let mut places = HashMap::new();
    for (place, own) in all.iter().enumerate() {
        places.entry(text(own, "pipelineTaskName").to_owned()).or_insert(place);
    }
    for renaming in renamings {
        let named = shared.iter().filter(|(_, _, references)| renaming.is_in(references.iter().copied()));
        let named: Vec<(&String, &Value)> = named.map(|(name, value, _)| (*name, *value)).collect();
        let place = places.get(&renaming.task).copied();
        if place.is_none() && named.is_empty() {
            continue;
        }
        let place = place.unwrap_or_else(|| {
            let place = all.len();
            all.push(json!({"pipelineTaskName": renaming.task}));
            places.insert(renaming.task.clone(), place);
            place
        });
        let Some(own) = all.get_mut(place).and_then(Value::as_object_mut) else { continue };
        named.iter().for_each(|(_, value)| adopted.add(value));
        if adopted.bytes > MAX_RUN_BYTES {
            return Err(adopted.bytes);
        }
        adopt(own, &named);
        if let Some(template) = all.get_mut(place).and_then(|own| field_mut(own, "podTemplate")) {
            renaming.apply_to(template, growth);
            growth.check()?;
        }
    }
    Ok((all != before).then_some(Value::Array(all)))
}

/// Copies fields of the pod template that all tasks share into a task's own, unless it sets them itself
/// (Tekton: pod/template.go `MergePodTemplateWithDefault`).
fn adopt(own: &mut Map<String, Value>, fields: &[(&String, &Value)]) {
    if fields.is_empty() {
        return;
    }
    let template = Value::Object(own.clone());
    let mut template = field(&template, "podTemplate").cloned().unwrap_or_else(|| json!({}));
    if let Some(map) = template.as_object_mut() {
        for (name, value) in fields {
            map.entry((*name).clone()).or_insert_with(|| (*value).clone());
        }
    }
    set(own, "podTemplate", template);
}
