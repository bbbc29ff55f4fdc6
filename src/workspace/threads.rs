//! The same work on many things, by a few threads.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use super::error::Error;

/// So many items change threads at once.
const BATCH: usize = 256;

/// Applies `work` to each of `items`, several at a time, and gives the results in the order of `items`. After an error
/// nothing new is begun; the error of the earliest item that failed is returned.
pub fn for_each<T: Sync, R: Send>(
    items: &[T],
    work: impl Fn(usize, &T) -> Result<R, Error> + Sync,
) -> Result<Vec<R>, Error> {
    let threads = threads().min(items.len());
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
    let (receiver, failed) = (Mutex::new(receiver), AtomicBool::new(false));
    let results = Mutex::new(Vec::new());
    let next = || receiver.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).recv();
    let worker = || {
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
        (0..threads()).for_each(|_| drop(scope.spawn(worker)));
        let mut count = 0usize;
        let produced = produce(&mut |item| {
            count += 1;
            match failed.load(Ordering::Relaxed) {
                true => Err(stopped()),
                false => sender.send((count, item)).map_err(|_| stopped()),
            }
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
                match batch.len() < BATCH {
                    true => Ok(()),
                    false => {
                        sender.send(std::mem::replace(&mut batch, Vec::with_capacity(BATCH))).map_err(|_| stopped())
                    }
                }
            });
            batch.extend(produced.err().map(Err));
            // Whoever does not want the rest has an error of its own.
            drop(sender.send(batch));
        });
        consume(&mut receiver.into_iter().flatten())
    })
}

/// Says to whoever produces that nobody wants more; who consumed has the reason.
fn stopped() -> Error {
    Error::Run("the rest is not wanted".to_owned())
}

fn threads() -> usize {
    thread::available_parallelism().map_or(2, |n| n.get().clamp(2, 8))
}
