//! One request for many who ask for the same at a time.
//!
//! Each gets what a request brings that began after it had asked, so nobody is given anything older than by a request of its
//! own. However many ask, at most one request for each thing is under way.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::timeout;

/// The longest that one waits for another's request, before it sends its own: a connection that hangs holds up nobody else.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Requests that are under way, by what is asked for.
#[derive(Debug)]
pub struct SharedReads<T> {
    slots: Mutex<HashMap<String, Arc<Slot<T>>>>,
    /// Counts questions and requests, so that it is known which came first.
    clock: AtomicU64,
}

/// The last answer. It is locked while a request is under way.
type Slot<T> = tokio::sync::Mutex<Option<LastAnswer<T>>>;

#[derive(Debug)]
struct LastAnswer<T> {
    began: u64,
    value: T,
}

/// One who asks; what nobody asks for any more is forgotten.
struct Asking<'a, T> {
    shared: &'a SharedReads<T>,
    key: &'a str,
    slot: Arc<Slot<T>>,
}

impl<T> Default for SharedReads<T> {
    fn default() -> Self {
        Self { slots: Mutex::default(), clock: AtomicU64::default() }
    }
}

impl<T: Clone> SharedReads<T> {
    /// What `request` brings for `key`, or another's request for it that begins from now on.
    pub async fn get(&self, key: &str, request: impl AsyncFnOnce() -> T) -> T {
        let asked = self.clock.fetch_add(1, SeqCst);
        let asking = self.ask(key);
        let Ok(mut slot) = timeout(MAX_WAIT, asking.slot.lock()).await else { return request().await };
        if let Some(answer) = &*slot
            && answer.began > asked
        {
            return answer.value.clone();
        }
        let began = self.clock.fetch_add(1, SeqCst);
        let value = request().await;
        *slot = Some(LastAnswer { began, value: value.clone() });
        value
    }

    fn ask<'a>(&'a self, key: &'a str) -> Asking<'a, T> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = slots.entry(key.to_owned()).or_default().clone();
        Asking { shared: self, key, slot }
    }
}

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        let mut slots = self.shared.slots.lock().unwrap_or_else(PoisonError::into_inner);
        // The map's and this one.
        if Arc::strong_count(&self.slot) == 2 {
            slots.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::future::join_all;
    use tokio::sync::Notify;

    use super::*;

    /// How often each asks, and that all are told no older value than there was when they asked.
    #[tokio::test]
    async fn nobody_gets_what_is_older_than_its_question() {
        let (shared, stored, requests) = (SharedReads::default(), AtomicU64::new(0), AtomicUsize::new(0));
        let read = async || {
            requests.fetch_add(1, SeqCst);
            tokio::task::yield_now().await;
            let value = stored.load(SeqCst);
            tokio::task::yield_now().await;
            value
        };
        let one = async |index: usize| {
            for _ in 0..index % 7 {
                tokio::task::yield_now().await;
            }
            for _ in 0..20 {
                let least =
                    if index.is_multiple_of(10) { stored.fetch_add(1, SeqCst) + 1 } else { stored.load(SeqCst) };
                let got = shared.get("a", &read).await;
                assert!(got >= least, "{got} where {least} was stored");
            }
        };
        join_all((0..100).map(one)).await;
        let requests = requests.into_inner();
        assert!(requests < 2000 / 10, "{requests} requests for 2000 questions");
        assert!(shared.slots.lock().unwrap().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn a_request_that_hangs_or_is_given_up_holds_up_nobody() {
        let (shared, never) = (SharedReads::default(), Notify::new());
        let hanging = async || {
            never.notified().await;
            0
        };
        let mut first = Box::pin(shared.get("a", hanging));
        assert!(timeout(Duration::ZERO, &mut first).await.is_err());
        assert_eq!(shared.get("b", async || 1).await, 1, "another thing");
        assert_eq!(shared.get("a", async || 2).await, 2, "by a request of its own");
        let waiting = shared.get("a", async || 3);
        tokio::pin!(waiting);
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        drop(first);
        assert_eq!(timeout(MAX_WAIT, waiting).await, Ok(3), "as soon as the first gives up");
        assert!(shared.slots.lock().unwrap().is_empty(), "nothing is kept");
    }
}
