//! The contract between the webhook and the steps that it injects.
//!
//! A restore or save step gets one JSON object, [`StepConfig`], in the environment variable [`ENV`]. What is known only when
//! the step runs (the run's name and UID) is in it as `$(context.pipelineRun.…)`, and its value in an environment variable of
//! its own, see [`RUNTIME_VARIABLES`]: Tekton and the kubelet substitute in strings without any escaping, so there is no `$`
//! in the JSON that they see, and no value can become a part of the configuration.
//!
//! It never holds credentials: it ends up in the PipelineRun and in audit logs. A stored run is started again by other
//! versions of the image: RELEASING.md says how this contract may change.

mod cache;
mod matrix;
mod options;
pub mod stored;
mod tags;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    cache::{CACHE_PLACES, CacheFiles, CacheStep, HASH},
    matrix::{MatrixStep, TooManyCombinations},
    options::{Compression, ConflictRule, Keep, OnConflict},
    tags::{cache_prefix, cache_tag, is_cache_tag},
};
use crate::tekton::{fields::change_texts, variables::substitute};

/// The revision of this contract. It is raised whenever a release adds to it: steps of an image with a lower one refuse what they
/// don't know.
pub const CONTRACT: u32 = 1;

/// The environment variable of an injected step that holds its [`StepConfig`].
pub const ENV: &str = "TEKTON_WRAP_STEP";

/// A variable whose value is known only when a step runs.
pub struct RuntimeVariable {
    /// Tekton's name for it.
    pub reference: &'static str,
    /// The environment variable of the step that holds its value.
    pub env: &'static str,
}

/// All variables that may stand in a [`StepConfig`]. Their values are names and UIDs that Kubernetes has checked.
pub const RUNTIME_VARIABLES: [RuntimeVariable; 5] = [
    RuntimeVariable { reference: "context.pipelineRun.uid", env: "TEKTON_WRAP_RUN_UID" },
    RuntimeVariable { reference: "context.pipelineRun.name", env: "TEKTON_WRAP_RUN_NAME" },
    RuntimeVariable { reference: "context.pipelineRun.namespace", env: "TEKTON_WRAP_RUN_NAMESPACE" },
    RuntimeVariable { reference: "context.taskRun.name", env: "TEKTON_WRAP_TASK_RUN" },
    RuntimeVariable { reference: "context.task.retry-count", env: "TEKTON_WRAP_RETRY" },
];

/// The folder of the program, of the workspaces and of the state in an injected step.
pub const ROOT: &str = "/tekton-wrap";

/// Where an injected step finds the volume that only injected steps mount: what restore saw, for save to compare with.
pub const STATE_DIR: &str = "/tekton-wrap/state";

/// Where the Secret of param `credentials` is mounted in injected steps.
pub const CREDENTIALS_DIR: &str = "/tekton-wrap/credentials";

/// Where the ConfigMap of param `ca` is mounted in injected steps.
pub const CA_DIR: &str = "/tekton-wrap/ca";

/// Where a task's results are (Tekton: pkg/apis/pipeline/paths.go `DefaultResultPath`).
pub const RESULTS_DIR: &str = "/tekton/results";

/// Below this folder each wrapped workspace's whole volume is mounted in the injected steps.
pub const WORKSPACE_DIR: &str = "/tekton-wrap/workspace";

/// The program in the image of the injected steps.
pub const PROGRAM: &str = "/tekton-wrap/bin/tekton-wrap";

/// The configuration of a restore or save step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepConfig {
    /// UID of the PipelineRun.
    pub run: String,
    /// Name of the task in the Pipeline.
    pub task: String,
    /// The task's place in pipeline order: a topological order that follows the Pipeline's list where the graph allows
    /// it. Unique in the run. Later tasks win under [`OnConflict::Last`]. The combinations of a matrix are tasks of their
    /// own, parallel to each other: the first one has this order, the next one the next.
    pub order: u32,
    /// If the task has a matrix: which of its combinations this is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matrix: Option<MatrixStep>,
    /// What a join does with paths that parallel tasks changed differently.
    #[serde(default, skip_serializing_if = "is_default")]
    pub conflict: OnConflict,
    /// What holds for some paths instead, the first rule that matches.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflict_rules: Vec<ConflictRule>,
    /// How layers are compressed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub compression: Compression,
    /// How long the snapshots are to be kept, as the user wrote it (`7d`), for `quay.expires-after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The same for the target; none: it is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_expires: Option<String>,
    /// What is left when the run is over.
    #[serde(default, skip_serializing_if = "is_default")]
    pub keep: Keep,
    /// Of a save step that runs after failures of the task's own steps too: what it has to know about these.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_failure: Option<AfterFailure>,
    /// In a rerun: the runs whose tasks don't run again, and whose snapshots stand for them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierRun>,
    /// In a rerun: results of such tasks that this step gives in their place, by name. Strings, arrays or objects of strings.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub results: BTreeMap<String, Value>,
    /// The wrapped workspaces of the task that this step restores or saves.
    pub workspaces: Vec<WorkspaceStep>,
}

