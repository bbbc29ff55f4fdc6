//! How long the lists and names of a run, a Pipeline and a Task may be: the rewrite looks for things in lists, and puts names
//! into strings, so that what is long in two places would cost the product.

use serde_json::Value;

use crate::{
    limits::{Exceeded, MAX_ENTRIES, MAX_NAME, MAX_PARAMS, MAX_PATH, MAX_SECURITY_CONTEXT, MAX_TASKS},
    tekton::{
        fields::{field, items, text},
        run::Run,
        tasks::all_tasks,
    },
};

/// Lists of a task's spec and of its containers, and how long they may be.
const SPEC_LISTS: [(&str, usize); 6] = [
    ("params", MAX_PARAMS),
    ("workspaces", MAX_ENTRIES),
    ("steps", MAX_ENTRIES),
    ("sidecars", MAX_ENTRIES),
    ("volumes", MAX_ENTRIES),
    ("results", MAX_PARAMS),
];

/// Likewise those of a step, a sidecar or a stepTemplate.
const CONTAINER_LISTS: [(&str, usize); 5] = [
    ("env", MAX_PARAMS),
    ("params", MAX_PARAMS),
    ("workspaces", MAX_ENTRIES),
    ("volumeMounts", MAX_ENTRIES),
    ("volumeDevices", MAX_ENTRIES),
];

/// Checks what a run says beside its pipelineRef.
pub fn check_run(run: Run<'_>) -> Result<(), Exceeded> {
    let what = || "the PipelineRun".to_owned();
    Exceeded::check(run.params().len(), MAX_PARAMS, "params", what)?;
    Exceeded::check(run.bindings().len(), MAX_ENTRIES, "workspaces", what)?;
    Exceeded::check(run.task_run_specs().len(), MAX_TASKS, "taskRunSpecs", what)?;
    let volumes = run.pod_templates().map(|template| items(template, "volumes").len()).sum();
    Exceeded::check(volumes, MAX_ENTRIES, "volumes of pod templates", what)?;
    run.pod_templates().try_for_each(|template| check_security(template, "the PipelineRun"))?;
    check_names(run.params(), "the PipelineRun")?;
    check_names(run.bindings(), "the PipelineRun")
}

/// Checks a Pipeline's spec, the specs that its tasks embed included.
pub fn check_pipeline(spec: &Value, name: &str) -> Result<(), Exceeded> {
    let shown = format!("pipeline {:?}", shortened(name));
    let what = || shown.clone();
    Exceeded::check(name.len(), MAX_NAME, "bytes in its name", what)?;
    let tasks = all_tasks(spec).count();
    Exceeded::check(tasks, MAX_TASKS, "tasks", what)?;
    Exceeded::check(items(spec, "params").len(), MAX_PARAMS, "params", what)?;
    Exceeded::check(items(spec, "workspaces").len(), MAX_ENTRIES, "workspaces", what)?;
    check_names(items(spec, "params"), &shown)?;
    check_names(items(spec, "workspaces"), &shown)?;
    all_tasks(spec).try_for_each(check_task)
}

fn check_task(task: &Value) -> Result<(), Exceeded> {
    let name = text(task, "name");
    let shown = format!("task {:?}", shortened(name));
    let what = || shown.clone();
    Exceeded::check(name.len(), MAX_NAME, "bytes in its name", what)?;
    Exceeded::check(items(task, "params").len(), MAX_PARAMS, "params", what)?;
    Exceeded::check(items(task, "workspaces").len(), MAX_ENTRIES, "workspaces", what)?;
    check_names(items(task, "params"), &shown)?;
    check_names(items(task, "workspaces"), &shown)?;
    if let Some(matrix) = field(task, "matrix") {
        Exceeded::check(items(matrix, "params").len(), MAX_ENTRIES, "params in its matrix", what)?;
        Exceeded::check(items(matrix, "include").len(), MAX_ENTRIES, "entries in its matrix", what)?;
    }
    field(task, "taskSpec").map_or(Ok(()), |spec| check_task_spec(spec, &shown))
}

/// Checks a task's spec; `shown` names the task.
pub fn check_task_spec(spec: &Value, shown: &str) -> Result<(), Exceeded> {
    let what = || shown.to_owned();
    for (list, limit) in SPEC_LISTS {
        Exceeded::check(items(spec, list).len(), limit, list, what)?;
    }
    for list in ["params", "workspaces", "volumes"] {
        check_names(items(spec, list), shown)?;
    }
    let steps = items(spec, "steps").iter().chain(items(spec, "sidecars"));
    for container in steps.chain(field(spec, "stepTemplate")) {
        for (list, limit) in CONTAINER_LISTS {
            Exceeded::check(items(container, list).len(), limit, list, what)?;
        }
        check_security(container, shown)?;
    }
    Ok(())
}

