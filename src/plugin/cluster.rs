//! The cluster, with the user's own kubeconfig and rights.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use std::path::PathBuf;

use futures_util::AsyncBufRead;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use tokio::runtime::Runtime;

use super::PluginError;
use crate::annotations::WRAPPED;

/// Which cluster and namespace, as kubectl has it.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The namespace of the runs; default: that of the context
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig; default: its current one
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// The kubeconfig; default: the files of $KUBECONFIG, or ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
}

/// Between the name of an admission webhook and what it says (apiserver: webhook/errors/statuserror.go).
const DENIED: &str = " denied the request: ";

/// A kind of objects.
#[derive(Clone, Copy, Debug)]
pub struct ResourceKind {
    /// `PipelineRun`
    pub name: &'static str,
    path: &'static str,
    plural: &'static str,
}

/// PipelineRuns.
pub const PIPELINE_RUN: ResourceKind =
    ResourceKind { name: "PipelineRun", path: "/apis/tekton.dev/v1", plural: "pipelineruns" };
/// Pipelines.
pub const PIPELINE: ResourceKind = ResourceKind { name: "Pipeline", path: "/apis/tekton.dev/v1", plural: "pipelines" };
/// TaskRuns.
pub const TASK_RUN: ResourceKind = ResourceKind { name: "TaskRun", path: "/apis/tekton.dev/v1", plural: "taskruns" };
/// CustomRuns.
pub const CUSTOM_RUN: ResourceKind =
    ResourceKind { name: "CustomRun", path: "/apis/tekton.dev/v1beta1", plural: "customruns" };

/// A namespace of a cluster.
pub struct UserCluster {
    /// The namespace.
    pub namespace: String,
    server: String,
    runtime: Runtime,
    client: Client,
}

impl UserCluster {
    /// Nothing is sent yet.
    pub fn open(args: &ClusterArgs) -> Result<Self, PluginError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(PluginError::Start)?;
        let config = runtime.block_on(config(args))?;
        let namespace = args.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        // The client starts tasks of its own.
        let client = {
            let _inside = runtime.enter();
            Client::try_from(config).map_err(|e| PluginError::NoCluster(sentence(&e)))?
        };
        Ok(Self { namespace, server, runtime, client })
    }

    /// Runs `future` to its end.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// The object `name`; none if there is none.
    pub fn find(&self, kind: ResourceKind, name: &str) -> Result<Option<Value>, PluginError> {
        self.block_on(self.get(kind, name))
    }

    /// The same, to be awaited.
    pub async fn get(&self, kind: ResourceKind, name: &str) -> Result<Option<Value>, PluginError> {
        let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
        match self.send(http::Method::GET, &format!("{}/{name}", self.path(kind)), Vec::new()).await {
            Err(PluginError::NotFound { .. }) => Ok(None),
            other => other.map(Some),
        }
    }

    /// The PipelineRun `name`.
    pub fn run(&self, name: &str) -> Result<Value, PluginError> {
        self.find(PIPELINE_RUN, name)?.ok_or_else(|| self.no_run(name))
    }

    /// That there is no PipelineRun `name`.
    pub fn no_run(&self, name: &str) -> PluginError {
        PluginError::NotFound {
            kind: PIPELINE_RUN.name,
            name: name.to_owned(),
            namespace: self.namespace.clone(),
            hint: "",
        }
    }

    /// The items of a list, at most 500.
    pub fn list(&self, path: &str) -> Result<Vec<Value>, PluginError> {
        Ok(self.page(path)?.0)
    }

    /// The first 500 items of a list, and what asks for those behind them, if there are more.
    fn page(&self, path: &str) -> Result<(Vec<Value>, Option<String>), PluginError> {
        let text = self.block_on(self.answer(http::Method::GET, &format!("{path}&limit=500"), Vec::new()))?;
        let list: ObjectList = self.read(&text)?;
        let next = list.metadata["continue"].as_str().filter(|next| !next.is_empty());
        Ok((list.objects(), next.map(|next| format!("&continue={}", utf8_percent_encode(next, NON_ALPHANUMERIC)))))
    }

    /// The wrapped PipelineRuns, the oldest first.
    pub fn wrapped_runs(&self, all_namespaces: bool) -> Result<Vec<Value>, PluginError> {
        let label = utf8_percent_encode(WRAPPED, NON_ALPHANUMERIC);
        let path = if all_namespaces {
            format!("{}/{}", PIPELINE_RUN.path, PIPELINE_RUN.plural)
        } else {
            self.path(PIPELINE_RUN)
        };
        let (mut runs, mut next) = (Vec::new(), String::new());
        loop {
            let (found, more) = self.page(&format!("{path}?labelSelector={label}%3Dtrue{next}"))?;
            runs.extend(found);
            match more {
                Some(more) => next = more,
                None => break,
            }
        }
        runs.sort_by(|a, b| created(a).cmp(created(b)));
        Ok(runs)
    }

    /// The last line of the log of a container, if it can be read.
    pub fn last_line(&self, pod: &str, container: &str) -> Option<String> {
        let request = http::Request::get(self.log_path(pod, container, "tailLines=1")).body(Vec::new()).ok()?;
        let text = self.block_on(self.client.request_text(request)).ok()?;
        text.lines().last().map(str::to_owned)
    }

    /// The log of a container from its beginning, and on until the container ends.
    pub async fn follow_log(
        &self,
        pod: &str,
        container: &str,
    ) -> Result<impl AsyncBufRead + Unpin + use<>, PluginError> {
        let request = http::Request::get(self.log_path(pod, container, "follow=true")).body(Vec::new());
        let request = request.map_err(|e| PluginError::Argument(e.to_string()))?;
        let log = self.client.request_stream(request).await.map_err(|e| self.error(e))?;
        Ok(Box::pin(log))
    }

    fn log_path(&self, pod: &str, container: &str, how: &str) -> String {
        let [namespace, pod, container] =
            [&self.namespace, pod, container].map(|name| utf8_percent_encode(name, NON_ALPHANUMERIC));
        format!("/api/v1/namespaces/{namespace}/pods/{pod}/log?container={container}&{how}")
    }

    /// Creates `object`; `dry_run` as kubectl's `--dry-run=server`: nothing is stored.
    pub fn create(&self, kind: ResourceKind, object: &Value, dry_run: bool) -> Result<Value, PluginError> {
        let query = if dry_run { "?dryRun=All" } else { "" };
        self.request(http::Method::POST, &format!("{}{query}", self.path(kind)), object.to_string().into_bytes())
    }

    fn path(&self, kind: ResourceKind) -> String {
        let namespace = utf8_percent_encode(&self.namespace, NON_ALPHANUMERIC);
        format!("{}/namespaces/{namespace}/{}", kind.path, kind.plural)
    }

    fn request(&self, method: http::Method, path: &str, body: Vec<u8>) -> Result<Value, PluginError> {
        self.block_on(self.send(method, path, body))
    }

    async fn send(&self, method: http::Method, path: &str, body: Vec<u8>) -> Result<Value, PluginError> {
        let text = self.answer(method, path, body).await?;
        self.read(&text)
    }

    fn read<'a, T: Deserialize<'a>>(&self, text: &'a str) -> Result<T, PluginError> {
        let unreadable =
            |e: serde_json::Error| PluginError::Unreadable { server: self.server.clone(), problem: e.to_string() };
        serde_json::from_str(text).map_err(unreadable)
    }

    async fn answer(&self, method: http::Method, path: &str, body: Vec<u8>) -> Result<String, PluginError> {
        let request = http::Request::builder().method(method).uri(path).header("content-type", "application/json");
        let request = request.body(body).map_err(|e| PluginError::Argument(e.to_string()))?;
        self.client.request_text(request).await.map_err(|e| self.error(e))
    }

    fn error(&self, error: kube::Error) -> PluginError {
        let server = self.server.clone();
        match error {
            kube::Error::Api(status) => match (status.code, status.reason.as_str()) {
                // What an admission webhook says is a whole sentence.
                _ if status.message.contains(DENIED) => {
                    let said = status.message.split_once(DENIED).map_or(&*status.message, |(_, said)| said);
                    PluginError::Refused(said.to_owned())
                }
                (401, _) => PluginError::Unauthorized { server, problem: status.message.clone() },
                (403, _) => PluginError::Forbidden(status.message.clone()),
                (404, "NotFound") => PluginError::NotFound {
                    kind: "object",
                    name: String::new(),
                    namespace: self.namespace.clone(),
                    hint: "",
                },
                // The server does not even know the path.
                (404, _) => PluginError::NoTekton(server),
                _ => PluginError::Refused(status.message.clone()),
            },
            other => PluginError::Unreachable { server, problem: sentence(&other) },
        }
    }
}

