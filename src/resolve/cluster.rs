//! Pipelines and Tasks as a cluster holds them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{error::Elapsed, timeout},
};

use super::{
    api, decode,
    requests::{Ask, Requests},
};
use crate::{
    metrics::Metrics,
    source::{Creation, Flags, Found, Kind, Source, SourceError},
    tekton::{
        fields::items,
        reference::{Reference, is_object_name},
    },
};

/// Time for one object: a Pipeline and its Tasks, one after the other, fit into the budget of a review.
const PATIENCE: Duration = Duration::from_millis(3500);

/// What the operator decides.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// The namespace of Tekton, for its feature flags
    #[arg(long, value_name = "NAME", default_value = "tekton-pipelines")]
    pub tekton_namespace: String,
    /// How long a resolver may take before its ResolutionRequest is deleted; after an answer that came too late for a
    /// PipelineRun, the next one finds it
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub resolution_timeout: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { tekton_namespace: "tekton-pipelines".to_owned(), resolution_timeout: 90 }
    }
}

/// Requests to the apiserver at a time. Each has a connection of its own (HTTP/1.1), and a hundred creations at once must
/// not become a thousand TLS handshakes.
const AT_A_TIME: usize = 64;

/// A cluster's Tekton objects, read through the Kubernetes API in their v1 form, as JSON with every field and its order.
pub struct Cluster {
    client: Client,
    requests: Requests,
    options: Options,
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
    /// The cluster that `kubeconfig` names in its current context, or the one around this pod.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        options: Options,
        metrics: Arc<Metrics>,
    ) -> Result<Self, ConnectError> {
        let config = match kubeconfig {
            None => Config::incluster()?,
            Some(path) => {
                from_file(path).await.map_err(|source| ConnectError::Kubeconfig { path: path.to_owned(), source })?
            }
        };
        let mut cluster = Self::new(Client::try_from(config)?, PATIENCE, options, metrics);
        cluster.requests.start();
        Ok(cluster)
    }

    fn new(client: Client, patience: Duration, options: Options, metrics: Arc<Metrics>) -> Self {
        let requests = Requests::new(client.clone(), Duration::from_secs(options.resolution_timeout), metrics);
        Self { client, requests, options, turns: Semaphore::new(AT_A_TIME), patience }
    }

    async fn read(&self, path: String) -> Result<Value, kube::Error> {
        // The semaphore is never closed, so there always is a permit.
        let _turn = self.turns.acquire().await.ok();
        let request = http::Request::get(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

impl Source for Cluster {
    async fn get(
        &self,
        kind: Kind,
        reference: &Reference,
        creation: &Creation<'_>,
    ) -> Result<Option<Found>, SourceError> {
        match reference {
            Reference::Name(name) => {
                let object = self.named(kind, creation.namespace, name).await?;
                Ok(object.map(|object| Found { object, source: None }))
            }
            Reference::Remote { resolver, params } => {
                let ask = Ask {
                    kind,
                    namespace: creation.namespace.to_owned(),
                    resolver: resolver.clone(),
                    params: params.clone(),
                };
                if creation.dry_run {
                    let message = format!(
                        "the {} {reference} is not resolved in a dry run, which may create nothing",
                        kind.word()
                    );
                    return Err(SourceError { reason: SourceError::DRY_RUN, message });
                }
                let answer = self.requests.resolve(&ask, creation.deadline).await?;
                let object = decode::object(kind, reference, &answer.data).map_err(SourceError::unreadable)?;
                Ok(Some(Found { object, source: answer.source }))
            }
        }
    }

    async fn flags(&self) -> Result<Flags, SourceError> {
        let namespace = &self.options.tekton_namespace;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/feature-flags");
        match timeout(self.patience, self.read(path)).await {
            Ok(Ok(map)) => Ok(Flags(Some(map))),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Flags(None)),
            other => Err(self.unreadable(
                &format!("the ConfigMap \"feature-flags\" of Tekton in namespace {namespace:?}"),
                "get it",
                other,
            )),
        }
    }

    async fn policies(&self, creation: &Creation<'_>) -> Result<Vec<Value>, SourceError> {
        let namespace = creation.namespace;
        let path = format!("/apis/tekton.dev/v1alpha1/namespaces/{namespace}/verificationpolicies");
        match timeout(self.patience, self.read(path)).await {
            Ok(Ok(list)) => Ok(items(&list, "items").to_vec()),
            // The cluster has no such kind.
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Vec::new()),
            other => Err(self.unreadable(
                &format!("the VerificationPolicies of namespace {namespace:?}"),
                "list them",
                other,
            )),
        }
    }
}

