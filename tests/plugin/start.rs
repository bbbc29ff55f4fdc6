//! `start`: a run with a local folder, wrapped by the real webhook.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use serde_json::json;
use support::{kubelet::Kubelet, webhook::Webhook};

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

    // What git ignores is left out unless one wants it.
    let whole = stand.prints(&[&args[..], &["--no-ignore", "-o", "name"]].concat());
    let whole = whole.trim().strip_prefix("pipelinerun.tekton.dev/").unwrap().to_owned();
    let base = stand.stored(&whole).await["metadata"]["annotations"]["tekton-wrap.dev/base"].clone();
    let base = base.as_str().unwrap().replace("{{workspace}}", "src");
    assert_eq!(base, format!("{}/start:base-{whole}-src", stand.registry.address));
    assert!(stand.image(&base).contains_key(Path::new("ignored")));

    let refused = stand.refuses(&["start", "build", "-p", "words=a", "--base", "other=tree", "--target", &target]);
    assert_eq!(refused, r#"--base: the run has no wrapped workspace "other": it has src"#);
    let refused = stand.refuses(&["start", "build", "-p", "words=a,b", "--target", "quay.io/Me/x"]);
    assert!(
        refused.contains(r#""quay.io/Me/x" is not an image reference"#) && !refused.contains("denied"),
        "{refused}"
    );
    let refused = stand.refuses(&["start", "build", "-p", "words=a,b", "-p", "wordz=c"]);
    assert_eq!(refused, r#"-p: pipeline "build" has no param "wordz": it declares "words""#);
    let refused = stand.refuses(&["start", "absent"]);
    assert!(refused.starts_with(r#"there is no Pipeline "absent" in namespace"#), "{refused}");
    fs::write(stand.path("two.yaml"), format!("{}\n---\n{}\n", pipeline(), pipeline())).unwrap();
    assert_eq!(
        stand.refuses(&["start", "-f", "two.yaml"]),
        "two.yaml: it has 2 documents: give one PipelineRun or one Pipeline"
    );
}

/// A run that is followed, while it is played: its lines as they are printed.
struct Following {
    child: std::process::Child,
    lines: mpsc::Receiver<String>,
}

impl Following {
    fn start(stand: &Stand) -> Self {
        let mut command = Command::new(support::program());
        command.args(["start", "-f", "p.yaml", "-p", "words=a,b", "--target", "quay.io/me/x", "--showlog"]);
        command.args(["-n", &stand.namespace.name, "--kubeconfig"]).arg(stand.path("kubeconfig"));
        command.current_dir(stand.path(".")).stdout(Stdio::piped()).stderr(Stdio::piped()).env_remove("RUST_LOG");
        let mut child = command.spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    /// The next line. A test that waits for one in vain fails at last.
    fn line(&self) -> String {
        self.lines.recv_timeout(Duration::from_secs(60)).expect("a line")
    }

    /// How it ended, and what it said.
    fn ended(self) -> (Option<i32>, String) {
        let output = self.child.wait_with_output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }
}

/// The status of a run or TaskRun.
fn condition(status: &str, message: &str) -> serde_json::Value {
    let reason = if status == "False" { "Failed" } else { "Succeeded" };
    json!([{"type": "Succeeded", "status": status, "reason": reason, "message": message, "lastTransitionTime": "2026-01-01T00:00:00Z"}])
}

/// The logs come while the steps write them, from a kubelet behind the real API server.
#[tokio::test(flavor = "multi_thread")]
async fn followed_while_it_runs() {
    Webhook::shared().await;
    let stand = Stand::new().await;
    let kubelet = Kubelet::start(&stand.namespace).await;
    fs::write(stand.path("p.yaml"), pipeline().to_string()).unwrap();
    let following = Following::start(&stand);
    let created = following.line();
    let name = created.strip_prefix("pipelinerun.tekton.dev/").and_then(|line| line.strip_suffix(" created")).unwrap();
    let like = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun"});
    let step = |name: &str, state: &str| {
        let details = if state == "terminated" { json!({"exitCode": 0}) } else { json!({}) };
        json!({"name": name, "container": format!("step-{name}"), state: details})
    };
    let task_run = async |task: &str| {
        let own = format!("{name}-{task}");
        let object = json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": own},
            "spec": {"taskSpec": {"steps": [{"name": "s", "image": "i"}]}}});
        stand.namespace.create(&object).await.expect("a TaskRun");
        kubelet.run(&stand.namespace, &format!("{own}-pod"), &["step-s", "step-save"]).await;
        let running =
            json!({"podName": format!("{own}-pod"), "steps": [step("s", "running"), step("save", "running")]});
        stand.set_status(&object, &own, running).await;
        (object, own)
    };
    let children = |names: &[&str]| {
        let of = |task: &&str| json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": format!("{name}-{task}"), "pipelineTaskName": task});
        json!({"childReferences": names.iter().map(of).collect::<Vec<_>>()})
    };

    let (look, look_name) = task_run("look").await;
    let mut status = children(&["look"]);
    let custom =
        json!({"apiVersion": "tekton.dev/v1beta1", "kind": "CustomRun", "name": "its-name", "pipelineTaskName": "ask"});
    status["childReferences"].as_array_mut().unwrap().push(custom);
    stand.set_status(&like, name, status).await;
    let pod = format!("{look_name}-pod");
    kubelet.write(&pod, "step-s", "first\nsecond, not");
    assert_eq!(following.line(), "[look : s] first");
    // Of a step that still runs, a line that is whole only now.
    kubelet.write(&pod, "step-s", " all at once\n");
    assert_eq!(following.line(), "[look : s] second, not all at once");
    kubelet.end(&pod, "step-s");
    kubelet.write(&pod, "step-save", "saved\u{1b}[2J\n");
    assert_eq!(following.line(), r"[look : save] saved\033[2J");
    kubelet.end(&pod, "step-save");
    let over =
        json!({"conditions": condition("True", ""), "steps": [step("s", "terminated"), step("save", "terminated")]});
    stand.set_status(&look, &look_name, over.clone()).await;

    // The next one, which failed and was tried again before anyone looked; of its second pod the last line has no end.
    let (change, change_name) = task_run("change").await;
    let pod = format!("{change_name}-pod");
    let first = format!("{change_name}-first");
    kubelet.run(&stand.namespace, &first, &["step-s", "step-save"]).await;
    kubelet.write(&first, "step-s", "no luck\n");
    kubelet.end(&first, "step-s");
    kubelet.write(&first, "step-save", "skipped\n");
    kubelet.end(&first, "step-save");
    let tried = json!({"podName": first, "steps": [step("s", "terminated"), step("save", "terminated")],
        "conditions": condition("False", "")});
    stand.set_status(&change, &change_name, json!({"retriesStatus": [tried]})).await;
    stand.set_status(&like, name, children(&["look", "change"])).await;
    assert_eq!(following.line(), "[change : s] no luck");
    assert_eq!(following.line(), "[change : save] skipped");
    kubelet.end(&pod, "step-s");
    kubelet.write(&pod, "step-save", "the end");
    kubelet.end(&pod, "step-save");
    assert_eq!(following.line(), "[change : save] the end");
    stand.set_status(&change, &change_name, over).await;
    stand.set_status(&like, name, json!({"conditions": condition("True", "Tasks Completed: 2")})).await;
    assert_eq!(following.line(), format!("{name} succeeded: Tasks Completed: 2"));
    let said = "tekton-wrap: [ask] is the CustomRun its-name, whose logs are not followed: it has no pod that is known here; \
                kubectl describe customrun its-name shows how it is\n";
    assert_eq!(following.ended(), (Some(0), said.to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn followed_to_a_failure() {
    Webhook::shared().await;
    let stand = Stand::new().await;
    fs::write(stand.path("p.yaml"), pipeline().to_string()).unwrap();
    let following = Following::start(&stand);
    let created = following.line();
    let name = created.strip_prefix("pipelinerun.tekton.dev/").and_then(|line| line.strip_suffix(" created")).unwrap();
    let like = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun"});
    let failed = json!({"conditions": condition("False", "Tasks Completed: 1 (Failed: 1)")});
    stand.set_status(&like, name, failed).await;
    let (code, said) = following.ended();
    assert_eq!(code, Some(1));
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
