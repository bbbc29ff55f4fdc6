//! A Kubernetes API: etcd and kube-apiserver with RBAC. Nothing reconciles, no pod ever runs.

use std::{fs, path::Path, process::Command};

use base64::prelude::{BASE64_STANDARD, Engine};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::{
    assets,
    certificate::Authority,
    crds, manifests,
    process::{self, Program},
};

const ADMIN_TOKEN: &str = "admin-token";

/// A running API.
pub struct Cluster {
    server: String,
    ca: String,
    installed: OnceCell<()>,
    apiserver: Program,
    _etcd: Program,
}

/// A namespace of its own for one test.
pub struct Namespace {
    /// Its name.
    pub name: String,
    /// The administrator's client.
    pub client: Client,
}

impl Cluster {
    /// The API that all tests of a test program share, with Tekton's CRDs. Clients are each test's own: they live on the
    /// test's tokio runtime.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<Cluster> = OnceCell::const_new();
        SHARED
            .get_or_init(async || {
                let cluster = Self::start().await;
                crds::apply_tekton(&cluster.admin().await).await;
                cluster
            })
            .await
    }

    /// Starts an API that is empty.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same with further arguments of kube-apiserver.
    pub async fn start_with(more: &[String]) -> Self {
        let (etcd, etcd_url) = start_etcd();
        let dir = process::folder("kube-apiserver");
        let authority = Authority::new();
        authority.issue(&dir);
        let account_key = rcgen::KeyPair::generate().expect("a key");
        write(&dir, "sa.key", &account_key.serialize_pem());
        write(&dir, "sa.pub", &account_key.public_key_pem());
        write(&dir, "tokens.csv", &format!("{ADMIN_TOKEN},admin,admin,system:masters\n"));
        let port = process::free_port();
        let file = |name: &str| dir.join(name).display().to_string();
        let mut args = vec![
            format!("--etcd-servers={etcd_url}"),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--advertise-address=127.0.0.1".to_owned(),
            "--endpoint-reconciler-type=none".to_owned(),
            "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
            "--authorization-mode=RBAC".to_owned(),
            "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
            format!("--service-account-signing-key-file={}", file("sa.key")),
            format!("--service-account-key-file={}", file("sa.pub")),
            format!("--token-auth-file={}", file("tokens.csv")),
            format!("--tls-cert-file={}", file("tls.crt")),
            format!("--tls-private-key-file={}", file("tls.key")),
        ];
        args.extend_from_slice(more);
        let apiserver = Program::start(dir, &assets::path("kube-apiserver"), &args, &[]);
        let cluster = Self {
            server: format!("https://127.0.0.1:{port}"),
            ca: authority.pem(),
            installed: OnceCell::new(),
            apiserver,
            _etcd: etcd,
        };
        let client = cluster.admin().await;
        let readyz = async || {
            let request = http::Request::get("/readyz").body(Vec::new()).expect("a request");
            client.request_text(request).await.is_ok()
        };
        cluster.apiserver.wait_until("kube-apiserver", readyz).await;
        cluster
    }

    /// Applies `webhook-config/` as it is, but for the webhook's registration, which [`super::webhook::Webhook::register`]
    /// makes from the same manifests.
    pub async fn install(&self) {
        self.installed
            .get_or_init(async || {
                let client = self.admin().await;
                let tekton = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "tekton-pipelines"}});
                manifests::apply(&client, &tekton).await.expect("the namespace of Tekton");
                let flags = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {},
                    "metadata": {"name": "feature-flags", "namespace": "tekton-pipelines"}});
                manifests::apply(&client, &flags).await.expect("Tekton's feature flags");
                for object in manifests::webhook_config() {
                    if object["kind"] != "MutatingWebhookConfiguration" {
                        manifests::apply(&client, &object).await.expect("webhook-config/ is accepted");
                    }
                }
            })
            .await;
    }

    /// kubectl, as the administrator.
    pub fn kubectl(&self) -> Command {
        let file = self.apiserver.dir().join("admin.kubeconfig");
        if !file.exists() {
            fs::write(&file, self.kubeconfig(ADMIN_TOKEN).to_string()).expect("the folder is writable");
        }
        let mut command = assets::command("kubectl");
        command.env("KUBECONFIG", file);
        command
    }

    /// A client of the administrator.
    pub async fn admin(&self) -> Client {
        self.client(ADMIN_TOKEN).await
    }

    /// A client with this bearer token.
    pub async fn client(&self, token: &str) -> Client {
        // More than one may be compiled in for the tests' own dependencies.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let kubeconfig: Kubeconfig = serde_json::from_value(self.kubeconfig(token)).expect("a kubeconfig");
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
        Client::try_from(config.expect("a valid kubeconfig")).expect("a client")
    }

    /// A kubeconfig with this bearer token.
    pub fn kubeconfig(&self, token: &str) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": {
                "server": self.server,
                "certificate-authority-data": BASE64_STANDARD.encode(&self.ca),
            }}],
            "users": [{"name": "test", "user": {"token": token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test", "namespace": "tekton-wrap"}}],
            "current-context": "test",
        })
    }

    /// A new namespace.
    pub async fn namespace(&self) -> Namespace {
        let client = self.admin().await;
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "test-"}});
        let namespace = manifests::create(&client, None, &object, &PostParams::default()).await.expect("a namespace");
        Namespace { name: namespace.name_any(), client }
    }
}

