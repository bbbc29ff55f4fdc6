//! What resolvers of the cluster bring, asked for as Tekton does (Tekton: pkg/resolution/resource/crd_resource.go): a
//! ResolutionRequest is created in the run's namespace, watched until a resolver has answered it, and deleted.
//!
//! Each request is a *flight*, a task of its own that outlives whoever asked: it deletes the request also when the answer
//! comes too late or nobody waits any more. Who asks the same at the same time shares the flight. An answer that someone
//! waited for in vain is kept for a while, so that creating the run again finds it; any other is forgotten at once, since
//! what is behind a branch moves.

mod board;
mod query;
mod resolved;
mod watch;

use std::{
    collections::HashMap,
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch as channel,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::{
    board::Board,
    resolved::{AnswerRoom, ResolutionResult},
};
pub use self::{query::ResolverQuery, resolved::Resolved};
use super::api;
use crate::{
    health::Health,
    metrics::{Metrics, ResolutionOutcome},
    source::SourceError,
    tekton::reference::is_object_name,
};

/// The path of the API.
const API: &str = "/apis/resolution.tekton.dev/v1beta1";

/// The label that tells our requests from others'…
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// … and its value.
const PROGRAM: &str = "tekton-wrap";

/// What names the resolver (Tekton: pkg/resolution/common/labels.go).
const RESOLVER: &str = "resolution.tekton.dev/type";

/// How long an answer is kept that came too late for someone.
const KEEP: Duration = Duration::from_secs(120);

/// Time for creating or deleting one object.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// The reason of what was given up, with nobody waiting any more as a rule.
const UNANSWERED: &str = "Unanswered";

/// Requests in flight at a time, of all namespaces and of one.
const MAX_FLIGHTS: usize = 200;
const MAX_FLIGHTS_OF_NAMESPACE: usize = 100;

/// Asks the resolvers of a cluster.
pub struct Requests {
    shared: Arc<Shared>,
    watch: Option<JoinHandle<()>>,
}

struct Shared {
    client: Client,
    board: Arc<Board>,
    flights: Mutex<HashMap<ResolverQuery, Flight>>,
    metrics: Arc<Metrics>,
    /// A flight ends after this time.
    longest: Duration,
    /// Room for answers.
    room: AnswerRoom,
}

#[derive(Clone)]
struct Flight {
    start: Instant,
    outcome: channel::Receiver<Option<ResolutionResult>>,
    /// Whether someone stopped waiting.
    missed: Arc<AtomicBool>,
}

impl Flight {
    /// Whether it has an outcome, or can still have one: it can't if its task panicked.
    fn is_alive(&self) -> bool {
        self.outcome.borrow().is_some() || self.outcome.has_changed().is_ok()
    }
}

/// Someone who waits for a flight. If this is dropped before the answer is there, the answer is missed.
struct Waiting(Option<Arc<AtomicBool>>);

impl Requests {
    /// For the cluster of `client`, with a time after which an answer is waited for no longer. Resolvers themselves have a
    /// minute (Tekton: pkg/apis/config/default.go), and may begin late. Nothing is sent yet.
    pub fn new(client: Client, longest: Duration, metrics: Arc<Metrics>) -> Self {
        let shared = Shared {
            client,
            board: Arc::default(),
            flights: Mutex::default(),
            metrics,
            longest,
            room: AnswerRoom::default(),
        };
        Self { shared: Arc::new(shared), watch: None }
    }

    /// Watches the requests from now on, and deletes those that nobody deletes any more.
    pub fn start(&mut self, health: Arc<Health>) {
        let (client, board) = (self.shared.client.clone(), self.shared.board.clone());
        self.watch = Some(tokio::spawn(watch::run(client, board, health, self.shared.longest)));
    }

    /// What the resolver answers before `deadline`.
    pub async fn resolve(&self, query: &ResolverQuery, deadline: Option<Instant>) -> Result<Resolved, SourceError> {
        if !query.has_resolver_name() {
            return Err(query.failed("a resolver can't have this name"));
        }
        // It becomes a part of a URL.
        if !is_object_name(&query.namespace) {
            return Err(query.failed("no namespace can have this name"));
        }
        if let Some(error) = self.shared.board.watch_error() {
            return Err(query.unwatched(&error));
        }
        let mut flight = self.shared.flight(query)?;
        let mut waiting = Waiting(Some(flight.missed.clone()));
        let arrived = flight.outcome.wait_for(Option::is_some);
        let outcome = match deadline {
            Some(deadline) => timeout_at(deadline, arrived).await,
            None => Ok(arrived.await),
        };
        match outcome {
            Ok(Ok(outcome)) => {
                waiting.0 = None;
                outcome.clone().unwrap_or_else(|| Err(query.failed("it was given up")))
            }
            Ok(Err(_)) => Err(query.failed("it was given up; create the PipelineRun again")),
            Err(_) => Err(self.too_late(query, flight.start.elapsed())),
        }
    }

    fn too_late(&self, query: &ResolverQuery, waited: Duration) -> SourceError {
        let ResolverQuery { resolver, .. } = query;
        if let Some(error) = self.shared.board.watch_error() {
            return query.unwatched(&error);
        }
        let message = format!(
            "resolver {resolver:?} gave no answer for {:.0} s to what was asked of it: {query}; create the PipelineRun again, which is safe: nothing was stored, and an answer that comes meanwhile is used",
            waited.as_secs_f64()
        );
        SourceError { reason: SourceError::TIMEOUT, message }
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        self.watch.iter().for_each(JoinHandle::abort);
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.iter().for_each(|missed| missed.store(true, Relaxed));
    }
}

impl Shared {
    /// The flight for `query`, begun if there is none.
    fn flight(self: &Arc<Self>, query: &ResolverQuery) -> Result<Flight, SourceError> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(query).filter(|flight| flight.is_alive()) {
            return Ok(flight.clone());
        }
        let of_namespace = flights.keys().filter(|other| other.namespace == query.namespace).count();
        if flights.len() >= MAX_FLIGHTS || of_namespace >= MAX_FLIGHTS_OF_NAMESPACE {
            let message = format!(
                "{query} is not asked for: {} ResolutionRequests of {MAX_FLIGHTS} are in flight, {of_namespace} of {MAX_FLIGHTS_OF_NAMESPACE} in this namespace; create the PipelineRun again later",
                flights.len()
            );
            return Err(SourceError { reason: SourceError::UNAVAILABLE, message });
        }
        let (sender, outcome) = channel::channel(None);
        let flight = Flight { start: Instant::now(), outcome, missed: Arc::default() };
        flights.insert(query.clone(), flight.clone());
        tokio::spawn(self.clone().fly(query.clone(), sender, flight.missed.clone()));
        Ok(flight)
    }

    async fn fly(
        self: Arc<Self>,
        query: ResolverQuery,
        sender: channel::Sender<Option<ResolutionResult>>,
        missed: Arc<AtomicBool>,
    ) {
        let name = format!("tekton-wrap-{:016x}", RandomState::new().hash_one(&query));
        let start = Instant::now();
        let outcome = self.outcome(&query, &name).await;
        let late = outcome.is_ok() && missed.load(Relaxed);
        let ended = match &outcome {
            Ok(_) if late => ResolutionOutcome::Late,
            Ok(_) => ResolutionOutcome::Answered,
            Err(error) if error.reason == UNANSWERED => ResolutionOutcome::Unanswered,
            Err(_) => ResolutionOutcome::Failed,
        };
        self.metrics.resolved(ended, start.elapsed());
        if !late {
            // Before the answer is out: whoever asks after it was used asks anew.
            self.flights().remove(&query);
        }
        sender.send_replace(Some(outcome));
        if let Err(error) = delete(&self.client, &query.namespace, &name).await {
            // The watch still knows of it.
            tracing::warn!(namespace = query.namespace, name, "a ResolutionRequest can't be deleted yet: {error}");
        }
        if late {
            sleep(KEEP).await;
            self.flights().remove(&query);
        }
    }

    async fn outcome(&self, query: &ResolverQuery, name: &str) -> ResolutionResult {
        let mut expected = self.board.expect(&query.namespace, name);
        self.create(query, name).await?;
        let answered = async {
            loop {
                match expected.next().await {
                    Some(status) => match self.room.answer(query, &status) {
                        Some(outcome) => return outcome,
                        None => continue,
                    },
                    None => return Err(query.failed("its ResolutionRequest was deleted before it was answered")),
                }
            }
        };
        let given_up = || {
            let why = format!("its resolver gave no answer within {} s", self.longest.as_secs());
            SourceError { reason: UNANSWERED, ..query.failed(&why) }
        };
        timeout(self.longest, answered).await.unwrap_or_else(|_| Err(given_up()))
    }

    async fn create(&self, query: &ResolverQuery, name: &str) -> Result<(), SourceError> {
        let body = json!({
            "apiVersion": "resolution.tekton.dev/v1beta1",
            "kind": "ResolutionRequest",
            "metadata": {"name": name, "namespace": query.namespace, "labels": {RESOLVER: query.resolver, MANAGED_BY: PROGRAM}},
            "spec": {"params": query.params},
        });
        let path = format!("{API}/namespaces/{}/resolutionrequests", query.namespace);
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(body.to_string().into_bytes()).map_err(|e| query.failed(&e.to_string()))?;
        match timeout(REQUEST_TIMEOUT, self.client.request::<Value>(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 && !status.message.contains("being terminated") => {
                Err(query.misconfigured("the webhook's account is forbidden by RBAC to create resolutionrequests of resolution.tekton.dev; grant it to its ClusterRole"))
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 && status.details.as_ref().is_none_or(|details| details.kind != "namespaces") => {
                Err(query.misconfigured("the cluster does not serve resolution.tekton.dev/v1beta1; install Tekton Pipelines with its resolvers"))
            }
            Ok(Err(error)) if api::is_outage(&error) => Err(query.unavailable(&api::sentence(&error))),
            Ok(Err(error)) => Err(query.failed(&api::sentence(&error))),
            Err(_) => Err(query.unavailable("the Kubernetes API gave no answer; create the PipelineRun again")),
        }
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<ResolverQuery, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Deletes one of our requests; that it is gone already is no error. Whoever has begun to answer it meets its absence as
/// Tekton's resolvers do.
async fn delete(client: &Client, namespace: &str, name: &str) -> Result<(), DeleteError> {
    let path = format!("{API}/namespaces/{namespace}/resolutionrequests/{name}");
    let request = http::Request::delete(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    match timeout(REQUEST_TIMEOUT, client.request::<Value>(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(DeleteError::Late),
    }
}

/// Why a ResolutionRequest can't be deleted: a clause.
#[derive(Debug, thiserror::Error)]
enum DeleteError {
    /// The API says no, or can't be reached.
    #[error("{}", api::sentence(.0))]
    Api(#[from] kube::Error),
    /// It says nothing.
    #[error("the Kubernetes API gave no answer")]
    Late,
}

#[cfg(test)]
mod tests;
