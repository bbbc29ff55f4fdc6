//! `rerun`: a run of six tasks that failed at the last one.

use std::collections::BTreeMap;

use serde_json::Value;
use support::{runner::Outcome, webhook::Webhook};

use crate::stand::{Stand, parsed};

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: NAME}
spec:
  params: [{name: fail, value: "FAIL"}]
  pipelineRef:
    resolver: wrap
    params:
    - {name: pipelineref, value: six}
    - {name: workspaces, value: src}
    - {name: target, value: "${REGISTRY}/six:$(context.pipelineRun.name)"}
---
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: six}
spec:
  params: [{name: fail}]
  workspaces: [{name: src}]
  results:
  - {name: digest, value: $(tasks.package.results.digest)}
  - {name: suites, type: array, value: "$(tasks.test.results.suites[*])"}
  - {name: url, value: "$(tasks.publish.results.url)"}
  tasks:
  - name: clone
    workspaces: [{name: src}]
    taskSpec:
      workspaces: [{name: src}]
      results: [{name: commit}]
      steps:
      - name: s
        image: sh
        script: |
          cd $(workspaces.src.path)
          mkdir code; echo main > code/main; echo 1 > version
          printf '%s' 'abc $1 "x"' > $(results.commit.path)
  - name: build
    runAfter: [clone]
    workspaces: [{name: src}]
    taskSpec:
      workspaces: [{name: src}]
      steps: [{name: s, image: sh, script: "cd $(workspaces.src.path); mkdir out; cat code/main > out/bin"}]
  - name: lint
    runAfter: [clone]
    workspaces: [{name: src}]
    taskSpec:
      workspaces: [{name: src}]
      steps: [{name: s, image: sh, script: "cd $(workspaces.src.path); rm version; echo fine > lint"}]
  - name: test
    runAfter: [build, lint]
    workspaces: [{name: src}]
    taskSpec:
      workspaces: [{name: src}]
      results: [{name: suites, type: array}]
      steps:
      - name: s
        image: sh
        script: |
          cd $(workspaces.src.path)
          test -f out/bin -a -f lint -a ! -e version
          echo tested >> out/bin
          printf '["unit","e2e"]' > $(results.suites.path)
  - name: package
    runAfter: [test]
    workspaces: [{name: src}]
    taskSpec:
      workspaces: [{name: src}]
      results: [{name: digest}]
      steps:
      - name: s
        image: sh
        script: |
          cd $(workspaces.src.path)
          cat out/bin lint > package
          printf sha256:1234 > $(results.digest.path)
  - name: publish
    runAfter: [package]
    params:
    - {name: commit, value: $(tasks.clone.results.commit)}
    - {name: suites, value: ["$(tasks.test.results.suites[*])"]}
    - {name: fail, value: $(params.fail)}
    when: [{input: $(tasks.package.results.digest), operator: in, values: ["sha256:1234"]}]
    workspaces: [{name: src}]
    taskSpec:
      params: [{name: commit}, {name: suites, type: array}, {name: fail}]
      workspaces: [{name: src}]
      results: [{name: url}]
      steps:
      - name: s
        image: sh
        env: [{name: COMMIT, value: $(params.commit)}]
        command: [sh, -ec]
        args:
        - |
          cd $(workspaces.src.path)
          test "$(params.fail)" = no
          echo "$COMMIT $*" > published
          printf https://example.com > $(results.url.path)
        - sh
        - $(params.suites[*])
  finally:
  - name: report
    params: [{name: all, value: "$(tasks.status) $(tasks.clone.status) $(tasks.publish.status)"}]
    workspaces: [{name: src}]
    taskSpec:
      params: [{name: all}]
      workspaces: [{name: src, readOnly: true}]
      steps: [{name: s, image: sh, script: "echo $(params.all); cd $(workspaces.src.path); find . -type f | sort"}]
"#;

fn run(name: &str, fail: &str) -> String {
    RUN.replace("NAME", name).replace("FAIL", fail)
}

/// The tasks that were played, and those of the pods.
fn played(outcome: &Outcome) -> Vec<&str> {
    outcome.tasks.iter().filter(|task| task.attempts > 0).map(|task| &*task.task).collect()
}

