//! The same work on many things, by a few threads.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::error::Error;

/// So many items change threads at once.
const BATCH: usize = 256;

/// So many answers of a store are waited for at a time. What they say is held in memory.
const REQUESTS: usize = 8;

/// Applies `work` to each of `items`, several at a time, and gives the results in the order of `items`. After an error
/// nothing new is begun; the error of the earliest item that failed is returned. There is one thread more than cores, as each
/// waits for a store now and then.
pub fn for_each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    by_threads(threads().saturating_add(1), items, work)
}

/// The same of work that is little more than waiting for a store: more of it at a time than there are cores.
pub fn ask_for_each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    by_threads(threads().max(REQUESTS), items, work)
}

fn by_threads<T: Sync, R: Send>(
    threads: usize,
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let threads = threads.min(items.len());
    if threads < 2 {
        return items.iter().enumerate().map(|(i, item)| work(i, item)).collect();
    }
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::with_capacity(items.len()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let i = next.fetch_add(1, Ordering::Relaxed);
                    let Some(item) = items.get(i) else { return };
                    let result = work(i, item);
                    if result.is_err() {
                        next.store(items.len(), Ordering::Relaxed);
                    }
                    results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((i, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(i, _)| *i);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Applies `work` to what `produce` hands over, several at a time, while it goes on. At most one item waits. The results
/// are in the order of the items. After an error nothing new is begun; the error of the earliest item that failed is
/// returned, else that of `produce`.
pub fn pipeline<T: Send, R: Send, P>(
    produce: impl FnOnce(&mut dyn FnMut(T) -> Result<(), Error>) -> Result<P, Error>,
    work: impl Fn(T) -> Result<R, Error> + Sync,
) -> Result<(P, Vec<R>), Error> {
    let (sender, receiver) = mpsc::sync_channel(0);
    let (receiver, failed) = (Arc::new(Mutex::new(receiver)), AtomicBool::new(false));
    let results = Mutex::new(Vec::new());
    let worker = |receiver: Arc<Mutex<mpsc::Receiver<(usize, T)>>>| {
        let next = || receiver.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
        while let Ok((i, item)) = next() {
            // The rest is taken too, so that `produce` comes to its end.
            if failed.load(Ordering::Relaxed) {
                continue;
            }
            let result = work(item);
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push((i, result));
        }
    };
    let produced = thread::scope(|scope| {
        for _ in 0..threads() {
            let (worker, receiver) = (&worker, receiver.clone());
            scope.spawn(move || worker(receiver));
        }
        // It goes with the last worker: nothing is handed over to workers that panicked.
        drop(receiver);
        let mut count = 0usize;
        let produced = produce(&mut |item| {
            count = count.saturating_add(1);
            if failed.load(Ordering::Relaxed) {
                return Err(stopped());
            }
            sender.send((count, item)).map_err(|_| stopped())
        });
        drop(sender);
        produced
    });
    let mut results: Vec<(usize, Result<R, Error>)> =
        results.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    results.sort_by_key(|(i, _)| *i);
    let results = results.into_iter().map(|(_, result)| result).collect::<Result<Vec<R>, Error>>()?;
    Ok((produced?, results))
}

/// Runs `produce` on a thread of its own, a little ahead of `consume`, which gets what it hands over. An error of `produce` is
/// the last thing that it gets.
pub fn ahead<T: Send, R>(
    produce: impl FnOnce(&mut dyn FnMut(T) -> Result<(), Error>) -> Result<(), Error> + Send,
    consume: impl FnOnce(&mut dyn Iterator<Item = Result<T, Error>>) -> Result<R, Error>,
) -> Result<R, Error> {
    let (sender, receiver) = mpsc::sync_channel::<Vec<Result<T, Error>>>(2);
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut batch = Vec::with_capacity(BATCH);
            let produced = produce(&mut |item| {
                batch.push(Ok(item));
                if batch.len() < BATCH {
                    return Ok(());
                }
                sender.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).map_err(|_| stopped())
            });
            batch.extend(produced.err().map(Err));
            // A consumer that stops early has an error of its own.
            drop(sender.send(batch));
        });
        consume(&mut receiver.into_iter().flatten())
    })
}

/// Tells the producer to stop; the consumer has the reason.
fn stopped() -> Error {
    Error::Stopped
}

fn threads() -> usize {
    thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8))
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn numbers(most: u32) -> impl FnOnce(&mut dyn FnMut(u32) -> Result<(), Error>) -> Result<(), Error> {
        move |hand_over| (0..most).try_for_each(hand_over)
    }

    #[test]
    fn results_are_in_order_and_the_earliest_error_counts() {
        let (_, doubled) = pipeline(numbers(1000), |n| Ok(2 * n)).unwrap();
        assert_eq!(doubled, (0..1000).map(|n| 2 * n).collect::<Vec<_>>());
        let failing = |n: u32| if n % 7 == 6 { Err(Error::NoImage(n.to_string())) } else { Ok(n) };
        assert_eq!(pipeline(numbers(1000), failing).unwrap_err().to_string(), "6: there is no such image");
        let ending = |hand_over: &mut dyn FnMut(u32) -> Result<(), Error>| {
            hand_over(1)?;
            Err::<(), _>(Error::NoImage("the end".to_owned()))
        };
        assert_eq!(pipeline(ending, Ok).unwrap_err().to_string(), "the end: there is no such image");
    }

    #[test]
    fn workers_that_panic_end_the_work() {
        let work = || pipeline(numbers(1000), |_| -> Result<(), Error> { panic!("on purpose") });
        assert!(catch_unwind(AssertUnwindSafe(work)).is_err());
    }

    #[test]
    fn whoever_is_ahead_stops_with_the_one_behind() {
        let sum = ahead(numbers(1000), |numbers| numbers.sum::<Result<u32, Error>>()).unwrap();
        assert_eq!(sum, 499_500);
        let endless = |hand_over: &mut dyn FnMut(u32) -> Result<(), Error>| (0..).try_for_each(hand_over);
        assert_eq!(ahead(endless, |numbers| Ok(numbers.take(3).count())).unwrap(), 3);
        let ending = |_: &mut dyn FnMut(u32) -> Result<(), Error>| Err(Error::NoImage("the end".to_owned()));
        assert_eq!(
            ahead(ending, |numbers| numbers.collect::<Result<Vec<_>, _>>()).unwrap_err().to_string(),
            "the end: there is no such image"
        );
    }
}