impl Cluster {
    /// What a run may depend on must be known: a run that might break a rule is refused.
    fn unreadable(&self, what: &str, verb: &str, answer: Result<Result<Value, kube::Error>, Elapsed>) -> SourceError {
        let why = match answer {
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
                format!(
                    "the webhook's account lacks the right to {verb}; apply webhook-config, or say with --tekton-namespace where Tekton is"
                )
            }
            Ok(Err(error)) => api::sentence(&error),
            Ok(Ok(_)) => "the answer makes no sense".to_owned(),
            Err(_) => format!(
                "the Kubernetes API gave no answer within {} s; create the PipelineRun again",
                self.patience.as_secs_f32()
            ),
        };
        SourceError::unreadable(format!("{what} can't be read: {why}"))
    }

    async fn named(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<Value>, SourceError> {
        let word = kind.word();
        // A name that no object can have might lead to another path, and so to another namespace.
        if !is_object_name(namespace) || !is_object_name(name) {
            return Ok(None);
        }
        let failed = |why: String| {
            SourceError::unreadable(format!("{word} {name:?} in namespace {namespace:?} can't be read: {why}"))
        };
        let path = format!("/apis/tekton.dev/v1/namespaces/{namespace}/{word}s/{name}");
        match timeout(self.patience, self.read(path)).await {
            Ok(Ok(object)) => Ok(Some(object)),
            Ok(Err(kube::Error::Api(status))) if status.code == 404 => match &status.details {
                Some(details) if details.name == name => Ok(None),
                _ => Err(failed("the cluster does not serve tekton.dev/v1; install Tekton Pipelines".to_owned())),
            },
            Ok(Err(kube::Error::Api(status))) if status.code == 403 => Err(failed(format!(
                "the webhook's account lacks the right to get {word}s of tekton.dev; grant it to its ClusterRole"
            ))),
            Ok(Err(error)) => Err(failed(api::sentence(&error))),
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

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// An API that gives every request the same answer: status and body, or none at all. It counts the requests.
    async fn api(answer: Option<(&'static str, &'static str)>) -> (Cluster, Arc<AtomicUsize>) {
        // Whether or not another test was first.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            let mut open = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
                }
                assert!(request.starts_with(b"GET /apis/tekton.dev/v1/namespaces/team/pipelines/chain HTTP/1.1\r\n"));
                count.fetch_add(1, Relaxed);
                if let Some((status, body)) = answer {
                    let length = body.len();
                    let text =
                        format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                    stream.write_all(text.as_bytes()).await.unwrap();
                } else {
                    open.push(stream);
                }
            }
        });
        let client = Client::try_from(Config::new(uri)).unwrap();
        (Cluster::new(client, Duration::from_millis(300), Options::default(), Arc::default()), asked)
    }

    #[tokio::test]
    async fn an_object_keeps_its_order_and_all_fields() {
        let text = r#"{"kind":"Pipeline","spec":{"z":1,"a":{"unknown":null,"b":1.50}},"apiVersion":"tekton.dev/v1"}"#;
        let (cluster, _) = api(Some(("200 OK", text))).await;
        let object =
            cluster.get(Kind::Pipeline, &Reference::Name("chain".to_owned()), &"team".into()).await.unwrap().unwrap();
        assert_eq!(object.object.to_string(), text.replace("1.50", "1.5"));
    }

    #[tokio::test]
    async fn absent_or_unreadable() {
        let status = |code: &str, reason: &str, details: &str| {
            let text = format!(
                r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no: {reason}","reason":"{reason}","details":{details},"code":{code}}}"#
            );
            &*text.leak()
        };
        let chain = r#"{"name":"chain","group":"tekton.dev","kind":"pipelines"}"#;
        for (answer, expected) in [
            (Some(("404 Not Found", status("404", "NotFound", chain))), None),
            (Some(("404 Not Found", "404 page not found")), Some("does not serve tekton.dev/v1")),
            (Some(("404 Not Found", status("404", "NotFound", "{}"))), Some("does not serve tekton.dev/v1")),
            (Some(("403 Forbidden", status("403", "Forbidden", chain))), Some("right to get pipelines")),
            (Some(("401 Unauthorized", status("401", "Unauthorized", "{}"))), Some("answered 401 no: Unauthorized")),
            (Some(("500 Oops", "a\nb")), Some("answered 500 a b")),
            (Some(("200 OK", "{")), Some("EOF while parsing")),
            (None, Some("no answer within 0.3 s")),
        ] {
            let (cluster, asked) = api(answer).await;
            let got = cluster.get(Kind::Pipeline, &Reference::Name("chain".to_owned()), &"team".into()).await;
            assert!(asked.load(Relaxed) > 0);
            let Some(expected) = expected else {
                assert!(got.unwrap().is_none());
                continue;
            };
            let error = got.unwrap_err().to_string();
            assert!(error.starts_with(r#"pipeline "chain" in namespace "team" can't be read: "#), "{error}");
            assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        }
    }

    #[tokio::test]
    async fn an_unreachable_api_is_said_so() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let client = Client::try_from(Config::new(format!("http://{closed}").parse().unwrap())).unwrap();
        let error = Cluster::new(client, PATIENCE, Options::default(), Arc::default())
            .get(Kind::Task, &Reference::Name("build".to_owned()), &"team".into())
            .await
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(r#"task "build" in namespace "team" can't be read: "#), "{error}");
        assert!(error.contains("Connection refused"), "{error}");
    }

    #[tokio::test]
    async fn a_name_never_leads_out_of_its_namespace() {
        let (cluster, asked) = api(Some(("200 OK", "{}"))).await;
        for (namespace, name) in [("team", "../../other/pipelines/x"), ("team", "x?y"), ("../team", "x"), ("", "x")] {
            assert_eq!(cluster.named(Kind::Pipeline, namespace, name).await.unwrap(), None);
        }
        assert_eq!(asked.load(Relaxed), 0);
    }

    #[tokio::test]
    async fn configurations() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("kubeconfig");
        let error =
            async || Cluster::connect(Some(&file), Options::default(), Arc::default()).await.err().unwrap().to_string();
        assert!(error().await.starts_with(&format!("--kubeconfig {}: ", file.display())));
        std::fs::write(&file, "clusters: 7").unwrap();
        assert!(error().await.starts_with(&format!("--kubeconfig {}: ", file.display())));
    }
}
