//! `pipelineref` and taskRefs to objects, and from them to the wrapped run.

mod api;
pub mod cluster;
mod decode;
mod requests;

use std::collections::HashMap;

use futures_util::{
    TryFutureExt,
    future::{try_join_all, try_join3},
};
use serde_json::Value;

use crate::{
    source::{Creation, Flags, Found, Kind, Source},
    tekton::{reference::Reference, run::Run},
    wrap::{self, Ask, Refusal, Request, Rewrite, Settings},
};

/// The wrapped form of `run`, a PipelineRun about to be created; none where it is not for us.
pub async fn wrap_run<'a, S: Source>(
    source: &S,
    run: &Value,
    creation: impl Into<Creation<'a>>,
    settings: &Settings,
) -> Result<Option<Rewrite>, Refusal> {
    let (run, creation) = (Run::new(run), creation.into());
    let namespace = creation.namespace;
    let Some(ask) = Ask::read(run, namespace)? else { return Ok(None) };
    let pipeline = async {
        let Some(reference) = &ask.pipeline else {
            return Ok(ask.embedded().map(|object| Found { object, source: None }));
        };
        Ok::<_, Refusal>(source.get(Kind::Pipeline, reference, &creation).await?)
    };
    let (flags, defaults, pipeline) =
        try_join3(source.flags().map_err(Refusal::from), source.defaults(&creation).map_err(Refusal::from), pipeline)
            .await?;
    flags.allow_inlining()?;
    let not_found = || Refusal::PipelineNotFound {
        name: ask.pipeline.as_ref().map(ToString::to_string).unwrap_or_default(),
        namespace: namespace.to_owned(),
    };
    let pipeline = pipeline.ok_or_else(not_found)?;
    let request = ask.request(&defaults, &pipeline.object)?;
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
    let own = request.pipeline.iter().map(|reference| (Kind::Pipeline, reference, pipeline));
    let all = tasks.chain(own);
    let remote: Vec<_> = all.filter(|(_, reference, _)| reference.resolver().is_some()).collect();
    if remote.is_empty() {
        return Ok(());
    }
    let policies = source.policies(creation).await?;
    remote.into_iter().try_for_each(|(kind, reference, found)| {
        flags.allow_unverified(&format!("the {} {reference}", kind.word()), found, &policies)
    })
}
