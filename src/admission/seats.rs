//! Seats for the connections of a listener. If all are taken, a new connection gets that of the one that has been idle the
//! longest: many connections without requests keep nobody out.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore},
    time::{Duration, Instant, sleep_until},
};

/// An idle connection keeps its seat for at least this time, so that it can send a request.
const GRACE: Duration = Duration::from_millis(50);

/// All seats of a listener.
#[derive(Clone)]
pub struct Seats {
    free: Arc<Semaphore>,
    idle: Arc<Mutex<Idle>>,
}

/// The connections in which no request is being answered, by the order in which they became idle.
#[derive(Default)]
struct Idle {
    next: u64,
    connections: BTreeMap<u64, (Arc<Notify>, Instant)>,
}

/// The seat of one connection, until this is dropped.
pub struct Seat {
    all: Arc<Mutex<Idle>>,
    place: Mutex<Option<u64>>,
    taken: Arc<Notify>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Seats {
    /// `count` free seats.
    pub fn new(count: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(count)), idle: Arc::default() }
    }

    /// A seat, once there is one: that of an idle connection if none is free.
    pub async fn take(&self) -> Seat {
        let permit = match self.free.clone().try_acquire_owned() {
            Ok(permit) => Some(permit),
            Err(_) => {
                // The semaphore is never closed, so there always is a permit.
                let free = self.free.clone().acquire_owned();
                tokio::pin!(free);
                loop {
                    let longest = locked(&self.idle).connections.first_key_value().map(|(_, (_, since))| *since);
                    #[allow(clippy::arithmetic_side_effects, reason = "a few seconds from now is a time")]
                    let enough = longest.unwrap_or_else(Instant::now) + GRACE;
                    tokio::select! {
                        biased;
                        permit = &mut free => break permit.ok(),
                        () = sleep_until(enough) => {}
                    }
                    if self.take_idle() {
                        break free.await.ok();
                    }
                }
            }
        };
        let seat = Seat { all: self.idle.clone(), place: Mutex::default(), taken: Arc::default(), _permit: permit };
        seat.set_idle();
        seat
    }

    /// Takes the seat of the connection that has been idle the longest, unless it has just become idle.
    fn take_idle(&self) -> bool {
        let mut idle = locked(&self.idle);
        match idle.connections.first_entry() {
            Some(entry) if entry.get().1.elapsed() >= GRACE => {
                entry.remove().0.notify_one();
                true
            }
            _ => false,
        }
    }

    /// Waits until all `count` seats are free.
    pub async fn all_free(&self, count: usize) {
        let all = u32::try_from(count).unwrap_or(u32::MAX);
        let _ = self.free.acquire_many(all).await;
    }
}

impl Seat {
    /// A request is being answered: the seat can't be taken.
    pub fn set_busy(&self) {
        let place = locked(&self.place).take();
        if let Some(place) = place {
            locked(&self.all).connections.remove(&place);
        }
    }

    /// No request is being answered.
    pub fn set_idle(&self) {
        let mut all = locked(&self.all);
        let place = all.next;
        all.next = all.next.wrapping_add(1);
        all.connections.insert(place, (self.taken.clone(), Instant::now()));
        *locked(&self.place) = Some(place);
    }

    /// Waits until the seat is taken by another connection.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.set_busy();
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
