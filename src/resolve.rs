//! `pipelineref` and taskRefs to objects, and from them to the wrapped run.

mod api;
pub mod cluster;
mod decode;
mod policy;
mod requests;
pub mod v1beta1;

use std::{
    collections::HashMap,
    future::{Future, ready},
};

use futures_util::future::{try_join, try_join_all};
use prometheus_client::registry::Registry;
use serde_json::Value;
use tokio::time::Instant;

pub use self::policy::Flags;
use crate::{
    tekton::reference::Reference,
    wrap::{self, Found, Refusal, Request, Rewrite, Settings},
};

/// What can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `tekton.dev` Pipeline
    Pipeline,
    /// `tekton.dev` Task
    Task,
}

/// The creation of a run.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    /// Where it is to be created.
    pub namespace: &'a str,
    /// When an answer comes too late, if ever.
    pub deadline: Option<Instant>,
    /// Nothing may be created for it: it is only tried.
    pub dry_run: bool,
}

/// Where Pipelines and Tasks are found: a cluster, or files.
pub trait Source: Sync {
    /// The object in its v1 form; none where there is none of that name.
    fn get(
        &self,
        kind: Kind,
        reference: &Reference,
        creation: &Creation<'_>,
    ) -> impl Future<Output = Result<Option<Found>, SourceError>> + Send;

    /// Shows what is counted in `registry`. Files count nothing.
    fn register(&self, _registry: &mut Registry) {}

    /// Tekton's feature flags. Files have none.
    fn flags(&self) -> impl Future<Output = Result<Flags, SourceError>> + Send {
        ready(Ok(Flags::default()))
    }

    /// The VerificationPolicies of the namespace. Files have none.
    fn policies(&self, _creation: &Creation<'_>) -> impl Future<Output = Result<Vec<Value>, SourceError>> + Send {
        ready(Ok(Vec::new()))
    }
}

/// An object could not be read, though it may exist.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// A code for logs and metrics.
    pub reason: &'static str,
    /// One sentence that names it and says what to do.
    pub message: String,
}

impl SourceError {
    /// [`SourceError::reason`] of what a dry run can't find out.
    pub const DRY_RUN: &str = "DryRun";

    /// [`SourceError::reason`] of what took too long.
    pub const TIMEOUT: &str = "Timeout";

    /// For any other reason.
    pub fn unreadable(message: String) -> Self {
        Self { reason: "Unreadable", message }
    }
}

impl<'a> From<&'a str> for Creation<'a> {
    /// One in this namespace, whenever.
    fn from(namespace: &'a str) -> Self {
        Self { namespace, deadline: None, dry_run: false }
    }
}

impl Kind {
    /// `pipeline` or `task`, for sentences.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Task => "task",
        }
    }

    /// `Pipeline` or `Task`, as in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "Pipeline",
            Self::Task => "Task",
        }
    }
}

/// The wrapped form of `run`, a PipelineRun about to be created; none where it is not for us.
pub async fn wrap_run<'a, S: Source>(
    source: &S,
    run: &Value,
    creation: impl Into<Creation<'a>>,
    settings: &Settings,
) -> Result<Option<Rewrite>, Refusal> {
    let creation = creation.into();
    let namespace = creation.namespace;
    let Some(request) = Request::read(run, namespace)? else { return Ok(None) };
    let not_found =
        || Refusal::PipelineNotFound { name: request.pipeline.to_string(), namespace: namespace.to_owned() };
    let (flags, pipeline) = try_join(source.flags(), source.get(Kind::Pipeline, &request.pipeline, &creation)).await?;
    flags.allow_inlining()?;
    let pipeline = pipeline.ok_or_else(not_found)?;
    let wanted = wrap::tasks_to_inline(run, namespace, &request, &pipeline.object)?;
    let tasks = try_join_all(wanted.into_iter().map(|reference| async {
        let found = source.get(Kind::Task, &reference, &creation).await?;
        let not_found = || Refusal::TaskNotFound {
            name: reference.to_string(),
            pipeline: request.pipeline_name(&pipeline.object).to_owned(),
            namespace: namespace.to_owned(),
        };
        let found = found.ok_or_else(not_found)?;
        Ok::<_, Refusal>((reference, found))
    }))
    .await?;
    let tasks: HashMap<Reference, Found> = tasks.into_iter().collect();
    verify(source, &creation, &flags, &request, &pipeline, &tasks).await?;
    wrap::rewrite(run, namespace, &request, &pipeline, &tasks, settings).map(Some)
}

/// That nothing that a resolver brought has to be verified.
async fn verify<S: Source>(
    source: &S,
    creation: &Creation<'_>,
    flags: &Flags,
    request: &Request,
    pipeline: &Found,
    tasks: &HashMap<Reference, Found>,
) -> Result<(), Refusal> {
    let tasks = tasks.iter().map(|(reference, found)| (Kind::Task, reference, found));
    let all = tasks.chain([(Kind::Pipeline, &request.pipeline, pipeline)]);
    let remote: Vec<_> = all.filter(|(_, reference, _)| reference.resolver().is_some()).collect();
    if remote.is_empty() {
        return Ok(());
    }
    let policies = source.policies(creation).await?;
    remote.into_iter().try_for_each(|(kind, reference, found)| {
        flags.allow_unverified(&format!("the {} {reference}", kind.word()), found, &policies)
    })
}