impl Namespace {
    /// Creates `object` here.
    pub async fn create(&self, object: &Value) -> Result<Value, kube::Error> {
        self.create_with(object, &PostParams::default()).await
    }

    /// Creates `object` here as `kubectl create --dry-run=server` does: nothing is stored.
    pub async fn dry_run(&self, object: &Value) -> Result<Value, kube::Error> {
        self.create_with(object, &PostParams { dry_run: true, ..PostParams::default() }).await
    }

    /// Creates `object` and reads what is stored.
    pub async fn accepts(&self, object: &Value) -> Value {
        let created = self.create(object).await.unwrap_or_else(|error| panic!("refused: {error}\n{object:#}"));
        let name = created["metadata"]["name"].as_str().expect("a name");
        let stored = self.api(object).get(name).await.expect("it is stored");
        let stored = serde_json::to_value(stored).expect("JSON");
        assert_eq!(created, stored, "what is stored is what the answer said");
        stored
    }

    /// Tries to create `object`, which must be refused by an admission webhook; its sentence. Nothing may be stored.
    pub async fn rejects(&self, object: &Value) -> String {
        let before = self.names(object).await;
        let error = match self.create(object).await {
            Err(kube::Error::Api(status)) => status.message,
            Err(error) => panic!("{error}\n{object:#}"),
            Ok(created) => panic!("not refused:\n{created:#}"),
        };
        assert_eq!(before, self.names(object).await, "nothing is stored");
        let (_, sentence) =
            error.split_once(" denied the request: ").unwrap_or_else(|| panic!("not a denial: {error}"));
        sentence.to_owned()
    }

    /// The API for objects like this one here.
    pub fn api(&self, object: &Value) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.name, &manifests::resource(object))
    }

    /// Creates `object` here.
    pub async fn create_with(&self, object: &Value, params: &PostParams) -> Result<Value, kube::Error> {
        let created = manifests::create(&self.client, Some(&self.name), object, params).await?;
        Ok(serde_json::to_value(created).expect("JSON"))
    }

    /// The names of what is stored here, of objects like this one.
    pub async fn names(&self, like: &Value) -> Vec<String> {
        let list = self.api(like).list(&ListParams::default()).await.expect("a list");
        list.iter().map(ResourceExt::name_any).collect()
    }
}

fn start_etcd() -> (Program, String) {
    let dir = process::folder("etcd");
    let client = format!("http://127.0.0.1:{}", process::free_port());
    let peer = format!("http://127.0.0.1:{}", process::free_port());
    let args = [
        format!("--data-dir={}", dir.join("data").display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster=default={peer}"),
        "--unsafe-no-fsync".to_owned(),
    ];
    // kube-apiserver waits for it.
    (Program::start(dir, &assets::path("etcd"), &args, &[]), client)
}

fn write(dir: &Path, name: &str, content: &str) {
    fs::write(dir.join(name), content).expect("the folder is writable");
}
