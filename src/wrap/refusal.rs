//! Why a run is not wrapped: each refusal is one sentence that names the field or object at fault and what to change.

#[cfg(test)]
mod catalog;
mod task;

pub use self::task::TaskProblem;
use crate::{
    annotations::WRAP,
    limits::{Exceeded, MAX_TASK_RUNS},
    source::SourceError,
    tekton::graph::GraphError,
};

/// A run that can't be wrapped correctly. It is refused at creation, nothing is stored.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// A required value is absent.
    #[error("{place} is missing: {hint}")]
    MissingParam {
        /// The param or annotation.
        place: String,
        /// What it should hold.
        hint: &'static str,
    },
    /// A param that the resolver does not have.
    #[error("resolver wrap has no param {name:?}: {hint}")]
    UnknownParam {
        /// The param.
        name: String,
        /// The nearest one, or the list.
        hint: String,
    },
    /// The resolver `wrap.cache` of the original project, which did not say in which workspace the files of a key are.
    #[error(
        "resolver \"wrap.cache\" is not supported: use resolver wrap with param \"cache\", such as {example:?}, where SOURCES is the workspace that has the files, and wrap that one too"
    )]
    CacheResolver {
        /// What the param could be.
        example: String,
    },
    /// A param given twice.
    #[error("param {0:?} of resolver wrap is given twice: keep one")]
    DuplicateParam(String),
    /// A value that can't be.
    #[error("{place}: {problem}")]
    InvalidParam {
        /// The param, annotation or default.
        place: String,
        /// What is wrong with it and what to write.
        problem: String,
    },
    /// An annotation of ours that does not exist.
    #[error("annotation {name:?} is not known: {hint}")]
    UnknownAnnotation {
        /// The annotation.
        name: String,
        /// The nearest one, or the list.
        hint: String,
    },
    /// A param and an annotation say two things.
    #[error("param {name:?} of resolver wrap and annotation {annotation:?} have different values: keep one of them")]
    Contradiction {
        /// The param.
        name: &'static str,
        /// The annotation.
        annotation: String,
    },
    /// Both ways to ask for it at once.
    #[error("annotation {WRAP:?} stands beside the pipelineRef with resolver wrap: keep one of them")]
    AskedTwice,
    /// `auto` means no workspace.
    #[error(
        "annotation {WRAP:?} is \"auto\", but the pipeline has no workspace that several tasks share and that is bound to a volumeClaimTemplate, to emptyDir or to nothing: name the workspaces"
    )]
    NothingToWrap,
    /// A run that was wrapped before is not what it was.
    #[error(
        "task {task:?} of a run that is wrapped already {problem}: it was changed afterwards; create the run as it was before it was wrapped"
    )]
    ChangedAfterWrapping {
        /// The task.
        task: String,
        /// A clause that follows its name.
        problem: &'static str,
    },
    /// The injected steps can't reach the target.
    #[error(
        "rsync:// and rsync+ssh:// take an image of the injected steps with the program rsync, and the one of this cluster has none: its operator has to install one that images/build --with rsync made"
    )]
    NoRsync,
    /// Not wrapped for its namespace's sake: wrapped it could do something else.
    #[error(
        "task {task:?} uses the workspace {workspace:?} also if task {failed:?} failed, and would not see what that had written: set annotation {WRAP:?} to have it wrapped all the same, or \"none\" to leave out this warning"
    )]
    AfterFailure {
        /// The task that may run after a failed one.
        task: String,
        /// That one.
        failed: String,
        /// The workspace.
        workspace: String,
    },
    /// The pipelineRef of an annotated run can't be read.
    #[error("pipelineRef {problem}")]
    InvalidPipelineRef {
        /// What is wrong with it: a clause.
        problem: String,
    },
    /// The Pipeline does not exist.
    #[error(
        "pipeline {name} was not found in namespace {namespace:?}: create it first, or correct param \"pipelineref\""
    )]
    PipelineNotFound {
        /// Its name, quoted.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// A Task does not exist.
    #[error(
        "task {name}, which pipeline {pipeline:?} refers to, was not found in namespace {namespace:?}: create it first"
    )]
    TaskNotFound {
        /// Its name, quoted.
        name: String,
        /// The Pipeline.
        pipeline: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// A Pipeline or Task could not be read.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// The object has no spec, or none that can be run.
    #[error("{kind} {name:?} has no {field}: it can't be run")]
    Incomplete {
        /// Pipeline or task.
        kind: &'static str,
        /// Its name.
        name: String,
        /// What is absent.
        field: &'static str,
    },
    /// A workspace that the Pipeline does not declare.
    #[error(
        "workspace {workspace:?}, which the run asks to wrap, is not declared by pipeline {pipeline:?}, which declares {declared}"
    )]
    UndeclaredWorkspace {
        /// The workspace.
        workspace: String,
        /// The Pipeline.
        pipeline: String,
        /// Its workspaces, for people.
        declared: String,
    },
    /// A field that Tekton may read differently.
    #[error(
        "{what} has the field {key:?} in several spellings, or with letters that Tekton takes for others: write each field once, as Tekton's documentation has it"
    )]
    AmbiguousField {
        /// What has it, for example `task "build"`.
        what: String,
        /// The field.
        key: String,
    },
    /// The tasks do not form a graph.
    #[error("pipeline {pipeline:?} can't be run: {source}")]
    Graph {
        /// The Pipeline.
        pipeline: String,
        /// Why.
        source: GraphError,
    },
    /// The run binds a wrapped workspace to a volume.
    #[error(
        "workspace {workspace:?} is wrapped, but the run binds it to {source_name}: remove the binding (or bind emptyDir), or leave {workspace:?} out of those to wrap"
    )]
    Bound {
        /// The workspace.
        workspace: String,
        /// `persistentVolumeClaim`, `secret`, …
        source_name: String,
    },
    /// The pipelineRef names a pipeline beside its resolver.
    #[error(
        "pipelineRef has a name ({0:?}) beside its resolver wrap: name the pipeline in param \"pipelineref\" alone"
    )]
    NamedTwice(String),
    /// The run has a pipeline of its own beside its pipelineRef (Tekton: pipelinerun_validation.go, "expected exactly one").
    #[error("spec has a pipelineSpec beside the pipelineRef with resolver wrap: keep one of them")]
    BothRefAndSpec,
    /// The cluster forbids inlined specs.
    #[error(
        "Tekton's feature flag disable-inline-spec is {0:?}: pipelines may not be inlined in this cluster, and wrapping inlines them; run the pipeline unwrapped, or ask for the flag to be changed"
    )]
    InliningForbidden(String),
    /// A VerificationPolicy applies to an object that came through a resolver.
    #[error(
        "{what} is subject to VerificationPolicy {policy:?}, which wrapping would bypass: run it unwrapped, or put a verified copy into the namespace and refer to it by name"
    )]
    Verified {
        /// The Pipeline or Task, with its reference.
        what: String,
        /// Name of the VerificationPolicy.
        policy: String,
    },
    /// Every object that comes through a resolver must be verified.
    #[error(
        "{what} would have to be verified, which wrapping would bypass (Tekton's feature flag trusted-resources-verification-no-match-policy is \"fail\"): run it unwrapped, or put a verified copy into the namespace and refer to it by name"
    )]
    VerificationRequired {
        /// The Pipeline or Task, with its reference.
        what: String,
    },
    /// A task of a kind that can't use a wrapped workspace.
    #[error("task {task:?} uses the wrapped workspace {workspace:?}, but {problem}")]
    Task {
        /// The task in the Pipeline.
        task: String,
        /// The first wrapped workspace that it uses.
        workspace: String,
        /// What is in the way and what to change.
        problem: TaskProblem,
    },
    /// The rewritten run would not fit into etcd.
    #[error(
        "the wrapped form of pipeline {pipeline:?} has {size} bytes, more than the {limit} that can be stored: split the pipeline, or wrap fewer workspaces"
    )]
    TooLarge {
        /// The Pipeline.
        pipeline: String,
        /// Bytes of JSON.
        size: usize,
        /// The most.
        limit: usize,
    },
    /// The run, its Pipeline or a Task has more of something than may be wrapped.
    #[error(
        "{what} has {count} {unit}, more than the {limit} that can be wrapped: make it smaller, or split the pipeline",
        what = .0.what, count = .0.count, unit = .0.unit, limit = .0.limit
    )]
    Limit(#[from] Exceeded),
    /// The rewrite was not done in time.
    #[error(
        "the pipeline could not be wrapped in the time that a review may take: create the PipelineRun again, or make the pipeline smaller"
    )]
    Late,
    /// The matrices make more TaskRuns than there may be.
    #[error(
        "pipeline {pipeline:?} makes {count} TaskRuns, more than the {MAX_TASK_RUNS} that can be wrapped: make its matrices smaller"
    )]
    TooManyTaskRuns {
        /// The Pipeline.
        pipeline: String,
        /// How many.
        count: u64,
    },
    /// A cache that no task can restore.
    #[error("cache {path:?}: {problem}")]
    Cache {
        /// What it is of: a workspace, or a folder in it.
        path: String,
        /// Why, and what to change.
        problem: String,
    },
    /// The patch does not give the run that was meant: a bug, never the user's fault.
    #[error("the patch for this run does not apply ({0}): this is a bug in tekton-wrap, please report it with the run")]
    Patch(String),
}

