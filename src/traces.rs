//! Traces of reviews, for a collector of OpenTelemetry: the review, and in it what was read, what a resolver was asked for, and
//! the rewrite.
//!
//! Spans are those of the crate `tracing`, with a target of their own. Without a collector nobody wants them: a span then costs a
//! comparison, and its fields are not looked at.
//!
//! | module | contents |
//! |---|---|
//! | `export` | spans on their way to the collector |
//! | `otlp` | what is sent |
//! | `layer` | spans as they begin and end |
//! | `context` | who asked, and whether it is traced |
//! | `losses` | what the log says of spans that were lost |

mod context;
mod export;
mod layer;
mod losses;
mod otlp;

use std::fmt::Display;

use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use tracing::{
    Instrument, Span,
    field::{Empty, display},
};

use self::{
    context::Sampler,
    export::Exporter,
    layer::{OtlpLayer, place_of},
};
use crate::{
    log::{SPANS, SpanLayer},
    redact,
};

/// What is above a request among its callers (W3C: Trace Context).
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Whether and where traces are sent.
#[derive(Clone, Debug, clap::Args)]
pub struct TraceArgs {
    /// Where traces of reviews are sent, as OTLP over HTTP in JSON: the address of a collector's receiver, for example
    /// http://otel-collector.observability:4318 [default: that of the environment variable OTEL_EXPORTER_OTLP_ENDPOINT, or there
    /// are none]
    #[arg(long, value_name = "URL", value_parser = collector)]
    pub otlp_endpoint: Option<CollectorAddress>,
    /// How many of the reviews are traced of which the apiserver does not say itself whether they are, from 0 to 1 [default: that
    /// of the environment variable OTEL_TRACES_SAMPLER_ARG, or 1]
    #[arg(long, value_name = "FRACTION", value_parser = fraction)]
    pub trace_fraction: Option<f64>,
}

/// The environment variable with the address of a collector (OpenTelemetry: "OTLP Exporter Configuration").
const ENDPOINT: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// The one with what a sampler wants to know, whichever sampler that is.
const SAMPLER_ARG: &str = "OTEL_TRACES_SAMPLER_ARG";

/// Where spans go, if anywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CollectorAddress(Option<Uri>);

/// Why a flag can't have a value: a clause.
#[derive(Debug, thiserror::Error)]
pub enum TraceArgError {
    /// It is no address.
    #[error(
        "write the address of a collector such as http://otel-collector.observability:4318, without a user, a password or a query"
    )]
    Address,
    /// It is no part of one.
    #[error("it is not a number from 0 to 1")]
    Fraction,
}

/// Traces of this process.
pub struct Traces(Exporter);

/// What flags and environment say together.
#[derive(Debug, Default)]
pub struct TraceSettings {
    address: Option<Uri>,
    fraction: f64,
    /// Sentences for the log: no variable that was set for other programs keeps this one from starting.
    pub warnings: Vec<String>,
}

impl TraceArgs {
    /// Takes from `variable` what no flag says.
    pub fn settings(&self, variable: impl Fn(&str) -> Option<String>) -> TraceSettings {
        let set = |name: &str| variable(name).filter(|value| !value.trim().is_empty());
        let mut warnings = Vec::new();
        let address = self.otlp_endpoint.clone().or_else(|| {
            let value = set(ENDPOINT)?;
            let unusable = |error| {
                let shown = redact::reference(&value);
                warnings.push(format!(
                    "no traces are sent, since the environment variable {ENDPOINT}={shown} can't be used: {error}"
                ));
            };
            collector(&value).map_err(unusable).ok()
        });
        let address = address.and_then(|CollectorAddress(address)| address);
        let fraction = self.trace_fraction.or_else(|| {
            let value = set(SAMPLER_ARG).filter(|_| address.is_some())?;
            let unusable = |error| {
                warnings.push(format!("all reviews are traced, since the environment variable {SAMPLER_ARG}={value:?} can't be used: {error}"));
            };
            fraction(value.trim()).map_err(unusable).ok()
        });
        TraceSettings { address, fraction: fraction.unwrap_or(1.0), warnings }
    }
}

