//! Where computations run, so that they block nothing else.

use std::{panic::resume_unwind, sync::Arc};

use tokio::{sync::Semaphore, task::spawn_blocking};

/// Runs computations.
#[derive(Clone, Debug)]
pub enum Work {
    /// On the caller's own thread.
    Here,
    /// On threads for blocking work, one per permit.
    Threads(Arc<Semaphore>),
}

impl Work {
    /// On threads for blocking work, `at_a_time` computations at a time.
    pub fn on_threads(at_a_time: usize) -> Self {
        Self::Threads(Arc::new(Semaphore::new(at_a_time)))
    }

    /// What `compute` returns. A panic in it goes on here.
    pub async fn run<T: Send + 'static>(&self, compute: impl FnOnce() -> T + Send + 'static) -> T {
        let Self::Threads(permits) = self else { return compute() };
        // The semaphore is never closed, so there always is a permit. It is held until the computation ends, whether or not
        // someone still waits for it.
        let permit = permits.clone().acquire_owned().await.ok();
        let computed = spawn_blocking(move || {
            let result = compute();
            drop(permit);
            result
        });
        match computed.await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                // The runtime is shutting down, and nobody will see this.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn others_go_on_meanwhile_and_no_more_than_so_many_are_done() {
        let work = Work::on_threads(1);
        let (go, wait) = std::sync::mpsc::channel::<()>();
        let (first, second) = (work.clone(), work.clone());
        let first = tokio::spawn(async move { first.run(move || wait.recv().is_ok()).await });
        tokio::task::yield_now().await;
        let second = tokio::spawn(async move { second.run(|| 7).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!second.is_finished());
        go.send(()).unwrap();
        assert!(first.await.unwrap());
        assert_eq!(second.await.unwrap(), 7);
    }

    #[tokio::test]
    async fn a_panic_goes_on_where_it_is_waited_for() {
        let work = Work::on_threads(1);
        let panicked = tokio::spawn({
            let work = work.clone();
            async move { work.run(|| panic!("this test's computation panics")).await }
        });
        assert!(panicked.await.unwrap_err().is_panic());
        assert_eq!(work.run(|| 1).await, 1, "its permit is back");
    }
}
