//! The first run: its pipeline, and how its tasks ended.

use serde_json::Value;

use super::RerunRefusal;
use crate::{
    annotations::RERUN_OF,
    step::stored::is_wrapped,
    tekton::{
        fields::{field, items, text},
        status::{self, Child, Skip, State},
    },
};

/// A wrapped run that is over, with the runs of its tasks.
pub struct FirstRun<'a> {
    /// The PipelineRun.
    pub object: &'a Value,
    /// Its name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The spec of its pipeline.
    pub pipeline: &'a Value,
    references: Vec<Child<'a>>,
    children: &'a [Value],
}

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// All its TaskRuns succeeded.
    Succeeded,
    /// One of them did not.
    Failed,
    /// It was skipped, and would be again if what is before it ends as it did.
    Skipped,
    /// The run was over before it could start.
    NotStarted,
}

impl<'a> FirstRun<'a> {
    /// `object` must be a wrapped run that is over.
    pub fn new(object: &'a Value, children: &'a [Value]) -> Result<Self, RerunRefusal> {
        let metadata = field(object, "metadata").unwrap_or(&Value::Null);
        let name = text(metadata, "name");
        let pipeline = field(object, "spec").and_then(|spec| field(spec, "pipelineSpec"));
        // All that runs again in a rerun may be tasks without a wrapped workspace.
        let is_rerun =
            field(metadata, "annotations").is_some_and(|annotations| !text(annotations, RERUN_OF).is_empty());
        let pipeline = pipeline.filter(|spec| is_rerun || is_wrapped(spec));
        let pipeline = pipeline.ok_or_else(|| RerunRefusal::NotWrapped(name.to_owned()))?;
        if status::state(object) == State::Running {
            return Err(RerunRefusal::Running(name.to_owned()));
        }
        let (uid, namespace) = (text(metadata, "uid"), text(metadata, "namespace"));
        let references = status::children(object);
        Ok(Self { object, name, uid, namespace, pipeline, references, children })
    }

    /// The tasks of its pipeline: `tasks`, then `finally`, as [`crate::tekton::graph::Graph`] counts them.
    pub fn tasks(&self) -> Vec<&'a Value> {
        items(self.pipeline, "tasks").iter().chain(items(self.pipeline, "finally")).collect()
    }

    /// How the task `name` ended.
    pub fn ended(&self, name: &str) -> Result<Ended, RerunRefusal> {
        let runs = self.runs_of(name)?;
        if runs.is_empty() {
            return Ok(match status::skipped(self.object, name) {
                Some(Skip::Own | Skip::Parent) => Ended::Skipped,
                Some(Skip::Ended) | None => Ended::NotStarted,
            });
        }
        let all = runs.iter().all(|run| status::state(run) == State::Succeeded);
        Ok(if all { Ended::Succeeded } else { Ended::Failed })
    }

    /// The TaskRuns of the task `name`, by combination.
    pub fn runs_of(&self, name: &str) -> Result<Vec<&'a Value>, RerunRefusal> {
        let own = self.references.iter().filter(|reference| reference.task == name);
        own.map(|reference| {
            let is = |child: &&Value| {
                text(child, "kind") == reference.kind
                    && field(child, "metadata").is_some_and(|metadata| text(metadata, "name") == reference.name)
            };
            self.children.iter().find(is).ok_or_else(|| RerunRefusal::ChildGone {
                kind: reference.kind.to_owned(),
                name: reference.name.to_owned(),
                task: name.to_owned(),
            })
        })
        .collect()
    }
}
