//! The path `/wrap`: an HTTP request to a review, a review to an answer.

use std::{sync::Arc, time::Duration};

use http::{HeaderValue, Method, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::time::Instant;
use tracing::Instrument;

use super::{
    capacity::{BodyError, Capacity},
    review::{ReviewError, ReviewRequest, ReviewResponse},
    server::{self, Handler, HttpResponse},
    verdict::{Judge, Judged, Patched, Verdict},
};
use crate::{
    metrics::{AdmissionLabels, Metrics},
    source::{OptInBy, Source, SourceError},
    traces,
    wrap::Settings,
};

/// Where reviews of runs that opt in are answered.
pub const PATH: &str = "/wrap";

/// Where those of runs are answered whose namespace opts in.
pub const NAMESPACE_PATH: &str = "/wrap-namespace";

/// Kubernetes' default of `timeoutSeconds`.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers admission reviews.
pub struct Webhook<S> {
    /// Where Pipelines and Tasks are found.
    pub source: S,
    /// What the operator decided.
    pub settings: Arc<Settings>,
    /// Where answers are counted.
    pub metrics: Arc<Metrics>,
    /// How much is done at a time.
    pub capacity: Capacity,
}

/// An HTTP request that gets no admission review as an answer. The sentence is for the operator: the apiserver puts it
/// into the error that it logs.
#[derive(Debug, thiserror::Error)]
enum Rejection {
    #[error("only {PATH} and {NAMESPACE_PATH} are answered here, not {0:?}")]
    Path(String),
    #[error("only POST is answered here, not {0}")]
    Method(Method),
    #[error("the content type must be application/json, not {0:?}")]
    ContentType(String),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the admission review can't be read: {0}")]
    Unreadable(#[from] ReviewError),
    #[error("the answer can't be written: {0}")]
    Unwritable(serde_json::Error),
}

impl<S: Source + Send + 'static> Handler for Webhook<S> {
    async fn handle(&self, request: http::Request<Incoming>) -> HttpResponse {
        let start = Instant::now();
        let _in_flight = self.metrics.start();
        let span = traces::review(request.headers());
        let (ended, response) = match self.answer(request, start).instrument(span.clone()).await {
            Ok(answered) => answered,
            Err(rejection) => {
                tracing::warn!(reason = rejection.reason(), "{rejection}");
                let ended = AdmissionLabels { operation: "none", outcome: "rejected", reason: rejection.reason() };
                (ended, rejection.response())
            }
        };
        traces::ended(&span, ended.outcome, ended.reason);
        self.metrics.ended(ended, start.elapsed());
        response
    }
}

impl<S: Source> Webhook<S> {
    async fn answer(
        &self,
        request: http::Request<Incoming>,
        start: Instant,
    ) -> Result<(AdmissionLabels, HttpResponse), Rejection> {
        let opt_in_by = check_head(&request)?;
        let budget = budget(request.uri().query());
        #[allow(clippy::arithmetic_side_effects, reason = "at most half a minute from now")]
        let deadline = start + budget;
        let body = self.capacity.receive(request.into_body(), start, budget).await?;
        let mut request = ReviewRequest::parse(&body)?;
        drop(body);
        let (source, settings, capacity) = (&self.source, &self.settings, &self.capacity);
        let judged = Judge { source, settings, capacity, opt_in_by, deadline }.judge(&mut request).await?;
        log(&request, &judged, start.elapsed());
        traces::about(&request.uid, &request.namespace, &judged.name);
        let (outcome, reason, response) = match judged.verdict {
            Verdict::Untouched => ("untouched", "", ReviewResponse::allow(&request.uid)),
            Verdict::Passed { reason, warning } => ("passed", reason, ReviewResponse::warned(&request.uid, &warning)),
            Verdict::Wrapped(wrapped) => {
                self.metrics.patched(wrapped.operations, wrapped.patch.len());
                ("wrapped", "", ReviewResponse::patched(&request.uid, &wrapped.patch, &wrapped.warnings))
            }
            Verdict::Refused { code, reason, message } => {
                ("refused", reason, ReviewResponse::refuse(&request.uid, code, reason, message))
            }
        };
        let mut http = HttpResponse::new(Full::new(response.to_json().map_err(Rejection::Unwritable)?.into()));
        http.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok((AdmissionLabels { operation: operation(&request), outcome, reason }, http))
    }
}

/// One line for each run that was for us. What keeps runs from being wrapped and is not their fault is a warning or an error.
fn log(request: &ReviewRequest, judged: &Judged, duration: Duration) {
    let (uid, namespace, dry_run) = (&request.uid, &request.namespace, request.dry_run);
    let (user, name, seconds) = (&request.user_info.username, &judged.name, duration.as_secs_f64());
    match &judged.verdict {
        Verdict::Untouched => tracing::debug!(uid, namespace, name, user, dry_run, seconds, "untouched"),
        Verdict::Wrapped(Patched { operations, workspaces, .. }) => {
            tracing::info!(uid, namespace, name, user, dry_run, workspaces, operations, seconds, "wrapped");
        }
        Verdict::Passed { reason: SourceError::UNAVAILABLE | SourceError::MISCONFIGURED, warning } => {
            tracing::warn!(uid, namespace, name, user, dry_run, seconds, "passed: {warning}");
        }
        Verdict::Passed { reason, warning } => {
            tracing::info!(uid, namespace, name, user, dry_run, reason, seconds, "passed: {warning}");
        }
        Verdict::Refused { code: 500, reason, message } => {
            tracing::error!(uid, namespace, name, user, dry_run, reason, seconds, "refused: {message}");
        }
        Verdict::Refused { code: 501.., reason, message } => {
            tracing::warn!(uid, namespace, name, user, dry_run, reason, seconds, "refused: {message}");
        }
        Verdict::Refused { reason, message, .. } => {
            tracing::info!(uid, namespace, name, user, dry_run, reason, seconds, "refused: {message}");
        }
    }
}

impl Rejection {
    fn status(&self) -> StatusCode {
        match self {
            Self::Path(_) => StatusCode::NOT_FOUND,
            Self::Method(_) => StatusCode::METHOD_NOT_ALLOWED,
            Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Body(BodyError::TooLarge) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Body(BodyError::TooSlow(_)) => StatusCode::REQUEST_TIMEOUT,
            Self::Body(BodyError::Busy) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Body(BodyError::Broken(_)) | Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Unwritable(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Path(_) => "WrongPath",
            Self::Method(_) => "WrongMethod",
            Self::ContentType(_) => "WrongContentType",
            Self::Body(error) => error.reason(),
            Self::Unreadable(_) => "Unreadable",
            Self::Unwritable(_) => "Unwritable",
        }
    }

    fn response(&self) -> HttpResponse {
        let mut response = server::text(self.status(), self.to_string());
        let headers = response.headers_mut();
        match self {
            Self::Method(_) => headers.insert(header::ALLOW, HeaderValue::from_static("POST")),
            // The rest of the body is not read, so nothing can follow it.
            Self::Body(_) => headers.insert(header::CONNECTION, HeaderValue::from_static("close")),
            _ => None,
        };
        response
    }
}

/// Who opts in to wrapping the runs that are reviewed at this path.
fn check_head(request: &http::Request<Incoming>) -> Result<OptInBy, Rejection> {
    let opt_in_by = match request.uri().path() {
        PATH => OptInBy::Run,
        NAMESPACE_PATH => OptInBy::Namespace,
        path => return Err(Rejection::Path(path.to_owned())),
    };
    if request.method() != Method::POST {
        return Err(Rejection::Method(request.method().clone()));
    }
    let content_type = request.headers().get(header::CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let content_type = String::from_utf8_lossy(content_type);
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Rejection::ContentType(content_type.into_owned()));
    }
    Ok(opt_in_by)
}

/// The time for an answer: what is left of the apiserver's own, which it sends rounded up to a second as
/// `?timeout=10s` (Kubernetes: apiserver/pkg/admission/plugin/webhook/mutating/dispatcher.go), less a margin, so that our
/// own sentence reaches the user rather than "context deadline exceeded".
fn budget(query: Option<&str>) -> Duration {
    let timeout = query
        .and_then(|query| query.split('&').find_map(|pair| pair.strip_prefix("timeout=")))
        .and_then(|value| value.strip_suffix('s')?.parse().ok())
        .map_or(DEFAULT_TIMEOUT, |seconds: u32| Duration::from_secs(seconds.clamp(1, 30).into()));
    #[allow(clippy::arithmetic_side_effects, reason = "not divided by 0")]
    let margin = (timeout / 5).max(Duration::from_secs(1));
    timeout.saturating_sub(margin).max(Duration::from_millis(500))
}

fn operation(request: &ReviewRequest) -> &'static str {
    ["CREATE", "UPDATE", "DELETE", "CONNECT"].into_iter().find(|o| *o == request.operation).unwrap_or("none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets() {
        for (query, millis) in [
            (None, 8000),
            (Some(""), 8000),
            (Some("timeout=10s"), 8000),
            (Some("a=b&timeout=30s"), 24_000),
            (Some("timeout=2s"), 1000),
            (Some("timeout=1s"), 500),
            (Some("timeout=0s"), 500),
            (Some("timeout=99999s"), 24_000),
            (Some("timeout=99999999999999999999s"), 8000),
            (Some("timeout=1m0s"), 8000),
            (Some("timeout=-3s"), 8000),
        ] {
            assert_eq!(budget(query), Duration::from_millis(millis), "{query:?}");
        }
    }
}
