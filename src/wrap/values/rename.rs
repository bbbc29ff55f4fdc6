//! A param of an inlined task under another name.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::declared;
use crate::tekton::{
    fields::{change_texts, field, field_mut, items, set, text, texts},
    texts::change_spec_texts,
    variables::{name_after, references, substitute},
};

/// The new name of a param that a task declares.
pub struct Renaming {
    /// The task in the pipeline.
    pub task: String,
    old: String,
    new: String,
    /// The task's params, the old name among them: `params.a.b` is the param `a.b` if there is one, else key `b` of the
    /// object `a`.
    all: Vec<String>,
}

impl Renaming {
    /// A name for the param `old` of `task` that is not in `taken`; it then is.
    pub fn new(task: &Value, old: &str, taken: &mut HashSet<String>) -> Self {
        let mut wanted = format!("{}-{}", text(task, "name"), old.replace('.', "-"));
        // A task's name may begin with a digit, a param's may not (Tekton: task_validation.go `ValidateNameFormat`).
        if wanted.starts_with(|c: char| c.is_ascii_digit()) {
            wanted.insert(0, '_');
        }
        let numbered = (1..).map(|number| format!("{wanted}-{number}"));
        let free = std::iter::once(wanted.clone()).chain(numbered).find(|name| !taken.contains(name));
        let new = free.unwrap_or(wanted);
        taken.insert(new.clone());
        let all = declared(task).map(str::to_owned).collect();
        Self { task: text(task, "name").to_owned(), old: old.to_owned(), new, all }
    }

    /// Renames the param inside of the embedded task and where the pipeline's task passes it. `outer`: the pipeline
    /// has a param of the old name, and the pipeline's task itself refers to that one.
    pub fn apply(&self, task: &mut Value, outer: bool) {
        if let Some(spec) = field_mut(task, "taskSpec") {
            change_spec_texts(spec, &mut |text| self.change(text));
            self.change_names(spec, "params");
        }
        self.change_names(task, "params");
        let matrixed = field(task, "matrix").is_some();
        if let Some(matrix) = field_mut(task, "matrix") {
            self.change_names(matrix, "params");
            for include in field_mut(matrix, "include").and_then(Value::as_array_mut).into_iter().flatten() {
                self.change_names(include, "params");
                self.change_field(include, "name");
            }
        }
        // Left over by the pipeline, these are substituted with the params of the TaskRun
        // (Tekton: pipelinerunstate.go `getDisplayName`, taskrun/resources/apply.go `ApplyParametersToWorkspaceBindings`).
        if matrixed || !outer {
            self.change_field(task, "displayName");
        }
        if !outer {
            for binding in field_mut(task, "workspaces").and_then(Value::as_array_mut).into_iter().flatten() {
                self.change_field(binding, "subPath");
            }
        }
    }

    /// Whether `value` refers to the param.
    pub fn is_in(&self, value: &Value) -> bool {
        let mut found = false;
        texts(value, &mut |text| found |= references(text).any(|reference| self.renamed(reference).is_some()));
        found
    }

    /// Renames the param in all strings of `value`.
    pub fn apply_to(&self, value: &mut Value) {
        change_texts(value, &mut |text| self.change(text));
    }

    fn change(&self, text: &str) -> Option<String> {
        substitute(text, |reference| self.renamed(reference))
    }

    fn change_field(&self, object: &mut Value, name: &str) {
        if let Some(value) = field_mut(object, name) {
            self.apply_to(value);
        }
    }

    fn change_names(&self, object: &mut Value, list: &str) {
        if !items(object, list).iter().any(|param| text(param, "name") == self.old) {
            return;
        }
        for param in field_mut(object, list).and_then(Value::as_array_mut).into_iter().flatten() {
            if text(param, "name") == self.old
                && let Some(map) = param.as_object_mut()
            {
                set(map, "name", json!(self.new));
            }
        }
    }

    /// `reference` with the new name; none where it is to something else.
    fn renamed(&self, reference: &str) -> Option<String> {
        let rest = reference.strip_prefix("inputs.").unwrap_or(reference);
        name_after(rest, "params")?;
        if let Some(dotted) = rest.strip_prefix("params.") {
            let is_prefix = |name: &&String| {
                dotted.strip_prefix(name.as_str()).is_some_and(|tail| tail.is_empty() || tail.starts_with(['.', '[']))
            };
            let name = self.all.iter().filter(is_prefix).max_by_key(|name| name.len())?;
            return (*name == self.old).then(|| format!("$(params.{}{})", self.new, &dotted[name.len()..]));
        }
        let quoted = [format!("params[\"{}\"]", self.old), format!("params['{}']", self.old)];
        let tail = quoted.iter().find_map(|form| rest.strip_prefix(form.as_str()));
        tail.map(|tail| format!("$(params.{}{tail})", self.new))
    }
}
