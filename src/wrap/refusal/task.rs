//! Why a task can't use a wrapped workspace.

use crate::tekton::{reference::ReferenceError, scope::VariableError};

/// The problem, as a clause that fits after "task … uses the wrapped workspace …, but".
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskProblem {
    /// It embeds or refers to a Pipeline.
    #[error("it is a pipeline in a pipeline, whose run gets a volume of its own: wrap the inner pipeline instead")]
    PipelineInPipeline,
    /// Its taskSpec is that of a custom task.
    #[error("it is a custom task ({0}), which has no steps: remove the workspace from it")]
    CustomSpec(String),
    /// Its taskRef is to a custom task.
    #[error(
        "it refers to {api_version:?} kind {kind:?}, a custom task, which has no steps: remove the workspace from it"
    )]
    CustomRef {
        /// `apiVersion` of the taskRef.
        api_version: String,
        /// `kind` of the taskRef.
        kind: String,
    },
    /// It has neither taskRef nor taskSpec.
    #[error("it has neither taskRef nor taskSpec: add one")]
    NoTask,
    /// Its taskRef is of a kind that Tekton has removed.
    #[error("its taskRef has the kind \"ClusterTask\", which Tekton no longer has: use the resolver \"cluster\"")]
    ClusterTask,
    /// Its taskRef is of a kind that Tekton does not have.
    #[error("its taskRef has the kind {0:?}, which Tekton does not know: leave it out")]
    UnknownKind(String),
    /// Tekton takes a taskRef with an apiVersion for a custom task.
    #[error(
        "its taskRef has the apiVersion {0:?}, which makes it a custom task for Tekton (tektoncd/pipeline#6457): leave it out"
    )]
    ApiVersion(String),
    /// Its taskRef can't be read.
    #[error("its taskRef {0}")]
    Reference(#[from] ReferenceError),
    /// Its taskRef needs a value that is known only later.
    #[error("its taskRef needs $({0}), which has no value when the run is created: write the value, or use a param")]
    LateVariable(String),
    /// Its taskRef has a param whose value is too long.
    #[error("its taskRef can't be resolved: {0}")]
    LongVariable(VariableError),
    /// No Task can have this name.
    #[error("its taskRef names {0:?}, which is not the name of a Task")]
    InvalidName(String),
    /// The injected steps are Linux programs.
    #[error("it runs on Windows, where the injected steps can't run: remove the workspace from it")]
    Windows,
    /// A working directory that would have to exist before the files are restored.
    #[error(
        "step {step:?} has the workingDir {dir:?} below it, which can't be created before the files are restored, because {why}: change directory in a shell script instead"
    )]
    WorkingDir {
        /// Name of the step.
        step: String,
        /// Its workingDir.
        dir: String,
        /// `the task mounts it readOnly` or `the task does not run as root`.
        why: &'static str,
    },
    /// Two names for one workspace, each mounted in some of the steps.
    #[error("it binds it twice, as {first:?} and {second:?}, and only some of its steps mount it: bind it once")]
    BoundTwice {
        /// The name that is written to.
        first: String,
        /// The other one.
        second: String,
    },
    /// A volume mount whose name could turn out to be that of the injected steps' volume.
    #[error(
        "it mounts the volume {0:?}, whose name has no value when the run is created: write the name, or use a param"
    )]
    LateVolume(String),
    /// A stepTemplate that can't be kept from the injected steps.
    #[error(
        "step {step:?} is a StepAction, so that {list} of the stepTemplate would reach the injected steps too, and with them the Secret of param \"credentials\": give it to the steps that need it"
    )]
    TemplateOfAction {
        /// Name of the step.
        step: String,
        /// The field of the stepTemplate.
        list: &'static str,
    },
    /// Its annotation says wrongly what it restores.
    #[error("its annotation \"tekton-wrap.dev/paths\" can't be used: {0}")]
    Paths(String),
    /// A mount that would hide what the injected steps need.
    #[error("it mounts {path:?}, and the injected steps need {root}: choose another mountPath")]
    MountPath {
        /// The mountPath.
        path: String,
        /// The folder of the injected steps.
        root: &'static str,
    },
}

impl TaskProblem {
    /// A code for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::PipelineInPipeline => "PipelineInPipeline",
            Self::CustomSpec(_) | Self::CustomRef { .. } => "CustomTask",
            Self::NoTask => "TaskWithoutSpec",
            Self::ClusterTask => "ClusterTask",
            Self::UnknownKind(_) => "UnknownTaskKind",
            Self::ApiVersion(_) => "TaskRefApiVersion",
            Self::Reference(_) => "InvalidTaskRef",
            Self::LateVariable(_) => "LateVariable",
            Self::LongVariable(_) => "LongVariable",
            Self::InvalidName(_) => "InvalidTaskName",
            Self::Windows => "WindowsTask",
            Self::WorkingDir { .. } => "WorkingDir",
            Self::BoundTwice { .. } => "WorkspaceBoundTwice",
            Self::LateVolume(_) => "LateVolume",
            Self::TemplateOfAction { .. } => "TemplateOfAction",
            Self::Paths(_) => "InvalidPaths",
            Self::MountPath { .. } => "MountPath",
        }
    }
}
