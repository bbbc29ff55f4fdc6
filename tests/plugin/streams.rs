//! Nobody reads an answer to its end (`| head -1`): no command says anything about it, and it exits as if all was read.

use std::{
    fs::{self, File},
    os::fd::OwnedFd,
    process::{Command, Stdio},
};

use crate::stand::{Stand, call};

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata:
  name: r
  annotations: {tekton-wrap.dev/wrap: w, tekton-wrap.dev/target: "${REGISTRY}/streams:$(context.pipelineRun.name)"}
spec:
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: one
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.w.path); n=0; while [ $n -lt 2000 ]; do echo $n > file-with-a-long-name-$n; n=$((n + 1)); done; head -c 1000000 /dev/zero > large"}]
    - name: two
      runAfter: [one]
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.w.path); rm file-*"}]
"#;

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_nobody_reads() {
    let stand = Stand::new().await;
    let (_, outcome) = stand.start(RUN).await;
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());
    fs::create_dir(stand.path("out")).unwrap();
    let image = format!("{}/streams:r", stand.registry.address);
    let [inspect, tree, prune] =
        ["inspect IMAGE", "inspect IMAGE --tree", "prune IMAGE"].map(|line| line.replace("IMAGE", &image));
    for line in [
        "list",
        "list -o json",
        "describe r",
        "describe r -o wide",
        "describe r -o yaml",
        "ls -R r/one:w",
        "ls -R r/one:w -o json",
        "ls -R r/one:w -o name",
        "cat r/one:w/large",
        "cp r/one:w/large r/one:w/file-with-a-long-name-7 out",
        "diff r one two",
        "diff r one two -o wide",
        "diff r one two -o yaml",
        "report r -o -",
        "rerun r --from two --dry-run",
        "rerun r --from two --dry-run -o json",
        "version",
        "version -o json",
        "completion bash",
        "completion zsh",
        "--help",
        "rerun --help",
        &inspect,
        &tree,
        &prune,
    ] {
        let (read, write) = std::io::pipe().unwrap();
        drop(read);
        let mut command = Command::new(support::program());
        command.args(line.split(' ')).current_dir(stand.path("."));
        let needs_no_cluster = ["help", "completion", "inspect", "prune"];
        if !needs_no_cluster.iter().any(|word| line.contains(word)) {
            command.args(["-n", &stand.namespace.name, "--kubeconfig"]).arg(stand.path("kubeconfig"));
        }
        command.stdin(Stdio::null()).stdout(File::from(OwnedFd::from(write))).env_remove("RUST_LOG");
        let done = command.output().unwrap();
        assert_eq!((done.status.code(), &*String::from_utf8_lossy(&done.stderr)), (Some(0), ""), "{line}");
    }

    // What they were asked for is done.
    assert!(stand.path("out/file-with-a-long-name-7").exists());
    let left = call(Command::new(support::program()).args(["prune", &image, "--dry-run"]));
    assert_eq!((left.succeeded, &*left.out), (true, ""), "{}", left.said);
}
