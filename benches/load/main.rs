//! Two replicas behind a Service, with a real kube-apiserver, while runs are created: `cargo bench --bench load` prints what becomes
//! of them. Words choose parts: `cargo bench --bench load -- kill memory`.

mod balancer;
mod stand;

use stand::{MemoryLimit, NOTICE, Stand, large, plain, series, wrapped};
use support::{
    creations::{Outcomes, Stream, create},
    kubectl::kubectl,
    service::make,
};

/// Creations a second while something happens to the replicas.
const RATE: u32 = 65;

/// How often each thing happens.
const TIMES: usize = 3;

/// What the manifests allow a replica.
const MEMORY: u64 = 128 << 20;

/// The parts, in this order.
const PARTS: [&str; 5] = ["rotation", "restart", "kill", "memory", "growth"];

fn main() {
    let chosen: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let unknown = chosen.iter().find(|word| !PARTS.contains(&word.as_str()));
    assert!(unknown.is_none(), "{unknown:?} is not one of {PARTS:?}");
    let is_chosen = |part: &str| chosen.is_empty() || chosen.iter().any(|word| word == part);
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let mut stand = Stand::start().await;
        for part in PARTS.into_iter().filter(|part| is_chosen(part)) {
            match part {
                "rotation" => rotation(&stand).await,
                "restart" => restart(&mut stand).await,
                "kill" => kill(&mut stand).await,
                "memory" => memory(&stand).await,
                _ => growth(&stand).await,
            }
        }
    });
}

/// New certificates of the same authority, and then a new authority, by certs/make.
async fn rotation(stand: &Stand) {
    let stream = runs(stand).await;
    for _ in 0..TIMES {
        tokio::task::block_in_place(|| {
            kubectl(&stand.cluster, &["-n", "tekton-wrap", "delete", "secret", "tekton-wrap-webhook-tls"]);
            assert!(make(&stand.cluster, &[]).starts_with("a new certificate"));
        });
        stand.spread_certificate().await;
    }
    told(&format!("{TIMES} certificates of the same authority"), stream.end().await);
    let stream = runs(stand).await;
    tokio::task::block_in_place(|| assert!(make(&stand.cluster, &["--new-ca"]).contains("a new authority")));
    stand.spread_certificate().await;
    tokio::task::block_in_place(|| assert!(make(&stand.cluster, &[]).starts_with("nothing to renew")));
    tokio::time::sleep(NOTICE * 3).await;
    told("an authority with a new key", stream.end().await);
}

/// Each replica is replaced, one after the other.
async fn restart(stand: &mut Stand) {
    let stream = runs(stand).await;
    for _ in 0..TIMES {
        for _ in 0..stand.replicas.len() {
            stand.replace_replica().await;
        }
    }
    told(&format!("{TIMES} rolling restarts"), stream.end().await);
}

/// One of two replicas ends without a word.
async fn kill(stand: &mut Stand) {
    for at_a_time in [None, Some(100)] {
        let victim = stand.replicas.remove(0);
        let port = victim.port;
        let end = async {
            tokio::time::sleep(NOTICE * 3).await;
            let connections = stand.balancer.open(port);
            let in_flight = series(&victim, "tekton_wrap_admission_in_flight");
            // SIGKILL; then the Service takes notice.
            tokio::task::block_in_place(|| drop(victim));
            tokio::time::sleep(NOTICE).await;
            stand.balancer.remove(port);
            format!("{connections} connections, {in_flight} reviews in flight")
        };
        let (what, outcomes, had) = match at_a_time {
            None => {
                let stream = runs(stand).await;
                let had = end.await;
                tokio::time::sleep(NOTICE * 3).await;
                ("kill -9 of one of two replicas".to_owned(), stream.end().await, had)
            }
            Some(count) => {
                let run = wrapped("two");
                let creations = create(&stand.namespace, &run, count * 15, count, false);
                let (outcomes, had) = tokio::join!(creations, end);
                (format!("the same, {count} creations at a time"), outcomes, had)
            }
        };
        told(&what, outcomes);
        println!("  it had {had}");
        stand.add_replica().await;
    }
}

/// 200 reviews of 500 KiB at a time, within the memory that the manifests allow.
async fn memory(stand: &Stand) {
    let limits: Vec<_> = stand.replicas.iter().filter_map(|replica| MemoryLimit::set(replica.pid(), MEMORY)).collect();
    let outcomes = create(&stand.namespace, &large(500 << 10), 1000, 200, true).await;
    told("200 reviews of 500 KiB at a time (dry run)", outcomes);
    let alive = stand.replicas.iter().filter(|replica| replica.is_running()).count();
    println!(
        "  {} replicas were in a cgroup with 128 MiB, {alive} of 2 still run; peaks {:?} MiB (RSS)",
        limits.len(),
        stand.peak_mib()
    );
}

/// What more creations at a time do.
async fn growth(stand: &Stand) {
    println!(
        "\n{:<30} {:>8} {:>9} {:>9} {:>9} {:>10}  peak MiB (RSS)",
        "10 tasks by name", "a second", "p50 ms", "p99 ms", "failed", "CPU ms"
    );
    for at_a_time in [1, 10, 50, 100, 200] {
        let count = if at_a_time == 50 { 1000 } else { 300 };
        for (what, run) in [("plain", plain("ten")), ("wrapped", wrapped("ten"))] {
            let before = stand.processor_seconds();
            let mut outcomes = create(&stand.namespace, &run, count, at_a_time, false).await;
            let cpu = (stand.processor_seconds() - before) * 1000.0 / count as f64;
            let (p50, p99) = (outcomes.percentile(50), outcomes.percentile(99));
            let what = format!("{count} {what}, {at_a_time} at a time");
            println!(
                "{what:<30} {:>8.0} {p50:>9.1} {p99:>9.1} {:>9} {cpu:>10.2}  {:?}",
                outcomes.rate(),
                outcomes.failures(),
                stand.peak_mib()
            );
            outcomes.failed.iter().for_each(|(why, count)| println!("  {count} × {why}"));
        }
    }
}

/// Wrapped runs of two tasks, [`RATE`] a second.
async fn runs(stand: &Stand) -> Stream {
    let name = stand.namespace.name.clone();
    let namespace = support::cluster::Namespace { name, client: stand.cluster.admin().await };
    Stream::start(namespace, wrapped("two"), RATE, false)
}

fn told(what: &str, mut outcomes: Outcomes) {
    let (p50, p99) = (outcomes.percentile(50), outcomes.percentile(99));
    let (created, failures) = (outcomes.times.len(), outcomes.failures());
    println!(
        "{what}: {created} created, {:.0} a second, {failures} failed; p50 {p50:.1} ms, p99 {p99:.1} ms",
        outcomes.rate()
    );
    outcomes.failed.iter().for_each(|(why, count)| println!("  {count} × {why}"));
}
