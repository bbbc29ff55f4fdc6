//! The product's webhook as a process, registered with a [`Cluster`].

use std::{fs, path::PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine};
use k8s_openapi::api::{authentication::v1::TokenRequest, core::v1::ServiceAccount};
use kube::{Api, api::PostParams};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    certificate::Authority,
    cluster::{Cluster, Namespace},
    manifests,
    process::{self, Program},
};

/// The image of the injected steps.
pub const IMAGE: &str = "registry.example.com/tekton-wrap:v1";

/// A webhook.
pub struct Webhook {
    /// Where its metrics are.
    pub admin: String,
    /// Where it answers reviews, on the loopback interface.
    pub port: u16,
    url: String,
    ca: String,
    program: Program,
}

impl Webhook {
    /// The webhook that all tests of a test program share, registered for all namespaces of [`Cluster::shared`].
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Webhook> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                let cluster = Cluster::shared().await;
                let webhook = Self::start(cluster).await;
                webhook.register(&cluster.namespace().await, false).await;
                webhook
            })
            .await
    }

    /// Starts the webhook with the account of `webhook-config/` and nothing else.
    pub async fn start(cluster: &Cluster) -> Self {
        Self::start_with(cluster, &[]).await
    }

    /// The same with further arguments.
    pub async fn start_with(cluster: &Cluster, more: &[String]) -> Self {
        let mut args = vec![format!("--image={IMAGE}")];
        args.extend_from_slice(more);
        Self::start_exactly(cluster, &args).await
    }

    /// The same with these arguments beside those for what the tests themselves set up: not even an image.
    pub async fn start_exactly(cluster: &Cluster, more: &[String]) -> Self {
        let dir = process::folder("webhook");
        let authority = Authority::new();
        authority.issue(&dir.join("tls"));
        Self::start_in(dir, authority.pem(), cluster, more).await
    }

    /// The same in a folder that has the certificate already, in `tls`; `ca` is who is trusted when it is registered.
    pub async fn start_in(dir: PathBuf, ca: String, cluster: &Cluster, more: &[String]) -> Self {
        let kubeconfig = cluster.kubeconfig(&account_token(cluster).await);
        fs::write(dir.join("kubeconfig"), kubeconfig.to_string()).expect("the kubeconfig");
        let (port, admin) = (process::free_port(), process::free_port());
        let mut args = vec![
            "webhook".to_owned(),
            format!("--listen=127.0.0.1:{port}"),
            format!("--admin-listen=127.0.0.1:{admin}"),
            format!("--tls-dir={}", dir.join("tls").display()),
            format!("--kubeconfig={}", dir.join("kubeconfig").display()),
        ];
        args.extend_from_slice(more);
        // As webhook-config has it.
        let program = Program::start(dir, &super::program(), &args, &[("MALLOC_ARENA_MAX", "1")]);
        let readyz = format!("http://127.0.0.1:{admin}/readyz");
        program.wait_until("tekton-wrap webhook", async || ureq::get(&readyz).call().is_ok()).await;
        Self {
            admin: format!("http://127.0.0.1:{admin}"),
            url: format!("https://127.0.0.1:{port}/wrap"),
            port,
            ca,
            program,
        }
    }

    /// Applies the registration of `webhook-config/` with this webhook's URL in place of the Service, and waits until it is
    /// in force in `namespace`. With `only` it is a registration of its own for that namespace.
    pub async fn register(&self, namespace: &Namespace, only: bool) {
        self.register_with(namespace, only, |_| {}).await;
    }

    /// The same for `namespace` only, without waiting.
    pub async fn register_unchecked(&self, namespace: &Namespace) {
        self.apply_registration(namespace, true, |_| {}).await;
    }

    /// The same, with its `webhooks[0]` changed.
    pub async fn register_with(&self, namespace: &Namespace, only: bool, change: impl FnOnce(&mut Value)) {
        self.apply_registration(namespace, only, change).await;
        // The apiserver takes notice a moment later: until then this run, which no webhook lets pass, does not reach this one.
        let probe = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "probe"},
            "spec": {"pipelineRef": {"resolver": "wrap"}}});
        let in_force = async || namespace.dry_run(&probe).await.is_err() && self.log().contains("refused: ");
        self.program.wait_until("the registration of tekton-wrap webhook", in_force).await;
    }

    /// Applies the registration of `webhook-config/components/namespace-mode` beside that of `webhook-config/`, for `namespace` only,
    /// and waits until both are in force there.
    pub async fn register_namespace_mode(&self, namespace: &Namespace) {
        let label = json!({"metadata": {"labels": {"tekton-wrap.dev/wrap": "auto"}}});
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(namespace.client.clone());
        let params = kube::api::PatchParams::default();
        namespaces.patch(&namespace.name, &params, &kube::api::Patch::Merge(label)).await.expect("the label is set");
        let mut configuration = registration();
        configuration["metadata"]["name"] = json!(format!("namespace-{}", namespace.name));
        let mut hook = namespace_registration();
        hook["clientConfig"] =
            json!({"url": self.url.replace("/wrap", "/wrap-namespace"), "caBundle": BASE64_STANDARD.encode(&self.ca)});
        hook["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] = json!(namespace.name);
        configuration["webhooks"] = json!([hook]);
        manifests::apply(&namespace.client, &configuration).await.expect("the registration is accepted");
        self.register(namespace, true).await;
        // A run that can't be wrapped and is stored with a warning shows that the second one is in force too.
        let spec = json!({"workspaces": [{"name": "w"}], "tasks": [
            {"name": "a", "workspaces": [{"name": "w"}], "taskSpec": {"steps": [{"name": "s", "image": "i"}]}},
            {"name": "b", "workspaces": [{"name": "w"}], "taskSpec": {"steps": [{"name": "s", "image": "i"}]}}]});
        let probe = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"name": "probe"},
            "spec": {"pipelineSpec": spec}});
        let in_force = async || namespace.dry_run(&probe).await.is_ok() && self.log().contains("passed: ");
        self.program.wait_until("the registration of the namespace mode", in_force).await;
    }

    /// Its metrics, in the text format of Prometheus.
    pub fn metrics(&self) -> String {
        let answer = ureq::get(format!("{}/metrics", self.admin)).call().expect("metrics");
        answer.into_body().read_to_string().expect("a text")
    }

    /// The value of the series `name`, which has its labels in it; none if there is no such series.
    pub fn metric(&self, name: &str) -> Option<f64> {
        value_of(&self.metrics(), name)
    }

    /// How many reviews it answered, as its metrics have it.
    pub fn answered(&self) -> u64 {
        let count = |line: &str| {
            line.strip_prefix("tekton_wrap_admission_requests_total{")?.rsplit(' ').next()?.parse::<u64>().ok()
        };
        self.metrics().lines().filter_map(count).sum()
    }

    async fn apply_registration(&self, namespace: &Namespace, only: bool, change: impl FnOnce(&mut Value)) {
        let mut configuration = registration();
        let hook = &mut configuration["webhooks"][0];
        change(hook);
        hook["clientConfig"] = json!({"url": self.url, "caBundle": BASE64_STANDARD.encode(&self.ca)});
        if only {
            hook["namespaceSelector"] = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace.name}});
            // Sorts before the registration for all namespaces: that one finds nothing to do any more.
            configuration["metadata"]["name"] = json!(format!("only-{}", namespace.name));
        }
        manifests::apply(&namespace.client, &configuration).await.expect("the registration is accepted");
    }

    /// The folder of its certificate.
    pub fn tls_dir(&self) -> PathBuf {
        self.program.dir().join("tls")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.program.pid()
    }

    /// Ends it as the kubelet does, and waits until it has ended.
    pub async fn terminate(self) {
        let pid = i32::try_from(self.pid()).ok().and_then(Pid::from_raw).expect("a process id");
        kill_process(pid, Signal::TERM).expect("it runs");
        self.program.ended().await;
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        self.program.is_running()
    }

    /// A field of its `/proc/PID/status` in KiB, for example `VmRSS`.
    pub fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)).expect("the field");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// What the webhook printed so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

/// The MutatingWebhookConfiguration of `webhook-config/`.
pub fn registration() -> Value {
    let is = |object: &Value| object["kind"] == "MutatingWebhookConfiguration";
    manifests::webhook_config().into_iter().find(is).expect("webhook-config/ has a MutatingWebhookConfiguration")
}

/// The entry that `webhook-config/components/namespace-mode` adds to it.
pub fn namespace_registration() -> Value {
    let file = super::repository("webhook-config/components/namespace-mode/webhook.yaml");
    let patch = manifests::parse(&fs::read_to_string(file).expect("the patch of the component"));
    patch[0][0]["value"].clone()
}

/// The value of the series `name` in `metrics`, see [`Webhook::metric`].
pub fn value_of(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok();
    metrics.lines().find_map(value)
}

/// A token of the ServiceAccount of `webhook-config/`, after [`Cluster::install`].
pub async fn account_token(cluster: &Cluster) -> String {
    cluster.install().await;
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.admin().await, "tekton-wrap");
    let request = TokenRequest::default();
    let answer = accounts.create_token_request("tekton-wrap-webhook", &PostParams::default(), &request).await;
    answer.expect("a token").status.expect("a status").token
}
