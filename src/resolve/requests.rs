//! What resolvers of the cluster bring, asked for as Tekton does (Tekton: pkg/resolution/resource/crd_resource.go): a
//! ResolutionRequest is created in the run's namespace, watched until a resolver has answered it, and deleted.
//!
//! Each request is a *flight*, a task of its own that outlives whoever asked: it deletes the request also when the answer
//! comes too late or nobody waits any more. Who asks the same at the same time shares the flight. An answer that someone
//! waited for in vain is kept for a while, so that creating the run again finds it; any other is forgotten at once, since
//! what is behind a branch moves.

mod board;
mod watch;

use std::{
    collections::HashMap,
    collections::hash_map::RandomState,
    hash::BuildHasher,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use kube::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch as channel,
    task::JoinHandle,
    time::{Instant, sleep, timeout, timeout_at},
};

use self::board::{Board, Status};
use super::api;
use crate::{
    metrics::{Metrics, ResolutionOutcome},
    source::{Kind, SourceError},
    tekton::reference::{Reference, is_object_name},
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

/// How much of a resolver's own message is passed on, in characters.
const MAX_SHOWN: usize = 600;

/// Requests in flight at a time, of all namespaces and of one.
const MAX_FLIGHTS: usize = 200;
const MAX_FLIGHTS_OF_NAMESPACE: usize = 100;

/// Bytes of answers that are held at a time.
const MAX_HELD: usize = 16 << 20;

/// Asks the resolvers of a cluster.
pub struct Requests {
    shared: Arc<Shared>,
    watch: Option<JoinHandle<()>>,
}

/// What a resolver is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// What it is to bring.
    pub kind: Kind,
    /// The run's: resolvers decide by it what may be read.
    pub namespace: String,
    /// For example `git`.
    pub resolver: String,
    /// Objects with `name` and `value`.
    pub params: Vec<Value>,
}

/// What a resolver brought.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The text of the object.
    pub data: Bytes,
    /// Its `refSource`: uri, digest, entryPoint.
    pub source: Option<Value>,
}

struct Shared {
    client: Client,
    board: Arc<Board>,
    flights: Mutex<HashMap<Ask, Flight>>,
    metrics: Arc<Metrics>,
    /// A flight ends after this time.
    longest: Duration,
    /// Bytes of answers that someone still has.
    held: Arc<AtomicUsize>,
}

/// The bytes of an answer, counted for as long as someone has them.
struct Held {
    data: Vec<u8>,
    all: Arc<AtomicUsize>,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.data
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.all.fetch_sub(self.data.len(), Relaxed);
    }
}

#[derive(Clone)]
struct Flight {
    start: Instant,
    outcome: channel::Receiver<Option<Outcome>>,
    /// Whether someone stopped waiting.
    missed: Arc<AtomicBool>,
}

type Outcome = Result<Answer, SourceError>;

impl Flight {
    /// Whether it has an outcome, or can still have one: it can't if its task panicked.
    fn is_alive(&self) -> bool {
        self.outcome.borrow().is_some() || self.outcome.has_changed().is_ok()
    }
}

/// Someone who waits for a flight; whoever does not get the answer has missed it.
struct Waiting(Option<Arc<AtomicBool>>);

impl Requests {
    /// For the cluster of `client`, with a time after which an answer is waited for no longer. Resolvers themselves have a
    /// minute (Tekton: pkg/apis/config/default.go), and may begin late. Nothing is sent yet.
    pub fn new(client: Client, longest: Duration, metrics: Arc<Metrics>) -> Self {
        let shared =
            Shared { client, board: Arc::default(), flights: Mutex::default(), metrics, longest, held: Arc::default() };
        Self { shared: Arc::new(shared), watch: None }
    }

    /// Watches the requests from now on, and deletes those that nobody deletes any more.
    pub fn start(&mut self) {
        let (client, board) = (self.shared.client.clone(), self.shared.board.clone());
        self.watch = Some(tokio::spawn(watch::run(client, board, self.shared.longest)));
    }

