//! How the tasks of a run are, as the run and its TaskRuns say it.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use serde_json::Value;

use super::{cluster::UserCluster, stored};
use crate::tekton::{
    fields::{field, items, text},
    run::Run,
    status::{self, Skip, State},
    tasks::all_tasks,
};

/// `terminationReason` of a step that did not run, as one before it failed, though its exit code says that it failed too
/// (Tekton: taskrun_types.go, `TerminationReasonSkipped`).
const SKIPPED: &str = "Skipped";

/// That of a step whose failure does not count (`TerminationReasonContinue`).
const CONTINUED: &str = "Continued";

/// A TaskRun, or a task that has none. A CustomRun or a PipelineRun of a task counts as one.
pub struct TaskOutcome {
    /// Name of the task in the Pipeline.
    pub task: String,
    /// `build`, or `build[2]` if it has several combinations.
    pub name: String,
    /// How far it is, in a word or a few.
    pub word: String,
    /// The same for programs; none if there is no TaskRun.
    pub state: Option<State>,
    /// When it began and ended (RFC 3339); empty if that is not so yet.
    pub times: (String, String),
    /// The pod.
    pub pod: String,
    /// When the injected steps began and ended, the restore step's first; none if they did not.
    pub injected: [Option<(String, String)>; 2],
    /// Why it failed.
    pub failure: Option<String>,
}

/// Those of the tasks of `run`, each TaskRun of a matrix apart, in the order of the Pipeline.
pub fn outcomes(cluster: &UserCluster, run: &Value, children: &[Value]) -> Vec<TaskOutcome> {
    let spec = Run::new(run).pipeline_spec().unwrap_or(&Value::Null);
    let references = status::children(run);
    let mut outcomes = Vec::new();
    for task in all_tasks(spec) {
        let task = text(task, "name");
        let own: Vec<_> = references.iter().filter(|child| child.task == task).collect();
        if own.is_empty() {
            outcomes.push(TaskOutcome::without_run(task, task.to_owned(), not_started(run, task)));
        }
        for reference in own {
            let is = |child: &&Value| child["kind"] == reference.kind && child["metadata"]["name"] == reference.name;
            let name = status::name_of(reference, &references);
            outcomes.push(match children.iter().find(is) {
                Some(child) => TaskOutcome::new(cluster, task, name, child),
                None => TaskOutcome::without_run(task, name, "Deleted"),
            });
        }
    }
    outcomes
}

/// Why a task has no TaskRun.
fn not_started(run: &Value, task: &str) -> &'static str {
    match status::skipped(run, task) {
        Some(Skip::Own) => "Skipped (when)",
        Some(Skip::Parent) => "Skipped (a task before it)",
        Some(Skip::Ended) => "Not started",
        None if status::state(run) == State::Running => "Pending",
        None => "Not started",
    }
}

impl TaskOutcome {
    fn new(cluster: &UserCluster, task: &str, name: String, child: &Value) -> Self {
        let state = status::state(child);
        Self {
            task: task.to_owned(),
            name,
            word: stored::word(child).to_owned(),
            state: Some(state),
            times: (stored::time(child, "startTime").to_owned(), stored::time(child, "completionTime").to_owned()),
            pod: stored::time(child, "podName").to_owned(),
            injected: ["tekton-wrap-restore", "tekton-wrap-save"].map(|step| step_times(child, step)),
            failure: (state == State::Failed).then(|| sentence(cluster, child)),
        }
    }

    fn without_run(task: &str, name: String, word: &str) -> Self {
        Self {
            task: task.to_owned(),
            name,
            word: word.to_owned(),
            state: None,
            times: Default::default(),
            pod: String::new(),
            injected: [None, None],
            failure: None,
        }
    }
}

/// When a step of a TaskRun began and ended.
fn step_times(child: &Value, name: &str) -> Option<(String, String)> {
    let steps = items(field(child, "status")?, "steps");
    let step = steps.iter().find(|step| text(step, "name") == name && text(step, "terminationReason") != SKIPPED)?;
    let ended = field(step, "terminated")?;
    Some((text(ended, "startedAt").to_owned(), text(ended, "finishedAt").to_owned()))
}

/// Why a TaskRun failed: what our step said last, where it was ours and its log is still there; else what Tekton says.
fn sentence(cluster: &UserCluster, child: &Value) -> String {
    let status = field(child, "status").unwrap_or(&Value::Null);
    let failed = items(status, "steps").iter().find(|step| {
        let code = field(step, "terminated").and_then(|end| field(end, "exitCode")).and_then(Value::as_i64);
        code.is_some_and(|code| code != 0) && ![SKIPPED, CONTINUED].contains(&text(step, "terminationReason"))
    });
    let ours = failed.filter(|step| text(step, "name").starts_with("tekton-wrap-"));
    let said = ours.and_then(|step| cluster.last_line(text(status, "podName"), text(step, "container")));
    said.unwrap_or_else(|| {
        let message = status::condition(child).map_or("", |condition| text(condition, "message"));
        if message.is_empty() { "it says no reason".to_owned() } else { message.to_owned() }
    })
}
