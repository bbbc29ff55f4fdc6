//! How much is done at a time: bodies, reviews and computations need permits, so that no number of them exhausts a replica.

#![allow(clippy::arithmetic_side_effects, reason = "a clock and at most a minute; lengths of what is in memory")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Incoming};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout_at},
};

use crate::{limits::Budget, resolve::Work};

/// Computations at a time, a rewrite among them.
pub const MAX_COMPUTATIONS: usize = 2;

/// The largest review. A created object may have 3 MiB, and there must be room for the rest
/// (Kubernetes: apiserver/pkg/server/config.go, MaxRequestBodyBytes).
pub const MAX_BODY: usize = 4 << 20;

/// A larger body counts as a large one: the review of a run has a few KiB.
const SMALL_BODY: usize = 256 << 10;

/// Large bodies at a time.
const MAX_LARGE_BODIES: usize = 4;

/// Large bodies that may wait for their turn. Each has a seat and has sent nothing yet: most seats have to stay free.
const MAX_WAITING_BODIES: usize = 64;

/// The longest wait for a turn, which a client can shorten and not prolong.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// Bytes of bodies at a time.
const MAX_BYTES: usize = 24 << 20;

/// Time for a body, which comes from within the cluster.
const BODY_TIMEOUT: Duration = Duration::from_secs(5);

/// Reviews at a time. Those that take long wait for a resolver.
const MAX_REVIEWS: usize = 128;

/// Large reviews at a time, see [`Budget`].
const MAX_LARGE_REVIEWS: usize = 2;

/// All permits.
#[derive(Clone)]
pub struct Capacity {
    /// Does what only computes.
    pub work: Work,
    large_bodies: Arc<Semaphore>,
    waiting_bodies: Arc<Semaphore>,
    bytes: Arc<AtomicUsize>,
    reviews: Arc<Semaphore>,
    large_reviews: Arc<Semaphore>,
}

/// A body, counted for as long as this lives.
pub struct Received {
    bytes: Vec<u8>,
    all: Arc<AtomicUsize>,
    _large: Option<OwnedSemaphorePermit>,
}

/// Why there is no body.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// It exceeds [`MAX_BODY`].
    #[error("an admission review may have {} MiB at most", MAX_BODY >> 20)]
    TooLarge,
    /// Not all of it arrived.
    #[error("the admission review did not arrive within {:.1} s", .0.as_secs_f32())]
    TooSlow(Duration),
    /// Too many others are arriving, and its turn did not come, or too many wait for theirs.
    #[error("too many large admission reviews arrive at a time; try again")]
    Busy,
    /// The connection ended.
    #[error("the connection broke inside the admission review: {0}")]
    Broken(#[source] hyper::Error),
}

impl BodyError {
    /// A code for logs and metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge => "TooLarge",
            Self::TooSlow(_) => "TooSlow",
            Self::Busy => "Busy",
            Self::Broken(_) => "Broken",
        }
    }
}

impl Capacity {
    /// All permits free.
    pub fn new(work: Work) -> Self {
        Self {
            work,
            large_bodies: Arc::new(Semaphore::new(MAX_LARGE_BODIES)),
            waiting_bodies: Arc::new(Semaphore::new(MAX_WAITING_BODIES)),
            bytes: Arc::default(),
            reviews: Arc::new(Semaphore::new(MAX_REVIEWS)),
            large_reviews: Arc::new(Semaphore::new(MAX_LARGE_REVIEWS)),
        }
    }