    /// What the resolver answers before `deadline`.
    pub async fn resolve(&self, ask: &Ask, deadline: Option<Instant>) -> Result<Answer, SourceError> {
        if !is_label_value(&ask.resolver) {
            return Err(ask.failed("a resolver can't have this name"));
        }
        // It becomes a part of a URL.
        if !is_object_name(&ask.namespace) {
            return Err(ask.failed("no namespace can have this name"));
        }
        if let Some(error) = self.shared.board.watch_error() {
            return Err(ask.unwatched(&error));
        }
        let mut flight = self.shared.flight(ask)?;
        let mut waiting = Waiting(Some(flight.missed.clone()));
        let arrived = flight.outcome.wait_for(Option::is_some);
        let outcome = match deadline {
            Some(deadline) => timeout_at(deadline, arrived).await,
            None => Ok(arrived.await),
        };
        match outcome {
            Ok(Ok(outcome)) => {
                waiting.0 = None;
                outcome.clone().unwrap_or_else(|| Err(ask.failed("it was given up")))
            }
            Ok(Err(_)) => Err(ask.failed("it was given up; create the PipelineRun again")),
            Err(_) => Err(self.too_late(ask, flight.start.elapsed())),
        }
    }

    fn too_late(&self, ask: &Ask, waited: Duration) -> SourceError {
        let Ask { resolver, .. } = ask;
        if let Some(error) = self.shared.board.watch_error() {
            return ask.unwatched(&error);
        }
        let message = format!(
            "resolver {resolver:?} gave no answer for {:.0} s to what was asked of it: {ask}; create the PipelineRun again, which is safe: nothing was stored, and an answer that comes meanwhile is used",
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
    /// The flight for `ask`, begun if there is none.
    fn flight(self: &Arc<Self>, ask: &Ask) -> Result<Flight, SourceError> {
        let mut flights = self.flights();
        if let Some(flight) = flights.get(ask).filter(|flight| flight.is_alive()) {
            return Ok(flight.clone());
        }
        let of_namespace = flights.keys().filter(|other| other.namespace == ask.namespace).count();
        if flights.len() >= MAX_FLIGHTS || of_namespace >= MAX_FLIGHTS_OF_NAMESPACE {
            let message = format!(
                "{ask} is not asked for: {} ResolutionRequests of {MAX_FLIGHTS} are in flight, {of_namespace} of {MAX_FLIGHTS_OF_NAMESPACE} in this namespace; create the PipelineRun again later",
                flights.len()
            );
            return Err(SourceError { reason: SourceError::UNAVAILABLE, message });
        }
        let (sender, outcome) = channel::channel(None);
        let flight = Flight { start: Instant::now(), outcome, missed: Arc::default() };
        flights.insert(ask.clone(), flight.clone());
        tokio::spawn(self.clone().fly(ask.clone(), sender, flight.missed.clone()));
        Ok(flight)
    }

    async fn fly(self: Arc<Self>, ask: Ask, sender: channel::Sender<Option<Outcome>>, missed: Arc<AtomicBool>) {
        let name = format!("tekton-wrap-{:016x}", RandomState::new().hash_one(&ask));
        let start = Instant::now();
        let outcome = self.outcome(&ask, &name).await;
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
            self.flights().remove(&ask);
        }
        sender.send_replace(Some(outcome));
        if let Err(error) = delete(&self.client, &ask.namespace, &name).await {
            // The watch still knows of it.
            tracing::warn!(namespace = ask.namespace, name, "a ResolutionRequest can't be deleted yet: {error}");
        }
        if late {
            sleep(KEEP).await;
            self.flights().remove(&ask);
        }
    }

    async fn outcome(&self, ask: &Ask, name: &str) -> Outcome {
        let mut expected = self.board.expect(&ask.namespace, name);
        self.create(ask, name).await?;
        let answered = async {
            loop {
                match expected.next().await {
                    Some(status) => match self.answer(ask, &status) {
                        Some(outcome) => return outcome,
                        None => continue,
                    },
                    None => return Err(ask.failed("its ResolutionRequest was deleted before it was answered")),
                }
            }
        };
        let given_up = || {
            let why = format!("its resolver gave no answer within {} s", self.longest.as_secs());
            SourceError { reason: UNANSWERED, ..ask.failed(&why) }
        };
        timeout(self.longest, answered).await.unwrap_or_else(|_| Err(given_up()))
    }

    async fn create(&self, ask: &Ask, name: &str) -> Result<(), SourceError> {
        let body = json!({
            "apiVersion": "resolution.tekton.dev/v1beta1",
            "kind": "ResolutionRequest",
            "metadata": {"name": name, "namespace": ask.namespace, "labels": {RESOLVER: ask.resolver, MANAGED_BY: PROGRAM}},
            "spec": {"params": ask.params},
        });
        let path = format!("{API}/namespaces/{}/resolutionrequests", ask.namespace);
        let request = http::Request::post(path).header(http::header::CONTENT_TYPE, "application/json");
        let request = request.body(body.to_string().into_bytes()).map_err(|e| ask.failed(&e.to_string()))?;
        match timeout(REQUEST_TIMEOUT, self.client.request::<Value>(request)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(kube::Error::Api(status))) if status.code == 403 && !status.message.contains("being terminated") => {
                Err(ask.failed("the webhook's account is forbidden by RBAC to create resolutionrequests of resolution.tekton.dev; grant it to its ClusterRole"))
            }
            Ok(Err(kube::Error::Api(status))) if status.code == 404 && status.details.as_ref().is_none_or(|details| details.kind != "namespaces") => {
                Err(ask.failed("the cluster does not serve resolution.tekton.dev/v1beta1; install Tekton Pipelines with its resolvers"))
            }
            Ok(Err(error)) => Err(ask.failed(&api::sentence(&error))),
            Err(_) => Err(ask.failed("the Kubernetes API gave no answer; create the PipelineRun again")),
        }
    }

