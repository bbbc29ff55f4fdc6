//! `pipelineref` and taskRefs to objects, and from them to the wrapped run.

mod api;
pub mod cluster;
mod decode;
mod reader;
mod requests;
mod shared;
mod work;

use std::{collections::HashMap, sync::Arc};

use futures_util::{StreamExt, TryFutureExt, TryStreamExt, future::try_join3, stream};
use serde_json::Value;
use tokio::time::Instant;

pub use self::work::Work;
use crate::{
    digest::Digest,
    limits::MAX_REWRITE,
    source::{Creation, Flags, Found, Kind, Source},
    tekton::{reference::Reference, run::Run},
    traces,
    wrap::{self, OptIn, Refusal, Request, Rewrite, Settings, Unverified},
};

/// Tasks of one run that are read at a time.
const MAX_READS: usize = 16;

/// The wrapped form of `run`, a PipelineRun about to be created; none if it is not to be wrapped.
pub async fn wrap_run<'a, S: Source>(
    source: &S,
    run: &Value,
    creation: impl Into<Creation<'a>>,
    settings: &Settings,
) -> Result<Option<Rewrite>, Refusal> {
    let (run, settings) = (Arc::new(run.clone()), Arc::new(settings.clone()));
    wrap_run_on(&Work::Here, source, run, creation.into(), settings).await
}

/// The same with `work` to do what only computes.
pub async fn wrap_run_on<S: Source>(
    work: &Work,
    source: &S,
    run: Arc<Value>,
    creation: Creation<'_>,
    settings: Arc<Settings>,
) -> Result<Option<Rewrite>, Refusal> {
    let (namespace, opt_in_by): (Arc<str>, _) = (creation.namespace.into(), creation.opt_in_by);
    let asked = {
        let (run, namespace) = (run.clone(), namespace.clone());
        work.run(move || {
            let opt_in = OptIn::read(Run::new(&run), &namespace, opt_in_by)?;
            Ok::<_, Refusal>(opt_in.map(|opt_in| (opt_in.embedded(), opt_in.pipeline)))
        })
    };
    let Some((embedded, reference)) = asked.await? else { return Ok(None) };
    let pipeline = async {
        let Some(reference) = &reference else { return Ok(embedded.map(Found::by_name)) };
        Ok::<_, Refusal>(source.get(Kind::Pipeline, reference, &creation).await?)
    };
    let (flags, defaults, pipeline) =
        try_join3(source.flags().map_err(Refusal::from), source.defaults(&creation).map_err(Refusal::from), pipeline)
            .await?;
    flags.allow_inlining()?;
    let not_found = || Refusal::PipelineNotFound {
        name: reference.as_ref().map(ToString::to_string).unwrap_or_default(),
        namespace: namespace.to_string(),
    };
    let pipeline = Arc::new(pipeline.ok_or_else(not_found)?);
    let planned = {
        let (run, namespace, pipeline) = (run.clone(), namespace.clone(), pipeline.clone());
        let secret = creation.nonce.map(|nonce| Digest::of(nonce.as_bytes()).hex().chars().take(16).collect());
        work.run(move || {
            let run = Run::new(&run);
            // What was read before is only borrowed from the run.
            let Some(opt_in) = OptIn::read(run, &namespace, opt_in_by)? else { return Ok(None) };
            let Some(mut request) = opt_in.request(&defaults, &pipeline.object)? else { return Ok(None) };
            request.secret = secret;
            let wanted = wrap::tasks_to_inline(run, &namespace, &request, &pipeline.object)?;
            Ok::<_, Refusal>(Some((request, wanted)))
        })
    };
    let Some((request, wanted)) = planned.await? else { return Ok(None) };
    let request = Arc::new(request);
    let reads = wanted.into_iter().map(|reference| read_task(source, reference, &creation, &request, &pipeline));
    let tasks: HashMap<Reference, Found> = stream::iter(reads).buffer_unordered(MAX_READS).try_collect().await?;
    verify(work, source, &creation, flags, unverified(&request, &pipeline, &tasks)).await?;
    let deadline = creation.deadline;
    let rewrite = work.run(move || {
        let is_late = lateness(deadline);
        wrap::rewrite(Run::new(&run), &namespace, &request, &pipeline, &tasks, &settings, &is_late)
    });
    traces::within(traces::rewrite(), rewrite).await.map(Some)
}

/// The Task that `reference` names, which is one of `pipeline`.
async fn read_task<S: Source>(
    source: &S,
    reference: Reference,
    creation: &Creation<'_>,
    request: &Request,
    pipeline: &Found,
) -> Result<(Reference, Found), Refusal> {
    let found = source.get(Kind::Task, &reference, creation).await?;
    let not_found = || Refusal::TaskNotFound {
        name: reference.to_string(),
        pipeline: request.pipeline_name(&pipeline.object).to_owned(),
        namespace: creation.namespace.to_owned(),
    };
    let found = found.ok_or_else(not_found)?;
    Ok((reference, found))
}

/// Refuses the run if a VerificationPolicy applies to a resolved object.
async fn verify<S: Source>(
    work: &Work,
    source: &S,
    creation: &Creation<'_>,
    flags: Flags,
    remote: Vec<Unverified>,
) -> Result<(), Refusal> {
    if remote.is_empty() {
        return Ok(());
    }
    let policies = source.policies(creation).await?;
    let deadline = creation.deadline;
    work.run(move || flags.allow_unverified(&remote, &policies, &lateness(deadline))).await
}

/// The objects among these that came through resolvers.
fn unverified(request: &Request, pipeline: &Found, tasks: &HashMap<Reference, Found>) -> Vec<Unverified> {
    let tasks = tasks.iter().map(|(reference, found)| (Kind::Task, reference, found));
    let own = request.pipeline.iter().map(|reference| (Kind::Pipeline, reference, pipeline));
    let remote = tasks.chain(own).filter(|(_, reference, _)| reference.resolver().is_some());
    remote.map(|(kind, reference, found)| Unverified::new(format!("the {} {reference}", kind.word()), found)).collect()
}

/// Whether there is no time left for a computation that begins now, for which its turn may have come late.
fn lateness(deadline: Option<Instant>) -> impl Fn() -> bool {
    #[allow(clippy::arithmetic_side_effects, reason = "a few seconds from now is a time")]
    let longest = Instant::now() + MAX_REWRITE;
    let deadline = deadline.map_or(longest, |deadline| deadline.min(longest));
    move || Instant::now() > deadline
}
