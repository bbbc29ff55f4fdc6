//! The one watch over all our ResolutionRequests, and the sweep of those that a webhook left which did not live to delete
//! them.
//!
//! A watch that starts without a resource version begins with everything that is there (Kubernetes: "API Concepts", "Get
//! State and Start at Any"). So it needs neither the right to list nor any memory of where the last one ended, and one that
//! begins after a request was created or answered still tells of it.

use std::{pin::pin, sync::Arc, time::Duration};

use futures_util::StreamExt;
use kube::{Client, core::WatchEvent};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::{
    API, OURS,
    board::{Board, Object},
    delete,
};
use crate::resolve::api;

/// The apiserver ends a watch after so many seconds, before the client takes the silence for a broken connection.
const WATCH_SECONDS: u64 = 240;

/// Between two sweeps, at most.
const SWEEP: Duration = Duration::from_secs(20);

/// So many are deleted in one sweep.
const AT_A_TIME: usize = 100;

/// The first and the longest pause after a watch that could not be had.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));

/// Watches for ever. No flight takes longer than `longest`.
pub async fn run(client: Client, board: Arc<Board>, longest: Duration) {
    let pause_of_sweeps = SWEEP.min(longest);
    let watching = async {
        let mut pause = PAUSES.0;
        loop {
            let start = Instant::now();
            let Err(error) = watch(&client, &board).await else {
                pause = PAUSES.0;
                continue;
            };
            let why = api::sentence(&error);
            tracing::warn!("ResolutionRequests can't be watched: {why}");
            board.set_trouble(Some(why));
            pause = if start.elapsed() > PAUSES.1 { PAUSES.0 } else { pause };
            sleep(pause).await;
            pause = (pause * 2).min(PAUSES.1);
        }
    };
    let sweeping = async {
        let mut ticks = interval(pause_of_sweeps);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            sweep(&client, &board, longest + pause_of_sweeps).await;
        }
    };
    tokio::join!(watching, sweeping);
}

async fn watch(client: &Client, board: &Board) -> Result<(), kube::Error> {
    let (label, value) = OURS;
    let path =
        format!("{API}/resolutionrequests?watch=true&labelSelector={label}%3D{value}&timeoutSeconds={WATCH_SECONDS}");
    let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
    let mut events = pin!(client.request_events::<Object>(request).await?);
    board.set_trouble(None);
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
    for key in board.left(age).into_iter().take(AT_A_TIME) {
        let (namespace, name) = &key;
        match delete(client, namespace, name).await {
            Ok(()) => {
                tracing::info!(namespace, name, "a ResolutionRequest that was left is deleted");
                board.forget(&key);
            }
            Err(error) => {
                tracing::warn!(namespace, name, "a ResolutionRequest that was left can't be deleted: {error}")
            }
        }
    }
}