/// The results of the pipeline, as Tekton would put them together.
fn results(run: &Value, outcome: &Outcome) -> BTreeMap<String, Value> {
    let declared = run["spec"]["pipelineSpec"]["results"].as_array().expect("results");
    let value = |result: &Value| {
        let reference = result["value"].as_str().unwrap().trim_start_matches("$(").trim_end_matches(')');
        let (_, reference) = reference.split_once('.').expect("tasks or finally");
        let (task, result) = reference.trim_end_matches("[*]").split_once(".results.").expect("a reference");
        outcome.task(task).results[result].clone()
    };
    declared.iter().map(|result| (result["name"].as_str().unwrap().to_owned(), value(result))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn as_if_it_had_never_failed() {
    // It lets a rerun pass as it is.
    Webhook::shared().await;
    let stand = Stand::new().await;
    let (whole, of_whole) = stand.start(&run("whole", "no")).await;
    assert_eq!(of_whole.failure, None, "{}", of_whole.full_log());
    let (_, failed) = stand.start(&run("failed", "yes")).await;
    assert!(failed.failure.is_some(), "{}", failed.full_log());

    // Nothing is created by a dry run.
    let dry = parsed(&stand.prints(&["rerun", "failed", "--failed", "-p", "fail=no", "--dry-run", "-o", "yaml"]));
    assert_eq!(dry["spec"]["pipelineSpec"]["tasks"].as_array().unwrap().len(), 1);
    let like = serde_json::json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun"});
    assert_eq!(stand.namespace.names(&like).await, ["failed", "whole"]);

    // Once more it fails, and then the rerun of the rerun does not.
    let name = stand.prints(&["rerun", "failed", "--failed", "-o", "name"]);
    let name = name.trim().strip_prefix("pipelinerun.tekton.dev/").unwrap();
    let (_, again) = stand.play(&stand.stored(name).await).await;
    assert_eq!((played(&again), again.failure.is_some()), (vec!["publish", "report"], true), "{}", again.full_log());
    let told = stand.prints(&["rerun", name, "--from", "publish", "-p", "fail=no"]);
    assert!(told.ends_with(" created: it runs publish, then report\n"), "{told}");
    let name = told.split([' ', '/']).nth(1).unwrap();
    let (rerun, outcome) = stand.play(&stand.stored(name).await).await;
    assert_eq!(
        (played(&outcome), outcome.failure.clone()),
        (vec!["publish", "report"], None),
        "{}",
        outcome.full_log()
    );

    assert_eq!(results(&rerun, &outcome), results(&whole, &of_whole));
    assert_eq!(outcome.log_of("report", Some("s")), of_whole.log_of("report", Some("s")));
    let image = |name: &str| stand.image(&format!("{}/six:{name}", stand.registry.address));
    assert_eq!(image(name), image("whole"));
    assert_eq!(String::from_utf8_lossy(&image(name)[std::path::Path::new("published")]), "abc $1 \"x\" unit e2e\n");
    // The image says which run each task is of.
    let target = format!("{}/six:{name}", stand.registry.address);
    let verified =
        crate::stand::call(std::process::Command::new(support::program()).args(["inspect", "--verify", &target]));
    assert!(verified.succeeded && !verified.out.contains("not checked"), "{verified:?}");

    // A page about a rerun says whose files it started from.
    let page = stand.prints(&["report", name, "-o", "-"]);
    let says =
        "workspace &quot;src&quot; has also what tasks of an earlier run left: clone, build, lint, test, package";
    assert!(page.contains(says) && page.contains("<dt>rerun of</dt><dd>"), "{page}");

    // Without the snapshots there is no rerun.
    let pruned = format!("{}/six:failed", stand.registry.address);
    let pruned = crate::stand::call(std::process::Command::new(support::program()).args(["prune", &pruned]));
    assert!(pruned.succeeded, "{}", pruned.said);
    let refused = stand.refuses(&["rerun", "failed", "--failed"]);
    let says =
        [r#"the snapshot of workspace "src" that task "clone" left at "#, " is gone: it was pruned or has expired"];
    assert!(says.iter().all(|says| refused.contains(says)), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn refused() {
    let stand = Stand::new().await;
    let namespace = &stand.namespace.name;
    assert_eq!(
        stand.refuses(&["rerun", "absent", "--failed"]),
        format!(
            r#"there is no PipelineRun "absent" in namespace "{namespace}": give -n NAMESPACE if it is in another one"#
        )
    );
    let (run, _) = stand.start(&run("fine", "no")).await;
    assert_eq!(
        stand.refuses(&["rerun", "fine", "--failed"]),
        r#"no task of run "fine" failed: give --from TASK to start at one, or neither to run all of it again"#
    );
    let unknown = stand.refuses(&["rerun", "fine", "--from", "x"]);
    assert!(unknown.starts_with(r#"run "fine" has no task "x": its tasks are "clone", "build""#), "{unknown}");
    // A Pipeline that was changed since; times are whole seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    let pipeline = serde_json::json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "six"},
        "spec": {"tasks": [{"name": "t", "taskRef": {"name": "t"}}]}});
    let changed = stand.namespace.accepts(&pipeline).await;
    let changed = changed["metadata"]["creationTimestamp"].as_str().unwrap();
    let rerun = ["rerun", "fine", "--from", "publish", "--dry-run", "-o", "name"];
    assert_eq!(
        stand.refuses(&rerun),
        format!(
            r#"pipeline "six" was changed at {changed}, after run "fine" was created: a rerun has the pipeline as it was then; give --as-stored if that is meant, or start a new run for the changed one"#
        )
    );
    assert_eq!(stand.prints(&[&rerun[..], &["--as-stored"]].concat()), "pipelinerun.tekton.dev/fine-rerun-\n");
    stand.set_status(&run, "fine", serde_json::json!({"conditions": []})).await;
    let running = stand.refuses(&["rerun", "fine", "--failed"]);
    assert!(running.starts_with(r#"run "fine" is still running"#), "{running}");
}
