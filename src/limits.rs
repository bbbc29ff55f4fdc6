//! Limits on the size of a run, so that one review takes a bounded share of memory and time. Each limit is far beyond real
//! Pipelines, and a refusal names it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use serde_json::Value;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};

/// The largest rewritten PipelineRun in bytes of JSON. Tekton stores the pipeline a second time in the run's status, and
/// etcd takes 1.5 MiB for the whole.
pub const MAX_RUN_BYTES: usize = 600 * 1024;

/// The most TaskRuns that a run may have, combinations of matrices counted: a step that joins all of them looks for a snapshot
/// of each.
pub const MAX_TASK_RUNS: u32 = 10_000;

/// The largest PipelineRun as it is sent, in bytes of JSON.
pub const MAX_SENT_BYTES: usize = 1 << 20;

/// The most bytes of a run, its Pipeline and their Tasks together. etcd takes 1.5 MiB for an object, of which a third says
/// the same again for `kubectl apply`.
pub const MAX_READ_BYTES: usize = 4 << 20;

/// The most JSON values of a run, its Pipeline and their Tasks together. A value takes some 100 bytes of memory.
pub const MAX_VALUES: usize = 60_000;

/// A larger review counts as a large one. Few large reviews are processed concurrently.
const SMALL: Weight = Weight { bytes: 256 << 10, values: 8_000 };

/// The most tasks of a Pipeline, `finally` counted.
pub const MAX_TASKS: usize = 1_000;

/// The most entries of a list of params.
pub const MAX_PARAMS: usize = 4_096;

/// The most steps, sidecars, volumes, mounts, workspaces of a task and the like.
pub const MAX_ENTRIES: usize = 256;

/// The most workspaces that are wrapped.
pub const MAX_WORKSPACES: usize = 100;

/// The most caches of a run.
pub const MAX_CACHES: usize = 16;

/// The most uses of wrapped workspaces, counted over all tasks.
pub const MAX_USES: usize = 2_000;

/// The most Tasks that are inlined, each counted once.
pub const MAX_INLINED: usize = 500;

/// The most of them that resolvers of the cluster resolve: each is a ResolutionRequest.
pub const MAX_RESOLUTIONS: usize = 50;

/// The most that a step's security context may have, in bytes of JSON.
pub const MAX_SECURITY_CONTEXT: usize = 4 << 10;

/// The longest name of a task, a param, a workspace or an object (Kubernetes: "Object Names and IDs").
pub const MAX_NAME: usize = 253;

/// The longest path (Linux: PATH_MAX).
pub const MAX_PATH: usize = 4_096;

/// The longest string that is composed of params at admission, in bytes.
pub const MAX_STRING: usize = 64 << 10;

/// The longest value of a param of the resolver `wrap`, but for `pipelineref`.
pub const MAX_PARAM: usize = 8 << 10;

/// The longest that a rewrite may take. Within the other limits it takes milliseconds.
pub const MAX_REWRITE: Duration = Duration::from_secs(2);

/// A limit was exceeded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} has {count} {unit}, more than the {limit} that can be wrapped: make it smaller, or split the pipeline")]
pub struct Exceeded {
    /// The object, for example `task "build"`.
    pub what: String,
    /// Its size.
    pub count: usize,
    /// The unit, for example `params`.
    pub unit: &'static str,
    /// The largest size.
    pub limit: usize,
}

impl Exceeded {
    /// A code for logs and metrics.
    pub const REASON: &str = "LimitExceeded";

    /// Refuses a `count` beyond `limit`.
    pub fn check(count: usize, limit: usize, unit: &'static str, what: impl FnOnce() -> String) -> Result<(), Self> {
        if count <= limit { Ok(()) } else { Err(Self { what: what(), count, unit, limit }) }
    }
}

/// The size of JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// Bytes of the text.
    pub bytes: usize,
    /// Objects, arrays, strings, numbers and the rest; keys are counted too.
    pub values: usize,
}

impl Weight {
    /// Of the JSON `text`, without parsing it.
    pub fn of(text: &[u8]) -> Self {
        let (mut values, mut in_string, mut escaped) = (1, false, false);
        for byte in text {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = in_string,
                b'"' => in_string = !in_string,
                b',' | b':' | b'[' | b'{' if !in_string => values = usize::saturating_add(values, 1),
                _ => {}
            }
        }
        Self { bytes: text.len(), values }
    }
}