impl TraceSettings {
    /// Begins to send, if a collector is named; `instance` tells this process from the other replicas. What is returned belongs into
    /// the log, and has to be finished.
    pub fn start(&self, instance: &str) -> Option<(SpanLayer, Traces)> {
        let exporter = Exporter::start(self.address.clone()?, instance);
        let sampler = Sampler { fraction: self.fraction };
        Some((OtlpLayer::new(sampler, exporter.queue()).boxed(), Traces(exporter)))
    }
}

impl Traces {
    /// Sends what has not been sent yet, for a moment.
    pub fn finish(self) {
        self.0.finish();
    }
}

/// The review that `headers` begin.
pub fn review(headers: &HeaderMap) -> Span {
    tracing::info_span!(
        target: SPANS, "review", otel.kind = "server", traceparent = traceparent_in(headers), tekton_wrap.uid = Empty,
        tekton_wrap.run = Empty, tekton_wrap.outcome = Empty, tekton_wrap.reason = Empty, k8s.namespace.name = Empty
    )
}

/// Says what the current review is about.
pub fn about(uid: &str, namespace: &str, run: &str) {
    let span = Span::current();
    span.record("tekton_wrap.uid", uid).record("k8s.namespace.name", namespace).record("tekton_wrap.run", run);
}

/// Says how a review ended: with the labels that its metric has.
pub fn ended(review: &Span, outcome: &str, reason: &str) {
    review.record("tekton_wrap.outcome", outcome);
    if !reason.is_empty() {
        review.record("tekton_wrap.reason", reason);
    }
}

/// The reading of the object at `path`.
pub fn read(path: &str) -> Span {
    tracing::info_span!(target: SPANS, "read", otel.kind = "client", http.request.method = "GET", url.path = path, error = Empty)
}

/// What `resolver` is asked for.
pub fn resolution(resolver: &str) -> Span {
    tracing::info_span!(target: SPANS, "resolution", otel.kind = "client", tekton_wrap.resolver = resolver, error = Empty)
}

/// The rewrite itself.
pub fn rewrite() -> Span {
    tracing::info_span!(target: SPANS, "rewrite", otel.kind = "internal", error = Empty)
}

/// Does `work` within `span`; if it fails, so does the span.
pub async fn within<T, E: Display>(span: Span, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let result = work.instrument(span.clone()).await;
    if let Err(error) = &result {
        failed(&span, error);
    }
    result
}

/// Says why what `span` is about went wrong.
pub fn failed(span: &Span, error: &impl Display) {
    span.record("error", display(error));
}

/// Names the current span as the caller of `request`, if it is traced.
pub fn pass_on<T>(request: &mut http::Request<T>) {
    let header = place_of(&Span::current()).and_then(|place| HeaderValue::try_from(place.to_string()).ok());
    if let Some(header) = header {
        request.headers_mut().insert(TRACEPARENT, header);
    }
}

fn traceparent_in(headers: &HeaderMap) -> &str {
    headers.get(TRACEPARENT).and_then(|header| header.to_str().ok()).unwrap_or_default()
}

/// As all of OpenTelemetry's, an empty value is none, and the path of traces is added.
fn collector(value: &str) -> Result<CollectorAddress, TraceArgError> {
    let value = value.trim().trim_end_matches('/');
    if value.is_empty() {
        return Ok(CollectorAddress(None));
    }
    let uri: Uri = format!("{value}/v1/traces").parse().map_err(|_| TraceArgError::Address)?;
    let is_http = matches!(uri.scheme_str(), Some("http" | "https")) && uri.query().is_none();
    // The log names it.
    let is_public = uri.authority().is_some_and(|authority| !authority.as_str().contains('@'));
    if is_http && is_public { Ok(CollectorAddress(Some(uri))) } else { Err(TraceArgError::Address) }
}

fn fraction(value: &str) -> Result<f64, TraceArgError> {
    let number = value.parse().ok().filter(|number| (0.0..=1.0).contains(number));
    number.ok_or(TraceArgError::Fraction)
}

#[cfg(test)]
mod tests;
