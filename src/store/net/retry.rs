//! Retries: exponential backoff with jitter, and a deadline.

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{Duration, Instant, SystemTime},
};

use crate::store::StoreError;

/// How transient faults are retried.
#[derive(Clone, Debug)]
pub struct RetryPolicy {
    /// Time limit from the first fault on. A `Retry-After` beyond it ends the retries.
    pub deadline: Duration,
    /// The wait before the second attempt; each further one is twice as long.
    pub first: Duration,
    /// The longest wait, unless the registry asks for a longer one.
    pub longest: Duration,
}

/// Why an attempt failed.
#[derive(Debug)]
pub enum Failure {
    /// Another attempt may succeed.
    Transient {
        /// The error if there is none.
        error: StoreError,
        /// The header `Retry-After`.
        after: Option<Duration>,
    },
    /// Another attempt would fail as well.
    Final(StoreError),
}

/// The attempts of one operation.
#[derive(Clone, Debug)]
pub struct Backoff {
    policy: RetryPolicy,
    attempts: u32,
    /// When the first fault occurred. The duration of successful attempts does not count.
    since: Option<Instant>,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(5 * 60),
            first: Duration::from_millis(400),
            longest: Duration::from_secs(20),
        }
    }
}

impl Failure {
    /// A transient failure without `Retry-After`.
    pub fn transient(error: StoreError) -> Self {
        Self::Transient { error, after: None }
    }

    /// A failure that is transient if `transient`.
    pub fn of(error: StoreError, transient: bool) -> Self {
        if transient { Self::transient(error) } else { Self::Final(error) }
    }

    /// The same as one of a part of an operation, which is begun again as a whole.
    pub fn of_part(self) -> Self {
        match self {
            Self::Final(error) => Self::transient(error),
            transient => transient,
        }
    }

    /// The error.
    pub fn into_error(self) -> StoreError {
        match self {
            Self::Final(error) | Self::Transient { error, .. } => error,
        }
    }
}

impl Backoff {
    /// For a new operation.
    pub fn new(policy: &RetryPolicy) -> Self {
        Self { policy: policy.clone(), attempts: 1, since: None }
    }

    /// Runs `attempt` until it succeeds, fails finally, or the deadline is reached.
    pub fn run<T>(mut self, mut attempt: impl FnMut() -> Result<T, Failure>) -> Result<T, StoreError> {
        loop {
            match attempt() {
                Ok(value) => return Ok(value),
                Err(failure) => self.wait(failure)?,
            }
        }
    }

    /// Waits until the next attempt is due; the error if there is none.
    pub fn wait(&mut self, failure: Failure) -> Result<(), StoreError> {
        let (error, after) = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Transient { error, after } => (error, after),
        };
        let elapsed = self.since.get_or_insert_with(Instant::now).elapsed();
        match self.next(elapsed, after, random()) {
            Some(wait) => {
                tracing::warn!("{error}; trying again in {:.1} s", wait.as_secs_f64());
                std::thread::sleep(wait);
                Ok(())
            }
            None if self.attempts == 1 => Err(error),
            None => Err(StoreError::GaveUp { attempts: self.attempts, elapsed, error: Box::new(error) }),
        }
    }

    /// Restarts the deadline and the waits, after progress.
    pub fn reset(&mut self) {
        (self.attempts, self.since) = (1, None);
    }

    /// The next wait, `elapsed` after the first fault, for a `random` number from 0 to 1. `Retry-After` is a lower bound;
    /// other waits have jitter in their upper half, so that clients that failed together don't retry together. The last wait
    /// is cut to end at the deadline.
    fn next(&mut self, elapsed: Duration, after: Option<Duration>, random: f64) -> Option<Duration> {
        let left = self.policy.deadline.checked_sub(elapsed).filter(|left| !left.is_zero())?;
        let doublings = self.attempts.saturating_sub(1).min(16);
        let exponential = self.policy.first.saturating_mul(1 << doublings).min(self.policy.longest);
        let own = exponential.mul_f64(0.5 + random / 2.0);
        let wait = match after {
            Some(after) => after.saturating_add(own.mul_f64(0.1)),
            None => own.min(left),
        };
        if wait > left {
            return None;
        }
        self.attempts = self.attempts.saturating_add(1);
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

/// From 0 to 1. The seeds of the standard library's hash maps are random enough for jitter.
fn random() -> f64 {
    let number = RandomState::new().build_hasher().finish() >> 11;
    number as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits after faults that follow each other without delay, the registry asking for these seconds.
    fn waits(after: &[Option<u64>], random: f64) -> Vec<f64> {
        let policy = RetryPolicy {
            deadline: Duration::from_secs(60),
            first: Duration::from_secs(1),
            longest: Duration::from_secs(4),
        };
        let (mut backoff, mut elapsed) = (Backoff::new(&policy), Duration::ZERO);
        let wait = |&after: &Option<u64>| {
            let wait = backoff.next(elapsed, after.map(Duration::from_secs), random)?;
            elapsed += wait;
            Some(wait.as_secs_f64())
        };
        after.iter().map_while(wait).collect()
    }

    #[test]
    fn waits_grow_and_end_at_the_deadline() {
        let most = waits(&[None; 99], 1.0);
        assert_eq!(most[..5], [1.0, 2.0, 4.0, 4.0, 4.0]);
        assert_eq!(most.iter().sum::<f64>(), 60.0);
        assert_eq!(most.last(), Some(&1.0), "the last one is cut");
        assert_eq!(waits(&[None; 4], 0.0), [0.5, 1.0, 2.0, 2.0]);
    }

    #[test]
    fn the_registrys_wish_is_kept_before_the_deadline() {
        assert_eq!(waits(&[Some(30), Some(0), Some(29), None], 1.0), [30.1, 0.2, 29.4, 0.3]);
        assert_eq!(waits(&[Some(61)], 1.0), [] as [f64; 0]);
        assert_eq!(waits(&[Some(u64::MAX)], 1.0), [] as [f64; 0]);
    }

    #[test]
    fn a_long_attempt_is_no_reason_to_give_up() {
        let mut backoff = Backoff::new(&RetryPolicy { deadline: Duration::from_millis(50), ..RetryPolicy::default() });
        std::thread::sleep(Duration::from_millis(60));
        let place = String::new;
        let error = || StoreError::Registry { place: place(), problem: "503".to_owned() };
        assert!(backoff.wait(Failure::transient(error())).is_ok());
        assert!(matches!(backoff.wait(Failure::transient(error())), Err(StoreError::GaveUp { attempts: 2, .. })));
        backoff.reset();
        assert!(backoff.wait(Failure::transient(error())).is_ok());
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
