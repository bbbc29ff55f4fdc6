//! Many jobs in one run: those that come while all runs that there may be are under way wait, and the next run does all of them.

use std::{
    collections::HashMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
};

/// So many runs of one kind at a time.
const LANES: usize = 2;

/// So many jobs in one run.
const JOBS: usize = 256;

/// Jobs `J` that have results `R`.
pub struct Batches<J, R> {
    state: Mutex<BatchState<J, R>>,
    changed: Condvar,
}

struct BatchState<J, R> {
    next: u64,
    running: usize,
    waiting: Vec<(u64, J)>,
    done: HashMap<u64, R>,
}

impl<J, R> Default for Batches<J, R> {
    fn default() -> Self {
        let state = BatchState { next: 0, running: 0, waiting: Vec::new(), done: HashMap::new() };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<J, R> Batches<J, R> {
    /// The result of `job`. `run` does several, of whichever callers, and gives their results in the same order.
    pub fn submit(&self, job: J, run: impl Fn(&[J]) -> Vec<R>) -> R {
        let mut state = self.lock();
        let id = state.next;
        state.next = id.wrapping_add(1);
        state.waiting.push((id, job));
        loop {
            if let Some(result) = state.done.remove(&id) {
                return result;
            }
            let is_mine = state.waiting.iter().any(|(waiting, _)| *waiting == id);
            if !is_mine || state.running >= LANES {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let count = state.waiting.len().min(JOBS);
            let (ids, jobs): (Vec<u64>, Vec<J>) = state.waiting.drain(..count).unzip();
            state.running = state.running.saturating_add(1);
            drop(state);
            let results = run(&jobs);
            state = self.lock();
            state.running = state.running.saturating_sub(1);
            state.done.extend(ids.into_iter().zip(results));
            self.changed.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, BatchState<J, R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Barrier,
            atomic::{AtomicUsize, Ordering},
        },
        thread,
    };

    use super::*;

    #[test]
    fn everybody_gets_the_own_result() {
        let (batches, runs) = (Batches::default(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for job in 0..20_u64 {
                let (batches, runs) = (&batches, &runs);
                scope.spawn(move || {
                    for turn in 0..50 {
                        let job = job * 1000 + turn;
                        let double = |jobs: &[u64]| {
                            runs.fetch_add(1, Ordering::SeqCst);
                            jobs.iter().map(|job| job * 2).collect()
                        };
                        assert_eq!(batches.submit(job, double), job * 2);
                    }
                });
            }
        });
        assert!(runs.load(Ordering::SeqCst) <= 1000);
    }

    #[test]
    fn who_waits_goes_together() {
        let batches = Batches::default();
        // Both lanes are taken until all others wait.
        let begun = Barrier::new(LANES + 1);
        let go_on = Barrier::new(LANES + 1);
        thread::scope(|scope| {
            for job in 0..LANES {
                let (batches, begun, go_on) = (&batches, &begun, &go_on);
                scope.spawn(move || {
                    batches.submit(job, |jobs| {
                        begun.wait();
                        go_on.wait();
                        jobs.iter().map(|_| jobs.len()).collect()
                    })
                });
            }
            begun.wait();
            let sizes: Vec<_> = (0..5)
                .map(|job| {
                    let batches = &batches;
                    scope.spawn(move || batches.submit(job, |jobs| jobs.iter().map(|_| jobs.len()).collect()))
                })
                .collect();
            while batches.lock().waiting.len() < 5 {
                thread::yield_now();
            }
            go_on.wait();
            let sizes: Vec<usize> = sizes.into_iter().map(|size| size.join().unwrap()).collect();
            assert_eq!(sizes, [5; 5]);
        });
    }
}