/// A run that a rerun goes on from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EarlierRun {
    /// UID of the PipelineRun.
    pub run: String,
    /// Pipeline order of its tasks that don't run again: inclusive ranges, ascending.
    pub tasks: Vec<(u32, u32)>,
}

/// Param `failed`: the task's own steps let the save step run after a failure, and it fails in their place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AfterFailure {
    /// The steps that may have failed, in their order.
    pub steps: Vec<OwnStep>,
    /// How often the task is tried again.
    #[serde(default, skip_serializing_if = "is_default")]
    pub retries: u32,
    /// How often it has been: a number. A try that is not the last one saves nothing.
    pub retry: String,
}

/// A step of the task itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OwnStep {
    /// Its name.
    pub name: String,
    /// The file with its exit code.
    pub exit_code: String,
}

/// One workspace of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkspaceStep {
    /// Name of the workspace in the Pipeline.
    pub name: String,
    /// Where its whole volume is mounted in the step.
    pub path: String,
    /// The param `target` for this workspace, see [`crate::target::Target`].
    pub target: String,
    /// The image that the workspace starts with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether the run says how much room it has. If not, a restore step warns where its files take most of it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub sized: bool,
    /// The nearest ancestors that save this workspace; for each optional one, its own nearest ancestors too (flat, in
    /// pipeline order). Their snapshots name all further ancestors. Empty in a save step: the restore step in front of it
    /// leaves what it found in [`STATE_DIR`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<Predecessor>,
    /// Pipeline order of the saving tasks that are neither ancestors nor descendants: inclusive ranges, ascending. In a
    /// matrix all its combinations are among them, the step's own too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parallel: Vec<(u32, u32)>,
    /// Paths in it at which containers of the task mount something else: what is there stays there, and an empty file or
    /// directory that the container runtime made as mount point is not a change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<String>,
    /// Param `paths`: patterns as gitignore has them, see [`crate::globs::Globs`]. Only what they match is restored; empty:
    /// everything.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Those of `parallel` whose changes a later task, one that can't be skipped, restores together with this task's:
    /// inclusive ranges, ascending.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub joined: Vec<(u32, u32)>,
    /// Param `cache`: what of it starts from a cache, in folders that don't lie in each other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheStep>,
}

/// A task whose snapshot a restore step starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Predecessor {
    /// Name of the task in the Pipeline.
    pub task: String,
    /// Its place in pipeline order.
    pub order: u32,
    /// If it stands for several combinations of a matrix: the place of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Whether it may have been skipped or have failed: then an absent snapshot is not an error.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optional: bool,
}

/// The environment of a step is not what the webhook makes it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidStepConfig {
    /// The variable [`ENV`] can't be read.
    #[error("the environment variable {ENV} is not the configuration of a step: {0}")]
    Json(#[from] serde_json::Error),
    /// The variable is there twice.
    #[error("the environment variable {ENV} is there twice, so that it is not known which one the step got")]
    Several,
    /// The value of a runtime variable is absent.
    #[error("the environment variable {ENV} needs $({reference}), but the environment variable {env} is not set")]
    NoValue {
        /// The variable.
        reference: &'static str,
        /// Where its value should be.
        env: &'static str,
    },
}

impl StepConfig {
    /// The environment variables of a step with this configuration, each with its value before Tekton's substitution.
    pub fn to_env(&self) -> Vec<(&'static str, String)> {
        // A struct of strings and numbers is always JSON.
        let json = serde_json::to_string(self).unwrap_or_default();
        let used = RUNTIME_VARIABLES.iter().filter(|variable| json.contains(&format!("$({})", variable.reference)));
        let values: Vec<_> = used.map(|variable| (variable.env, format!("$({})", variable.reference))).collect();
        std::iter::once((ENV, json.replace('$', "\\u0024"))).chain(values).collect()
    }

