//! What the webhook adds to the creation of a PipelineRun, through a real kube-apiserver: `cargo bench --bench admission`.
//!
//! Each run is created beside one that is not wrapped, in turn, so that what the machine does meanwhile meets both.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use support::{
    chain::{make_tasks, pipeline},
    cluster::{Cluster, Namespace},
    resolver,
    webhook::Webhook,
};

/// Runs of each kind.
const RUNS: usize = 200;

fn main() {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(bench());
}

async fn bench() {
    let webhook = Webhook::shared().await;
    resolver::shared().await;
    let namespace = Cluster::shared().await.namespace().await;
    make_tasks(&namespace).await;
    namespace.accepts(&pipeline("ten", 10)).await;
    println!("idle: the webhook has {} MiB in memory (RSS)\n", webhook.memory("VmRSS") / 1024);
    println!("{:48} {:>9} {:>9} {:>9}", "added by the webhook to a creation", "p50", "p90", "p99");

    let plain = json!({"pipelineRef": {"name": "ten"}});
    let stored = as_stored(&namespace.create(&run_of(&wrapped("ten"))).await.expect("it is created"));
    let (mut added, mut larger) = (Vec::new(), Vec::new());
    let (reviews, seconds) = reviewed(webhook);
    for _ in 0..RUNS {
        let without = create(&namespace, &plain).await;
        added.push(create(&namespace, &wrapped("ten")).await.saturating_sub(without));
        larger.push(time(&namespace, &stored).await.saturating_sub(without));
    }
    let after = reviewed(webhook);
    row("by name, 10 taskRefs by name", added);
    let mean = (after.1 - seconds) / (after.0 - reviews) * 1000.0;
    println!("{:48} {:>9}", "of which in the webhook, on average", format!("{mean:.1} ms"));
    row("the same run sent as it is stored, no webhook", larger);
    for (what, query) in
        [("one read of a Task, as the webhook does it", ""), ("out of the apiserver's cache", "?resourceVersion=0")]
    {
        row(what, reads(&namespace, query).await);
    }
    in_labelled_namespace().await;
    nested(&namespace, "through a resolver, one at a time", 1).await;
    nested(&namespace, "through a resolver, 50 at a time", 50).await;

    let before = histogram(webhook);
    let run = wrapped("ten");
    let creations = (0..20 * RUNS).map(|_| async { namespace.dry_run(&run_of(&run)).await.expect("it is wrapped") });
    let start = Instant::now();
    stream::iter(creations).buffer_unordered(100).for_each(|_| async {}).await;
    let rate = (20 * RUNS) as f64 / start.elapsed().as_secs_f64();
    println!("\n100 reviews in flight, {rate:.0} a second, as the webhook's own histogram has them:");
    let (after, total) = (histogram(webhook), (20 * RUNS) as f64);
    for ((bound, after), (_, before)) in after.iter().zip(&before) {
        println!("  answered within {bound:>6} s: {:6.2} %", (after - before) / total * 100.0);
    }
    println!("then: {} MiB in memory (RSS)", webhook.memory("VmRSS") / 1024);
}

/// What a client waits for a Task, one at a time.
async fn reads(namespace: &Namespace, query: &str) -> Vec<Duration> {
    let path = format!("/apis/tekton.dev/v1/namespaces/{}/tasks/task-0{query}", namespace.name);
    let mut times = Vec::new();
    for _ in 0..RUNS {
        let request = http::Request::get(&path).body(Vec::new()).expect("a request");
        let start = Instant::now();
        namespace.client.request_text(request).await.expect("the Task");
        times.push(start.elapsed());
    }
    times
}

/// A run like `run`, which is wrapped, that the webhook has no part in.
fn as_stored(run: &Value) -> Value {
    // With its labels it would be looked at again.
    let metadata = json!({"generateName": "bench-", "annotations": run["metadata"]["annotations"]});
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": metadata, "spec": run["spec"]})
}