    /// What `status` says, if the answers that are held leave room for it.
    fn answer(&self, ask: &Ask, status: &Status) -> Option<Outcome> {
        // Base64 has four characters for three bytes.
        let size = status.data.len() / 4 * 3;
        if self.held.fetch_add(size, Relaxed) + size > MAX_HELD {
            self.held.fetch_sub(size, Relaxed);
            let message = format!(
                "{ask} can't be read: its resolver's answer has {size} bytes, and too many others are being worked on; create the PipelineRun again"
            );
            return Some(Err(SourceError { reason: SourceError::UNAVAILABLE, message }));
        }
        let outcome = read(ask, status);
        let kept = match &outcome {
            Some(Ok(answer)) => answer.data.len(),
            _ => 0,
        };
        self.held.fetch_sub(size - kept.min(size), Relaxed);
        let all = self.held.clone();
        let counted =
            |answer: Answer| Answer { data: Bytes::from_owner(Held { data: answer.data.into(), all }), ..answer };
        Some(outcome?.map(counted))
    }

    fn flights(&self) -> MutexGuard<'_, HashMap<Ask, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ask {
    fn unwatched(&self, error: &str) -> SourceError {
        let message = format!("{self} is not asked for, since ResolutionRequests can't be watched: {error}");
        SourceError { reason: SourceError::UNAVAILABLE, message }
    }

    fn failed(&self, why: &str) -> SourceError {
        SourceError { reason: "NotResolved", message: format!("{self} can't be read: {why}") }
    }
}

/// For sentences: `the pipeline through resolver "git" (url=…)`.
impl std::fmt::Display for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let reference = Reference::Remote { resolver: self.resolver.clone(), params: self.params.clone() };
        write!(f, "the {} {reference} in namespace {:?}", self.kind.word(), self.namespace)
    }
}

