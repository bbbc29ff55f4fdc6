//! One request for many who ask for the same at a time.
//!
//! Each gets what a request brings that began after it had asked, so nobody is given anything older than by a request of its
//! own. However many ask, requests for one thing follow each other, unless one hangs: then one more begins each second.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::time::timeout;

/// The longest that one waits for a request of another: it may hang, for instance on a connection that is dead.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// Requests that are under way, by what is asked for.
#[derive(Debug)]
pub struct SharedReads<T> {
    slots: Mutex<HashMap<String, CountedSlot<T>>>,
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

/// A slot, and how many look at it. With the last of them it goes.
#[derive(Debug)]
struct CountedSlot<T> {
    slot: Arc<Slot<T>>,
    asking: usize,
}

/// One who asks.
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
    /// What `request` brings for `key`, or another's request for it that begins from now on. It is for the caller to set a time
    /// limit.
    pub async fn get(&self, key: &str, request: impl AsyncFnOnce() -> T) -> T {
        let asked = self.clock.fetch_add(1, SeqCst);
        loop {
            let asking = self.ask(key);
            let Ok(mut slot) = timeout(MAX_WAIT, asking.slot.lock()).await else {
                asking.replace();
                continue;
            };
            if let Some(answer) = &*slot
                && answer.began > asked
            {
                return answer.value.clone();
            }
            let began = self.clock.fetch_add(1, SeqCst);
            let value = request().await;
            *slot = Some(LastAnswer { began, value: value.clone() });
            return value;
        }
    }

    fn ask<'a>(&'a self, key: &'a str) -> Asking<'a, T> {
        let mut slots = self.lock();
        let counted = slots.entry(key.to_owned()).or_insert_with(CountedSlot::new);
        counted.asking = counted.asking.saturating_add(1);
        Asking { shared: self, key, slot: counted.slot.clone() }
    }
}

impl<T> SharedReads<T> {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, CountedSlot<T>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> CountedSlot<T> {
    fn new() -> Self {
        Self { slot: Arc::default(), asking: 0 }
    }
}

impl<T> Asking<'_, T> {
    /// Has all who ask from now on look at another slot, as the request of this one hangs.
    fn replace(&self) {
        let mut slots = self.shared.lock();
        if let Some(counted) = slots.get_mut(self.key)
            && Arc::ptr_eq(&counted.slot, &self.slot)
        {
            *counted = CountedSlot::new();
        }
    }
}

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        let mut slots = self.shared.lock();
        // It may have been replaced.
        let Some(counted) = slots.get_mut(self.key).filter(|counted| Arc::ptr_eq(&counted.slot, &self.slot)) else {
            return;
        };
        counted.asking = counted.asking.saturating_sub(1);
        if counted.asking == 0 {
            slots.remove(self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, thread};

    use futures_util::future::join_all;
    use tokio::{sync::Notify, task::yield_now};

    use super::*;

    /// Many ask, on several threads, some of them after they changed what is stored.
    #[test]
    fn nobody_gets_what_is_older_than_its_question() {
        let (shared, stored, requests) = (SharedReads::default(), AtomicU64::new(0), AtomicUsize::new(0));
        let read = async || {
            requests.fetch_add(1, SeqCst);
            yield_now().await;
            let value = stored.load(SeqCst);
            yield_now().await;
            value
        };
        let one = async |index: usize| {
            for _ in 0..200 {
                let least = if index.is_multiple_of(5) { stored.fetch_add(1, SeqCst) + 1 } else { stored.load(SeqCst) };
                let got = shared.get("a", &read).await;
                assert!(got >= least, "{got} where {least} was stored");
            }
        };
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
                    runtime.block_on(join_all((0..10).map(one)));
                });
            }
        });
        assert!(requests.into_inner() < 4 * 10 * 200, "no request was shared");
        assert!(shared.lock().is_empty(), "nothing is kept");
    }

    #[tokio::test]
    async fn one_request_is_for_all_who_wait() {
        let (shared, requests, go) = (SharedReads::default(), AtomicUsize::new(0), Notify::new());
        let read = async || {
            requests.fetch_add(1, SeqCst);
            go.notified().await;
        };
        let all = join_all((0..100).map(|_| shared.get("a", &read)));
        tokio::join!(all, async {
            go.notify_one();
            yield_now().await;
            go.notify_one();
        });
        assert_eq!(requests.load(SeqCst), 2, "that of the first, and one for all who came meanwhile");
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
        let requests = AtomicUsize::new(0);
        let second = async || {
            yield_now().await;
            requests.fetch_add(1, SeqCst) + 2
        };
        let got = join_all((0..20).map(|_| shared.get("a", &second))).await;
        let sent = requests.load(SeqCst);
        assert!(got.iter().all(|&value| value == 2) && sent == 1, "{sent} instead of the one that hangs: {got:?}");

        let mut third = Box::pin(shared.get("a", hanging));
        assert!(timeout(Duration::ZERO, &mut third).await.is_err());
        let mut waiting = Box::pin(shared.get("a", async || 3));
        assert!(timeout(Duration::ZERO, &mut waiting).await.is_err());
        drop(third);
        assert_eq!(timeout(Duration::ZERO, waiting).await, Ok(3), "as soon as the one before gives up");
        drop(first);
        assert!(shared.lock().is_empty(), "nothing is kept");
    }
}
