//! Runs on the cluster: each is created and waited for.

use std::{
    cell::RefCell,
    env,
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, LogParams, PostParams},
};
use serde_json::{Value, json};
use support::{manifests, render};

use crate::timeline::{self, TaskTimes, Timeline};

const PIPELINES: &str = include_str!("pipelines.yaml");

/// How long a run, or anything else, may take.
const LIMIT: Duration = Duration::from_secs(600);

/// So long until a node has done with the pods of the run before.
const SETTLE: Duration = Duration::from_secs(5);

/// A namespace of the cluster.
pub struct Cluster {
    client: Client,
    namespace: String,
    /// The product's image, an image with `sh`, and where targets begin.
    steps: String,
    image: String,
    registry: String,
    /// None is a folder of the node, below `folder`.
    class: Option<String>,
    folder: String,
    /// What is to be emptied at the end.
    claims: RefCell<Vec<String>>,
}

impl Cluster {
    /// See the command.
    pub async fn from_env() -> Self {
        let variable = |name: &str| env::var(name).unwrap_or_else(|_| panic!("{name} is not set (tests/README.md)"));
        variable("KUBECONFIG");
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = Client::try_default().await.expect("the cluster of KUBECONFIG");
        let namespace =
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "tekton-wrap-bench-"}});
        let namespace =
            manifests::create(&client, None, &namespace, &PostParams::default()).await.expect("a namespace").name_any();
        let cluster = Self {
            client,
            namespace,
            steps: variable("TEKTON_WRAP_E2E_IMAGE"),
            image: variable("TEKTON_WRAP_E2E_STEP_IMAGE"),
            registry: variable("TEKTON_WRAP_E2E_REGISTRY"),
            class: env::var("TEKTON_WRAP_BENCH_STORAGE_CLASS").ok(),
            folder: env::var("TEKTON_WRAP_BENCH_FOLDER").unwrap_or_else(|_| "/tmp".to_owned()),
            claims: RefCell::default(),
        };
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        cluster.wait_for(&account, |_| true).await;
        for pipeline in manifests::parse(&PIPELINES.replace("${IMAGE}", &cluster.image)) {
            cluster.create(&pipeline).await;
        }
        cluster
    }

    /// The namespace goes, with all that is in it, and what is on its volumes.
    pub async fn leave(&self) {
        for claim in self.claims.take() {
            self.empty_volume(&claim).await;
        }
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace"});
        let api = Api::<DynamicObject>::all_with(self.client.clone(), &manifests::resource(&namespace));
        api.delete(&self.namespace, &DeleteParams::default()).await.expect("the namespace is deleted");
    }

    /// A wrapped run.
    pub async fn run_wrapped(&self, kind: &str, round: usize) -> Timeline {
        let target = format!("{}/runs/{}:{kind}-{round}", self.registry, self.namespace);
        let params = json!([
            {"name": "pipelineref", "value": kind}, {"name": "workspaces", "value": "ws"}, {"name": "target", "value": target}
        ]);
        let name = format!("{kind}-{round}-wrapped");
        let run = run(&name, json!({"pipelineRef": {"resolver": "wrap", "params": params}}));
        let yaml = format!("{}\n---\n{run}\n", PIPELINES.replace("${IMAGE}", &self.image));
        self.time(&render::render(&yaml, &self.steps).expect("the run can be wrapped")).await
    }

    /// The same Pipeline on a volume that is there already.
    pub async fn run_on_volume(&self, kind: &str, round: usize) -> Timeline {
        let name = format!("{kind}-{round}-volume");
        self.make_volume(&name).await;
        self.claims.borrow_mut().push(name.clone());
        let binding = json!([{"name": "ws", "persistentVolumeClaim": {"claimName": name}}]);
        self.time(&run(&name, json!({"pipelineRef": {"name": kind}, "workspaces": binding}))).await
    }

    async fn make_volume(&self, name: &str) {
        let size = json!({"storage": "1Gi"});
        let mut claim = json!({
            "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": size}}
        });
        if let Some(class) = &self.class {
            claim["spec"]["storageClassName"] = json!(class);
            self.create(&claim).await;
            // One that waits for its first pod is bound by the run.
            return;
        }
        let volume = format!("{}-{name}", self.namespace);
        claim["spec"]["storageClassName"] = json!("");
        claim["spec"]["volumeName"] = json!(volume);
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": volume},
            "spec": {
                "capacity": size, "accessModes": ["ReadWriteOnce"], "storageClassName": "",
                "persistentVolumeReclaimPolicy": "Retain",
                "hostPath": {"path": format!("{}/{volume}", self.folder), "type": "DirectoryOrCreate"},
                "claimRef": {"namespace": self.namespace, "name": name}
            }
        });
        self.create(&volume).await;
        self.create(&claim).await;
        self.wait_for(&claim, |claim| claim["status"]["phase"] == "Bound").await;
    }

    /// What is in a folder of the node would stay there.
    async fn empty_volume(&self, claim: &str) {
        let pod = json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("{claim}-empty")},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "empty", "image": self.image, "command": ["sh", "-c", "rm -rf /volume/*"],
                    "volumeMounts": [{"name": "volume", "mountPath": "/volume"}]
                }],
                "volumes": [{"name": "volume", "persistentVolumeClaim": {"claimName": claim}}]
            }
        });
        self.create(&pod).await;
        self.wait_for(&pod, |pod| pod["status"]["phase"] == "Succeeded").await;
        if self.class.is_none() {
            let name = format!("{}-{claim}", self.namespace);
            self.delete(&json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}})).await;
        }
    }

    /// Creates the run and waits for its end. It stays: a node that deletes pods and their files is busy with that.
    async fn time(&self, run: &Value) -> Timeline {
        tokio::time::sleep(SETTLE).await;
        let begin = Instant::now();
        self.create(run).await;
        let is_over = |run: &Value| condition(run).is_some_and(|c| c["status"] != "Unknown");
        let ended = self.wait_for(run, is_over).await;
        let whole = begin.elapsed().as_secs_f64();
        assert_eq!(condition(&ended).expect("it ended")["status"], "True", "{:#}", ended["status"]);
        let mut tasks = Vec::new();
        for child in items(&ended["status"]["childReferences"]) {
            tasks.push(self.task_times(child, &ended["status"]["pipelineSpec"]).await);
        }
        Timeline::new(whole, &tasks)
    }

    async fn task_times(&self, child: &Value, spec: &Value) -> TaskTimes {
        let (name, task) = (&child["name"], text(&child["pipelineTaskName"]));
        let like = json!({"apiVersion": "tekton.dev/v1", "kind": "TaskRun", "metadata": {"name": name}});
        let status = self.wait_for(&like, |_| true).await["status"].clone();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &self.namespace);
        let pod = pods.get(text(&status["podName"])).await.expect("the pod is there");
        let containers = pod.status.and_then(|status| status.container_statuses).expect("statuses of containers");
        let mut steps: Vec<(String, f64, f64)> = Vec::new();
        for step in items(&status["steps"]) {
            let container = text(&step["container"]);
            let params = LogParams { container: Some(container.to_owned()), timestamps: true, ..LogParams::default() };
            let log = pods.logs(text(&status["podName"]), &params).await.expect("a log");
            let ended =
                containers.iter().find(|c| c.name == container).and_then(|c| c.state.as_ref()?.terminated.as_ref());
            let began = ended.and_then(|state| timeline::started(state.message.as_deref()?)).expect("when it began");
            steps.push((text(&step["name"]).to_owned(), began, timeline::last_line(&log).expect("a line")));
        }
        let own = items(&spec["tasks"]).iter().find(|t| t["name"] == task).expect("the task is in the pipeline");
        let after = items(&own["runAfter"]).iter().map(|name| text(name).to_owned()).collect();
        TaskTimes { name: task.to_owned(), after, steps }
    }

    fn api(&self, object: &Value) -> Api<DynamicObject> {
        let resource = manifests::resource(object);
        match object["kind"].as_str() {
            Some("PersistentVolume") => Api::all_with(self.client.clone(), &resource),
            _ => Api::namespaced_with(self.client.clone(), &self.namespace, &resource),
        }
    }

    async fn create(&self, object: &Value) {
        let typed = serde_json::from_value(object.clone()).expect("an object");
        let created = self.api(object).create(&PostParams::default(), &typed).await;
        created.unwrap_or_else(|problem| panic!("{problem}: {object:#}"));
    }

    async fn delete(&self, object: &Value) {
        let name = text(&object["metadata"]["name"]);
        self.api(object).delete(name, &DeleteParams::background()).await.expect("it is deleted");
    }

    /// The object, when it is there and `is_ready`.
    async fn wait_for(&self, object: &Value, is_ready: impl Fn(&Value) -> bool) -> Value {
        let (api, name) = (self.api(object), text(&object["metadata"]["name"]));
        let begin = Instant::now();
        loop {
            let found = api.get_opt(name).await.expect("an answer");
            let found = found.map(|found| serde_json::to_value(found).expect("JSON"));
            match found {
                Some(found) if is_ready(&found) => return found,
                found => assert!(begin.elapsed() < LIMIT, "{name} is not ready after {LIMIT:?}: {found:#?}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn run(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": name}, "spec": spec})
}

fn condition(run: &Value) -> Option<&Value> {
    items(&run["status"]["conditions"]).iter().find(|c| c["type"] == "Succeeded")
}

fn items(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
