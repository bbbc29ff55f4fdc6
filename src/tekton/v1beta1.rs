//! tekton.dev/v1beta1 objects in their v1 form, as Tekton converts them (Tekton: pkg/apis/pipeline/v1beta1/*_conversion.go).
//!
//! Fields that Tekton moves into an annotation for the way back (`tekton.dev/v1beta1.task-deprecations`) are dropped, as they
//! do nothing. Those that its validation of v1beta1 refuses are refused here: nobody else would see them. All others stay as
//! they are, for Tekton's admission to judge.

use serde_json::{Map, Value, json};

use super::fields::{field, field_mut, remove, set, text};

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

/// Why a field is refused: Tekton's validation of v1beta1 refuses it (Tekton: v1beta1/*_validation.go `ErrDisallowedFields`).
const GONE: &str = "Tekton no longer accepts: remove it";

/// Why a field is refused: v1 has it, but Tekton's conversion drops it, so that it would be ignored.
const LOST: &str = "Tekton loses on the way from v1beta1 to v1: write the object as tekton.dev/v1";

/// Why an object can't be converted, as a clause for sentences about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConversionError {
    /// Not a kind that is converted here.
    #[error("a {0:?} can't be converted from tekton.dev/v1beta1")]
    Kind(String),
    /// A field that Tekton refuses or would lose.
    #[error("{place} has {name}, which {why}")]
    Field {
        /// The object that has it, for example `spec.tasks[0]`.
        place: String,
        /// Its name.
        name: String,
        /// [`GONE`] or [`LOST`].
        why: &'static str,
    },
    /// A field of v1 in a v1beta1 object.
    #[error("{place} has {new}, which v1beta1 calls {old}: rename it, or write the object as tekton.dev/v1")]
    NotYet {
        /// The object that has it.
        place: String,
        /// Its name in v1.
        new: String,
        /// Its name in v1beta1.
        old: String,
    },
    /// `timeout` and `timeouts`.
    #[error("spec has timeout beside timeouts: keep timeouts")]
    TwoTimeouts,
}

/// `object`, a Pipeline, Task or PipelineRun of v1beta1, in v1.
pub fn to_v1(mut object: Value) -> Result<Value, ConversionError> {
    let kind = text(&object, "kind").to_owned();
    if let Some(spec) = field_mut(&mut object, "spec") {
        match kind.as_str() {
            "Task" => task_spec(spec, "spec")?,
            "Pipeline" => pipeline_spec(spec, "spec")?,
            "PipelineRun" => run_spec(spec)?,
            other => return Err(ConversionError::Kind(other.to_owned())),
        }
    }
    if let Some(map) = object.as_object_mut() {
        set(map, "apiVersion", json!("tekton.dev/v1"));
        remove(map, "status");
    }
    Ok(object)
}

fn task_spec(spec: &mut Value, place: &str) -> Result<(), ConversionError> {
    refuse(spec, place, &["resources", "inputs", "outputs"], GONE)?;
    for (list, dropped) in [("steps", &WITHOUT_EFFECT[..]), ("sidecars", &[])] {
        for (index, container) in items_mut(spec, list).enumerate() {
            rename(container, &format!("{place}.{list}[{index}]"), "resources", "computeResources")?;
            drop_all(container, dropped);
        }
    }
    if let Some(template) = field_mut(spec, "stepTemplate") {
        rename(template, &format!("{place}.stepTemplate"), "resources", "computeResources")?;
        drop_all(template, &WITHOUT_EFFECT);
        drop_all(template, &["name"]);
    }
    Ok(())
}

fn pipeline_spec(spec: &mut Value, place: &str) -> Result<(), ConversionError> {
    refuse(spec, place, &["resources"], GONE)?;
    for list in ["tasks", "finally"] {
        for (index, task) in items_mut(spec, list).enumerate() {
            let place = format!("{place}.{list}[{index}]");
            refuse(task, &place, &["resources", "conditions"], GONE)?;
            refuse(task, &place, &["pipelineRef", "pipelineSpec"], LOST)?;
            if let Some(reference) = field_mut(task, "taskRef") {
                refuse(reference, &format!("{place}.taskRef"), &["bundle"], GONE)?;
            }
            if let Some(inner) = field_mut(task, "taskSpec").filter(|spec| !is_custom(spec)) {
                task_spec(inner, &format!("{place}.taskSpec"))?;
            }
        }
    }
    Ok(())
}

/// Whether a taskSpec is that of a custom task, whose fields are not Tekton's (Tekton: pipeline_types.go `IsCustomTask`).
fn is_custom(spec: &Value) -> bool {
    !text(spec, "apiVersion").is_empty() && !text(spec, "kind").is_empty()
}

