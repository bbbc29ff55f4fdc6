//! What is known of our ResolutionRequests: those that a flight waits for, and those that others left or still need.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use serde_json::Value;
use tokio::{sync::mpsc, time::Instant};

/// Namespace and name.
pub type Key = (String, String);

/// A ResolutionRequest as far as it is read.
#[derive(Clone, Debug, Deserialize)]
pub struct RequestObject {
    metadata: RequestMetadata,
    #[serde(default)]
    status: RequestStatus,
}

#[derive(Clone, Debug, Deserialize)]
struct RequestMetadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

/// Its status (Tekton: pkg/apis/resolution/v1beta1/resolution_request_types.go).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestStatus {
    /// Base64.
    #[serde(default)]
    pub data: String,
    /// One of them is of type `Succeeded`.
    #[serde(default)]
    pub conditions: Vec<RequestCondition>,
    #[serde(default)]
    ref_source: Option<Value>,
    #[serde(default)]
    source: Option<Value>,
}

/// A condition.
#[derive(Clone, Debug, Deserialize)]
pub struct RequestCondition {
    /// `Succeeded`
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// CamelCase.
    #[serde(default)]
    pub reason: String,
    /// For people.
    #[serde(default)]
    pub message: String,
}

/// All that is known.
#[derive(Default)]
pub struct Board {
    state: Mutex<BoardState>,
}

#[derive(Default)]
struct BoardState {
    /// Where the news of a request go.
    waiting: HashMap<Key, mpsc::UnboundedSender<RequestStatus>>,
    /// When each request that is there was seen first.
    seen: HashMap<Key, Instant>,
    /// Why the watch is failing, while it is.
    watch_error: Option<String>,
}

/// The news of one request, until this is dropped.
pub struct RequestEvents {
    board: Arc<Board>,
    key: Key,
    news: mpsc::UnboundedReceiver<RequestStatus>,
}

impl RequestStatus {
    /// Where the data came from.
    pub fn source(&self) -> Option<&Value> {
        self.ref_source.as_ref().or(self.source.as_ref())
    }
}

impl Board {
    /// The news of the request `name`, which is about to be created.
    pub fn expect(self: &Arc<Self>, namespace: &str, name: &str) -> RequestEvents {
        let key = (namespace.to_owned(), name.to_owned());
        let (sender, news) = mpsc::unbounded_channel();
        self.state().waiting.insert(key.clone(), sender);
        RequestEvents { board: self.clone(), key, news }
    }

    /// `object` is there, in this state.
    pub fn seen(&self, object: RequestObject) {
        let key = (object.metadata.namespace, object.metadata.name);
        let mut state = self.state();
        if let Some(waiting) = state.waiting.get(&key) {
            // Whoever waited may be gone this very moment.
            let _ = waiting.send(object.status);
        }
        state.seen.entry(key).or_insert_with(Instant::now);
    }

    /// `object` is there no more.
    pub fn gone(&self, object: RequestObject) {
        self.forget(&(object.metadata.namespace, object.metadata.name));
    }

    /// The same for a key.
    pub fn forget(&self, key: &Key) {
        let mut state = self.state();
        state.seen.remove(key);
        state.waiting.remove(key);
    }

    /// The orphaned requests: first seen longer ago than `age`, and no flight of this process waits for them.
    pub fn orphans(&self, age: Duration) -> Vec<Key> {
        let state = self.state();
        let orphaned = |(key, since): &(&Key, &Instant)| since.elapsed() > age && !state.waiting.contains_key(*key);
        state.seen.iter().filter(orphaned).map(|(key, _)| key.clone()).collect()
    }

    /// Why the watch is failing, while it is.
    pub fn watch_error(&self) -> Option<String> {
        self.state().watch_error.clone()
    }

    /// Records why the watch is failing, or that it works.
    pub fn set_watch_error(&self, error: Option<String>) {
        self.state().watch_error = error;
    }

    fn state(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RequestEvents {
    /// The next state; none when the request is there no more.
    pub async fn next(&mut self) -> Option<RequestStatus> {
        self.news.recv().await
    }
}

impl Drop for RequestEvents {
    fn drop(&mut self) {
        self.board.state().waiting.remove(&self.key);
    }
}
