//! Param `paths`: which part of a workspace a task restores.

use serde_json::Value;

use super::values::Values;
use crate::{
    globs::Globs,
    tekton::{fields::text, tasks::all_tasks},
    wrap::refusal::Refusal,
};

/// What tasks restore, where the run says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths(Vec<TaskPaths>);

/// What one task restores, of one workspace or of all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct TaskPaths {
    task: String,
    workspace: Option<String>,
    patterns: Vec<String>,
}

impl Paths {
    /// `lint=src/**, *.toml, test/sources=tests/**`, or the same as an array: a task of the Pipeline with `spec`, perhaps a
    /// workspace of it, and patterns up to the next task.
    pub fn read(values: &Values<'_>, workspaces: &[String], spec: Option<&Value>) -> Result<Self, Refusal> {
        let mut paths = Self::default();
        let tasks: Vec<&str> = spec.into_iter().flat_map(all_tasks).map(|task| text(task, "name")).collect();
        let invalid = |problem: String| values.invalid("paths", problem);
        for part in values.list("paths")? {
            let pattern = match part.split_once('=').and_then(|(head, pattern)| Some((place(head)?, pattern.trim()))) {
                Some(((task, workspace), pattern)) => {
                    if !tasks.contains(&task) {
                        return Err(invalid(format!("{task:?} is not a task of the pipeline")));
                    }
                    if let Some(name) = workspace.filter(|name| !workspaces.iter().any(|wrapped| wrapped == name)) {
                        return Err(invalid(format!("{name:?} is not a workspace that is wrapped")));
                    }
                    paths.0.push(TaskPaths {
                        task: task.to_owned(),
                        workspace: workspace.map(str::to_owned),
                        patterns: Vec::new(),
                    });
                    pattern.to_owned()
                }
                None => part,
            };
            match paths.0.last_mut() {
                Some(last) => last.patterns.push(pattern),
                None => return Err(invalid(format!("{pattern:?} is of no task: write TASK={pattern}"))),
            }
        }
        for TaskPaths { patterns, .. } in &paths.0 {
            Globs::new(patterns).map_err(|error| invalid(error.to_string()))?;
        }
        Ok(paths)
    }

    /// What the pipeline's `task` restores of `workspace`; what is said of this one workspace comes first.
    pub fn of(&self, task: &str, workspace: &str) -> Option<&[String]> {
        let of_task = || self.0.iter().filter(|paths| paths.task == task);
        let own = of_task().find(|paths| paths.workspace.as_deref() == Some(workspace));
        own.or_else(|| of_task().find(|paths| paths.workspace.is_none())).map(|paths| &paths.patterns[..])
    }
}

/// `TASK` or `TASK/WORKSPACE`; none where it can't be one, but is a part of a pattern (Tekton: pipeline_validation.go, names of
/// tasks are DNS labels).
fn place(head: &str) -> Option<(&str, Option<&str>)> {
    let head = head.trim();
    let (task, workspace) = head.split_once('/').map_or((head, None), |(task, rest)| (task, Some(rest)));
    let is_label = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (!task.is_empty() && task.chars().all(is_label) && workspace != Some("")).then_some((task, workspace))
}
