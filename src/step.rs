//! The contract between the webhook and the steps that it injects.
//!
//! A restore or save step gets one JSON object, [`StepConfig`], in the environment variable [`ENV`]. What is known only when
//! the step runs (the run's name and UID) is in it as `$(context.pipelineRun.…)`, and its value in an environment variable of
//! its own, see [`RUNTIME_VARIABLES`]: Tekton and the kubelet substitute in strings without any escaping, so there is no `$`
//! in the JSON that they see, and no value can become a part of the configuration.
//!
//! It never holds credentials: it ends up in the PipelineRun and in audit logs. A stored run is started again by other
//! versions of the image: RELEASING.md says how this contract may change.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::tekton::{fields::change_texts, variables::substitute};

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
pub const RUNTIME_VARIABLES: [RuntimeVariable; 4] = [
    RuntimeVariable { reference: "context.pipelineRun.uid", env: "TEKTON_WRAP_RUN_UID" },
    RuntimeVariable { reference: "context.pipelineRun.name", env: "TEKTON_WRAP_RUN_NAME" },
    RuntimeVariable { reference: "context.pipelineRun.namespace", env: "TEKTON_WRAP_RUN_NAMESPACE" },
    RuntimeVariable { reference: "context.taskRun.name", env: "TEKTON_WRAP_TASK_RUN" },
];

/// The folder of the program, of the workspaces and of the state in an injected step.
pub const ROOT: &str = "/tekton-wrap";

/// Where an injected step finds the volume that only injected steps mount: what restore saw, for save to compare with.
pub const STATE_DIR: &str = "/tekton-wrap/state";

/// Where the Secret of param `credentials` is mounted in injected steps.
pub const CREDENTIALS_DIR: &str = "/tekton-wrap/credentials";

/// Where the ConfigMap of param `ca` is mounted in injected steps.
pub const CA_DIR: &str = "/tekton-wrap/ca";

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
    /// The wrapped workspaces of the task that this step restores or saves.
    pub workspaces: Vec<WorkspaceStep>,
}

/// How a step tells which combination of its task's matrix it belongs to: there is no variable for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MatrixStep {
    /// Name of the TaskRun. Its end is the number of the combination.
    pub task_run: String,
    /// The TaskRun's uncut name if there is only one combination: then it has no number (Tekton: pipelinerunresolution.go
    /// `getNewRunNames`). None if there are certainly more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub single: Option<String>,
    /// How many combinations there may be.
    pub most: u32,
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
    /// directory that the container runtime made as mount point is nobody's change.
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

/// Param `conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnConflict {
    /// The join fails and lists the paths and both tasks.
    #[default]
    Fail,
    /// The later task in pipeline order wins.
    Last,
}

/// A rule of param `conflict`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConflictRule {
    /// Which paths of a workspace: a pattern as gitignore has them, see [`crate::globs::Glob`].
    pub paths: String,
    /// What becomes of them.
    pub then: OnConflict,
}

/// Param `compression`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// `application/vnd.oci.image.layer.v1.tar+zstd`
    #[default]
    Zstd,
    /// `application/vnd.oci.image.layer.v1.tar+gzip`
    Gzip,
    /// `application/vnd.oci.image.layer.v1.tar`
    None,
}

/// A matrix has more combinations than were allowed for when the run was created.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "combination {combination} of the matrix of task {task:?} can't be told apart from other tasks: a matrix whose values come from results may have {most} combinations at most"
)]
pub struct TooManyCombinations {
    task: String,
    combination: u32,
    most: u32,
}

/// The environment of a step is not what the webhook makes it.
#[derive(Debug, thiserror::Error)]
pub enum InvalidStepConfig {
    /// The variable [`ENV`] can't be read.
    #[error("the environment variable {ENV} is not the configuration of a step: {0}")]
    Json(#[from] serde_json::Error),
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

    /// The same for this one combination of a matrix, as if it were an ordinary task. Messages and snapshots name it
    /// `build[2]`.
    pub fn of_combination(self) -> Result<Self, TooManyCombinations> {
        let Some(matrix) = &self.matrix else { return Ok(self) };
        let combination = matrix.combination(&self.task);
        if combination >= matrix.most {
            return Err(TooManyCombinations { task: self.task, combination, most: matrix.most });
        }
        let task = format!("{}[{combination}]", self.task);
        Ok(Self { order: self.order.saturating_add(combination), task, matrix: None, ..self })
    }

    /// Whether `order` is in one of the inclusive `ranges`.
    pub fn in_ranges(ranges: &[(u32, u32)], order: u32) -> bool {
        ranges.iter().any(|&(first, last)| (first..=last).contains(&order))
    }

    /// Tag of the snapshot that the task at `order` leaves of `workspace` in run `run`, in the repository of the target:
    /// `<run uid>.<order>.<workspace>`. Characters that a tag can't hold become `-`; a name that had to be changed or cut
    /// carries a part of its digest, so that two workspaces never share a tag
    /// (OCI distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
    pub fn tag(run: &str, order: u32, workspace: &str) -> String {
        const ROOM: usize = 64;
        let plain: String =
            workspace.chars().map(|c| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '-' }).collect();
        if plain == workspace && plain.len() <= ROOM {
            return format!("{run}.{order}.{plain}");
        }
        let digest = crate::digest::Digest::of(workspace.as_bytes()).hex();
        format!("{run}.{order}.{}-{}", &plain[..plain.len().min(ROOM - 9)], &digest[..8])
    }
}