/// A list, with its items as they are written: one that nests deeper than is read must not hide the others.
#[derive(Deserialize)]
struct ObjectList<'a> {
    #[serde(default)]
    metadata: Value,
    #[serde(borrow)]
    items: Vec<&'a RawValue>,
}

/// What is shown of an object that nests too deep.
#[derive(Default, Deserialize)]
struct ShallowObject {
    metadata: Value,
    #[serde(default)]
    status: Value,
}

impl ObjectList<'_> {
    fn objects(&self) -> Vec<Value> {
        let object = |item: &&RawValue| {
            serde_json::from_str(item.get()).unwrap_or_else(|_| {
                let ShallowObject { metadata, status } = serde_json::from_str(item.get()).unwrap_or_default();
                json!({"metadata": metadata, "status": status})
            })
        };
        self.items.iter().map(object).collect()
    }
}

/// When an object was created (RFC 3339, UTC).
pub fn created(object: &Value) -> &str {
    object["metadata"]["creationTimestamp"].as_str().unwrap_or_default()
}

/// As kubectl finds it; in a pod without a kubeconfig, that of the pod's account.
async fn config(args: &ClusterArgs) -> Result<Config, PluginError> {
    let unusable = |e: kube::config::KubeconfigError| PluginError::NoCluster(sentence(&e));
    let options = KubeConfigOptions { context: args.context.clone(), ..KubeConfigOptions::default() };
    let kubeconfig = match &args.kubeconfig {
        Some(file) => Kubeconfig::read_from(file),
        None => Kubeconfig::read(),
    };
    match kubeconfig {
        Ok(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(unusable),
        Err(problem) if args.kubeconfig.is_none() && args.context.is_none() => {
            Config::incluster().map_err(|_| unusable(problem))
        }
        Err(problem) => Err(unusable(problem)),
    }
}

/// An error and what is behind it, without repetition.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        source = inner.source();
    }
    text
}
