//! What stands for the variables of tasks that don't run again.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value, json};

use super::{RerunRefusal, first::FirstRun, split::Split};
use crate::tekton::{
    fields::{field, items, text, texts},
    matrix::matrix_of,
    status,
    variables::{references, substitute},
};

/// What Tekton's variables begin with.
const VARIABLES: [&str; 8] = ["params", "tasks", "finally", "context", "workspaces", "results", "steps", "inputs"];

/// Fields of a pipeline's task in which nothing of its pipeline is replaced.
const OTHERS: [&str; 5] = ["name", "runAfter", "pipelineSpec", "pipelineRef", "description"];

/// What is known of the tasks that are left out, by name.
pub struct KnownValues<'a> {
    tasks: HashMap<&'a str, Done>,
}

/// A task that succeeded.
struct Done {
    reason: String,
    results: Map<String, Value>,
    /// Number of its TaskRuns, if it has a matrix.
    combinations: Option<usize>,
}

/// What can't be replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The task left no such result.
    Absent {
        /// The task.
        task: String,
        /// The rest of the reference.
        result: String,
    },
    /// What it left is a variable in a new run.
    Variable {
        /// The task.
        task: String,
        /// The rest of the reference.
        result: String,
        /// The variable.
        variable: String,
    },
}

impl Missing {
    /// The refusal, if the task `user` can't do without.
    pub fn refused(self, user: &str) -> RerunRefusal {
        match self {
            Self::Absent { task, result } => RerunRefusal::ResultGone { user: user.to_owned(), task, result },
            Self::Variable { task, result, variable } => RerunRefusal::VariableInResult { task, result, variable },
        }
    }
}

impl<'a> KnownValues<'a> {
    /// Of those `tasks` of `first` that `split` leaves out.
    pub fn new(first: &FirstRun<'_>, tasks: &[&'a Value], split: &Split) -> Result<Self, RerunRefusal> {
        let mut known = HashMap::new();
        for task in tasks.iter().filter(|task| split.leaves_out(text(task, "name"))) {
            let name = text(task, "name");
            let runs = first.runs_of(name)?;
            let has_matrix = matrix_of(task).is_some();
            known.insert(name, Done::new(&runs, has_matrix));
        }
        Ok(Self { tasks: known })
    }

    /// The value of a variable of a task that is left out; none for any other variable.
    pub fn find(&self, reference: &str) -> Option<Result<Value, Missing>> {
        let rest = reference.strip_prefix("tasks.")?;
        let (task, rest) = rest.split_once('.')?;
        let done = self.tasks.get(task)?;
        let found = done.value(rest);
        let absent = || Missing::Absent { task: task.to_owned(), result: name_of(rest).to_owned() };
        Some(found.ok_or_else(absent).and_then(|value| match variable_in(&value) {
            Some(variable) => {
                Err(Missing::Variable { task: task.to_owned(), result: name_of(rest).to_owned(), variable })
            }
            None => Ok(value),
        }))
    }

    /// Replaces in a task of the pipeline and in its embedded task; what can't be replaced, if anything.
    pub fn fill_task(&self, task: &mut Value) -> Option<Missing> {
        let mut missing = None;
        for (key, value) in task.as_object_mut().into_iter().flatten() {
            let custom = key.eq_ignore_ascii_case("taskSpec")
                && ["apiVersion", "kind"].iter().any(|name| !text(value, name).is_empty());
            if !custom && !OTHERS.iter().any(|other| key.eq_ignore_ascii_case(other)) {
                self.fill(key, value, &mut missing);
            }
        }
        missing
    }

    /// The same for one string of the pipeline's results.
    pub fn fill_value(&self, value: &mut Value) -> Option<Missing> {
        let mut missing = None;
        self.fill("value", value, &mut missing);
        missing
    }

    /// A task of `finally` as one of `tasks`: there is no other one that could fail or be skipped.
    pub fn as_task(&self, mut task: Value) -> Value {
        crate::tekton::fields::change_texts(&mut task, &mut |text| {
            substitute(text, |reference| (reference == "tasks.status").then(|| "Succeeded".to_owned()))
        });
        task
    }

    fn fill(&self, key: &str, value: &mut Value, missing: &mut Option<Missing>) {
        match value {
            Value::String(text) => {
                if let Some(whole) = self.whole(text, missing).filter(|_| key == "value") {
                    *value = whole;
                } else if let Some(new) = self.text(text, missing) {
                    *text = new;
                }
            }
            Value::Array(list) => {
                let mut filled = Vec::with_capacity(list.len());
                for mut item in list.drain(..) {
                    match item.as_str().and_then(|text| self.whole(text, missing)) {
                        Some(Value::Array(items)) => filled.extend(items),
                        _ => {
                            self.fill("", &mut item, missing);
                            filled.push(item);
                        }
                    }
                }
                *list = filled;
            }
            Value::Object(map) => map.iter_mut().for_each(|(key, value)| self.fill(key, value, missing)),
            _ => {}
        }
    }

    /// The array or object that `text` stands for as a whole: `$(tasks.t.results.r[*])` and nothing else.
    fn whole(&self, text: &str, missing: &mut Option<Missing>) -> Option<Value> {
        let reference = text.strip_prefix("$(")?.strip_suffix(')').filter(|inner| inner.ends_with("[*]"))?;
        match self.find(reference)? {
            Ok(value) => Some(value),
            Err(e) => {
                missing.get_or_insert(e);
                None
            }
        }
    }

    fn text(&self, text: &str, missing: &mut Option<Missing>) -> Option<String> {
        let filled = substitute(text, |reference| {
            let found = self.find(reference)?.and_then(|value| match value {
                Value::String(text) => Ok(text),
                // Tekton does not put arrays and objects into strings.
                _ => {
                    let (task, result) = reference.trim_start_matches("tasks.").split_once('.').unwrap_or_default();
                    Err(Missing::Absent { task: task.to_owned(), result: name_of(result).to_owned() })
                }
            });
            match found {
                Ok(text) => Some(text),
                Err(e) => {
                    missing.get_or_insert(e);
                    None
                }
            }
        })?;
        // Two values, or a value and what stands around it, may make a variable that nobody wrote.
        let old: HashSet<&str> = references(text).collect();
        let new = references(&filled).find(|new| is_variable(new) && !old.contains(new));
        if let Some(variable) = new {
            let filled = references(text).find(|reference| self.find(reference).is_some()).unwrap_or_default();
            let (task, result) = filled.trim_start_matches("tasks.").split_once('.').unwrap_or_default();
            let (task, result) = (task.to_owned(), name_of(result).to_owned());
            missing.get_or_insert(Missing::Variable { task, result, variable: variable.to_owned() });
        }
        Some(filled)
    }
}

