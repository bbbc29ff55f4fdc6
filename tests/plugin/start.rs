//! `start`: a run with a local folder, wrapped by the real webhook.

use std::{fs, process::Command};

use serde_json::json;
use support::webhook::Webhook;

use crate::stand::{Stand, parsed};

/// A pipeline whose second task changes what the local folder has.
fn pipeline() -> serde_json::Value {
    let task = |name: &str, after: &[&str], script: &str| {
        json!({"name": name, "runAfter": after, "workspaces": [{"name": "src"}], "taskSpec": {"workspaces": [{"name": "src"}],
            "steps": [{"name": "s", "image": "sh", "script": script}]}})
    };
    json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "build"}, "spec": {
        "params": [{"name": "words", "type": "array"}],
        "workspaces": [{"name": "src"}],
        "tasks": [
            task("look", &[], "cd $(workspaces.src.path); find . -type f | sort; test ! -e ignored"),
            task("change", &["look"], "cd $(workspaces.src.path); echo $(params.words[1]) > made"),
        ],
    }})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_local_folder_in_the_pipeline() {
    Webhook::shared().await;
    let stand = Stand::new().await;
    stand.namespace.accepts(&pipeline()).await;
    let tree = stand.path("tree");
    fs::create_dir_all(tree.join("code")).unwrap();
    for (path, text) in [("code/main", "main\n"), (".gitignore", "ignored\n"), ("ignored", "x")] {
        fs::write(tree.join(path), text).unwrap();
    }
    let target = format!("{}/start:$(context.pipelineRun.name)", stand.registry.address);
    let args = ["start", "build", "-p", "words=a,b", "--target", &target, "--base", "src=tree"];
    let dry = parsed(&stand.prints(&[&args[..], &["--dry-run", "-o", "yaml"]].concat()));
    assert_eq!(dry["spec"]["params"], json!([{"name": "words", "value": ["a", "b"]}]));
    assert_eq!(dry["metadata"]["annotations"]["tekton-wrap.dev/workspaces"], "src");
    let like = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun"});
    assert!(stand.namespace.names(&like).await.is_empty());

    let name = stand.prints(&[&args[..], &["-o", "name"]].concat());
    let name = name.trim().strip_prefix("pipelinerun.tekton.dev/build-").map(|rest| format!("build-{rest}")).unwrap();
    let (_, outcome) = stand.play(&stand.stored(&name).await).await;
    assert_eq!(outcome.failure, None, "{}", outcome.full_log());
    assert_eq!(outcome.log_of("look", Some("s")), "./.gitignore\n./code/main\n");
    let image = stand.image(&format!("{}/start:{name}", stand.registry.address));
    assert_eq!(
        image.keys().map(|path| path.display().to_string()).collect::<Vec<_>>(),
        [".gitignore", "code/main", "made"]
    );
    // What is of the base can be read too.
    assert_eq!(stand.prints(&["cat", &format!("{name}:src/code/main"), &format!("{name}:src/made")]), "main\nb\n");

    // The end of a run that is followed.
    let refused = stand.refuses(&["start", "build", "-p", "words=a", "--base", "other=tree", "--target", &target]);
    assert_eq!(refused, r#"--base: the run has no wrapped workspace "other": it has src"#);
    let refused = stand.refuses(&["start", "build", "-p", "words=a,b", "--target", "quay.io/Me/x"]);
    assert!(
        refused.contains(r#""quay.io/Me/x" is not an image reference"#) && !refused.contains("denied"),
        "{refused}"
    );
    let refused = stand.refuses(&["start", "absent"]);
    assert!(refused.starts_with(r#"there is no Pipeline "absent" in namespace"#), "{refused}");
    fs::write(stand.path("two.yaml"), format!("{}\n---\n{}\n", pipeline(), pipeline())).unwrap();
    assert_eq!(
        stand.refuses(&["start", "-f", "two.yaml"]),
        "two.yaml: it has 2 documents: give one PipelineRun or one Pipeline"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_to_its_end() {
    Webhook::shared().await;
    let stand = Stand::new().await;
    fs::write(stand.path("p.yaml"), pipeline().to_string()).unwrap();
    let mut command = Command::new(support::program());
    command.args([
        "start",
        "-f",
        "p.yaml",
        "-p",
        "words=a,b",
        "--target",
        "quay.io/me/x",
        "--showlog",
        "-n",
        &stand.namespace.name,
    ]);
    let following = command.arg("--kubeconfig").arg(stand.path("kubeconfig")).current_dir(stand.path("."));
    let following =
        following.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    let like = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun"});
    let name = loop {
        match stand.namespace.names(&like).await.pop() {
            Some(name) => break name,
            None => tokio::time::sleep(std::time::Duration::from_millis(50)).await,
        }
    };
    let condition = json!([{"type": "Succeeded", "status": "False", "reason": "Failed", "message": "Tasks Completed: 1 (Failed: 1)", "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    stand.set_status(&like, &name, json!({"conditions": condition})).await;
    let output = following.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&format!("run {name:?} failed: Tasks Completed: 1 (Failed: 1): ")), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_webhook() {
    let cluster = support::cluster::Cluster::start().await;
    support::crds::apply_tekton(&cluster.admin().await).await;
    let stand = Stand::on(&cluster).await;
    stand.namespace.accepts(&pipeline()).await;
    let refused = stand.refuses(&["start", "build", "-p", "words=a"]);
    assert!(
        refused.starts_with("the run would not be wrapped: the webhook of tekton-wrap is not installed"),
        "{refused}"
    );
}