impl Refusal {
    /// A code for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::MissingParam { .. } => "MissingParam",
            Self::UnknownParam { .. } => "UnknownParam",
            Self::CacheResolver { .. } => "CacheResolver",
            Self::DuplicateParam(_) => "DuplicateParam",
            Self::InvalidParam { .. } => "InvalidParam",
            Self::UnknownAnnotation { .. } => "UnknownAnnotation",
            Self::Contradiction { .. } => "Contradiction",
            Self::AskedTwice => "AskedTwice",
            Self::NothingToWrap => "NothingToWrap",
            Self::ChangedAfterWrapping { .. } => "ChangedAfterWrapping",
            Self::NoRsync => "NoRsync",
            Self::AfterFailure { .. } => "AfterFailure",
            Self::InvalidPipelineRef { .. } => "InvalidPipelineRef",
            Self::PipelineNotFound { .. } => "PipelineNotFound",
            Self::TaskNotFound { .. } => "TaskNotFound",
            Self::Source(error) => error.reason,
            Self::Incomplete { .. } => "Incomplete",
            Self::UndeclaredWorkspace { .. } => "UndeclaredWorkspace",
            Self::AmbiguousField { .. } => "AmbiguousField",
            Self::Graph { .. } => "InvalidGraph",
            Self::Bound { .. } => "WorkspaceBound",
            Self::NamedTwice(_) => "PipelineNamedTwice",
            Self::BothRefAndSpec => "BothRefAndSpec",
            Self::InliningForbidden(_) => "InliningForbidden",
            Self::Verified { .. } | Self::VerificationRequired { .. } => "VerificationPolicy",
            Self::Task { problem, .. } => problem.reason(),
            Self::TooLarge { .. } => "TooLarge",
            Self::Limit(_) => "LimitExceeded",
            Self::Late => "RewriteTooLong",
            Self::TooManyTaskRuns { .. } => "TooManyTaskRuns",
            Self::Cache { .. } => "CacheWithoutTask",
            Self::Patch(_) => "PatchDoesNotApply",
        }
    }
}
