//! Limits on concurrency, adapted by additive increase and multiplicative decrease: none until the registry reports
//! overload (429, 503), which halves the limit; each finished request raises it by one.

use std::{
    collections::HashMap,
    sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError},
};

/// The concurrent requests of this process to one registry.
#[derive(Debug, Default)]
pub struct Pressure {
    /// Short requests, which wait only for the network while they hold a permit.
    requests: Gate,
    /// Uploads. Producing the content of one may take requests, but never other uploads, so that this can't deadlock.
    uploads: Gate,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct GateState {
    running: usize,
    /// None: no limit.
    limit: Option<usize>,
    /// A fixed limit.
    cap: Option<usize>,
}

/// The right to run; released when dropped.
#[derive(Debug)]
pub struct Permit<'a> {
    gate: &'a Gate,
}

/// A limit that reaches this is removed.
const MANY: usize = 64;

impl Pressure {
    /// Shared by all stores in `registry`.
    pub fn of(registry: &str) -> Arc<Self> {
        static ALL: LazyLock<Mutex<HashMap<String, Arc<Pressure>>>> = LazyLock::new(Mutex::default);
        let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
        all.entry(registry.to_owned()).or_default().clone()
    }

    /// Waits until a request may be sent.
    pub fn request(&self) -> Permit<'_> {
        self.requests.enter()
    }

    /// Waits until an upload may begin.
    pub fn upload(&self) -> Permit<'_> {
        self.uploads.enter()
    }

    /// Halves the limits.
    pub fn lower(&self) {
        self.requests.lower();
        self.uploads.lower();
    }

    /// Limits the concurrent uploads, for those that need much memory.
    pub fn limit_uploads(&self, limit: usize) {
        self.uploads.limit(limit);
    }

    /// Limits the concurrent requests, for those that each take a connection.
    pub fn limit_requests(&self, limit: usize) {
        self.requests.limit(limit);
    }
}

impl Gate {
    fn enter(&self) -> Permit<'_> {
        let mut state = self.lock();
        while state.is_full() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.running = state.running.saturating_add(1);
        Permit { gate: self }
    }

    fn lower(&self) {
        let mut state = self.lock();
        let now = state.limit.unwrap_or(state.running).min(state.running);
        state.limit = Some(now.checked_div(2).unwrap_or_default().max(1));
    }

    fn limit(&self, limit: usize) {
        let mut state = self.lock();
        state.cap = Some(state.cap.map_or(limit, |now| now.min(limit)));
    }

    fn lock(&self) -> MutexGuard<'_, GateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateState {
    fn is_full(&self) -> bool {
        [self.limit, self.cap].into_iter().flatten().any(|most| self.running >= most)
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut state = self.gate.lock();
        state.running = state.running.saturating_sub(1);
        state.limit = state.limit.map(|limit| limit.saturating_add(1)).filter(|limit| *limit < MANY);
        drop(state);
        self.gate.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
        time::Duration,
    };

    use super::*;

    #[test]
    fn half_of_it_and_then_more_again() {
        let gate = Gate::default();
        let permits: Vec<_> = (0..8).map(|_| gate.enter()).collect();
        gate.lower();
        assert_eq!(gate.lock().limit, Some(4));
        drop(permits);
        assert_eq!(gate.lock().limit, Some(12));
        (0..60).for_each(|_| drop(gate.enter()));
        assert_eq!(gate.lock().limit, None);
        (0..3).for_each(|_| gate.lower());
        assert_eq!(gate.lock().limit, Some(1), "one is always possible");
    }

    #[test]
    fn who_has_no_permit_waits() {
        let (gate, most, running) = (Gate::default(), AtomicUsize::new(0), AtomicUsize::new(0));
        gate.lower();
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let permit = gate.enter();
                    most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(5));
                    running.fetch_sub(1, Ordering::SeqCst);
                    drop(permit);
                });
            }
        });
        assert!(most.load(Ordering::SeqCst) < 4);
    }

    #[test]
    fn all_stores_of_a_registry_share_it() {
        assert!(Arc::ptr_eq(&Pressure::of("a.io"), &Pressure::of("a.io")));
        assert!(!Arc::ptr_eq(&Pressure::of("a.io"), &Pressure::of("b.io")));
    }
}