/// Deletes one of our requests; that it is gone already is no error. Whoever has begun to answer it meets its absence as
/// Tekton's resolvers do.
async fn delete(client: &Client, namespace: &str, name: &str) -> Result<(), String> {
    let path = format!("{API}/namespaces/{namespace}/resolutionrequests/{name}");
    let request = http::Request::delete(path).body(Vec::new()).map_err(|e| e.to_string())?;
    match timeout(REQUEST_TIMEOUT, client.request::<Value>(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(()),
        Ok(Err(error)) => Err(api::sentence(&error)),
        Err(_) => Err("the Kubernetes API gave no answer".to_owned()),
    }
}

/// What `status` says; none where there is no answer yet. Data counts before the condition says so
/// (Tekton: resolution_request_lifecycle.go).
fn read(ask: &Ask, status: &Status) -> Option<Outcome> {
    if !status.data.is_empty() {
        let answer =
            STANDARD.decode(&status.data).map_err(|e| ask.failed(&format!("its resolver's answer is not base64: {e}")));
        return Some(answer.map(|data| Answer { data: data.into(), source: status.source().cloned() }));
    }
    let condition = status.conditions.iter().find(|condition| condition.kind == "Succeeded")?;
    match condition.status.as_str() {
        "False" => {
            let said = api::one_line(&condition.message);
            let mut shown: String = said.chars().take(MAX_SHOWN).collect();
            if shown.len() < said.len() {
                shown.push('…');
            }
            Some(Err(ask.failed(&format!("its resolver says {}: {shown}", condition.reason))))
        }
        "True" => Some(Err(ask.failed("its resolver's answer is empty"))),
        _ => None,
    }
}

/// Kubernetes: "Labels and Selectors", the syntax of values.
fn is_label_value(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.starts_with(alnum)
        && text.ends_with(alnum)
        && text.chars().all(|c| alnum(c) || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        let ask = Ask {
            kind: Kind::Pipeline,
            namespace: "team".to_owned(),
            resolver: "git".to_owned(),
            params: vec![json!({"name": "url", "value": "u"})],
        };
        let status = |value: Value| read(&ask, &serde_json::from_value(value).unwrap());
        let condition = |status: &str, reason: &str, message: &str| json!({"conditions": [{"type": "Succeeded", "status": status, "reason": reason, "message": message}]});
        for waiting in [json!({}), condition("Unknown", "", "waiting"), json!({"conditions": []})] {
            assert_eq!(status(waiting.clone()).map(|_| ()), None, "{waiting}");
        }
        let answer = status(json!({"data": "aGk=", "refSource": {"uri": "u"}})).unwrap().unwrap();
        assert_eq!(answer, Answer { data: Bytes::from("hi"), source: Some(json!({"uri": "u"})) });
        // Resolvers of before refSource.
        let answer = status(json!({"data": "aGk=", "source": {"uri": "u"}})).unwrap().unwrap();
        assert_eq!(answer.source, Some(json!({"uri": "u"})));
        for (value, why) in [
            (json!({"data": "?"}), "its resolver's answer is not base64: Invalid symbol 63, offset 0."),
            (
                condition("False", "ResolutionFailed", "no\nsuch  file"),
                "its resolver says ResolutionFailed: no such file",
            ),
            (condition("True", "", ""), "its resolver's answer is empty"),
        ] {
            let error = status(value).unwrap().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(r#"the pipeline through resolver "git" (url=u) in namespace "team" can't be read: {why}"#)
            );
        }
        let long = status(condition("False", "R", &"x".repeat(5000))).unwrap().unwrap_err().to_string();
        assert!(long.ends_with("xx…") && long.len() < 800, "{long}");
    }

    #[test]
    fn what_panicked_is_no_flight() {
        let (sender, outcome) = channel::channel(None);
        let flight = Flight { start: Instant::now(), outcome, missed: Arc::default() };
        assert!(flight.is_alive());
        drop(sender);
        assert!(!flight.is_alive());
        let (sender, outcome) = channel::channel(None);
        let flight = Flight { start: Instant::now(), outcome, missed: Arc::default() };
        sender.send_replace(Some(Err(SourceError { reason: "R", message: String::new() })));
        drop(sender);
        assert!(flight.is_alive());
    }

    #[test]
    fn label_values() {
        for text in ["git", "my.resolver_1-x", &"a".repeat(63)] {
            assert!(is_label_value(text), "{text}");
        }
        for text in ["", "a b", "-a", "a-", "a/b", "ä", &"a".repeat(64)] {
            assert!(!is_label_value(text), "{text}");
        }
    }
}
