//! What the log says of spans that were lost: when a collector begins to fail, when it is over, and now and then that it is too slow.

use std::{
    mem,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// The least time between two notices that the queue is full.
const PAUSE: Duration = Duration::from_secs(60);

/// Something to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The collector takes nothing: a clause after its name.
    Fails(String),
    /// It does again.
    Recovered {
        /// Spans that were lost meanwhile.
        lost: u64,
    },
    /// It never failed, and yet the queue was full.
    Overflows {
        /// Spans that were lost since the last notice.
        lost: u64,
    },
}

/// Counts what was lost.
#[derive(Debug)]
pub struct Losses {
    /// What found no room in the queue.
    of_queue: Arc<AtomicU64>,
    of_batches: u64,
    fails: bool,
    overflowed: Option<Instant>,
}

impl Losses {
    /// None yet, but for those that `of_queue` counts.
    pub fn of_queue(of_queue: Arc<AtomicU64>) -> Self {
        Self { of_queue, of_batches: 0, fails: false, overflowed: None }
    }

    /// What is to be said after a batch of so many spans met this, `now`.
    pub fn note(&mut self, delivered: Result<(), String>, spans: u64, now: Instant) -> Option<Notice> {
        if let Err(why) = delivered {
            self.of_batches = self.of_batches.saturating_add(spans);
            return (!mem::replace(&mut self.fails, true)).then_some(Notice::Fails(why));
        }
        if mem::take(&mut self.fails) {
            let lost = mem::take(&mut self.of_batches).saturating_add(self.of_queue.swap(0, Relaxed));
            return Some(Notice::Recovered { lost });
        }
        let is_due = self.overflowed.is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        if !is_due || self.of_queue.load(Relaxed) == 0 {
            return None;
        }
        self.overflowed = Some(now);
        Some(Notice::Overflows { lost: self.of_queue.swap(0, Relaxed) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices() {
        let queue = Arc::<AtomicU64>::default();
        let mut losses = Losses::of_queue(queue.clone());
        let start = Instant::now();
        let (good, bad) = (|| Ok(()), || Err("answered 500".to_owned()));
        let fails = || Some(Notice::Fails("answered 500".to_owned()));
        for (full, met, seconds, expected) in [
            (0, good(), 0, None),
            (7, good(), 1, Some(Notice::Overflows { lost: 7 })),
            (3, good(), 2, None),
            (0, good(), 60, None),
            (1, good(), 61, Some(Notice::Overflows { lost: 4 })),
            (0, bad(), 62, fails()),
            (5, bad(), 63, None),
            (0, good(), 64, Some(Notice::Recovered { lost: 25 })),
            (0, bad(), 65, fails()),
            (0, good(), 200, Some(Notice::Recovered { lost: 10 })),
            (0, good(), 300, None),
        ] {
            queue.fetch_add(full, Relaxed);
            assert_eq!(losses.note(met, 10, start + Duration::from_secs(seconds)), expected, "after {seconds} s");
        }
    }
}
