//! The contract between the webhook and the steps that it injects.
//!
//! A restore or save step gets one JSON text, [`StepConfig`], in the environment variable [`ENV`]. It holds
//! `$(context.pipelineRun.…)` variables when the webhook writes it and their values when the step reads it, because
//! Tekton substitutes them in the steps of an embedded task (Tekton: pkg/reconciler/pipelinerun/resources/apply.go).
//! It never holds credentials: it ends up in the PipelineRun and in audit logs.

use serde::{Deserialize, Serialize};

/// The environment variable of an injected step that holds its [`StepConfig`].
pub const ENV: &str = "TEKTON_WRAP_STEP";

/// The folder of the program, of the workspaces and of the state in an injected step.
pub const ROOT: &str = "/tekton-wrap";

/// Where an injected step finds the volume that only injected steps mount: what restore saw, for save to compare with.
pub const STATE_DIR: &str = "/tekton-wrap/state";

/// Below this folder each wrapped workspace's whole volume is mounted in the injected steps.
pub const WORKSPACE_DIR: &str = "/tekton-wrap/workspace";

/// The program in the image of the injected steps.
pub const PROGRAM: &str = "/tekton-wrap/bin/tekton-wrap";

/// All that a restore or a save step has to know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepConfig {
    /// UID of the PipelineRun.
    pub run: String,
    /// Name of the task in the Pipeline.
    pub task: String,
    /// The task's place in pipeline order: a topological order that follows the Pipeline's own where the graph leaves it
    /// open. Unique in the run. Later tasks win under [`Conflict::Last`]. The combinations of a matrix are tasks of their
    /// own, parallel to each other: the first one has this order, the next one the next.
    pub order: u32,
    /// Name of the TaskRun where the task has a matrix: its end says which combination this is, see
    /// [`StepConfig::own_order`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_run: Option<String>,
    /// What a join does with paths that parallel tasks changed differently.
    #[serde(default, skip_serializing_if = "is_default")]
    pub conflict: Conflict,
    /// How layers are compressed.
    #[serde(default, skip_serializing_if = "is_default")]
    pub compression: Compression,
    /// How long the snapshots are to be kept, as the user wrote it (`7d`); for `quay.expires-after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The wrapped workspaces of the task that this step restores or saves.
    pub workspaces: Vec<WorkspaceStep>,
}

/// One workspace of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WorkspaceStep {
    /// Name of the workspace in the Pipeline.
    pub name: String,
    /// Where the step finds its whole volume.
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
    /// Where it stands for several combinations of a matrix: the place of the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Whether it may have been skipped or have failed: then an absent snapshot is no error.
    #[serde(default, skip_serializing_if = "is_default")]
    pub optional: bool,
}

/// Param `conflict`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// The join fails and lists the paths and both tasks.
    #[default]
    Fail,
    /// The later task in pipeline order wins.
    Last,
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

impl StepConfig {
    /// The place of this very step's task: in a matrix it depends on the combination, whose number is the end of the
    /// TaskRun's name. A matrix of one combination has no number (Tekton: pipelinerunresolution.go `getNewRunNames`).
    pub fn own_order(&self) -> u32 {
        let Some(name) = &self.task_run else { return self.order };
        if name.ends_with(&format!("-{}", self.task)) {
            return self.order;
        }
        let number = name.rsplit_once('-').and_then(|(_, number)| number.parse::<u32>().ok());
        self.order.saturating_add(number.unwrap_or_default())
    }

    /// How messages and snapshots name this step's task: `build`, or `build[2]` for a combination of a matrix.
    pub fn own_name(&self) -> String {
        match &self.task_run {
            None => self.task.clone(),
            Some(_) => format!("{}[{}]", self.task, self.own_order() - self.order),
        }
    }

    /// The same for this very combination of a matrix, as if it were a task like any other.
    pub fn of_combination(self) -> Self {
        Self { order: self.own_order(), task: self.own_name(), task_run: None, ..self }
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

impl Predecessor {
    /// How messages name the task at `order`, one of those that this stands for.
    pub fn name_of(&self, order: u32) -> String {
        match self.last {
            None => self.task.clone(),
            Some(_) => format!("{}[{}]", self.task, order - self.order),
        }
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn combinations_of_a_matrix() {
        for (task_run, order, name) in [
            (None, 7, "build-2"),
            (Some("run-build-2"), 7, "build-2[0]"),
            (Some("run-build-2-0"), 7, "build-2[0]"),
            (Some("run-build-2-13"), 20, "build-2[13]"),
            (Some("a-very-long-name-cut-to-fit-d41d8cd98f00b204e9800998ecf8427e-3"), 10, "build-2[3]"),
        ] {
            let config = StepConfig {
                run: String::new(),
                task: "build-2".to_owned(),
                order: 7,
                task_run: task_run.map(str::to_owned),
                conflict: Conflict::Fail,
                compression: Compression::Zstd,
                expires: None,
                workspaces: Vec::new(),
            };
            assert_eq!((config.own_order(), config.own_name().as_str()), (order, name), "{task_run:?}");
        }
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