impl MatrixStep {
    /// The number of the combination of `task`.
    fn combination(&self, task: &str) -> u32 {
        if self.single.as_ref().is_some_and(|single| is_single(&self.task_run, single, task)) {
            return 0;
        }
        let number = self.task_run.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        number.unwrap_or_default()
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

/// Whether `name` is the TaskRun's name `single`, which is cut and hashed if it is too long: the hash is in front of the
/// task's name or of the beginning of it (knative: kmeta/names.go `ChildName`).
fn is_single(name: &str, single: &str, task: &str) -> bool {
    const LONGEST: usize = 63;
    const HASH: usize = 32;
    if single.len() <= LONGEST {
        return name == single;
    }
    let suffix = format!("-{task}");
    (0..=suffix.len()).filter_map(|end| name.strip_suffix(suffix.get(..end)?)).any(|rest| {
        let start = rest.len().saturating_sub(HASH);
        rest.len() >= HASH && rest[start..].bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    })
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
    fn combinations_of_a_matrix() {
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        let long = "a-task-whose-name-is-longer-than-a-hash-leaves-3-room";
        for (task, run, task_run, combination) in [
            ("build-2", "run", None, None),
            ("build-2", "run", Some("run-build-2".to_owned()), Some(0)),
            ("build-2", "run", Some("run-build-2-0".to_owned()), Some(0)),
            ("build-2", "run", Some("run-build-2-13".to_owned()), Some(13)),
            // A task whose name is a number.
            ("1", "run", Some("run-1".to_owned()), Some(0)),
            ("1", "run", Some("run-1-1".to_owned()), Some(1)),
            ("1", "run-1", Some("run-1-1".to_owned()), Some(0)),
            // Cut and hashed, the name of the task behind the hash, or the beginning of it.
            ("build-2", &"r".repeat(60), Some(format!("{}{hash}-build-2", "r".repeat(23))), Some(0)),
            ("build-2", &"r".repeat(60), Some(format!("{}{hash}-build-2-7", "r".repeat(21))), Some(7)),
            (long, "run", Some(format!("run{hash}-{}", &long[..27])), Some(0)),
            (long, "run", Some(format!("run{hash}-{}-3", &long[..24])), Some(3)),
            (long, &"r".repeat(60), Some(format!("{}{hash}", "r".repeat(31))), Some(0)),
            (long, &"r".repeat(60), Some(format!("{}{}-12", "r".repeat(31), &hash[..29])), Some(12)),
        ] {
            let config = StepConfig {
                run: String::new(),
                task: task.to_owned(),
                order: 7,
                matrix: task_run.map(|task_run| MatrixStep {
                    task_run,
                    single: Some(format!("{run}-{task}")),
                    most: 14,
                }),
                conflict: OnConflict::Fail,
                conflict_rules: Vec::new(),
                compression: Compression::Zstd,
                expires: None,
                workspaces: Vec::new(),
            };
            let shown = format!("{:?}", config.matrix);
            let of = config.of_combination().unwrap();
            let name = combination.map_or(task.to_owned(), |number| format!("{task}[{number}]"));
            assert_eq!((of.order, of.task), (7 + combination.unwrap_or(0), name), "{shown}");
        }
    }

    #[test]
    fn combinations_that_are_known_to_be_several() {
        let config = |number: u32| {
            let text = format!(
                r#"{{"run":"u","task":"1","order":7,"matrix":{{"taskRun":"run-1-{number}","most":2}},"workspaces":[]}}"#
            );
            serde_json::from_str::<StepConfig>(&text).unwrap()
        };
        assert_eq!(config(1).of_combination().unwrap().order, 8);
        assert_eq!(
            config(2).of_combination().unwrap_err().to_string(),
            r#"combination 2 of the matrix of task "1" can't be told apart from other tasks: a matrix whose values come from results may have 2 combinations at most"#
        );
    }

    #[test]
    fn tags() {
        let uid = "0f0e8a3c-5b7d-4a55-9a8f-1c2d3e4f5a6b";
        assert_eq!(StepConfig::tag(uid, 3, "sources"), format!("{uid}.3.sources"));
        let (one, other) = (StepConfig::tag(uid, 3, "a b"), StepConfig::tag(uid, 3, "a/b"));
        assert!(one.starts_with(&format!("{uid}.3.a-b-")) && one != other);
        let long = StepConfig::tag(uid, 3000, &"w".repeat(300));
        assert!(long.len() <= 128 && format!("quay.io/a/b:{long}").parse::<crate::target::Target>().is_ok());
    }
}
