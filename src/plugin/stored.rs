//! A wrapped run as it is stored: the runs of its tasks, its workspaces, and the images that these are in.

use serde_json::Value;

use super::{
    PluginError,
    cluster::{CUSTOM_RUN, PIPELINE_RUN, TASK_RUN, UserCluster},
    place,
};
use crate::{
    annotations::RERUN_OF,
    step::{
        StepConfig, WorkspaceStep,
        stored::{Identity, Injected, injected},
    },
    target::Target,
    tekton::{
        fields::{field, set, text},
        run::Run,
        status,
        tasks::all_tasks,
    },
};

/// A wrapped run.
pub struct StoredRun<'a> {
    object: &'a Value,
    identity: Identity<'a>,
    /// The injected steps, each with the name of its task, in the order of the pipeline.
    steps: Vec<(&'a str, Injected)>,
}

impl<'a> StoredRun<'a> {
    /// `object` must have injected steps.
    pub fn new(object: &'a Value) -> Result<Self, PluginError> {
        let identity = Identity::of(object);
        let spec = Run::new(object).pipeline_spec().unwrap_or(&Value::Null);
        let mut steps = Vec::new();
        for task in all_tasks(spec) {
            let name = text(task, "name");
            let unreadable = |e| PluginError::Argument(format!("task {name:?} of run {:?}: {e}", identity.name));
            steps.extend(injected(task).map_err(unreadable)?.into_iter().map(|step| (name, step)));
        }
        if steps.is_empty() {
            return Err(PluginError::NotWrapped(identity.name.to_owned()));
        }
        Ok(Self { object, identity, steps })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.identity.name
    }

    /// Its injected steps, each with the name of its task, in the order of the Pipeline.
    pub fn steps(&self) -> &[(&'a str, Injected)] {
        &self.steps
    }

    /// Whether the repository of a workspace's target is known only when the run exists.
    pub fn repository_has_uid(&self, workspace: &str) -> bool {
        let target = self.find(workspace, |_| true).map_or("", |(_, found)| &found.target);
        let (repository, _) = target.rsplit_once(':').unwrap_or((target, ""));
        repository.contains("$(context.pipelineRun.uid)")
    }

    /// The names of its wrapped workspaces, each once, in the order of their first use.
    pub fn workspaces(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for workspace in self.steps.iter().flat_map(|(_, step)| &step.config.workspaces) {
            if !names.contains(&workspace.name.as_str()) {
                names.push(&workspace.name);
            }
        }
        names
    }

    /// The image that has the last state of a workspace, if it may be asked for.
    pub fn target(&self, workspace: &str) -> Result<Target, PluginError> {
        let target = self.named_target(workspace)?;
        place::check(self.name(), &target)?;
        Ok(target)
    }

    /// The same, wherever it is: to be shown.
    pub fn named_target(&self, workspace: &str) -> Result<Target, PluginError> {
        let (_, found) = self.find(workspace, |_| true).ok_or_else(|| self.no_workspace(workspace))?;
        Ok(self.identity.resolved(&found.target).parse()?)
    }

    /// The snapshot that the task `name` (`build`, or `build[2]` of a matrix) leaves of a workspace.
    pub fn snapshot(&self, name: &str, workspace: &str) -> Result<Target, PluginError> {
        let target = self.target(workspace)?;
        let (task, combination) = match name.strip_suffix(']').and_then(|name| name.split_once('[')) {
            Some((task, number)) => (task, number.parse().unwrap_or(u32::MAX)),
            None => (name, 0),
        };
        let saves = |found: &(&str, Injected)| found.0 == task && found.1.saves;
        if let Some((config, _)) = self.find(workspace, saves) {
            let order = config.order.saturating_add(combination);
            return Ok(target.with_tag(&StepConfig::tag(self.identity.uid, order, workspace)));
        }
        let tasks: Vec<String> =
            self.steps.iter().filter(|(_, step)| step.saves).map(|(task, _)| format!("{task:?}")).collect();
        let earlier = match Run::new(self.object).metadata("annotations").map_or("", |all| text(all, RERUN_OF)) {
            "" => String::new(),
            run => format!("; it is a rerun of {run:?}, which may have it"),
        };
        Err(PluginError::Argument(format!(
            "no task {task:?} of run {:?} saves workspace {workspace:?}; those that save are {}{earlier}",
            self.identity.name,
            tasks.join(", ")
        )))
    }

    fn find(
        &self,
        workspace: &str,
        wanted: impl Fn(&(&str, Injected)) -> bool,
    ) -> Option<(&StepConfig, &WorkspaceStep)> {
        let mut all = self.steps.iter().filter(|step| wanted(step));
        all.find_map(|(_, step)| {
            let found = step.config.workspaces.iter().find(|found| found.name == workspace)?;
            Some((&step.config, found))
        })
    }

    fn no_workspace(&self, name: &str) -> PluginError {
        let known: Vec<String> = self.workspaces().iter().map(|name| format!("{name:?}")).collect();
        let run = self.identity.name;
        PluginError::Argument(format!("run {run:?} has no wrapped workspace {name:?}: it has {}", known.join(", ")))
    }
}

/// The runs of tasks that the status of `run` names, as far as they still exist.
pub fn children(cluster: &UserCluster, run: &Value) -> Result<Vec<Value>, PluginError> {
    let mut children = Vec::new();
    for child in status::children(run) {
        let kind = match child.kind {
            "CustomRun" => CUSTOM_RUN,
            "PipelineRun" => PIPELINE_RUN,
            _ => TASK_RUN,
        };
        if let Some(mut found) = cluster.find(kind, child.name)? {
            // Objects that are read by name need not say their kind.
            found.as_object_mut().into_iter().for_each(|found| set(found, "kind", kind.name.into()));
            children.push(found);
        }
    }
    Ok(children)
}

/// How far a run is, in a word: the reason of its condition.
pub fn word(run: &Value) -> &str {
    let reason = status::condition(run).map_or("", |condition| text(condition, "reason"));
    match (reason, status::state(run)) {
        ("", status::State::Running) => "Pending",
        ("", status::State::Succeeded) => "Succeeded",
        ("", status::State::Failed) => "Failed",
        (reason, _) => reason,
    }
}

/// A field of the status that is a point in time.
pub fn time<'a>(run: &'a Value, name: &str) -> &'a str {
    field(run, "status").map_or("", |status| text(status, name))
}
