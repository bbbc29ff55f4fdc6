//! Two replicas of the webhook behind the Service of `webhook-config/overlays/no-cert-manager`, with a certificate by `certs/make`.

use std::{fs, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use support::{
    chain::{make_tasks, pipeline},
    cluster::{Cluster, Namespace},
    crds,
    kubectl::{kubectl, make_tekton},
    process,
    service::{copy_certificate, lead_to, make},
    webhook::Webhook,
};

use super::balancer::Balancer;

const MANIFESTS: &str = "webhook-config/overlays/no-cert-manager";

/// How long a Service goes on sending connections to a replica that ends.
pub const NOTICE: Duration = Duration::from_secs(1);

/// All that runs.
pub struct Stand {
    /// The API.
    pub cluster: Cluster,
    /// What its apiserver connects to.
    pub balancer: Balancer,
    /// The replicas.
    pub replicas: Vec<Webhook>,
    /// Where runs are created. It has Pipelines `two` and `ten`, of so many Tasks by name.
    pub namespace: Namespace,
}

impl Stand {
    /// Starts it.
    pub async fn start() -> Self {
        let cluster = Cluster::start().await;
        crds::apply_tekton(&cluster.admin().await).await;
        make_tekton(&cluster).await;
        kubectl(&cluster, &["apply", "-k", MANIFESTS]);
        make(&cluster, &[]);
        let balancer = Balancer::start().await;
        let namespace = cluster.namespace().await;
        make_tasks(&namespace).await;
        for (name, tasks) in [("two", 2), ("ten", 10)] {
            namespace.accepts(&pipeline(name, tasks)).await;
        }
        let mut stand = Self { cluster, balancer, replicas: Vec::new(), namespace };
        for _ in 0..2 {
            stand.add_replica().await;
        }
        lead_to(&stand.cluster, stand.balancer.port).await;
        while stand.namespace.dry_run(&wrapped("two")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        stand
    }

    /// One replica more, with the certificate that the cluster has now.
    pub async fn add_replica(&mut self) {
        let dir = process::folder("webhook");
        copy_certificate(&self.cluster, &dir.join("tls"));
        let image = "--image=quay.io/me/tekton-wrap:v1".to_owned();
        let replica = Webhook::start_in(dir, String::new(), &self.cluster, &[image]).await;
        self.balancer.add(replica.port);
        self.replicas.push(replica);
    }

    /// The oldest replica is replaced, as a rollout does it.
    pub async fn replace_replica(&mut self) {
        self.add_replica().await;
        let old = self.replicas.remove(0);
        let port = old.port;
        let unnoticed = async {
            tokio::time::sleep(NOTICE).await;
            self.balancer.remove(port);
        };
        tokio::join!(old.terminate(), unnoticed);
    }

    /// The files of the certificate become those that the cluster has now, with each replica at another moment, as kubelets do it.
    pub async fn spread_certificate(&self) {
        let before = self.reloads();
        for replica in &self.replicas {
            tokio::time::sleep(NOTICE).await;
            copy_certificate(&self.cluster, &replica.tls_dir());
        }
        while self.reloads().iter().zip(&before).any(|(now, before)| now <= before) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// How often each replica has taken a new certificate.
    fn reloads(&self) -> Vec<f64> {
        let count = |replica: &Webhook| series(replica, "tekton_wrap_tls_reload_total{result=\"success\"}");
        self.replicas.iter().map(count).collect()
    }

    /// The highest resident memory of the replicas so far, in MiB.
    pub fn peak_mib(&self) -> Vec<u64> {
        let running = self.replicas.iter().filter(|replica| replica.is_running());
        running.map(|replica| replica.memory("VmHWM") >> 10).collect()
    }

    /// Processor time of the replicas so far, in seconds.
    pub fn processor_seconds(&self) -> f64 {
        self.replicas.iter().map(|replica| series(replica, "process_cpu_seconds_total")).sum()
    }
}

/// The value of the series `name` of a replica.
pub fn series(replica: &Webhook, name: &str) -> f64 {
    replica.metric(name).unwrap_or_else(|| panic!("there is no {name}"))
}

/// A limit of a process's memory, together with what the kernel keeps for it, as a container has it; it goes when this is dropped.
pub struct MemoryLimit {
    pid: u32,
    root: PathBuf,
}

impl MemoryLimit {
    /// For the process `pid`; none if this machine does not let us. What it has already does not count.
    pub fn set(pid: u32, bytes: u64) -> Option<Self> {
        [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")].into_iter().find_map(
            |(root, file)| {
                let limit = Self { pid, root: root.into() };
                fs::create_dir(limit.group()).ok()?;
                fs::write(limit.group().join(file), bytes.to_string()).ok()?;
                fs::write(limit.group().join("cgroup.procs"), pid.to_string()).ok()?;
                Some(limit)
            },
        )
    }

    fn group(&self) -> PathBuf {
        self.root.join(format!("tekton-wrap-load-{}", self.pid))
    }
}

impl Drop for MemoryLimit {
    fn drop(&mut self) {
        // If the process is gone, so is its place in the group.
        let _ = fs::write(self.root.join("cgroup.procs"), self.pid.to_string());
        let _ = fs::remove_dir(self.group());
    }
}

/// A run of the Pipeline `name`, as it is.
pub fn plain(name: &str) -> Value {
    run(json!({"pipelineRef": {"name": name}, "workspaces": [{"name": "source", "emptyDir": {}}]}))
}

/// The same, wrapped.
pub fn wrapped(name: &str) -> Value {
    let target = "quay.io/me/load:$(context.pipelineRun.name)";
    let params = json!([{"name": "pipelineref", "value": name}, {"name": "workspaces", "value": "source"}, {"name": "target", "value": target}]);
    run(json!({"pipelineRef": {"resolver": "wrap", "params": params}}))
}

/// A wrapped run whose own pipeline takes so many bytes.
pub fn large(bytes: usize) -> Value {
    let script = format!("cd $(workspaces.source.path)\n{}", "echo 0123456789\n".repeat(bytes / 32));
    let task = |name: &str, after: Value| {
        let spec =
            json!({"workspaces": [{"name": "source"}], "steps": [{"name": "s", "image": "i", "script": script}]});
        json!({"name": name, "runAfter": after, "workspaces": [{"name": "source"}], "taskSpec": spec})
    };
    let tasks = json!([task("a", json!([])), task("b", json!(["a"]))]);
    let mut run = run(json!({"pipelineSpec": {"workspaces": [{"name": "source"}], "tasks": tasks},
        "workspaces": [{"name": "source", "emptyDir": {}}]}));
    run["metadata"]["annotations"] = json!({"tekton-wrap.dev/wrap": "source", "tekton-wrap.dev/target": "quay.io/me/load:$(context.pipelineRun.name)"});
    run
}

fn run(spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "load-"}, "spec": spec})
}
