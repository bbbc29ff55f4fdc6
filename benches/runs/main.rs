//! `cargo bench --bench runs [-- KIND… ROUNDS]`: how long whole runs take on a real Tekton, wrapped and on a volume, in turn, and
//! where the time goes. Kinds are `small`, `wide` and `big` (benches/runs/pipelines.yaml).
//!
//! The cluster is that of KUBECONFIG; TEKTON_WRAP_E2E_IMAGE, TEKTON_WRAP_E2E_STEP_IMAGE and TEKTON_WRAP_E2E_REGISTRY are as for
//! the end-to-end tests (tests/README.md). The volume is a folder of the node (hostPath, below TEKTON_WRAP_BENCH_FOLDER or /tmp),
//! bound before the run begins, or one of the class TEKTON_WRAP_BENCH_STORAGE_CLASS. The wrapped runs are created as the webhook would store them: what it adds is what
//! `--bench admission` measures.

mod cluster;
mod timeline;

use cluster::Cluster;
use timeline::Timeline;

const KINDS: [&str; 3] = ["small", "wide", "big"];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let rounds = words.iter().find_map(|word| word.parse().ok()).unwrap_or(4);
    let kinds: Vec<&str> = words.iter().map(String::as_str).filter(|word| word.parse::<usize>().is_err()).collect();
    let kinds = if kinds.is_empty() { KINDS.to_vec() } else { kinds };
    if let Some(unknown) = kinds.iter().find(|kind| !KINDS.contains(kind)) {
        panic!("{unknown}: the kinds are {}", KINDS.join(", "));
    }
    let cluster = Cluster::from_env().await;
    println!("{:<26} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}", "", "whole", "cluster", "gaps", "restore", "steps", "save");
    for kind in kinds {
        let (mut volume, mut wrapped) = (Vec::new(), Vec::new());
        for round in 0..rounds {
            volume.push(cluster.run_on_volume(kind, round).await);
            wrapped.push(cluster.run_wrapped(kind, round).await);
            print_row(&format!("{kind}, volume, run {}", round + 1), volume.last().expect("a run"));
            print_row(&format!("{kind}, wrapped, run {}", round + 1), wrapped.last().expect("a run"));
        }
        let (volume, wrapped) = (Timeline::medians(&volume), Timeline::medians(&wrapped));
        print_row(&format!("{kind}, volume, median"), &volume);
        print_row(&format!("{kind}, wrapped, median"), &wrapped);
        println!("{kind}: wrapped {:.2} x volume\n", wrapped.whole / volume.whole);
    }
    cluster.leave().await;
}

fn print_row(what: &str, times: &Timeline) {
    let Timeline { whole, restore, steps, save, gaps } = times;
    let cluster = times.cluster();
    println!("{what:<26} {whole:>6.2} s {cluster:>6.2} s {gaps:>6.2} s {restore:>6.2} s {steps:>6.2} s {save:>6.2} s");
}