/// Runs with a default target from a ConfigMap, in a namespace whose label has all runs wrapped: with the annotation, without it,
/// and those that are not to be wrapped.
async fn in_labelled_namespace() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    let webhook = Webhook::start(cluster).await;
    webhook.register_namespace_mode(&namespace).await;
    make_tasks(&namespace).await;
    namespace.accepts(&pipeline("ten", 10)).await;
    let target = json!({"target": "quay.io/me/bench:$(context.pipelineRun.name)"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tekton-wrap"}, "data": target});
    namespace.accepts(&map).await;
    let cluster_wide = cluster.namespace().await;
    cluster_wide.accepts(&pipeline("ten", 10)).await;
    let with = |annotations: Value| {
        let mut run = run_of(&json!({"pipelineRef": {"name": "ten"}}));
        run["metadata"]["annotations"] = annotations;
        run
    };
    let (auto, none) = (json!({"tekton-wrap.dev/wrap": "auto"}), json!({"tekton-wrap.dev/wrap": "none"}));
    for (what, run) in [
        ("by annotation, 10 taskRefs, defaults", with(auto)),
        ("by the namespace's label, 10 taskRefs, defaults", with(json!({}))),
        ("kept out in a labelled namespace", with(none)),
    ] {
        let mut added = Vec::new();
        for _ in 0..RUNS {
            let without = time(&cluster_wide, &with(json!({}))).await;
            added.push(time(&namespace, &run).await.saturating_sub(without));
        }
        row(what, added);
    }
}

/// Runs of a pipeline that a resolver brings in 100 ms: what a creation takes beyond the resolver's own time and beyond that
/// of a run that is not wrapped.
async fn nested(namespace: &Namespace, what: &str, at_a_time: usize) {
    let plain = json!({"pipelineRef": {"name": "ten"}});
    let pipeline = pipeline("remote", 1);
    let one = |index: usize| {
        let (id, pipeline, plain) = (format!("{at_a_time}-{index}"), pipeline.to_string(), &plain);
        async move {
            let params = json!([{"name": "object", "value": resolver::data(&pipeline)}, {"name": "delay", "value": "100"},
                {"name": "id", "value": id}]);
            let reference = json!({"resolver": resolver::NAME, "params": params}).to_string();
            let without = create(namespace, plain).await;
            let with = create(namespace, &wrapped(&reference)).await;
            with.saturating_sub(without + resolved(&id).await)
        }
    };
    row(what, stream::iter((0..RUNS).map(one)).buffer_unordered(at_a_time).collect().await);
}

/// The resolver's own time for the request with this id. The creation may end before the resolver has noted it.
async fn resolved(id: &str) -> Duration {
    let start = Instant::now();
    loop {
        if let Some(took) = resolver::took("id", id) {
            return took;
        }
        assert!(start.elapsed() < Duration::from_secs(20), "the resolver noted no time for {id}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn create(namespace: &Namespace, spec: &Value) -> Duration {
    time(namespace, &run_of(spec)).await
}

async fn time(namespace: &Namespace, run: &Value) -> Duration {
    let start = Instant::now();
    namespace.create(run).await.expect("it is created");
    start.elapsed()
}

fn row(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| format!("{:.1} ms", times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0);
    println!("{what:48} {:>9} {:>9} {:>9}", at(50), at(90), at(99));
}

fn wrapped(pipeline: &str) -> Value {
    json!({"pipelineRef": {"resolver": "wrap", "params": [
        {"name": "pipelineref", "value": pipeline}, {"name": "workspaces", "value": "source"},
        {"name": "target", "value": "quay.io/me/bench-$(context.pipelineRun.name):latest"}]}})
}

fn run_of(spec: &Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "bench-"}, "spec": spec})
}

/// How many reviews the webhook has answered, and the seconds that they took together.
fn reviewed(webhook: &Webhook) -> (f64, f64) {
    let value = |name: &str| webhook.metric(&format!("tekton_wrap_admission_duration_seconds_{name}"));
    (value("count").expect("a count"), value("sum").expect("a sum"))
}

/// The cumulative buckets of the time for a review, without the last one: upper bound in seconds and count.
fn histogram(webhook: &Webhook) -> Vec<(String, f64)> {
    let bucket = |line: &str| {
        let (bound, count) =
            line.strip_prefix("tekton_wrap_admission_duration_seconds_bucket{le=\"")?.split_once("\"} ")?;
        Some((bound.to_owned(), count.parse().ok()?))
    };
    webhook.metrics().lines().filter_map(bucket).filter(|(bound, _)| bound != "+Inf").collect()
}
