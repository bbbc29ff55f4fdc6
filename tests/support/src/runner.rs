//! Plays a PipelineRun on this machine as Tekton would on a cluster: tasks in graph order, each step a process with a
//! root of its own, so that paths such as `/workspace/sources` are true paths. For tests and the demo; the product
//! doesn't contain it.
//!
//! What it does follows Tekton v1.15 (docs/pipelines.md, docs/tasks.md and the files that the parts name). A step's image
//! is not used: its commands are this machine's. What it can't play (custom tasks, objects behind resolvers, most of CEL) fails
//! the run with a sentence. Where it and a real Tekton disagree, it is wrong.
//!
//! | part | what it is for |
//! |---|---|
//! | [`pipeline`] | which task runs when, which is skipped, what the run ends as |
//! | [`taskrun`] | one TaskRun: its variables, its attempts, its results |
//! | [`pod`] | one attempt: volumes, mounts, steps one after the other |
//! | [`container`] | one step's process in its own mount namespace |
//! | [`step_action`] | what a StepAction gives a step |
//! | [`graph`], [`when`], [`cel`], [`template`], [`replace`], [`vars`], [`json`] | pure rules |

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
};

use serde_json::Value;

mod cel;
mod container;
mod env;
mod graph;
mod json;
mod matrix;
mod pipeline;
mod pod;
mod replace;
mod step_action;
mod taskrun;
mod template;
mod vars;
mod volume;
mod when;

/// Rules that need no run, for their tests.
pub mod rules {
    pub use super::{cel::holds, env::expand, graph::parents, pod::duration, template::inherit, vars::Vars};
}

/// What a play needs besides the run.
#[derive(Debug, Default)]
pub struct Runner {
    /// The `tekton-wrap` that the injected steps execute.
    pub program: PathBuf,
    /// What the run names: Tasks, StepActions, ConfigMaps and Secrets, as JSON.
    pub objects: Vec<Value>,
    /// What Tekton's creds-init would write to `$(credentials.path)/.docker/config.json`.
    pub docker_config: Option<Value>,
    /// Folders of this machine that every step sees under the same path, for example that of a `dir://` target.
    pub shared: Vec<PathBuf>,
    /// Whether each line of log is also printed, as it comes.
    pub echo: bool,
}

/// How a run ended.
#[derive(Debug)]
pub struct Outcome {
    /// Name of the run, also where it had only a `generateName`.
    pub name: String,
    /// UID of the run, made up where it had none.
    pub uid: String,
    /// Why the run failed; none where it succeeded.
    pub failure: Option<String>,
    /// The tasks in the pipeline's order, `finally` last.
    pub tasks: Vec<TaskRun>,
    /// All lines that the steps printed, as they came.
    pub log: Vec<Line>,
}

/// How a task ended.
#[derive(Clone, Debug)]
pub struct TaskRun {
    /// Name of the task in the pipeline.
    pub task: String,
    /// What became of it.
    pub status: Status,
    /// Its results: strings, arrays or objects.
    pub results: BTreeMap<String, Value>,
    /// How often it was started: more than once with `retries`.
    pub attempts: u32,
}

/// What became of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Status {
    /// All its steps succeeded.
    Succeeded,
    /// Why it failed.
    Failed(String),
    /// It was not started.
    Skipped(Skip),
}

/// Why a task was not started (Tekton: v1/pipelinerun_types.go, SkippingReason).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Its own `when` was false.
    When,
    /// A task that it follows was skipped.
    Parent,
    /// A result that it uses does not exist.
    Results,
    /// Another task failed before it could start.
    Stopping,
}

/// A line of a step's log.
#[derive(Clone, Debug)]
pub struct Line {
    /// Name of the task in the pipeline.
    pub task: String,
    /// Name of the step.
    pub step: String,
    /// What it printed, standard output and error together, without the line's end.
    pub text: String,
}

/// Collects the lines of all steps.
struct Log {
    lines: Mutex<Vec<Line>>,
    echo: bool,
}

/// Says in one sentence why no step can be played on this machine.
pub fn check() -> Result<(), String> {
    container::isolation().map(drop)
}

/// The command that makes a mount namespace here; else the sentence of [`check`].
pub fn isolation() -> Result<&'static [&'static str], String> {
    container::isolation()
}

impl Runner {
    /// Plays `run`, a PipelineRun with its `pipelineSpec` inlined.
    pub fn play(&self, run: &Value) -> Outcome {
        let log = Log { lines: Mutex::default(), echo: self.echo };
        let (name, uid) = pipeline::identity(run);
        let (failure, tasks) = match pipeline::play(self, run, &name, &uid, &log) {
            Ok((failure, tasks)) => (failure, tasks),
            Err(problem) => (Some(problem), Vec::new()),
        };
        Outcome { name, uid, failure, tasks, log: log.lines.into_inner().unwrap() }
    }

    /// The object of that kind and name.
    fn object(&self, kind: &str, name: &str) -> Result<&Value, String> {
        let is = |o: &&Value| o["kind"] == kind && o["metadata"]["name"] == name;
        self.objects.iter().find(is).ok_or_else(|| format!("there is no {kind} {name:?}"))
    }
}

impl Outcome {
    /// The task of that name.
    ///
    /// # Panics
    /// Where the pipeline has none.
    pub fn task(&self, name: &str) -> &TaskRun {
        self.tasks.iter().find(|t| t.task == name).unwrap_or_else(|| panic!("no task {name} in {:?}", self.tasks))
    }

    /// What a task's steps printed; of one step only where `step` names one.
    pub fn log_of(&self, task: &str, step: Option<&str>) -> String {
        let wanted = |l: &&Line| l.task == task && step.is_none_or(|s| l.step == s);
        self.log.iter().filter(wanted).map(|l| format!("{}\n", l.text)).collect()
    }

    /// All that was printed, each line with its task and step.
    pub fn full_log(&self) -> String {
        self.log.iter().map(|l| format!("{l}\n")).collect()
    }
}

impl std::fmt::Display for Line {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "[{} : {}] {}", self.task, self.step, self.text)
    }
}

impl Log {
    fn add(&self, line: Line) {
        let mut lines = self.lines.lock().unwrap();
        if self.echo {
            println!("{line}");
        }
        lines.push(line);
    }
}

/// Removes a folder even where steps left folders in it that their owner may not enter.
fn remove_all(dir: &Path) {
    if std::fs::remove_dir_all(dir).is_err() {
        let _ = std::process::Command::new("chmod").args(["-R", "u+rwx"]).arg(dir).status();
        let _ = std::fs::remove_dir_all(dir);
    }
}
