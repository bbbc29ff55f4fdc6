//! What the program is called, and the first errors of a new user.

use std::{fs, os::unix::fs::symlink, process::Command};

use support::{process::free_port, registry::Registry};

use crate::stand::{Done, Stand, call};

#[test]
fn a_plugin_of_tkn_and_kubectl() {
    let folder = tempfile::tempdir().unwrap();
    for (file, name) in [("tkn-wrap", "tkn wrap"), ("kubectl-wrap", "kubectl wrap"), ("tekton-wrap", "tekton-wrap")] {
        let program = folder.path().join(file);
        symlink(support::program(), &program).unwrap();
        let run = |args: &[&str]| call(Command::new(&program).args(args));
        let help = run(&["--help"]);
        assert!(
            help.succeeded && help.out.contains(&format!("Usage: {name} [OPTIONS] <COMMAND>")),
            "{file}: {}",
            help.out
        );
        assert_eq!(help.out.contains("Serve the mutating admission webhook"), file == "tekton-wrap", "{}", help.out);
        let help = run(&["rerun", "--help"]).out;
        assert!(help.contains(&format!("Usage: {name} rerun [OPTIONS] <RUN>")) && help.contains("Examples:"), "{help}");
        for shell in ["bash", "zsh", "fish", "powershell"] {
            let script = run(&["completion", shell]);
            assert!(
                script.succeeded && script.out.contains(file) && script.out.contains("rerun"),
                "{shell}: {}",
                script.said
            );
        }
    }
    let man = folder.path().join("man");
    assert!(call(Command::new(support::program()).arg("man").arg(&man)).succeeded);
    assert!(fs::read_to_string(man.join("tekton-wrap-rerun.1")).unwrap().contains("SYNOPSIS"));
}

/// Each ends in one sentence with the next step.
#[tokio::test(flavor = "multi_thread")]
async fn first_errors() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = |server: &str| {
        let file = folder.path().join("config");
        let text = serde_json::json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": server}}], "users": [{"name": "u", "user": {}}]});
        fs::write(&file, text.to_string()).unwrap();
        file
    };
    let sentence = |done: Done| {
        assert!(!done.succeeded && done.said.lines().count() == 1, "{done:?}");
        done.said
    };
    let rerun = || {
        let mut command = Command::new(support::program());
        command.args(["rerun", "r", "--failed"]).env("HOME", folder.path()).env_remove("KUBECONFIG");
        command.env_remove("KUBERNETES_SERVICE_HOST");
        command
    };
    let said = sentence(call(&mut rerun()));
    assert!(said.contains("no cluster is configured (") && said.contains("give --kubeconfig FILE"), "{said}");
    let server = format!("http://127.0.0.1:{}", free_port());
    let said = sentence(call(rerun().arg("--kubeconfig").arg(kubeconfig(&server))));
    assert!(said.contains(&format!("the cluster at {server} can't be reached: ")), "{said}");
    let said = sentence(call(rerun().args(["--context", "other", "--kubeconfig"]).arg(kubeconfig(&server))));
    assert!(said.contains("no cluster is configured (") && said.contains("other"), "{said}");
    // One without Tekton.
    let cluster = support::cluster::Cluster::start().await;
    let file = folder.path().join("empty");
    fs::write(&file, cluster.kubeconfig("admin-token").to_string()).unwrap();
    let said = sentence(call(rerun().arg("--kubeconfig").arg(&file)));
    assert!(said.contains("has no Tekton Pipelines v1: install them first"), "{said}");
    // One that does not know the user.
    fs::write(&file, cluster.kubeconfig("nobody").to_string()).unwrap();
    let said = sentence(call(rerun().arg("--kubeconfig").arg(&file)));
    assert!(said.contains("does not know you (") && said.ends_with("log in again\n"), "{said}");
}

/// The registry lets nobody in without credentials, and this machine has none.
#[tokio::test(flavor = "multi_thread")]
async fn no_rights_in_the_registry() {
    let (stand, registry) = (Stand::new().await, Registry::start_with_user().await);
    let image = format!("{}/private:r", registry.address);
    let run = support::render::render(&RUN.replace("IMAGE", &image), "tekton-wrap").unwrap();
    stand.namespace.accepts(&run).await;
    for args in [&["cat", "r:w/file"][..], &["ls", "r:w"], &["cp", "r:w/file", "here"], &["diff", "r", "one", "one"]] {
        let refused = stand.refuses(args);
        assert!(refused.lines().count() == 1 && refused.starts_with(&registry.address), "{refused}");
        let says = [
            " denied reading the manifest (401 ",
            &format!("; add credentials for {}: there are none in ", registry.address),
        ];
        assert!(says.iter().all(|says| refused.contains(says)), "{refused}");
    }
    // What is known without the registry is told all the same.
    let described = stand.prints(&["describe", "r"]);
    assert!(described.contains("one   Pending") && described.contains("add credentials for"), "{described}");
    stand.prints(&["report", "r", "-o", "page.html"]);
    assert!(fs::read_to_string(stand.path("page.html")).unwrap().contains("add credentials for"));
}

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: r, annotations: {tekton-wrap.dev/wrap: w, tekton-wrap.dev/target: "IMAGE"}}
spec:
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: one
      workspaces: [{name: w}]
      taskSpec: {workspaces: [{name: w}], steps: [{name: s, image: sh}]}
"#;

#[tokio::test(flavor = "multi_thread")]
async fn wrong_arguments_end_with_2() {
    let stand = Stand::new().await;
    for args in [&["rerun"][..], &["rerun", "a", "--failed", "--from", "x"], &["rerun", "a", "-o", "table"]] {
        let mut command = Command::new(support::program());
        assert_eq!(command.args(args).output().unwrap().status.code(), Some(2), "{args:?}");
    }
    let said = stand.refuses(&["rerun", "a", "--failed"]);
    assert!(said.starts_with("there is no PipelineRun"), "{said}");
}
