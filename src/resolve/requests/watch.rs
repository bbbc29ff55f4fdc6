//! The one watch of all our ResolutionRequests, and the deletion of orphans: requests of a webhook that ended before it deleted
//! them.
//!
//! A watch that starts at resource version 0 begins with everything that is there, as the apiserver's cache has it (Kubernetes:
//! "API Concepts", "Get State and Start at Any"). So it needs neither the right to list nor any memory of where the last one
//! ended, and one that begins after a request was created or answered still tells of it. Without a resource version the cache
//! would first have to catch up with etcd, which an etcd without progress notifications never lets it do: all watches would
//! end with "Too large resource version".

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use kube::{Client, core::WatchEvent};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    API, MANAGED_BY, PROGRAM,
    board::{Board, RequestObject},
    delete,
};
use crate::{
    health::{Condition, Health},
    resolve::api,
};

/// The apiserver ends a watch after so many seconds, before the client takes the silence for a broken connection.
const WATCH_SECONDS: u64 = 240;

/// Between two sweeps, at most.
const SWEEP: Duration = Duration::from_secs(20);

/// The most that are deleted in one sweep.
const MAX_SWEPT: usize = 100;

/// The first pause after a watch that failed; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Watches forever. No flight takes longer than `longest`.
pub async fn run(client: Client, board: Arc<Board>, health: Arc<Health>, longest: Duration) {
    let pause_of_sweeps = SWEEP.min(longest);
    let watching = async {
        let mut pause = FIRST_PAUSE;
        loop {
            let start = Instant::now();
            let Err(error) = watch(&client, &board, &health).await else {
                pause = FIRST_PAUSE;
                continue;
            };
            let why = api::sentence(&error);
            health.set(Condition::ResolutionRequests, Err(format!("ResolutionRequests can't be watched: {why}")));
            board.set_watch_error(Some(why));
            if start.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            sleep(pause).await;
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    };
    let sweeping = async {
        let mut ticks = interval(pause_of_sweeps);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            sweep(&client, &board, longest.saturating_add(pause_of_sweeps)).await;
        }
    };
    tokio::join!(watching, sweeping);
}

async fn watch(client: &Client, board: &Board, health: &Health) -> Result<(), kube::Error> {
    let path = format!(
        "{API}/resolutionrequests?watch=true&resourceVersion=0&labelSelector={MANAGED_BY}%3D{PROGRAM}&timeoutSeconds={WATCH_SECONDS}"
    );
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    let mut events = pin!(client.request_events::<RequestObject>(request).await?);
    board.set_watch_error(None);
    health.set(Condition::ResolutionRequests, Ok(()));
    while let Some(event) = events.next().await {
        match event? {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => board.seen(object),
            WatchEvent::Deleted(object) => board.gone(object),
            WatchEvent::Bookmark(_) => {}
            WatchEvent::Error(status) => return Err(kube::Error::Api(status)),
        }
    }
    Ok(())
}

/// Deletes what no flight anywhere can need any more, since it is older than `age`.
async fn sweep(client: &Client, board: &Board, age: Duration) {
    for key in board.orphans(age).into_iter().take(MAX_SWEPT) {
        let (namespace, name) = &key;
        match delete(client, namespace, name).await {
            Ok(()) => {
                tracing::info!(namespace, name, "deleted an orphaned ResolutionRequest");
                board.forget(&key);
            }
            Err(error) => tracing::warn!(namespace, name, "an orphaned ResolutionRequest can't be deleted: {error}"),
        }
    }
}
