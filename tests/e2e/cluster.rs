//! The second driver: a cluster with Tekton. Each run gets a namespace of its own, which is deleted if all was as expected.

use std::{
    env,
    time::{Duration, SystemTime},
};

use futures_util::{StreamExt, future, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, LogParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    case::{Case, Rendered, Values},
    image,
};
use support::{
    manifests,
    runner::{Line, Outcome, Skip, Status, TaskRun},
};

/// How many runs the cluster gets at the same time.
const AT_ONCE: usize = 3;

/// How long one run may take.
const LIMIT: Duration = Duration::from_secs(600);

/// The cluster is that of KUBECONFIG.
pub struct Settings {
    /// `TEKTON_WRAP_E2E_IMAGE`: the product's image.
    steps: String,
    /// `TEKTON_WRAP_E2E_STEP_IMAGE`: an image with `sh`.
    image: String,
    /// `TEKTON_WRAP_E2E_REGISTRY`: where targets begin, for example `registry.example.com/e2e`.
    registry: String,
}

impl Settings {
    /// None where there is no KUBECONFIG.
    ///
    /// # Panics
    /// Where there is one, but not what else is needed: nobody's cluster is to be written to by accident, and no one who wants
    /// it is to take a skipped test for a passed one.
    pub fn from_env() -> Option<Self> {
        env::var_os("KUBECONFIG").filter(|path| !path.is_empty())?;
        let variable = |name: &str| {
            env::var(name).unwrap_or_else(|_| panic!("KUBECONFIG is set: set {name} too, or unset KUBECONFIG"))
        };
        Some(Self {
            steps: variable("TEKTON_WRAP_E2E_IMAGE"),
            image: variable("TEKTON_WRAP_E2E_STEP_IMAGE"),
            registry: variable("TEKTON_WRAP_E2E_REGISTRY"),
        })
    }
}

/// Plays all cases that a registry can serve.
pub fn play_all(settings: &Settings, cases: Vec<Case>) {
    let base = format!("{}/base", settings.registry);
    // The cases with caches begin where no run left any.
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time after 1970").as_secs();
    let targets = format!("{}/{now}", settings.registry);
    image::push_base(&base, None);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default().await.expect("the cluster of KUBECONFIG");
        let results = stream::iter(&cases).map(|case| {
            let target = format!("{targets}/{}", case.name.replace('_', "-"));
            let (client, base) = (client.clone(), &base);
            async move {
                let mut played = 0;
                for case in case.runs() {
                    let values = Values { target: &target, image: &settings.image, base, steps: &settings.steps };
                    let rendered = case.render(&values);
                    played += play(client.clone(), &case, rendered).await;
                }
                played
            }
        });
        let played: usize = results.buffer_unordered(AT_ONCE).collect::<Vec<_>>().await.into_iter().sum();
        println!("{played} runs on the cluster were as expected");
    });
}

async fn play(client: Client, case: &Case, rendered: Rendered) -> usize {
    let runs = (0..case.head.times).map(|_| play_once(client.clone(), case, &rendered));
    let runs: Vec<(String, Outcome)> = future::join_all(runs).await;
    let namespaces: Api<Namespace> = Api::all(client);
    for (namespace, outcome) in &runs {
        case.check(outcome);
        image::check(case, &rendered, outcome, None);
        namespaces.delete(namespace, &DeleteParams::default()).await.expect("the namespace is deleted");
    }
    runs.len()
}

/// Creates the run in a new namespace and waits for its end.
async fn play_once(client: Client, case: &Case, rendered: &Rendered) -> (String, Outcome) {
    let params = PostParams::default();
    let prefix = format!("tekton-wrap-{}-", case.name.replace('_', "-"));
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": prefix}});
    let namespace = manifests::create(&client, None, &namespace, &params).await.expect("a namespace").name_any();
    // Pods need it, and a busy cluster makes it a moment later.
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), &namespace);
    while accounts.get_opt("default").await.expect("an answer").is_none() {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    for object in rendered.objects.iter().filter(|o| o["kind"] != "PipelineRun" && o["kind"] != "Pipeline") {
        manifests::create(&client, Some(&namespace), object, &params).await.expect("the object is accepted");
    }
    let run = manifests::create(&client, Some(&namespace), &rendered.run, &params).await;
    let run = run.unwrap_or_else(|e| panic!("{}: {e}", case.name)).name_any();
    let runs: Api<DynamicObject> =
        Api::namespaced_with(client.clone(), &namespace, &manifests::resource(&rendered.run));
    let ended = async {
        loop {
            let run = runs.get(&run).await.expect("the run is there");
            if succeeded(&run.data).is_some_and(|c| c["status"] != "Unknown") {
                return run;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let ended = tokio::time::timeout(LIMIT, ended).await;
    let ended = ended.unwrap_or_else(|_| panic!("{}: the run in {namespace} does not end", case.name));
    let outcome = outcome(&client, &namespace, &rendered.run, &ended).await;
    (namespace, outcome)
}

/// How the run ended, in the runner's terms.
async fn outcome(client: &Client, namespace: &str, rendered: &Value, run: &DynamicObject) -> Outcome {
    let mut outcome = Outcome {
        name: run.name_any(),
        uid: run.uid().unwrap_or_default(),
        failure: succeeded(&run.data).filter(|c| c["status"] != "True").map(|c| c["message"].to_string()),
        tasks: Vec::new(),
        log: Vec::new(),
    };
    let like = json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun"});
    let task_runs: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &manifests::resource(&like));
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let children = items(&run.data["status"]["childReferences"]);
    let spec = &rendered["spec"]["pipelineSpec"];
    for task in items(&spec["tasks"]).iter().chain(items(&spec["finally"])) {
        let task = text(&task["name"]);
        let mut found = TaskRun {
            task: task.to_owned(),
            status: Status::Skipped(Skip::When),
            results: Default::default(),
            attempts: 0,
        };
        if let Some(child) = children.iter().find(|c| c["pipelineTaskName"] == *task) {
            let task_run = task_runs.get(text(&child["name"])).await.expect("the TaskRun is there");
            let status = &task_run.data["status"];
            found.status = match succeeded(&task_run.data) {
                Some(condition) if condition["status"] == "True" => Status::Succeeded,
                condition => Status::Failed(condition.map(|c| c["message"].to_string()).unwrap_or_default()),
            };
            found.attempts = 1 + u32::try_from(items(&status["retriesStatus"]).len()).unwrap_or(0);
            let results = items(&status["results"]).iter();
            found.results = results.map(|r| (text(&r["name"]).to_owned(), r["value"].clone())).collect();
            for attempt in items(&status["retriesStatus"]).iter().chain([status]) {
                outcome.log.extend(log(&pods, task, attempt).await);
            }
        }
        outcome.tasks.push(found);
    }
    outcome
}

/// What the steps of one attempt of a task printed.
async fn log(pods: &Api<Pod>, task: &str, attempt: &Value) -> Vec<Line> {
    let mut lines = Vec::new();
    for step in items(&attempt["steps"]) {
        let params = LogParams { container: Some(text(&step["container"]).to_owned()), ..LogParams::default() };
        let log = pods.logs(text(&attempt["podName"]), &params).await.unwrap_or_else(|e| e.to_string());
        let line =
            |line: &str| Line { task: task.to_owned(), step: text(&step["name"]).to_owned(), text: line.to_owned() };
        lines.extend(log.lines().map(line));
    }
    lines
}

fn succeeded(data: &Value) -> Option<&Value> {
    items(&data["status"]["conditions"]).iter().find(|c| c["type"] == "Succeeded")
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
