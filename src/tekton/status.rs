//! What Tekton's controller writes into the status of runs, read-only (Tekton: pkg/apis/pipeline/v1/pipelinerun_types.go,
//! taskrun_types.go; knative: apis/condition_types.go).

use serde_json::Value;

use super::fields::{field, items, text};

/// How far a PipelineRun, a TaskRun or a CustomRun is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It has not ended.
    Running,
    /// It ended well.
    Succeeded,
    /// It failed, was cancelled or took too long.
    Failed,
}

/// A run that a PipelineRun made for one of its tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Child<'a> {
    /// `TaskRun`, `CustomRun` or `PipelineRun`.
    pub kind: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Name of the task in the Pipeline.
    pub task: &'a str,
}

/// Why a task was not started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its own `when`, or an array that its matrix is made from: it would be skipped again.
    Own,
    /// A task before it was skipped or left no result that it needs.
    Parent,
    /// The run ended too early for it.
    Ended,
}

/// The condition `Succeeded` of a run.
pub fn condition(run: &Value) -> Option<&Value> {
    let conditions = items(field(run, "status")?, "conditions");
    conditions.iter().find(|condition| text(condition, "type") == "Succeeded")
}

/// How far a run is.
pub fn state(run: &Value) -> State {
    match condition(run).map_or("", |condition| text(condition, "status")) {
        "True" => State::Succeeded,
        "False" => State::Failed,
        _ => State::Running,
    }
}

/// The runs that `run` made, those of a matrix by the number of their combination.
pub fn children(run: &Value) -> Vec<Child<'_>> {
    let references = field(run, "status").map_or(&[][..], |status| items(status, "childReferences"));
    let child = |reference| Child {
        kind: text(reference, "kind"),
        name: text(reference, "name"),
        task: text(reference, "pipelineTaskName"),
    };
    let mut children: Vec<Child<'_>> = references.iter().map(child).collect();
    let several = |task: &str| references.iter().filter(|other| text(other, "pipelineTaskName") == task).count() > 1;
    let number = |child: &Child<'_>| -> Option<u64> {
        if several(child.task) { child.name.rsplit_once('-')?.1.parse().ok() } else { None }
    };
    children.sort_by_cached_key(|child| number(child));
    children
}

/// How a child of `children` is called: by its task, of several combinations with its number, such as `build[2]`.
pub fn name_of(child: &Child<'_>, children: &[Child<'_>]) -> String {
    let mut own = children.iter().filter(|other| other.task == child.task);
    match own.clone().count() {
        0 | 1 => child.task.to_owned(),
        _ => format!("{}[{}]", child.task, own.position(|other| other == child).unwrap_or_default()),
    }
}

/// Why the task `name` was not started, if it was not and the run says so
/// (Tekton: pipelinerun_types.go, `SkippingReason`).
pub fn skipped(run: &Value, name: &str) -> Option<Skip> {
    let skipped = items(field(run, "status")?, "skippedTasks").iter().find(|skipped| text(skipped, "name") == name)?;
    Some(match text(skipped, "reason") {
        "When Expressions evaluated to false" | "Matrix Parameters have an empty array" => Skip::Own,
        "Parent Tasks were skipped" | "Results were missing" => Skip::Parent,
        _ => Skip::Ended,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn states() {
        let run = |status: &str| json!({"status": {"conditions": [{"type": "Succeeded", "status": status}]}});
        for (run, expected) in [
            (run("True"), State::Succeeded),
            (run("False"), State::Failed),
            (run("Unknown"), State::Running),
            (json!({}), State::Running),
        ] {
            assert_eq!(state(&run), expected, "{run}");
        }
    }

    #[test]
    fn children_by_combination() {
        let child = |name: &str, task: &str| json!({"kind": "TaskRun", "name": name, "pipelineTaskName": task});
        let names: Vec<String> = (0..12).rev().map(|number| format!("r-build-{number}")).collect();
        let mut references: Vec<Value> = names.iter().map(|name| child(name, "build")).collect();
        references.push(child("r-test-3", "test-3"));
        let run = json!({"status": {"childReferences": references}});
        let found: Vec<&str> =
            children(&run).iter().filter(|child| child.task == "build").map(|child| child.name).collect();
        assert_eq!(found, names.iter().rev().map(String::as_str).collect::<Vec<_>>());
        let children = children(&run);
        let shown = |name: &str| name_of(children.iter().find(|child| child.name == name).unwrap(), &children);
        assert_eq!([shown("r-build-0"), shown("r-build-11"), shown("r-test-3")], ["build[0]", "build[11]", "test-3"]);
        // The number at the end of a task's own name is none.
        let run = json!({"status": {"childReferences": [child("r-test-3", "test-3"), child("r-test-1", "test-1")]}});
        let found: Vec<&str> = super::children(&run).iter().map(|child| child.name).collect();
        assert_eq!(found, ["r-test-3", "r-test-1"]);
    }

    #[test]
    fn why_it_was_skipped() {
        for (reason, expected) in [
            ("When Expressions evaluated to false", Skip::Own),
            ("Matrix Parameters have an empty array", Skip::Own),
            ("Parent Tasks were skipped", Skip::Parent),
            ("Results were missing", Skip::Parent),
            ("PipelineRun was stopping", Skip::Ended),
        ] {
            let run = json!({"status": {"skippedTasks": [{"name": "a", "reason": reason}]}});
            assert_eq!(skipped(&run, "a"), Some(expected), "{reason}");
            assert_eq!(skipped(&run, "b"), None);
        }
    }
}
