//! When to try again, and when to stop.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, SystemTime},
};

use crate::store::StoreError;

/// How often and how long to try again what may be a passing fault.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Attempts in all, the first one included.
    pub attempts: u32,
    /// The wait before the second attempt; it doubles from one to the next.
    pub first: Duration,
    /// The longest wait that we choose ourselves.
    pub longest: Duration,
    /// Waits in all: a registry that asks for more than is left of it is not waited for.
    pub total: Duration,
}

/// Why an attempt failed.
#[derive(Debug)]
pub enum Failure {
    /// Another attempt may go better.
    Transient {
        /// What to say if there is none.
        error: StoreError,
        /// How long the registry asked to wait.
        after: Option<Duration>,
    },
    /// Another attempt would fail as well.
    Final(StoreError),
}

/// The waits of one operation.
#[derive(Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    attempts: u32,
    waited: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 7,
            first: Duration::from_millis(400),
            longest: Duration::from_secs(20),
            total: Duration::from_secs(180),
        }
    }
}

impl Backoff {
    /// For an operation that begins now.
    pub fn new(policy: &RetryPolicy) -> Self {
        Self { policy: policy.clone(), attempts: 1, waited: Duration::ZERO }
    }

    /// Runs `attempt` until it succeeds or there is no hope.
    pub fn run<T>(mut self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, StoreError> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(failure)?,
            }
        }
    }

    /// Waits until the next attempt is due; the error where there is to be none.
    pub fn wait(&mut self, failure: Failure) -> Result<(), StoreError> {
        let (error, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient { error, after } => (error, after),
        };
        match self.next(after, random()) {
            Some(wait) => {
                tracing::warn!("{error}; trying again in {:.1} s", wait.as_secs_f64());
                std::thread::sleep(wait);
                Ok(())
            }
            None if self.attempts == 1 => Err(error),
            None => Err(StoreError::GaveUp { attempts: self.attempts, error: Box::new(error) }),
        }
    }

    /// Something was achieved: count from the beginning again.
    pub fn reset(&mut self) {
        (self.attempts, self.waited) = (1, Duration::ZERO);
    }

    /// The next wait, for a `random` number from 0 to 1. What the registry asks for is a lower bound; our own waits are
    /// spread over their upper half, so that clients that failed together don't come back together.
    fn next(&mut self, after: Option<Duration>, random: f64) -> Option<Duration> {
        if self.attempts >= self.policy.attempts {
            return None;
        }
        let exponential = self.policy.first.saturating_mul(1 << (self.attempts - 1).min(16)).min(self.policy.longest);
        let own = exponential.mul_f64(0.5 + random / 2.0);
        let wait = after.map_or(own, |after| after + own.mul_f64(0.1));
        let waited = self.waited + wait;
        if waited > self.policy.total {
            return None;
        }
        self.attempts += 1;
        self.waited = waited;
        Some(wait)
    }
}

/// The header `Retry-After`: seconds or a date (RFC 9110, 10.2.3).
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => Some(httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default()),
    }
}

/// From 0 to 1. The standard library seeds its hash maps from the system's random numbers; that is good enough here.
fn random() -> f64 {
    let number = RandomState::new().build_hasher().finish() >> 11;
    number as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(after: &[Option<u64>], random: f64) -> Vec<f64> {
        let policy = RetryPolicy {
            attempts: 5,
            first: Duration::from_secs(1),
            longest: Duration::from_secs(4),
            total: Duration::from_secs(60),
        };
        let mut backoff = Backoff::new(&policy);
        let wait = |&after: &Option<u64>| Some(backoff.next(after.map(Duration::from_secs), random)?.as_secs_f64());
        after.iter().map_while(wait).collect()
    }

    #[test]
    fn waits_grow_and_end() {
        assert_eq!(waits(&[None; 9], 1.0), [1.0, 2.0, 4.0, 4.0]);
        assert_eq!(waits(&[None; 9], 0.0), [0.5, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn the_registrys_wish_is_kept_within_the_total() {
        assert_eq!(waits(&[Some(30), Some(0), Some(29), None], 1.0), [30.1, 0.2, 29.4]);
        assert_eq!(waits(&[Some(61)], 1.0), [] as [f64; 0]);
        assert_eq!(waits(&[Some(u64::MAX / 2)], 1.0), [] as [f64; 0]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_445_412_470);
        for (value, seconds) in [
            ("120", Some(120)),
            (" 0 ", Some(0)),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(10)),
            ("Wed, 21 Oct 2015 07:27:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now), seconds.map(Duration::from_secs), "{value}");
        }
    }

    #[test]
    fn jitter_is_a_fraction() {
        assert!((0..100).map(|_| random()).all(|r| (0.0..=1.0).contains(&r)));
        assert_ne!(random(), random());
    }
}
