//! What a run says of itself is what someone else wrote: whoever looks at it is told so, and nothing more happens to them.

use std::{
    fs,
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};

use crate::stand::{Stand, call};

/// A run that nobody wrapped, as whoever creates runs may write it.
fn forged(name: &str, workspace: &str, target: &str) -> Value {
    let config = json!({"run": "$(context.pipelineRun.uid)", "task": "one", "order": 0, "workspaces": [
        {"name": workspace, "path": "/x/w", "target": target},
    ]});
    let injected = json!({"name": "tekton-wrap-save", "image": "i", "command": ["/tekton-wrap/bin/tekton-wrap"],
        "args": ["save"], "env": [{"name": "TEKTON_WRAP_STEP", "value": config.to_string()}]});
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"name": name, "labels": {"tekton-wrap.dev/wrapped": "true"}},
        "spec": {"pipelineSpec": {"workspaces": [{"name": "w"}], "tasks": [{"name": "one", "workspaces": [{"name": "w"}],
            "taskSpec": {"workspaces": [{"name": "w"}], "steps": [injected]}}]}}})
}

/// Stores a run that is over.
async fn store(stand: &Stand, run: &Value, reason: &str) {
    stand.namespace.accepts(run).await;
    let status = json!({"conditions": [{"type": "Succeeded", "status": "False", "reason": reason, "message": reason,
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
    stand.set_status(run, run["metadata"]["name"].as_str().unwrap(), status).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_run_writes_to_the_terminal() {
    let stand = Stand::new().await;
    let evil = "w\u{1b}]0;owned\u{7}\u{202e}\nr2  Succeeded";
    let target = format!("{}/hostile:r", stand.registry.address);
    store(&stand, &forged("r", evil, &target), "Failed\u{1b}[2J").await;
    let place = format!("r:{evil}");
    for args in [
        &["list"][..],
        &["list", "-o", "wide"],
        &["list", "-o", "yaml"],
        &["list", "-o", "json"],
        &["describe", "r"],
        &["describe", "r", "-o", "wide"],
        &["describe", "r", "-o", "yaml"],
        &["describe", "r", "-o", "json"],
        &["report", "r", "-o", "-"],
        &["ls", &place],
        &["cat", &place],
        &["cp", &place, "."],
        &["diff", "r", "one", "one"],
        &["rerun", "r", "--dry-run"],
        &["rerun", "r", "--failed"],
    ] {
        let done = stand.call(args);
        for printed in [&done.out, &done.said] {
            assert!(!printed.contains(['\u{1b}', '\u{7}']), "{args:?}: {printed:?}");
            assert!(!printed.lines().any(|line| line.starts_with("r2 ")), "{args:?}: {printed}");
        }
    }
}

/// Those who look at a run of someone else did not choose where it says that its files are.
#[tokio::test(flavor = "multi_thread")]
async fn no_run_has_folders_read_or_other_machines_asked_with_rsync() {
    let stand = Stand::new().await;
    let (secret, layout) = (stand.path("secret"), stand.path("layout"));
    fs::create_dir(&secret).unwrap();
    fs::write(secret.join("my-key"), "mine").unwrap();
    let mine = format!("dir://{}:r", layout.display());
    assert!(call(Command::new(support::program()).arg("save").arg(&secret).arg(&mine)).succeeded);

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let server = listener.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    std::thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::SeqCst);
        }
    });

    let theirs = format!("rsync://me@{server}/m/x:r");
    for (name, target) in [("local", &mine), ("away", &theirs)] {
        store(&stand, &forged(name, "w", target), "Failed").await;
        let place = format!("{name}:w");
        for args in
            [&["ls", &place][..], &["cat", &format!("{place}/my-key")], &["cp", &place, "copy"], &["diff", name, name]]
        {
            let refused = stand.refuses(args);
            assert!(refused.contains(target.as_str()), "{args:?}: {refused}");
        }
        let described = stand.prints(&["describe", name]);
        assert!(!described.contains("1 file") && described.contains("keeps its files in"), "{described}");
        stand.prints(&["report", name, "-o", "page.html"]);
        assert!(!fs::read_to_string(stand.path("page.html")).unwrap().contains("my-key"));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
    // One that the user named is asked, if there is a program for it.
    let said = stand.refuses(&["ls", "away:w", "--rsync-hosts", &server, "--retry-for", "1s"]);
    assert!(!said.contains("machines that you name"), "{said}");
}

/// What an earlier copy left in the folder, or anybody else, does not lead the next one out of it.
#[tokio::test(flavor = "multi_thread")]
async fn cp_stays_in_its_folder() {
    let stand = Stand::new().await;
    let victim = stand.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("file"), "mine").unwrap();
    let (run, target) = (RUN.replace("VICTIM", &victim.display().to_string()), "${REGISTRY}/hostile/cp:r");
    let (_, outcome) = stand.start(&run.replace("TARGET", target)).await;
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());

    stand.prints(&["cp", "r/one:w", "copy"]);
    assert_eq!(fs::read_link(stand.path("copy/dir")).unwrap(), victim, "a link is copied as what it is");
    fs::hard_link(victim.join("file"), stand.path("copy/held")).unwrap();
    stand.prints(&["cp", "r:w", "copy"]);
    assert_eq!(fs::read_to_string(stand.path("copy/dir/file")).unwrap(), "theirs\n");
    assert_eq!(fs::read_to_string(stand.path("copy/held")).unwrap(), "theirs\n");
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "mine");
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 1);
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(stand.path("copy/program")).unwrap());
    assert_eq!(mode & 0o7777, 0o755);
    // One file, to where a link is.
    std::os::unix::fs::symlink(victim.join("file"), stand.path("link")).unwrap();
    stand.prints(&["cp", "r:w/held", "link"]);
    assert_eq!(fs::read_to_string(victim.join("file")).unwrap(), "mine");
}

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: r, annotations: {tekton-wrap.dev/wrap: w, tekton-wrap.dev/target: "TARGET"}}
spec:
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: one
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps: [{name: s, image: sh, script: "cd $(workspaces.w.path); ln -s VICTIM dir"}]
    - name: two
      runAfter: [one]
      workspaces: [{name: w}]
      taskSpec:
        workspaces: [{name: w}]
        steps:
        - name: s
          image: sh
          script: |
            cd $(workspaces.w.path); rm dir; mkdir dir; echo theirs > dir/file; echo theirs > held; echo x > program; chmod 4755 program
