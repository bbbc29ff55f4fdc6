//! Pipelines and Tasks as a cluster holds them.

mod own_image;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures_util::future::try_join;
use kube::{
    Client, Config,
    config::{InClusterError, KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use serde_json::Value;
use tokio::task::JoinHandle;

use super::{
    decode,
    reader::{ObjectReader, ReadError},
    requests::{Requests, ResolverQuery},
    work::Work,
};
use crate::{
    arguments,
    health::Health,
    limits::{Budget, MAX_VALUES, Weight},
    metrics::Metrics,
    source::{Creation, Defaults, Flags, Found, Kind, Source, SourceError},
    tekton::{
        fields::items,
        reference::{Reference, is_object_name},
    },
    traces,
    wrap::is_default,
};

/// Time for the answer to one request to begin: a Pipeline and its Tasks, one after the other, fit into the budget of a review.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(3500);

/// Time between two requests that only find out whether the API answers.
const PROBE_EVERY: Duration = Duration::from_secs(10);

/// What the operator decides.
#[derive(Clone, Debug, clap::Args)]
pub struct ClusterOptions {
    /// The namespace of Tekton, for its feature flags
    #[arg(long, value_name = "NAME", default_value = "tekton-pipelines", value_parser = arguments::namespace)]
    pub tekton_namespace: String,
    /// How long a resolver may take before its ResolutionRequest is deleted; after an answer that came too late for a
    /// PipelineRun, the next one finds it
    #[arg(long, value_name = "SECONDS", default_value_t = 90, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub resolution_timeout: u64,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { tekton_namespace: "tekton-pipelines".to_owned(), resolution_timeout: 90 }
    }
}

/// A cluster's Tekton objects, read through the Kubernetes API in their v1 form, as JSON with every field and its order.
pub struct Cluster {
    reader: Arc<ObjectReader>,
    requests: Requests,
    options: ClusterOptions,
    work: Work,
    /// The webhook's own namespace.
    namespace: String,
    health: Arc<Health>,
    /// Asks the API now and then.
    probe: Option<JoinHandle<()>>,
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
    /// Nobody says what image the injected steps run.
    #[error(
        "the image of pod {pod:?} in namespace {namespace:?}, which the injected steps would run, is unknown: {why}; or give --image REF"
    )]
    OwnImage {
        /// The webhook's own pod.
        pod: String,
        /// Its namespace.
        namespace: String,
        /// A clause.
        why: String,
    },
    /// What the configuration says can't be turned into a client.
    #[error("the Kubernetes API can't be used as configured: {0}")]
    Client(#[from] kube::Error),
}

impl Cluster {
    /// The cluster that `kubeconfig` names in its current context, or the one around this pod. What has to be computed is done
    /// by `work`.
    pub async fn connect(
        kubeconfig: Option<&Path>,
        options: ClusterOptions,
        work: Work,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
    ) -> Result<Self, ConnectError> {
        let config = match kubeconfig {
            None => Config::incluster()?,
            Some(path) => {
                from_file(path).await.map_err(|source| ConnectError::Kubeconfig { path: path.to_owned(), source })?
            }
        };
        let namespace = config.default_namespace.clone();
        let mut cluster = Self::new(Client::try_from(config)?, REQUEST_TIMEOUT, options, work, metrics, health);
        cluster.namespace = namespace;
        cluster.requests.start(health.clone());
        cluster.probe = Some(tokio::spawn(probe(cluster.reader.clone())));
        Ok(cluster)
    }

    fn new(
        client: Client,
        timeout: Duration,
        options: ClusterOptions,
        work: Work,
        metrics: &Arc<Metrics>,
        health: &Arc<Health>,
    ) -> Self {
        let longest = Duration::from_secs(options.resolution_timeout);
        let requests = Requests::new(client.clone(), longest, metrics.clone());
        let reader = Arc::new(ObjectReader::new(client, timeout, health.clone()));
        let (namespace, health) = (String::new(), health.clone());
        Self { reader, requests, options, work, namespace, health, probe: None }
    }

    async fn named(&self, kind: Kind, name: &str, creation: &Creation<'_>) -> Result<Option<Value>, SourceError> {
        let (word, namespace) = (kind.word(), creation.namespace);
        // A name that no object can have might lead to another path, and so to another namespace.
        if !is_object_name(namespace) || !is_object_name(name) {
            return Ok(None);
        }
        let path = format!("/apis/tekton.dev/v1/namespaces/{namespace}/{word}s/{name}");
        let error = match self.reader.read(&path, creation.budget).await {
            Ok(object) => return Ok(Some(object)),
            Err(error) if error.is_absent(name) => return Ok(None),
            Err(error) => error,
        };
        let why = match error.code() {
            Some(404) => "the cluster does not serve tekton.dev/v1; install Tekton Pipelines".to_owned(),
            Some(403) => format!(
                "the webhook's account is forbidden by RBAC to get {word}s of tekton.dev; grant it to its ClusterRole"
            ),
            _ => error.to_string(),
        };
        Err(unreadable(&format!("{word} {name:?} in namespace {namespace:?}"), &why, &error))
    }

    /// The ConfigMap `name` in `namespace`, if there is one.
    async fn defaults_in(
        &self,
        name: &str,
        namespace: &str,
        creation: &Creation<'_>,
    ) -> Result<Option<Defaults>, SourceError> {
        if !is_object_name(namespace) {
            return Ok(None);
        }
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/{name}");
        let error = match self.reader.read(&path, creation.budget).await {
            Ok(map) => {
                let defaults = Defaults::new(&map, name, namespace);
                self.note_unknown_keys(&defaults);
                return Ok(Some(defaults));
            }
            Err(error) => error,
        };
        let why = match error.code() {
            Some(404) => return Ok(None),
            Some(403) => "the webhook's account is forbidden by RBAC to get it; apply webhook-config".to_owned(),
            _ => error.to_string(),
        };
        Err(unreadable(&format!("the ConfigMap {name:?} with defaults in namespace {namespace:?}"), &why, &error))
    }

