//! What can go wrong: one sentence each, with the next step.

use std::io;

use crate::{quote::Line, rerun, target::InvalidTarget, workspace};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// There is no usable kubeconfig.
    #[error(
        "no cluster is configured ({}): log in to one, set KUBECONFIG, or give --kubeconfig FILE and --context NAME",
        Line(.0)
    )]
    NoCluster(String),
    /// The API server does not answer.
    #[error(
        "the cluster at {} can't be reached: {}: check that it is the right one (kubectl config current-context) or give --context",
        Line(server),
        Line(problem)
    )]
    Unreachable {
        /// Its URL.
        server: String,
        /// What happened.
        problem: String,
    },
    /// What the API server answers can't be read.
    #[error("what the cluster at {} answers can't be read: {}", Line(server), Line(problem))]
    Unreadable {
        /// Its URL.
        server: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The API server does not know the user.
    #[error("the cluster at {} does not know you ({}): log in again", Line(server), Line(problem))]
    Unauthorized {
        /// Its URL.
        server: String,
        /// What it said.
        problem: String,
    },
    /// The API server knows no PipelineRuns.
    #[error(
        "the cluster at {} has no Tekton Pipelines v1: install them first (https://tekton.dev/docs/pipelines/install), or give --context",
        Line(.0)
    )]
    NoTekton(String),
    /// The user may not do it.
    #[error("{}: ask whoever runs the cluster for that right", Line(.0))]
    Forbidden(String),
    /// There is no such object.
    #[error("there is no {kind} {name:?} in namespace {namespace:?}: give -n NAMESPACE if it is in another one{hint}")]
    NotFound {
        /// Its kind.
        kind: &'static str,
        /// What was asked for.
        name: String,
        /// Where.
        namespace: String,
        /// What else may help.
        hint: &'static str,
    },
    /// The API server refused a request.
    #[error("{}", Line(.0))]
    Refused(String),
    /// The run has no injected steps.
    #[error("run {0:?} is not a wrapped run: tkn wrap list shows those that are")]
    NotWrapped(String),
    /// Nobody wraps runs in this cluster.
    #[error(
        "the run would not be wrapped: the webhook of tekton-wrap is not installed in this cluster, or not for this namespace; whoever runs the cluster can install it (kubectl apply -k webhook-config)"
    )]
    NoWebhook,
    /// A run that was followed failed.
    #[error(
        "run {run:?} failed: {}: tkn wrap describe {run} shows more, tkn wrap rerun {run} --failed goes on from there",
        Line(message)
    )]
    RunFailed {
        /// Its name.
        run: String,
        /// What Tekton says.
        message: String,
    },
    /// An argument that can't be used.
    #[error("{}", Line(.0))]
    Argument(String),
    /// A task has no snapshot to look at.
    #[error(
        "task {task:?} of run {run:?} left nothing of workspace {workspace:?} at {}: it has not succeeded, or its snapshot was pruned or has expired; tkn wrap describe {run} shows how it is",
        Line(place)
    )]
    NothingLeft {
        /// Name of the task.
        task: String,
        /// Name of the run.
        run: String,
        /// Name of the workspace.
        workspace: String,
        /// Where it would be.
        place: String,
    },
    /// A run names a place to which nobody goes whom the run alone sends there.
    #[error("run {run:?} keeps its files in {}, {problem}", Line(place))]
    Elsewhere {
        /// Name of the run.
        run: String,
        /// The place.
        place: String,
        /// Why, and what to do: the end of the sentence.
        problem: String,
    },
    /// A workspace of a run has no target to look at.
    #[error(
        "run {run:?} has no image of workspace {workspace:?} at {}: no task has saved it, or it was pruned or has expired; tkn wrap describe {run} shows how it is",
        Line(place)
    )]
    NoTarget {
        /// Name of the run.
        run: String,
        /// Name of the workspace.
        workspace: String,
        /// Where it would be.
        place: String,
    },
    /// A snapshot that a rerun needs does not exist any more.
    #[error(
        "the snapshot of workspace {workspace:?} that task {task:?} left at {} is gone: it was pruned or has expired; start at that task (--from {task}), or run all of it again (without --failed and --from)",
        Line(place)
    )]
    SnapshotGone {
        /// Name of the task.
        task: String,
        /// Name of the workspace.
        workspace: String,
        /// Where it was.
        place: String,
    },
    /// A layer of a snapshot does not exist any more.
    #[error(
        "the snapshot of workspace {workspace:?} that task {task:?} left at {} is not whole: the registry has no {layer} any more; start at that task (--from {task}), or run all of it again (without --failed and --from)",
        Line(place)
    )]
    LayerGone {
        /// Name of the task.
        task: String,
        /// Name of the workspace.
        workspace: String,
        /// Where it was.
        place: String,
        /// How messages name the layer.
        layer: String,
    },
    /// The pipeline is not what it was when the run was created.
    #[error(
        "pipeline {pipeline:?} was changed at {changed}, after run {run:?} was created: a rerun has the pipeline as it was then; give --as-stored if that is meant, or start a new run for the changed one"
    )]
    PipelineChanged {
        /// Its name.
        pipeline: String,
        /// When (RFC 3339).
        changed: String,
        /// The run.
        run: String,
    },
    /// There is no rerun.
    #[error(transparent)]
    Rerun(#[from] rerun::RerunRefusal),
    /// Images can't be read or written.
    #[error(transparent)]
    Workspace(#[from] workspace::Error),
    /// The program itself can't start what it needs.
    #[error("can't start: {0}")]
    Start(io::Error),
    /// Nobody takes the answer.
    #[error("the standard output: can't be written: {0}")]
    Output(io::Error),
}

impl From<InvalidTarget> for PluginError {
    fn from(source: InvalidTarget) -> Self {
        Self::Workspace(source.into())
    }
}

impl From<crate::store::StoreError> for PluginError {
    fn from(source: crate::store::StoreError) -> Self {
        Self::Workspace(source.into())
    }
}