impl Weight {
    /// Of a parsed value; its bytes are not counted.
    pub fn of_value(value: &Value) -> Self {
        fn values(value: &Value) -> usize {
            let within = match value {
                Value::Array(items) => items.iter().map(values).sum(),
                Value::Object(map) => map.values().map(values).sum::<usize>().saturating_add(map.len()),
                _ => 0,
            };
            within.saturating_add(1)
        }
        Self { bytes: 0, values: values(value) }
    }
}

/// How much of [`MAX_READ_BYTES`] and [`MAX_VALUES`] one review has used.
#[derive(Debug, Default)]
pub struct Budget {
    bytes: AtomicUsize,
    values: AtomicUsize,
    /// Permits of large reviews, if their number is bounded.
    turns: Option<Arc<Semaphore>>,
    turn: OnceCell<Option<OwnedSemaphorePermit>>,
}

impl Budget {
    /// For a review that needs a permit of `turns` once it is a large one.
    pub fn with_turns(turns: Arc<Semaphore>) -> Self {
        Self { turns: Some(turns), ..Self::default() }
    }

    /// Adds `weight`, and waits for a permit if that makes the review a large one.
    pub async fn take(&self, weight: Weight) -> Result<(), Exceeded> {
        let bytes = self.bytes.fetch_add(weight.bytes, Relaxed).saturating_add(weight.bytes);
        let values = self.values.fetch_add(weight.values, Relaxed).saturating_add(weight.values);
        let all = || "the run with its Pipeline and Tasks".to_owned();
        Exceeded::check(bytes, MAX_READ_BYTES, "bytes", all)?;
        Exceeded::check(values, MAX_VALUES, "values", all)?;
        if (bytes > SMALL.bytes || values > SMALL.values)
            && let Some(turns) = &self.turns
        {
            // The semaphore is never closed, so there always is a permit.
            self.turn.get_or_init(async || turns.clone().acquire_owned().await.ok()).await;
        }
        Ok(())
    }

    /// The bytes that are left.
    pub fn bytes_left(&self) -> usize {
        MAX_READ_BYTES.saturating_sub(self.bytes.load(Relaxed))
    }

    /// The values that are left.
    pub fn values_left(&self) -> usize {
        MAX_VALUES.saturating_sub(self.values.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn weights_are_those_of_what_is_built() {
        for value in [
            json!(1),
            json!("a,b:[{\\\"\\"),
            json!([1, [2, 3], {"a": "[,]", "b\"": {"c": [null, true]}}]),
            json!({"one": [1], "two": {"three": "x"}}),
        ] {
            let (found, exact) = (Weight::of(value.to_string().as_bytes()).values, Weight::of_value(&value).values);
            // The first value of a list or an object is counted with its bracket.
            assert!(found == exact, "{value}: {found}, {exact}");
        }
        let many = format!("[{}]", vec!["0"; 1_400_000].join(","));
        assert_eq!(Weight::of(many.as_bytes()).values, 1_400_001);
    }

    #[tokio::test]
    async fn a_large_review_waits_for_its_turn() {
        let turns = Arc::new(Semaphore::new(1));
        let large = Weight { bytes: 300 << 10, values: 1 };
        let first = Budget::with_turns(turns.clone());
        first.take(large).await.unwrap();
        first.take(large).await.unwrap();
        assert_eq!(turns.available_permits(), 0);
        let (small, second) = (Budget::with_turns(turns.clone()), Budget::with_turns(turns.clone()));
        small.take(Weight { bytes: 1000, values: 10 }).await.unwrap();
        let (waited, ()) = tokio::join!(second.take(large), async {
            tokio::task::yield_now().await;
            assert_eq!(turns.available_permits(), 0);
            drop(first);
        });
        waited.unwrap();
        let error = second.take(Weight { bytes: MAX_READ_BYTES, values: 1 }).await.unwrap_err().to_string();
        assert_eq!(
            error,
            "the run with its Pipeline and Tasks has 4501504 bytes, more than the 4194304 that can be wrapped: make it smaller, or split the pipeline"
        );
        assert!(Budget::default().take(Weight { bytes: 1, values: MAX_VALUES + 1 }).await.is_err());
    }
}