"#;

/// What is written in one run does not keep the others from being listed.
#[tokio::test(flavor = "multi_thread")]
async fn no_run_hides_the_others() {
    let stand = Stand::new().await;
    let target = format!("{}/hostile:r", stand.registry.address);
    store(&stand, &forged("honest", "w", &target), "Failed").await;
    let mut deep = json!("x");
    for _ in 0..200 {
        deep = json!({"a": deep});
    }
    let mut run = forged("deep", "w", &target);
    run["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["x"] = deep;
    // It is more than the client of the tests reads, too.
    let kubeconfig = stand.path("kubeconfig");
    fs::write(stand.path("deep.json"), run.to_string()).unwrap();
    let created = support::assets::command("kubectl")
        .env("KUBECONFIG", kubeconfig)
        .args(["create", "--validate=false", "-n", &stand.namespace.name, "-f"])
        .arg(stand.path("deep.json"))
        .status();
    assert!(created.unwrap().success());
    let listed = stand.prints(&["list"]);
    assert!(listed.contains("honest") && listed.contains("deep"), "{listed}");
    assert!(stand.prints(&["list", "-o", "json"]).contains("honest"));
    for args in [&["describe", "deep"][..], &["rerun", "deep", "--failed"]] {
        let refused = stand.refuses(args);
        assert!(refused.contains(" answers can't be read: recursion limit exceeded"), "{refused}");
    }
}