fn run_spec(spec: &mut Value) -> Result<(), ConversionError> {
    refuse(spec, "spec", &["resources"], GONE)?;
    refuse(spec, "spec", &["managedBy"], LOST)?;
    if let Some(reference) = field_mut(spec, "pipelineRef") {
        refuse(reference, "spec.pipelineRef", &["bundle"], GONE)?;
    }
    if let Some(inner) = field_mut(spec, "pipelineSpec") {
        pipeline_spec(inner, "spec.pipelineSpec")?;
    }
    for (index, own) in items_mut(spec, "taskRunSpecs").enumerate() {
        let place = format!("spec.taskRunSpecs[{index}]");
        rename(own, &place, "taskServiceAccountName", "serviceAccountName")?;
        rename(own, &place, "taskPodTemplate", "podTemplate")?;
        for (old, new) in [("stepOverrides", "stepSpecs"), ("sidecarOverrides", "sidecarSpecs")] {
            rename(own, &place, old, new)?;
            for (index, container) in items_mut(own, new).enumerate() {
                rename(container, &format!("{place}.{old}[{index}]"), "resources", "computeResources")?;
            }
        }
    }
    task_run_template(spec)?;
    let Some(map) = spec.as_object_mut() else { return Ok(()) };
    if let Some(timeout) = take(map, "timeout") {
        if take(map, "timeouts").is_some() {
            return Err(ConversionError::TwoTimeouts);
        }
        set(map, "timeouts", json!({"pipeline": timeout}));
    }
    Ok(())
}

/// What v1 has in `taskRunTemplate`.
fn task_run_template(spec: &mut Value) -> Result<(), ConversionError> {
    let names = ["serviceAccountName", "podTemplate"];
    not_yet(spec, "spec", "taskRunTemplate", &names.join(" and "))?;
    let Some(map) = spec.as_object_mut() else { return Ok(()) };
    let taken = names.into_iter().filter_map(|name| Some((name.to_owned(), take(map, name)?)));
    let template: Map<String, Value> = taken.collect();
    if !template.is_empty() {
        set(map, "taskRunTemplate", Value::Object(template));
    }
    Ok(())
}

/// Refuses those of the fields `names` that have a value, and removes those that don't: v1 has no such fields.
fn refuse(object: &mut Value, place: &str, names: &[&str], why: &'static str) -> Result<(), ConversionError> {
    let has_value = |name: &&&str| field(object, name).is_some_and(|value| value != "");
    if let Some(name) = names.iter().find(has_value) {
        return Err(ConversionError::Field { place: place.to_owned(), name: (*name).to_owned(), why });
    }
    drop_all(object, names);
    Ok(())
}

/// Renames field `old` to its name in v1, in place. One that is null is removed: v1 would not know it.
fn rename(object: &mut Value, place: &str, old: &str, new: &str) -> Result<(), ConversionError> {
    not_yet(object, place, new, old)?;
    let Some(map) = object.as_object_mut() else { return Ok(()) };
    if map.keys().any(|key| key.eq_ignore_ascii_case(old)) {
        let renamed = |(key, value): (String, Value)| {
            if key.eq_ignore_ascii_case(old) {
                (!value.is_null()).then(|| (new.to_owned(), value))
            } else {
                Some((key, value))
            }
        };
        *map = std::mem::take(map).into_iter().filter_map(renamed).collect();
    }
    Ok(())
}

/// Refuses a field of v1: Tekton does not know it in v1beta1, but here it would take effect.
fn not_yet(object: &Value, place: &str, new: &str, old: &str) -> Result<(), ConversionError> {
    if object.as_object().is_some_and(|map| map.keys().any(|key| key.eq_ignore_ascii_case(new))) {
        let [place, new, old] = [place, new, old].map(str::to_owned);
        return Err(ConversionError::NotYet { place, new, old });
    }
    Ok(())
}

fn drop_all(object: &mut Value, names: &[&str]) {
    if let Some(map) = object.as_object_mut() {
        names.iter().for_each(|name| remove(map, name));
    }
}

/// Removes and returns a field, unless it is null.
fn take(map: &mut Map<String, Value>, name: &str) -> Option<Value> {
    let key = map.keys().rev().find(|key| key.eq_ignore_ascii_case(name))?.clone();
    let value = map.get(&key).filter(|value| !value.is_null()).cloned();
    remove(map, name);
    value
}

fn items_mut<'a>(object: &'a mut Value, name: &str) -> impl Iterator<Item = &'a mut Value> {
    field_mut(object, name).and_then(Value::as_array_mut).into_iter().flatten()
}

#[cfg(test)]
mod tests;
