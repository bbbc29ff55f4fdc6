//! Why there is no rerun.

use crate::{step::InvalidStepConfig, tekton::graph::GraphError};

/// One sentence that says why a run can't be started again as asked, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RerunRefusal {
    /// The run has no injected steps.
    #[error("run {0:?} is not a wrapped run, so that its tasks left no snapshots: start its pipeline again as a whole")]
    NotWrapped(String),
    /// The run has not ended.
    #[error("run {0:?} is still running: wait until it is over, or cancel it (tkn pipelinerun cancel {0})")]
    Running(String),
    /// Nothing of the run failed.
    #[error("no task of run {0:?} failed: give --from TASK to start at one, or neither to run all of it again")]
    NothingFailed(String),
    /// The task of `--from` does not exist.
    #[error("run {run:?} has no task {task:?}: its tasks are {tasks}{hint}")]
    NoTask {
        /// The run.
        run: String,
        /// What was asked for.
        task: String,
        /// Those that there are.
        tasks: String,
        /// Where else it may be.
        hint: String,
    },
    /// A param that the pipeline does not declare.
    #[error("the pipeline has no param {name:?}: it declares {declared}")]
    NoParam {
        /// What was given.
        name: String,
        /// Those that there are.
        declared: String,
    },
    /// A run of a task was deleted.
    #[error(
        "the {kind} {name:?} of task {task:?} is gone, and with it how the task ended and its results: start the whole run again (without --failed and --from)"
    )]
    ChildGone {
        /// `TaskRun` or `CustomRun`.
        kind: String,
        /// Its name.
        name: String,
        /// The task.
        task: String,
    },
    /// A result that is needed was never there.
    #[error(
        "task {user:?} uses the result {result:?} of task {task:?}, which has left none: start at that task (--from {task})"
    )]
    ResultGone {
        /// Who uses it.
        user: String,
        /// Who should have left it.
        task: String,
        /// Its name, as the reference has it.
        result: String,
    },
    /// A result that can't stand as a value.
    #[error(
        "the result {result:?} of task {task:?} has $({variable}) in it, which Tekton would replace in a new run: start at that task (--from {task})"
    )]
    VariableInResult {
        /// Who left it.
        task: String,
        /// Its name, as the reference has it.
        result: String,
        /// The variable.
        variable: String,
    },
    /// A task that runs again shares a volume with one that does not, and a new run gets a new volume.
    #[error(
        "task {user:?} shares the workspace {workspace:?} with task {task:?}, which would be left out; the run binds it to a volumeClaimTemplate, and a new run gets an empty volume: start at that task (--from {task}), or wrap the workspace too"
    )]
    Volume {
        /// Who runs again.
        user: String,
        /// Name of the workspace.
        workspace: String,
        /// Who would be left out.
        task: String,
    },
    /// The pipeline has no graph.
    #[error("the run's pipeline can't be read: {0}")]
    Graph(GraphError),
    /// An injected step of another version.
    #[error(
        "task {task:?} was wrapped by a version of tekton-wrap that this one does not understand ({source}): use that version's program"
    )]
    Step {
        /// The task.
        task: String,
        /// What is wrong.
        source: InvalidStepConfig,
    },
}

/// `"a", "b"`, or `none`.
pub fn list(names: &[&str]) -> String {
    if names.is_empty() {
        return "none".to_owned();
    }
    names.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ")
}