/// Checks the security context of a container or a pod template: the template's is that of every step.
fn check_security(holder: &Value, shown: &str) -> Result<(), Exceeded> {
    let bytes = field(holder, "securityContext").map_or(0, |context| InlinedSize::of(context).bytes);
    Exceeded::check(bytes, MAX_SECURITY_CONTEXT, "bytes in a securityContext", || shown.to_owned())
}

/// Checks the `name`, `mountPath` and `subPath` of each item.
fn check_names(list: &[Value], shown: &str) -> Result<(), Exceeded> {
    let what = || shown.to_owned();
    for item in list {
        Exceeded::check(text(item, "name").len(), MAX_NAME, "bytes in a name", what)?;
        Exceeded::check(text(item, "mountPath").len(), MAX_PATH, "bytes in a mountPath", what)?;
        Exceeded::check(text(item, "subPath").len(), MAX_PATH, "bytes in a subPath", what)?;
    }
    Ok(())
}

/// What has been put into a pipeline so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct InlinedSize {
    /// At least so many bytes of JSON.
    pub bytes: usize,
    /// Values.
    pub values: usize,
}

impl InlinedSize {
    /// That of `value` alone.
    pub fn of(value: &Value) -> Self {
        let mut size = Self::default();
        size.add(value);
        size
    }

    /// Adds `value`.
    #[allow(
        clippy::arithmetic_side_effects,
        reason = "bytes and values that are in memory; a Task that is inlined often is counted often, and refused at MAX_RUN_BYTES"
    )]
    pub fn add(&mut self, value: &Value) {
        self.values += 1;
        // Quotes, commas and the like.
        self.bytes += 2;
        match value {
            Value::String(text) => self.bytes += text.len(),
            Value::Array(items) => items.iter().for_each(|item| self.add(item)),
            Value::Object(map) => {
                for (key, value) in map {
                    self.bytes += key.len() + 3;
                    self.add(value);
                }
            }
            _ => {}
        }
    }
}

fn shortened(name: &str) -> String {
    name.chars().take(60).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn many(count: usize) -> Vec<Value> {
        (0..count).map(|number| json!({"name": format!("n{number}")})).collect()
    }

    #[test]
    fn each_limit_is_said_with_its_number() {
        for (spec, sentence) in [
            (json!({"tasks": many(4000), "finally": many(4000)}), "pipeline \"p\" has 8000 tasks, more than the 1000"),
            (json!({"params": many(5000)}), "pipeline \"p\" has 5000 params, more than the 4096"),
            (json!({"workspaces": many(20_000)}), "pipeline \"p\" has 20000 workspaces, more than the 256"),
            (
                json!({"tasks": [{"name": "a", "taskSpec": {"volumes": many(257)}}]}),
                "task \"a\" has 257 volumes, more than the 256",
            ),
            (
                json!({"finally": [{"name": "a", "taskSpec": {"sidecars": [{"volumeMounts": many(300)}]}}]}),
                "task \"a\" has 300 volumeMounts, more than the 256",
            ),
            (
                json!({"tasks": [{"name": "a", "taskSpec": {"workspaces": [{"name": "w", "mountPath": "x".repeat(5000)}]}}]}),
                "task \"a\" has 5000 bytes in a mountPath, more than the 4096",
            ),
            (
                json!({"tasks": [{"name": "a", "taskSpec": {"stepTemplate": {"securityContext": {"x": "x".repeat(5000)}}}}]}),
                "task \"a\" has 5008 bytes in a securityContext, more than the 4096",
            ),
            (
                json!({"params": [{"name": "n".repeat(254)}]}),
                "pipeline \"p\" has 254 bytes in a name, more than the 253",
            ),
        ] {
            let error = check_pipeline(&spec, "p").unwrap_err().to_string();
            assert!(error.starts_with(sentence), "{error}");
        }
        let run = json!({"spec": {"taskRunSpecs": many(1001)}});
        let error = check_run(Run::new(&run)).unwrap_err().to_string();
        assert!(error.starts_with("the PipelineRun has 1001 taskRunSpecs, more than the 1000"), "{error}");
    }

    #[test]
    fn all_that_is_inlined_counts() {
        let mut size = InlinedSize::default();
        size.add(&json!({"key": "text", "list": [1, "ab"]}));
        // Two bytes for each of the five values, seven for the keys and three for each of them, six for the strings.
        assert_eq!((size.values, size.bytes), (5, 2 * 5 + 7 + 3 * 2 + 6));
        size.add(&json!("x"));
        assert_eq!((size.values, size.bytes), (6, 32));
    }
}
