//! Pipelines and Tasks as a cluster holds them.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde_json::Value;
use tokio::{sync::Semaphore, time::timeout};

use super::{Kind, Source, SourceError};

/// Time for one object: a Pipeline and its Tasks, one after the other, fit into the budget of a review.
const PATIENCE: Duration = Duration::from_millis(3500);

/// Requests to the apiserver at a time. Each has a connection of its own (HTTP/1.1), and a hundred creations at once must
/// not become a thousand TLS handshakes.
const AT_A_TIME: usize = 64;

/// A cluster's Tekton objects, read through the Kubernetes API in their v1 form, as JSON with every field and its order.
pub struct Cluster {
    client: Client,
    turns: Semaphore,
    patience: Duration,
}

/// Why there is no way to the cluster: one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no account of a pod's own.
    #[error("there is no service account here: run inside a cluster, or give --kubeconfig FILE ({0})")]
    InCluster(#[from] InClusterError),
    /// The kubeconfig can't be used.
    #[error("--kubeconfig {}: {source}", path.display())]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: KubeconfigError,
    },
    /// What the configuration says can't be turned into a client.
    #[error("the Kubernetes API can't be used as configured: {0}")]
    Client(#[from] kube::Error),
}

impl Cluster {
    /// The cluster that `kubeconfig` names in its current context, or the one around this pod. Nothing is sent yet.
    pub async fn connect(kubeconfig: Option<&Path>) -> Result<Self, ConnectError> {
        let config = match kubeconfig {
            None => Config::incluster()?,
            Some(path) => {
                from_file(path).await.map_err(|source| ConnectError::Kubeconfig { path: path.to_owned(), source })?
            }
        };
        Ok(Self::new(Client::try_from(config)?, PATIENCE))
    }

    fn new(client: Client, patience: Duration) -> Self {
        Self { client, turns: Semaphore::new(AT_A_TIME), patience }
    }

    async fn read(&self, path: String) -> Result<Value, kube::Error> {
        // The semaphore is never closed, so there always is a permit.
        let _turn = self.turns.acquire().await.ok();
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

impl Source for Cluster {
    async fn get(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, SourceError> {
        let (shown, plural) = match kind {
            Kind::Pipeline => ("Pipeline", "pipelines"),
            Kind::Task => ("Task", "tasks"),
        };
        // A name that no object can have might lead to another path, and so to another namespace.
        if !is_object_name(namespace) || !is_object_name(name) {
            return Ok(None);
        }
        let failed =
            |why: String| SourceError(format!("{shown} {name:?} in namespace {namespace:?} can't be read: {why}"));
        let path = format!("/apis/tekton.dev/v1/namespaces/{namespace}/{plural}/{name}");
        match timeout(self.patience, self.read(path)).await {
            Ok(Ok(object)) => Ok(Some(object)),
            Ok(Err(kube::Error::Api(status))) if status.is_not_found() => match &status.details {
                Some(details) if details.name == name => Ok(None),
                _ => Err(failed("the cluster does not serve tekton.dev/v1; install Tekton Pipelines".to_owned())),
            },
            Ok(Err(kube::Error::Api(status))) if status.is_forbidden() => Err(failed(format!(
                "the webhook's account lacks the right to get {plural} of tekton.dev; grant it to its ClusterRole"
            ))),
            Ok(Err(kube::Error::Api(status))) => {
                Err(failed(format!("the Kubernetes API answered {} {}", status.code, status.message)))
            }
            Ok(Err(error)) => Err(failed(format!("the Kubernetes API can't be used: {}", root(&error)))),
            Err(_) => Err(failed(format!(
                "the Kubernetes API gave no answer within {} s; create the PipelineRun again",
                self.patience.as_secs_f32()
            ))),
        }
    }
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

/// Whether an object can have this name: a DNS subdomain (Kubernetes: "Object Names and IDs").
fn is_object_name(name: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| match label.as_bytes() {
        [first, .., last] => alnum(*first) && alnum(*last) && label.bytes().all(|c| alnum(c) || c == b'-'),
        [only] => alnum(*only),
        [] => false,
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// What lies at the bottom of a client's error: "Connection refused" rather than "client error".
fn root(error: &kube::Error) -> String {
    let mut deepest: &dyn std::error::Error = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_names() {
        for name in ["a", "build", "my-pipeline.v1", "0", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../../x/pipelines/y", "a?b", "A", "a b", "-a", "a-", "a..b", "a%2fb", "ä"]
        {
            assert!(!is_object_name(name), "{name}");
        }
        assert!(!is_object_name(&"a".repeat(254)));
    }
}
