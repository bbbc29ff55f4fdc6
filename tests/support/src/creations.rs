//! Runs that are created, and what became of them.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle};

use super::cluster::Namespace;

/// What became of some creations.
#[derive(Default)]
pub struct Outcomes {
    /// How long those took that succeeded.
    pub times: Vec<Duration>,
    /// The others, by what they were told.
    pub failed: BTreeMap<String, usize>,
    /// How long all of it took.
    pub lasted: Duration,
}

impl Outcomes {
    /// Creations a second that succeeded.
    pub fn rate(&self) -> f64 {
        self.times.len() as f64 / self.lasted.as_secs_f64()
    }

    /// So many of a hundred succeeded creations took no longer, in milliseconds.
    pub fn percentile(&mut self, percent: usize) -> f64 {
        self.times.sort_unstable();
        let at = self.times.len().saturating_sub(1) * percent / 100;
        self.times.get(at).map_or(f64::NAN, |time| time.as_secs_f64() * 1000.0)
    }

    /// How many failed.
    pub fn failures(&self) -> usize {
        self.failed.values().sum()
    }

    fn add(&mut self, took: Duration, result: Result<Value, kube::Error>) {
        match result {
            Ok(_) => self.times.push(took),
            Err(error) => *self.failed.entry(short(&error)).or_default() += 1,
        }
    }
}

/// Creates `run` so many times, `at_a_time`; in a dry run nothing is stored.
pub async fn create(namespace: &Namespace, run: &Value, count: usize, at_a_time: usize, dry_run: bool) -> Outcomes {
    let start = Instant::now();
    let one = |_| created(namespace, run, dry_run);
    let mut outcomes = Outcomes::default();
    let mut results = stream::iter(0..count).map(one).buffer_unordered(at_a_time);
    while let Some((took, result)) = results.next().await {
        outcomes.add(took, result);
    }
    outcomes.lasted = start.elapsed();
    outcomes
}

/// Creates `run`; how long it took, and what became of it.
async fn created(namespace: &Namespace, run: &Value, dry_run: bool) -> (Duration, Result<Value, kube::Error>) {
    let begun = Instant::now();
    let result = if dry_run { namespace.dry_run(run).await } else { namespace.create(run).await };
    (begun.elapsed(), result)
}

/// Creations at a fixed rate, whatever becomes of those before.
pub struct Stream {
    stop: watch::Sender<bool>,
    outcomes: Arc<Mutex<Outcomes>>,
    task: JoinHandle<()>,
    start: Instant,
}

impl Stream {
    /// Begins to create `run`, so many times a second; in a dry run nothing is stored.
    pub fn start(namespace: Namespace, run: Value, a_second: u32, dry_run: bool) -> Self {
        let (stop, stopped) = watch::channel(false);
        let outcomes = Arc::<Mutex<Outcomes>>::default();
        let (shared, start) = (outcomes.clone(), Instant::now());
        let task = tokio::spawn(async move {
            let (namespace, run) = (Arc::new(namespace), Arc::new(run));
            let mut creations = tokio::task::JoinSet::new();
            let mut next = tokio::time::interval(Duration::from_secs(1) / a_second);
            while !*stopped.borrow() {
                next.tick().await;
                let (namespace, run, shared) = (namespace.clone(), run.clone(), shared.clone());
                creations.spawn(async move {
                    let (took, result) = created(&namespace, &run, dry_run).await;
                    shared.lock().expect("nobody panicked").add(took, result);
                });
            }
            while creations.join_next().await.is_some() {}
        });
        Self { stop, outcomes, task, start }
    }

    /// Begins no more, and waits for those that have begun.
    pub async fn end(self) -> Outcomes {
        self.stop.send_replace(true);
        let lasted = self.start.elapsed();
        self.task.await.expect("it does not panic");
        let mut outcomes = std::mem::take(&mut *self.outcomes.lock().expect("nobody panicked"));
        outcomes.lasted = lasted;
        outcomes
    }
}

/// An error without what is the same in all of them.
fn short(error: &kube::Error) -> String {
    let text = match error {
        kube::Error::Api(status) => status.message.clone(),
        error => error.to_string(),
    };
    let rest = text.rsplit_once("timeout=30s\": ").map_or(text.as_str(), |(_, rest)| rest);
    // Ports differ.
    rest.chars().filter(|c| !c.is_ascii_digit()).take(160).collect()
}