    /// The configuration in `json`, the value of [`ENV`], with the values of runtime variables from `env`.
    pub fn parse(json: &str, env: impl Fn(&str) -> Option<String>) -> Result<Self, InvalidStepConfig> {
        let mut config: Value = serde_json::from_str(json)?;
        let mut missing = None;
        change_texts(&mut config, &mut |text| {
            substitute(text, |reference| {
                let variable = RUNTIME_VARIABLES.iter().find(|variable| variable.reference == reference)?;
                let value = env(variable.env);
                if value.is_none() {
                    missing.get_or_insert(variable);
                }
                value
            })
        });
        match missing {
            Some(RuntimeVariable { reference, env }) => Err(InvalidStepConfig::NoValue { reference, env }),
            None => Ok(serde_json::from_value(config)?),
        }
    }

    /// UID of the run whose snapshot counts for the task at `order`: this one, or an earlier one in a rerun.
    pub fn run_of(&self, order: u32) -> &str {
        let earlier = self.earlier.iter().find(|earlier| Self::in_ranges(&earlier.tasks, order));
        earlier.map_or(&self.run, |earlier| &earlier.run)
    }

    /// Whether `order` is in one of the inclusive `ranges`.
    pub fn in_ranges(ranges: &[(u32, u32)], order: u32) -> bool {
        ranges.iter().any(|&(first, last)| (first..=last).contains(&order))
    }
}

impl AfterFailure {
    /// Whether Tekton will not try the task again. It is the last try too if the count can't be read.
    pub fn is_last_try(&self) -> bool {
        self.retry.parse::<u32>().map_or(true, |retry| retry >= self.retries)
    }
}

impl Predecessor {
    /// How messages name the task at `order`, one of those that this stands for.
    pub fn name_of(&self, order: u32) -> String {
        match self.last {
            None => self.task.clone(),
            Some(_) => format!("{}[{}]", self.task, order.saturating_sub(self.order)),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(target: &str) -> StepConfig {
        let json = serde_json::json!({
            "run": "$(context.pipelineRun.uid)", "task": "t", "order": 0,
            "workspaces": [{"name": "ws", "path": "/p", "target": target}],
        });
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn no_value_becomes_configuration() {
        let written = config("quay.io/$(context.pipelineRun.name)/x:$(params.evil)");
        let env = written.to_env();
        let names: Vec<&str> = env.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, [ENV, "TEKTON_WRAP_RUN_UID", "TEKTON_WRAP_RUN_NAME"]);
        // What Tekton and the kubelet would substitute in.
        assert!(!env[0].1.contains('$'), "{}", env[0].1);
        let evil = r#"x","base":"evil"#;
        let read = StepConfig::parse(&env[0].1, |name| Some(format!("{name}{evil}"))).unwrap();
        let target = format!("quay.io/TEKTON_WRAP_RUN_NAME{evil}/x:$(params.evil)");
        assert_eq!(read, StepConfig { run: format!("TEKTON_WRAP_RUN_UID{evil}"), ..config(&target) });
        let error = StepConfig::parse(&env[0].1, |_| None).unwrap_err().to_string();
        assert!(error.contains("TEKTON_WRAP_RUN_UID is not set"), "{error}");
    }

    #[test]
    fn runs_of_before_the_runtime_variables() {
        let stored = serde_json::to_string(&config("quay.io/me/x")).unwrap().replace("$(context.pipelineRun.uid)", "u");
        let read = StepConfig::parse(&stored, |_| None).unwrap();
        assert_eq!(read, StepConfig { run: "u".to_owned(), ..config("quay.io/me/x") });
    }

    #[test]
    fn tasks_of_earlier_runs() {
        let json = r#"{"run":"new","task":"t","order":7,"earlier":[{"run":"one","tasks":[[0,1],[4,4]]},{"run":"two","tasks":[[2,2]]}],"workspaces":[]}"#;
        let config: StepConfig = serde_json::from_str(json).unwrap();
        assert_eq!([0, 1, 2, 3, 4, 7].map(|order| config.run_of(order)), ["one", "one", "two", "new", "one", "new"]);
        assert_eq!(serde_json::to_string(&config).unwrap(), json);
    }

    #[test]
    fn the_last_try_and_names_of_predecessors() {
        for (retry, last) in
            [("0", false), ("1", false), ("2", true), ("3", true), ("", true), ("$(context.task.retry-count)", true)]
        {
            let after: AfterFailure =
                serde_json::from_value(serde_json::json!({"steps": [], "retry": retry, "retries": 2})).unwrap();
            assert_eq!(after.is_last_try(), last, "{retry:?}");
        }
        for (last, order, name) in [(None, 4, "build"), (Some(6), 4, "build[0]"), (Some(6), 6, "build[2]")] {
            let predecessor = Predecessor { task: "build".to_owned(), order: 4, last, optional: false };
            assert_eq!(predecessor.name_of(order), name);
        }
    }
}