impl Done {
    fn new(runs: &[&Value], has_matrix: bool) -> Self {
        let mut results = Map::new();
        for run in runs {
            let status = field(run, "status").unwrap_or(&Value::Null);
            for result in items(status, "results") {
                let name = text(result, "name").to_owned();
                let value = field(result, "value").cloned().unwrap_or_else(|| json!(""));
                if has_matrix {
                    // Of a matrix there are lists, in the order of its combinations (Tekton: docs/matrix.md).
                    let list = results.entry(name).or_insert_with(|| json!([]));
                    list.as_array_mut().into_iter().for_each(|list| list.push(value.clone()));
                } else {
                    results.insert(name, value);
                }
            }
        }
        let reason =
            runs.first().and_then(|run| status::condition(run)).map_or("", |condition| text(condition, "reason"));
        Self { reason: reason.to_owned(), results, combinations: has_matrix.then_some(runs.len()) }
    }

    /// What stands behind `tasks.<name>.`
    fn value(&self, rest: &str) -> Option<Value> {
        match rest.split('.').collect::<Vec<_>>()[..] {
            ["status"] => Some(json!("Succeeded")),
            ["reason"] => Some(json!(self.reason)),
            ["matrix", "length"] => Some(json!(self.combinations?.to_string())),
            ["matrix", result, "length"] => Some(json!(self.results.get(result)?.as_array()?.len().to_string())),
            ["results", result] => match result.strip_suffix(']').and_then(|result| result.split_once('[')) {
                None => self.results.get(result).filter(|value| value.is_string()).cloned(),
                Some((result, "*")) => self.results.get(result).filter(|value| !value.is_string()).cloned(),
                Some((result, index)) => self.results.get(result)?.get(index.parse::<usize>().ok()?).cloned(),
            },
            ["results", result, key] => self.results.get(result)?.as_object()?.get(key).cloned(),
            _ => None,
        }
    }
}

/// The name of a result in what stands behind `tasks.<name>.`
fn name_of(rest: &str) -> &str {
    rest.strip_prefix("results.").unwrap_or(rest)
}

/// Whether Tekton would replace it.
fn is_variable(reference: &str) -> bool {
    VARIABLES.contains(&reference.split(['.', '[']).next().unwrap_or_default())
}

/// A variable in a value that Tekton would replace.
fn variable_in(value: &Value) -> Option<String> {
    let mut found = None;
    texts(value, &mut |text| {
        if let Some(variable) = references(text).find(|reference| is_variable(reference)) {
            found.get_or_insert_with(|| variable.to_owned());
        }
    });
    found
}