    /// Reads `body`, whose request began at `start` and has to be answered after `budget`.
    ///
    /// A large one waits for its turn before anything of it is read, up to half of that time and to [`MAX_WAIT`]: the apiserver
    /// asks only once. The bytes count, and a large body has its turn, until the last part of what is returned is dropped.
    pub async fn receive(&self, body: Incoming, start: Instant, budget: Duration) -> Result<Bytes, BodyError> {
        let mut received = Received { bytes: Vec::new(), all: self.bytes.clone(), _large: None };
        // Content-Length, if there is one.
        let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        if (SMALL_BODY + 1..=MAX_BODY).contains(&announced) {
            received._large = Some(self.turn(start + MAX_WAIT.min(budget / 2)).await?);
        }
        let (now, end) = (Instant::now(), start + budget);
        let limit = BODY_TIMEOUT.min(end.saturating_duration_since(now));
        match timeout_at(now + limit, self.collect(body, announced, received)).await {
            Ok(received) => Ok(Bytes::from_owner(received?)),
            Err(_) => Err(BodyError::TooSlow(limit)),
        }
    }

    /// The turn of a large body. Who would be one too many to wait is told so at once.
    async fn turn(&self, until: Instant) -> Result<OwnedSemaphorePermit, BodyError> {
        let _place = self.waiting_bodies.try_acquire().map_err(|_| BodyError::Busy)?;
        let turn = timeout_at(until, self.large_bodies.clone().acquire_owned()).await;
        turn.ok().and_then(Result::ok).ok_or(BodyError::Busy)
    }

    async fn collect(
        &self,
        mut body: Incoming,
        announced: usize,
        mut received: Received,
    ) -> Result<Received, BodyError> {
        self.check(announced, &mut received)?;
        received.bytes.reserve(announced.min(SMALL_BODY));
        while let Some(frame) = body.frame().await {
            let Ok(chunk) = frame.map_err(BodyError::Broken)?.into_data() else { continue };
            self.check(received.bytes.len() + chunk.len(), &mut received)?;
            let all = self.bytes.fetch_add(chunk.len(), Relaxed);
            received.bytes.extend_from_slice(&chunk);
            if all + chunk.len() > MAX_BYTES {
                return Err(BodyError::Busy);
            }
        }
        Ok(received)
    }

    /// Refuses a body of `length` that is too long, or large while too many others are.
    fn check(&self, length: usize, received: &mut Received) -> Result<(), BodyError> {
        if length > MAX_BODY {
            return Err(BodyError::TooLarge);
        }
        if length > SMALL_BODY && received._large.is_none() {
            received._large = Some(self.large_bodies.clone().try_acquire_owned().map_err(|_| BodyError::Busy)?);
        }
        Ok(())
    }

    /// A permit for a review, once one is free.
    pub async fn review(&self) -> Option<OwnedSemaphorePermit> {
        // The semaphore is never closed, so there always is a permit.
        self.reviews.clone().acquire_owned().await.ok()
    }

    /// The budget of one review.
    pub fn budget(&self) -> Budget {
        Budget::with_turns(self.large_reviews.clone())
    }
}

impl AsRef<[u8]> for Received {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Received {
    fn drop(&mut self) {
        self.all.fetch_sub(self.bytes.len(), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn few_large_bodies_wait_for_a_turn() {
        let capacity = Capacity::new(Work::Here);
        let later = Instant::now() + Duration::from_secs(3600);
        let mut turns = Vec::new();
        for _ in 0..MAX_LARGE_BODIES {
            turns.push(capacity.turn(later).await.unwrap());
        }
        let mut waiting: Vec<_> = (0..MAX_WAITING_BODIES).map(|_| Box::pin(capacity.turn(later))).collect();
        assert!(waiting.iter_mut().all(|turn| turn.now_or_never().is_none()));
        assert!(matches!(capacity.turn(later).now_or_never(), Some(Err(BodyError::Busy))), "no place to wait");
        drop(turns.pop());
        let first = waiting.remove(0).await.unwrap();
        let mut next = Box::pin(capacity.turn(later));
        assert!((&mut next).now_or_never().is_none(), "the place of the first is free");
        drop(next);
        assert!(matches!(capacity.turn(Instant::now()).await, Err(BodyError::Busy)), "the time is over");
        drop((first, waiting));
        assert_eq!(capacity.waiting_bodies.available_permits(), MAX_WAITING_BODIES);
    }
}