    /// Tells the operator of keys that are not params: they have no effect, and may be misspelled.
    fn note_unknown_keys(&self, defaults: &Defaults) {
        let unknown: Vec<String> =
            defaults.values.keys().filter(|key| !is_default(key)).map(|key| format!("{key:?}")).collect();
        let subject = format!("ConfigMap {:?} in namespace {:?}", defaults.name, defaults.namespace);
        let sentence = format!("not params, so without effect: {}", unknown.join(", "));
        self.health.note(subject, (!unknown.is_empty()).then_some(sentence));
    }

    /// What `resolver` brings.
    async fn remote(
        &self,
        kind: Kind,
        reference: &Reference,
        query: &ResolverQuery,
        creation: &Creation<'_>,
    ) -> Result<Found, SourceError> {
        let what = format!("the {} {reference}", kind.word());
        if creation.dry_run {
            let message = format!("{what} is not resolved in a dry run, which may create nothing");
            return Err(SourceError { reason: SourceError::DRY_RUN, message });
        }
        let span = traces::resolution(&query.resolver);
        let answer = traces::within(span, self.requests.resolve(query, creation.deadline)).await?;
        if let Some(budget) = creation.budget {
            budget.take(Weight { bytes: answer.data.len(), values: 0 }).await?;
        }
        let (data, values) = (answer.data, creation.budget.map_or(MAX_VALUES, Budget::values_left));
        let object = self.work.run(move || decode::object(kind, &data, values)).await;
        let object = object.map_err(|error| SourceError::unreadable(format!("{what} is invalid: {error}")))?;
        if let Some(budget) = creation.budget {
            budget.take(Weight::of_value(&object)).await?;
        }
        Ok(Found { object, source: answer.source })
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
                let object = self.named(kind, name, creation).await?;
                Ok(object.map(Found::by_name))
            }
            Reference::Remote { resolver, params } => {
                let query = ResolverQuery {
                    kind,
                    namespace: creation.namespace.to_owned(),
                    resolver: resolver.clone(),
                    params: params.clone(),
                };
                self.remote(kind, reference, &query, creation).await.map(Some)
            }
        }
    }

    async fn flags(&self) -> Result<Flags, SourceError> {
        let namespace = &self.options.tekton_namespace;
        let path = format!("/api/v1/namespaces/{namespace}/configmaps/feature-flags");
        let error = match self.reader.read(&path, None).await {
            Ok(map) => return Ok(Flags(Some(map))),
            Err(error) => error,
        };
        let why = match error.code() {
            // Every release of Tekton has it: without it nobody knows whether inlining is allowed.
            Some(404) => {
                "it was not found, and Tekton always has it; say with --tekton-namespace where Tekton is".to_owned()
            }
            Some(403) => "the webhook's account is forbidden by RBAC to get it; apply webhook-config, or say with --tekton-namespace where Tekton is".to_owned(),
            _ => error.to_string(),
        };
        Err(unreadable(&format!("the ConfigMap \"feature-flags\" of Tekton in namespace {namespace:?}"), &why, &error))
    }

    async fn defaults(&self, creation: &Creation<'_>) -> Result<Vec<Defaults>, SourceError> {
        let own = self.defaults_in(Defaults::OF_NAMESPACE, creation.namespace, creation);
        let of_cluster = self.defaults_in(Defaults::OF_CLUSTER, &self.namespace, creation);
        let (own, of_cluster) = try_join(own, of_cluster).await?;
        Ok(own.into_iter().chain(of_cluster).collect())
    }

    async fn policies(&self, creation: &Creation<'_>) -> Result<Vec<Value>, SourceError> {
        let namespace = creation.namespace;
        let what = format!("the VerificationPolicies of namespace {namespace:?}");
        if !is_object_name(namespace) {
            return Err(SourceError::unreadable(format!("{what} can't be read: no namespace can have this name")));
        }
        let path = format!("/apis/tekton.dev/v1alpha1/namespaces/{namespace}/verificationpolicies");
        let error = match self.reader.read(&path, creation.budget).await {
            Ok(list) => return Ok(items(&list, "items").to_vec()),
            Err(error) => error,
        };
        let why = match error.code() {
            // The cluster has no such kind.
            Some(404) => return Ok(Vec::new()),
            Some(403) => "the webhook's account is forbidden by RBAC to list them; apply webhook-config".to_owned(),
            _ => error.to_string(),
        };
        Err(unreadable(&what, &why, &error))
    }
}

/// What a run may depend on must be known: a run that might break a rule is refused.
fn unreadable(what: &str, why: &str, error: &ReadError) -> SourceError {
    let reason = match error {
        ReadError::Limit(exceeded) => return exceeded.clone().into(),
        error if error.is_outage() => SourceError::UNAVAILABLE,
        _ => SourceError::MISCONFIGURED,
    };
    SourceError { reason, message: format!("{what} can't be read: {why}") }
}

/// Asks the API for its version, which every account may, so that readiness does not depend on runs being created.
async fn probe(reader: Arc<ObjectReader>) {
    loop {
        // The reader itself records how it went.
        let _ = reader.read("/version", None).await;
        tokio::time::sleep(PROBE_EVERY).await;
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.probe.iter().for_each(JoinHandle::abort);
    }
}

async fn from_file(path: &Path) -> Result<Config, KubeconfigError> {
    Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await
}

#[cfg(test)]
mod tests;
