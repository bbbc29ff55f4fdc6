//! What a test stands on: a namespace of a cluster, a registry, and runs that were played and stored.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use support::{
    cluster::{Cluster, Namespace},
    manifests,
    registry::{Registry, crane},
    render::render,
    runner::{Outcome, Runner, Skip, Status},
};
use tokio::sync::OnceCell;

/// A namespace and a registry.
pub struct Stand {
    pub namespace: Namespace,
    pub registry: &'static Registry,
    folder: tempfile::TempDir,
}

/// What a command did.
#[derive(Debug)]
pub struct Done {
    pub succeeded: bool,
    pub out: String,
    pub said: String,
}

impl Stand {
    pub async fn new() -> Self {
        Self::on(Cluster::shared().await).await
    }

    /// In a new namespace of `cluster`.
    pub async fn on(cluster: &Cluster) -> Self {
        static REGISTRY: OnceCell<Registry> = OnceCell::const_new();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("kubeconfig"), cluster.kubeconfig("admin-token").to_string()).unwrap();
        let registry = REGISTRY.get_or_init(Registry::start).await;
        Self { namespace: cluster.namespace().await, registry, folder }
    }

    /// A path in a folder of the test's own.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `tekton-wrap` with these arguments, in the namespace.
    pub fn call(&self, args: &[&str]) -> Done {
        let kubeconfig = self.path("kubeconfig");
        let mut command = Command::new(support::program());
        command.args(args).args(["-n", &self.namespace.name, "--kubeconfig"]).arg(kubeconfig);
        call(command.current_dir(self.folder.path()))
    }

    /// The same, which must go well; what it printed.
    pub fn prints(&self, args: &[&str]) -> String {
        let done = self.call(args);
        assert!(done.succeeded, "{args:?}: {}", done.said);
        done.out
    }

    /// The same, which must fail; its sentence.
    pub fn refuses(&self, args: &[&str]) -> String {
        let done = self.call(args);
        assert!(!done.succeeded && done.out.is_empty(), "{args:?}: {done:?}");
        done.said.trim_start_matches("tekton-wrap: ").trim_end().to_owned()
    }

    /// Creates the run in `yaml` as the webhook would store it, and plays it.
    pub async fn start(&self, yaml: &str) -> (Value, Outcome) {
        let yaml = yaml.replace("${REGISTRY}", &self.registry.address);
        let run = render(&yaml, "tekton-wrap").unwrap_or_else(|problem| panic!("{problem}"));
        let stored = self.namespace.accepts(&run).await;
        self.play(&stored).await
    }

    /// Plays a stored run and stores how it ended, as Tekton's controller would.
    pub async fn play(&self, run: &Value) -> (Value, Outcome) {
        let runner = Runner { program: support::program(), ..Runner::default() };
        let of_runner = run.clone();
        let outcome = tokio::task::spawn_blocking(move || runner.play(&of_runner)).await.unwrap();
        (self.store(run, &outcome).await, outcome)
    }

    /// The stored run `name`.
    pub async fn stored(&self, name: &str) -> Value {
        let like = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun"});
        serde_json::to_value(self.namespace.api(&like).get(name).await.expect("the run is stored")).unwrap()
    }

    /// Each task takes nine seconds, one after the other.
    async fn store(&self, run: &Value, outcome: &Outcome) -> Value {
        let time = |seconds: usize| format!("2026-01-01T00:{:02}:{:02}Z", seconds / 60, seconds % 60);
        let step = |name: &str, from: usize, to: usize| {
            json!({"name": name, "container": format!("step-{name}"),
                "terminated": {"exitCode": 0, "startedAt": time(from), "finishedAt": time(to)}})
        };
        let condition = |failure: Option<&str>| {
            let (status, reason) = if failure.is_none() { ("True", "Succeeded") } else { ("False", "Failed") };
            json!([{"type": "Succeeded", "status": status, "reason": reason, "message": failure.unwrap_or_default(),
                "lastTransitionTime": "2026-01-01T00:00:00Z"}])
        };
        let (mut references, mut skipped) = (Vec::new(), Vec::new());
        for (place, task) in outcome.tasks.iter().enumerate() {
            let failure = match &task.status {
                Status::Succeeded => None,
                Status::Failed(why) => Some(why.as_str()),
                Status::Skipped(why) => {
                    let reason = match why {
                        Skip::When => "When Expressions evaluated to false",
                        Skip::Parent => "Parent Tasks were skipped",
                        Skip::Results => "Results were missing",
                        Skip::Stopping => "PipelineRun was stopping",
                    };
                    skipped.push(json!({"name": task.task, "reason": reason}));
                    continue;
                }
            };
            let name = format!("{}-{}", outcome.name, task.task);
            references.push(
                json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "name": name, "pipelineTaskName": task.task}),
            );
            let results: Vec<Value> = task
                .results
                .iter()
                .map(|(name, value)| {
                    let kind = if value.is_array() {
                        "array"
                    } else if value.is_object() {
                        "object"
                    } else {
                        "string"
                    };
                    json!({"name": name, "type": kind, "value": value})
                })
                .collect();
            let spec = json!({"taskSpec": {"steps": [{"name": "s", "image": "i"}]}});
            let object =
                json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": name}, "spec": spec});
            self.namespace.create(&object).await.expect("a TaskRun");
            self.set_status(
                &object,
                &name,
                json!({"conditions": condition(failure), "results": results, "podName": format!("{name}-pod"),
                "startTime": time(10 * place), "completionTime": time(10 * place + 9),
                "steps": [
                    step("tekton-wrap-restore", 10 * place + 1, 10 * place + 3),
                    step("s", 10 * place + 3, 10 * place + 8),
                    step("tekton-wrap-save", 10 * place + 8, 10 * place + 9),
                ]}),
            )
            .await;
        }
        let status = json!({"conditions": condition(outcome.failure.as_deref()), "childReferences": references,
            "skippedTasks": skipped, "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:00Z"});
        self.set_status(run, &outcome.name, status).await;
        self.stored(&outcome.name).await
    }

    /// Stores a status.
    pub async fn set_status(&self, like: &Value, name: &str, status: Value) {
        let patch = Patch::Merge(json!({"status": status}));
        self.namespace.api(like).patch_status(name, &PatchParams::default(), &patch).await.expect("a status");
    }

    /// The files of an image, with what they hold.
    pub fn image(&self, image: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        let dir = tempfile::tempdir().unwrap();
        let mut export = crane().args(["export", image, "-"]).stdout(Stdio::piped()).spawn().unwrap();
        let untarred =
            Command::new("tar").args(["-x", "-C"]).arg(dir.path()).stdin(export.stdout.take().unwrap()).status();
        assert!(untarred.unwrap().success() && export.wait().unwrap().success(), "crane export {image}");
        files(dir.path())
    }
}

/// The files in `dir`, by path, with what they hold.
pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => open.push(entry.path()),
                false => drop(
                    found.insert(entry.path().strip_prefix(dir).unwrap().to_owned(), fs::read(entry.path()).unwrap()),
                ),
            }
        }
    }
    found
}

/// Runs a command to its end.
pub fn call(command: &mut Command) -> Done {
    let output = command.env_remove("RUST_LOG").output().expect("the program starts");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Done { succeeded: output.status.success(), out: text(output.stdout), said: text(output.stderr) }
}

/// The objects in YAML that the program printed.
pub fn parsed(yaml: &str) -> Value {
    manifests::parse(yaml).remove(0)
}
