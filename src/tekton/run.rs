//! A PipelineRun, read-only: every field of it that this program reads (Tekton: pkg/apis/pipeline/v1/pipelinerun_types.go).

use serde_json::Value;

use super::fields::{field, items, text};

/// A PipelineRun in its v1 form.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    object: &'a Value,
}

impl<'a> Run<'a> {
    /// The view of `object`.
    pub fn new(object: &'a Value) -> Self {
        Self { object }
    }

    /// The whole object.
    pub fn object(self) -> &'a Value {
        self.object
    }

    /// `metadata.name`; none if the API server has yet to generate one from `generateName`.
    pub fn name(self) -> Option<&'a str> {
        let metadata = self.object.get("metadata")?;
        Some(text(metadata, "name")).filter(|name| !name.is_empty())
    }

    /// The most characters that its name can have. The API server cuts `generateName` and puts random characters behind it
    /// (Kubernetes: apiserver/pkg/storage/names/generate.go).
    pub fn longest_name(self) -> usize {
        const LONGEST_PREFIX: usize = 58;
        const RANDOM: usize = 5;
        let generated = || text(self.object.get("metadata").unwrap_or(&Value::Null), "generateName").len();
        #[allow(clippy::arithmetic_side_effects, reason = "of two numbers below a hundred")]
        self.name().map_or_else(|| generated().min(LONGEST_PREFIX) + RANDOM, str::len)
    }

    /// `metadata.annotations` or `metadata.labels`, an object.
    pub fn metadata(self, name: &str) -> Option<&'a Value> {
        field(self.object.get("metadata")?, name)
    }

    /// `spec.pipelineRef`.
    pub fn pipeline_ref(self) -> Option<&'a Value> {
        field(self.spec(), "pipelineRef")
    }

    /// `spec.pipelineSpec`.
    pub fn pipeline_spec(self) -> Option<&'a Value> {
        field(self.spec(), "pipelineSpec")
    }

    /// `spec.params`: objects with `name` and `value`.
    pub fn params(self) -> &'a [Value] {
        items(self.spec(), "params")
    }

    /// `spec.workspaces`: what each workspace of the Pipeline is bound to.
    pub fn bindings(self) -> &'a [Value] {
        items(self.spec(), "workspaces")
    }

    /// The binding of the workspace `name`.
    pub fn binding(self, name: &str) -> Option<&'a Value> {
        self.bindings().iter().find(|binding| text(binding, "name") == name)
    }

    /// `spec.taskRunSpecs`: settings of single tasks.
    pub fn task_run_specs(self) -> &'a [Value] {
        items(self.spec(), "taskRunSpecs")
    }

    /// The item of `spec.taskRunSpecs` for the task `name`.
    pub fn task_run_spec(self, name: &str) -> Option<&'a Value> {
        self.task_run_specs().iter().find(|own| text(own, "pipelineTaskName") == name)
    }

    /// `spec.taskRunTemplate.podTemplate`, which applies to all tasks.
    pub fn pod_template(self) -> Option<&'a Value> {
        field(field(self.spec(), "taskRunTemplate")?, "podTemplate")
    }

    /// `podTemplate` of the task `name`: its fields override those of [`Run::pod_template`].
    pub fn task_pod_template(self, name: &str) -> Option<&'a Value> {
        field(self.task_run_spec(name)?, "podTemplate")
    }

    /// All pod templates, those of single tasks first.
    pub fn pod_templates(self) -> impl Iterator<Item = &'a Value> {
        let own = self.task_run_specs().iter().filter_map(|own| field(own, "podTemplate"));
        own.chain(self.pod_template())
    }

    fn spec(self) -> &'a Value {
        self.object.get("spec").unwrap_or(&Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn fields_in_any_case_and_absent_ones() {
        let object = json!({"metadata": {"generateName": "r-"}, "spec": {
            "Params": [{"name": "p", "value": "v"}],
            "workspaces": [{"name": "ws", "emptyDir": {}}],
            "taskRunTemplate": {"podTemplate": {"nodeSelector": {"a": "b"}}},
            "taskRunSpecs": [{"pipelineTaskName": "t", "podTemplate": {"hostNetwork": true}}, {"pipelineTaskName": "u"}],
        }});
        let run = Run::new(&object);
        assert_eq!((run.name(), run.params().len(), run.pipeline_ref()), (None, 1, None));
        assert_eq!(run.longest_name(), 7);
        assert_eq!(run.binding("ws"), Some(&json!({"name": "ws", "emptyDir": {}})));
        assert_eq!(run.task_pod_template("t"), Some(&json!({"hostNetwork": true})));
        assert_eq!((run.task_pod_template("u"), run.pod_templates().count()), (None, 2));
        assert_eq!(Run::new(&Value::Null).bindings().len(), 0);
    }
}
