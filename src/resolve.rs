//! `pipelineref` and taskRefs to objects, and from them to the wrapped run.

pub mod cluster;

use std::{collections::BTreeMap, future::Future};

use futures_util::future::try_join_all;
use serde_json::Value;

use crate::wrap::{self, Refusal, Request, Rewrite, Settings};

/// What can be asked for by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `tekton.dev` Pipeline
    Pipeline,
    /// `tekton.dev` Task
    Task,
}

/// Where Pipelines and Tasks are found: a cluster, or files.
pub trait Source: Sync {
    /// The object in its v1 form; none where there is none of that name.
    fn get(
        &self,
        kind: Kind,
        namespace: &str,
        name: &str,
    ) -> impl Future<Output = Result<Option<Value>, SourceError>> + Send;
}

/// An object could not be read, though it may exist: one sentence that names it and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct SourceError(pub String);

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

/// The wrapped form of `run`, a PipelineRun about to be created in `namespace`; none where it is not for us.
pub async fn wrap_run<S: Source>(
    source: &S,
    run: &Value,
    namespace: &str,
    settings: &Settings,
) -> Result<Option<Rewrite>, Refusal> {
    let Some(request) = Request::read(run)? else { return Ok(None) };
    let not_found = || Refusal::PipelineNotFound { name: request.pipeline.clone(), namespace: namespace.to_owned() };
    let pipeline = source.get(Kind::Pipeline, namespace, &request.pipeline).await?.ok_or_else(not_found)?;
    let wanted = wrap::tasks_to_inline(&request, &pipeline)?;
    let tasks = try_join_all(wanted.iter().map(|name| async {
        let not_found = || Refusal::TaskNotFound {
            name: name.clone(),
            pipeline: request.pipeline.clone(),
            namespace: namespace.to_owned(),
        };
        let task = source.get(Kind::Task, namespace, name).await?.ok_or_else(not_found)?;
        Ok::<_, Refusal>((name.clone(), task))
    }))
    .await?;
    let tasks: BTreeMap<String, Value> = tasks.into_iter().collect();
    wrap::rewrite(run, &request, &pipeline, &tasks, settings).map(Some)
}
