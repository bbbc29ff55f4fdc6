//! Params of an inlined task under other names.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::declared;
use crate::tekton::{
    fields::{change_texts, field_mut, items, set, text, texts},
    matrix::matrix_of,
    texts::change_spec_texts,
    variables::{param_names, references, substitute},
};
use crate::wrap::growth::Growth;

/// Names that are in use.
pub struct TakenNames {
    taken: HashSet<String>,
    /// The number that the next one of a name gets which is in use.
    next: HashMap<String, usize>,
}

impl TakenNames {
    /// With these in use.
    pub fn new(taken: HashSet<String>) -> Self {
        Self { taken, next: HashMap::new() }
    }

    /// A name for the param `old` of `task` that is not in use; it then is.
    fn free(&mut self, task: &str, old: &str) -> String {
        let mut wanted = format!("{task}-{}", old.replace('.', "-"));
        // A task's name may begin with a digit, a param's may not (Tekton: task_validation.go `ValidateNameFormat`).
        if wanted.starts_with(|c: char| c.is_ascii_digit()) {
            wanted.insert(0, '_');
        }
        let mut name = wanted.clone();
        let next = self.next.entry(wanted.clone()).or_insert(1);
        while self.taken.contains(&name) {
            name = format!("{wanted}-{next}");
            *next = next.saturating_add(1);
        }
        self.taken.insert(name.clone());
        name
    }
}

/// The new names of params that a task declares.
pub struct Renaming {
    /// The task in the pipeline.
    pub task: String,
    /// New names by the old ones.
    names: HashMap<String, String>,
    /// The task's params, the old names among them: `params.a.b` is the param `a.b` where there is one, else key `b` of the
    /// object `a`.
    all: HashSet<String>,
}

impl Renaming {
    /// Names for the params `old` of `task`.
    pub fn new(task: &Value, old: &[String], names: &mut TakenNames) -> Self {
        let name = text(task, "name");
        let all = declared(task).map(str::to_owned).collect();
        let names = old.iter().map(|old| (old.clone(), names.free(name, old))).collect();
        Self { task: name.to_owned(), names, all }
    }

    /// Renames the params inside of the embedded task and where the pipeline's task passes them. `is_outer` tells that the
    /// pipeline has a param of the old name, which is what the pipeline's task itself means by it.
    pub fn apply(&self, task: &mut Value, is_outer: impl Fn(&str) -> bool, growth: &Growth) {
        if let Some(spec) = field_mut(task, "taskSpec") {
            change_spec_texts(spec, &mut |text| self.change(text, growth));
            self.change_names(spec, "params");
        }
        self.change_names(task, "params");
        let matrixed = matrix_of(task).is_some();
        if let Some(matrix) = field_mut(task, "matrix") {
            self.change_names(matrix, "params");
            for include in field_mut(matrix, "include").and_then(Value::as_array_mut).into_iter().flatten() {
                self.change_names(include, "params");
                self.change_field(include, "name", |_| true, growth);
            }
        }
        // Left over by the pipeline, these are substituted with the params of the TaskRun
        // (Tekton: pipelinerunstate.go `getDisplayName`, taskrun/resources/apply.go `ApplyParametersToWorkspaceBindings`).
        self.change_field(task, "displayName", |old| matrixed || !is_outer(old), growth);
        for binding in field_mut(task, "workspaces").and_then(Value::as_array_mut).into_iter().flatten() {
            self.change_field(binding, "subPath", |old| !is_outer(old), growth);
        }
    }

    /// Whether one of `references` is to a param with a new name.
    pub fn is_in<'a>(&self, references: impl IntoIterator<Item = &'a str>) -> bool {
        references.into_iter().any(|reference| self.renamed(reference).is_some())
    }

    /// Renames the params in all texts of `value`.
    pub fn apply_to(&self, value: &mut Value, growth: &Growth) {
        change_texts(value, &mut |text| self.change(text, growth));
    }

    fn change(&self, text: &str, growth: &Growth) -> Option<String> {
        substitute(text, |reference| growth.in_place_of(reference, self.renamed(reference)?.1))
    }

    /// Renames those of the params in a field that are `wanted`.
    fn change_field(&self, object: &mut Value, name: &str, wanted: impl Fn(&str) -> bool, growth: &Growth) {
        if let Some(value) = field_mut(object, name) {
            let new = |reference: &str| {
                let (_, new) = self.renamed(reference).filter(|(old, _)| wanted(old))?;
                growth.in_place_of(reference, new)
            };
            change_texts(value, &mut |text| substitute(text, new));
        }
    }

    fn change_names(&self, object: &mut Value, list: &str) {
        if !items(object, list).iter().any(|param| self.names.contains_key(text(param, "name"))) {
            return;
        }
        for param in field_mut(object, list).and_then(Value::as_array_mut).into_iter().flatten() {
            if let Some(new) = self.names.get(text(param, "name"))
                && let Some(map) = param.as_object_mut()
            {
                set(map, "name", json!(new));
            }
        }
    }

    /// The old name in `reference`, and the reference with the new one; none where it is to something else.
    fn renamed(&self, reference: &str) -> Option<(&str, String)> {
        let rest = reference.strip_prefix("inputs.").unwrap_or(reference);
        let (name, tail) = param_names(rest).filter(|(name, _)| self.all.contains(*name)).last()?;
        let (old, new) = self.names.get_key_value(name)?;
        Some((old, format!("$(params.{new}{tail})")))
    }
}

/// All references in the texts of `value`.
pub fn references_in(value: &Value) -> Vec<&str> {
    let mut found = Vec::new();
    texts(value, &mut |text| found.extend(references(text)));
    found
}
