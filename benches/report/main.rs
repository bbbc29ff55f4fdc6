//! `cargo bench --bench report [-- FILES…]`: what `tkn wrap report` takes for runs with many files, what its page has, and what a
//! browser takes for that. With a real kube-apiserver and registry, and runs that were really played.

#[path = "../peers/measure.rs"]
#[allow(dead_code, reason = "of another benchmark")]
mod measure;
#[path = "../../tests/plugin/stand.rs"]
#[allow(dead_code, reason = "of the tests of the same commands")]
mod stand;

use std::{fs, process::Command};

use stand::Stand;
use support::browser::Browser;

/// One task makes all files, the next one changes one in a hundred and deletes as many.
const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: NAME
  annotations: {tekton-wrap.dev/wrap: sources, tekton-wrap.dev/target: "${REGISTRY}/report/NAME:done"}
spec:
  pipelineSpec:
    workspaces: [{name: sources}]
    tasks:
    - name: make
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps:
        - name: s
          image: sh
          script: |
            cd $(workspaces.sources.path); dir=0
            while [ $dir -lt FOLDERS ]; do
              mkdir -p package-$((dir / 50))/lib-$dir; n=0
              while [ $n -lt 100 ]; do echo $dir $n > package-$((dir / 50))/lib-$dir/module_$n.js; n=$((n + 1)); done
              dir=$((dir + 1))
            done
    - name: change
      runAfter: [make]
      workspaces: [{name: sources}]
      taskSpec:
        workspaces: [{name: sources}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.sources.path); for file in */*/module_7.js; do echo changed > $file; done; rm */*/module_8.js"}]
"#;

#[tokio::main]
async fn main() {
    let given: Vec<u64> = std::env::args().skip(1).filter_map(|arg| arg.parse().ok()).collect();
    let sizes = if given.is_empty() { vec![1_000, 100_000, 1_000_000] } else { given };
    let stand = Stand::new().await;
    println!("{}", measure::machine(false, 1));
    println!(
        "{:>9} {:>9} {:>7} {:>9} {:>9} {:>8} {:>9} {:>9}",
        "files", "report", "CPU", "peak", "read", "page", "opened", "found"
    );
    for files in sizes {
        let name = format!("files-{files}");
        let yaml = RUN.replace("NAME", &name).replace("FOLDERS", &(files / 100).to_string());
        let (_, outcome) = stand.start(&yaml).await;
        assert_eq!(outcome.failure, None, "{}", outcome.full_log());
        let page = stand.path(&format!("{name}.html"));
        let before = served(&stand, &name);
        let mut command = Command::new(support::program());
        command.args(["report", &name, "-n", &stand.namespace.name, "--kubeconfig"]).arg(stand.path("kubeconfig"));
        command.arg("-o").arg(&page);
        let sample = tokio::task::block_in_place(|| measure::run(command));
        let read = served(&stand, &name) - before;
        let size = fs::metadata(&page).expect("the page").len();
        let (opened, found) =
            tokio::task::block_in_place(|| Browser::start().map_or((0.0, 0.0), |browser| look(browser, &page)));
        println!(
            "{files:>9} {:>7.2} s {:>5.2} s {:>5} MiB {:>6.1} MB {:>5} kB {opened:>6.0} ms {found:>6.0} ms",
            sample.seconds,
            sample.cpu_seconds,
            sample.peak_kib / 1024,
            read as f64 / 1e6,
            size / 1000,
        );
    }
}

/// Milliseconds until the page is there, and until a first search has its answer (80 of them it waits for more letters).
fn look(mut browser: Browser, page: &std::path::Path) -> (f64, f64) {
    browser.show_as(1400, 900, false);
    browser.open(page);
    browser.wait_for("performance.getEntriesByType('navigation')[0].loadEventEnd > 0");
    let opened = browser.evaluate("performance.getEntriesByType('navigation')[0].loadEventEnd");
    browser.evaluate(
        "new MutationObserver(() => { window.after = performance.now(); }).observe(document.getElementById('found'), {childList: true});
         window.before = performance.now(); document.getElementById('query').value = 'lib-7/module_7.js';
         document.getElementById('query').dispatchEvent(new Event('input'))",
    );
    browser.wait_for("window.after > 0 && document.getElementById('found').textContent.includes('path')");
    let found = browser.evaluate("window.after - window.before");
    (opened.as_f64().unwrap_or_default(), found.as_f64().unwrap_or_default())
}

/// Bytes of the answers to GET requests about the run's images, as the registry logged them.
fn served(stand: &Stand, name: &str) -> u64 {
    let log = stand.registry.log();
    let answers = log.lines().filter(|line| {
        line.contains("response completed")
            && line.contains("http.request.method=GET")
            && line.contains(&format!("report/{name}/"))
    });
    let written = |line: &str| {
        let (_, rest) = line.split_once("http.response.written=")?;
        rest.split(' ').next()?.trim_matches('"').parse::<u64>().ok()
    };
    answers.filter_map(written).sum()
}
