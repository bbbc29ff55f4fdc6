//! The port through which Pipelines and Tasks are read, shared by the rewrite and the resolution. Behind it is a cluster
//! ([`crate::resolve::cluster`]) or files ([`crate::render`]).

use std::future::{Future, ready};

use serde_json::Value;
use tokio::time::Instant;

use crate::{
    limits::{Budget, Exceeded},
    tekton::reference::Reference,
};

/// Kinds of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// `tekton.dev` Pipeline
    Pipeline,
    /// `tekton.dev` Task
    Task,
}

/// Who opts in to wrapping.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OptInBy {
    /// The run itself, by the resolver `wrap` or an annotation.
    #[default]
    Run,
    /// Its namespace, by a label: for all runs that don't say otherwise.
    Namespace,
}

/// The creation of a run.
#[derive(Clone, Copy, Debug)]
pub struct Creation<'a> {
    /// Who opts in.
    pub opt_in_by: OptInBy,
    /// The run's namespace.
    pub namespace: &'a str,
    /// The deadline of the review, if any.
    pub deadline: Option<Instant>,
    /// A dry run, for which nothing may be created.
    pub dry_run: bool,
    /// Bounds what is read for it, if given.
    pub budget: Option<&'a Budget>,
    /// Something that nobody could know before, where there is such: the uid of the review.
    pub nonce: Option<&'a str>,
}

/// A source of Pipelines and Tasks: a cluster, or files.
pub trait Source: Sync {
    /// The object in its v1 form; none if there is no such object.
    fn get(
        &self,
        kind: Kind,
        reference: &Reference,
        creation: &Creation<'_>,
    ) -> impl Future<Output = Result<Option<Found>, SourceError>> + Send;

    /// Tekton's feature flags. Files have none.
    fn flags(&self) -> impl Future<Output = Result<Flags, SourceError>> + Send {
        ready(Ok(Flags::default()))
    }

    /// The ConfigMaps with defaults, that of the run's namespace first.
    fn defaults(&self, _creation: &Creation<'_>) -> impl Future<Output = Result<Vec<Defaults>, SourceError>> + Send {
        ready(Ok(Vec::new()))
    }

    /// The VerificationPolicies of the namespace. Files have none.
    fn policies(&self, _creation: &Creation<'_>) -> impl Future<Output = Result<Vec<Value>, SourceError>> + Send {
        ready(Ok(Vec::new()))
    }
}

/// A ConfigMap with defaults: its keys are named as the params of the resolver `wrap`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Defaults {
    /// Name of the ConfigMap.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its data, sorted by key.
    pub values: std::collections::BTreeMap<String, String>,
}

impl Defaults {
    /// Name of the ConfigMap in the namespace of a run.
    pub const OF_NAMESPACE: &str = "tekton-wrap";

    /// Name of the ConfigMap in the webhook's namespace.
    pub const OF_CLUSTER: &str = "tekton-wrap-defaults";

    /// The data of `object`, a ConfigMap.
    pub fn new(object: &Value, name: &str, namespace: &str) -> Self {
        let data = object.get("data").and_then(Value::as_object).into_iter().flatten();
        let values = data.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Self { name: name.to_owned(), namespace: namespace.to_owned(), values: values.collect() }
    }
}

/// An object could not be read, though it may exist.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// A code for logs and metrics.
    pub reason: &'static str,
    /// One sentence that names it and says what to do.
    pub message: String,
}

impl SourceError {
    /// [`SourceError::reason`] if a dry run can't resolve a reference.
    pub const DRY_RUN: &str = "DryRun";

    /// [`SourceError::reason`] of a timeout.
    pub const TIMEOUT: &str = "Timeout";

    /// [`SourceError::reason`] of a transient failure.
    pub const UNAVAILABLE: &str = "Unavailable";

    /// [`SourceError::reason`] of what the operator of the cluster or the webhook has to mend.
    pub const MISCONFIGURED: &str = "Misconfigured";

    /// For any other reason.
    pub fn unreadable(message: String) -> Self {
        Self { reason: "Unreadable", message }
    }
}

impl From<Exceeded> for SourceError {
    fn from(exceeded: Exceeded) -> Self {
        Self { reason: Exceeded::REASON, message: exceeded.to_string() }
    }
}

impl<'a> From<&'a str> for Creation<'a> {
    /// One in this namespace, without a deadline.
    fn from(namespace: &'a str) -> Self {
        Self { opt_in_by: OptInBy::Run, namespace, deadline: None, dry_run: false, budget: None, nonce: None }
    }
}

impl Kind {
    /// `pipeline` or `task`, for sentences.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Task => "task",
        }
    }

    /// `Pipeline` or `Task`, as in manifests.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "Pipeline",
            Self::Task => "Task",
        }
    }
}

/// A Pipeline or Task that was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The object in its v1 form.
    pub object: Value,
    /// The `refSource` that its resolver gave, if it came through one (Tekton: refsource.go).
    pub source: Option<Value>,
}

impl Found {
    /// One that no resolver brought.
    pub fn by_name(object: Value) -> Self {
        Self { object, source: None }
    }
}

/// The ConfigMap with Tekton's feature flags; none if there is none: then all have their defaults.
#[derive(Clone, Debug, Default)]
pub struct Flags(pub Option<Value>);
