//! Params in the pod templates of a run: Tekton substitutes those of each TaskRun, under the names that they have
//! there (Tekton: taskrun/resources/apply.go `ApplyPodTemplateReplacements`).

use serde_json::{Map, Value, json};

use super::{provenance::strip, values::Renaming};
use crate::tekton::{
    fields::{field, field_mut, set, text},
    run::Run,
};

/// The run's `taskRunSpecs` with the params under their new names and without forged provenance; none if nothing changes.
pub fn rename(run: Run<'_>, renamings: &[Renaming]) -> Option<Value> {
    let mut all = run.task_run_specs().to_vec();
    let before = all.clone();
    all.iter_mut().for_each(strip);
    for renaming in renamings {
        let shared = run.pod_template().and_then(Value::as_object).into_iter().flatten();
        let named: Vec<(&String, &Value)> = shared.filter(|(_, value)| renaming.is_in(value)).collect();
        let place = all.iter().position(|own| text(own, "pipelineTaskName") == renaming.task);
        if place.is_none() && named.is_empty() {
            continue;
        }
        let place = place.unwrap_or_else(|| {
            all.push(json!({"pipelineTaskName": renaming.task}));
            all.len() - 1
        });
        let Some(own) = all[place].as_object_mut() else { continue };
        adopt(own, &named);
        if let Some(template) = field_mut(&mut all[place], "podTemplate") {
            renaming.apply_to(template);
        }
    }
    (all != before).then_some(Value::Array(all))
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
