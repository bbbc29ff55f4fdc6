//! All metrics of the webhook. No label holds anything that a user can choose.

mod process;
mod resolutions;
mod text;
mod tls;

use std::{fmt, time::Duration};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
        info::Info,
    },
    registry::{Registry, Unit},
};

use self::{process::ProcessCollector, resolutions::Resolutions, tls::TlsMetrics};
pub use self::{resolutions::ResolutionOutcome, text::TextFormat, tls::HandshakeFailure};
use crate::health::Condition;

/// Seconds. Below the goals of a creation; 3.5 s for one request to the API, 10 s by default and 30 s at most for a review, of
/// which 24 s are ours.
const DURATIONS: [f64; 12] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.1, 0.5, 1.0, 3.5, 10.0, 24.0, 30.0];

/// The git commit of this build, if the build sets the environment variable.
pub const COMMIT: &str = match option_env!("TEKTON_WRAP_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

/// All metrics of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<AdmissionLabels, Counter>,
    duration: Histogram,
    in_flight: Gauge,
    patch_operations: Histogram,
    patch_bytes: Histogram,
    connections: Family<ListenerLabels, Gauge>,
    ready: Family<ConditionLabels, Gauge>,
    tls: TlsMetrics,
    resolutions: Resolutions,
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AdmissionLabels {
    /// The operation of the review; `none` if there was none to read.
    pub operation: &'static str,
    /// `untouched`, `passed` (stored as it is, with a warning), `wrapped`, `refused` (an answer to the user) or `rejected` (an
    /// answer to the apiserver).
    pub outcome: &'static str,
    /// CamelCase code of a refusal or rejection, else empty.
    pub reason: &'static str,
}

/// One more request or connection for as long as it lives.
#[derive(Debug)]
pub struct Counted(Gauge);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ListenerLabels {
    listener: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConditionLabels {
    condition: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::default(),
            requests: Family::default(),
            duration: Histogram::new(DURATIONS),
            in_flight: Gauge::default(),
            patch_operations: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            patch_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 6)),
            connections: Family::default(),
            ready: Family::default(),
            tls: TlsMetrics::default(),
            resolutions: Resolutions::default(),
        };
        // A rate needs a series from before its first event.
        for outcome in ["untouched", "wrapped"] {
            drop(metrics.requests.get_or_create(&AdmissionLabels { operation: "CREATE", outcome, reason: "" }));
        }
        for listener in ["webhook", "admin"] {
            drop(metrics.connections.get_or_create(&ListenerLabels { listener }));
        }
        Condition::ALL.into_iter().for_each(|condition| metrics.set_ready(condition, false));
        metrics.registered()
    }
}

impl Metrics {
    /// Counts a request until what it returns is dropped.
    pub fn start(&self) -> Counted {
        Counted::new(self.in_flight.clone())
    }

    /// Counts a connection of `listener`, `webhook` or `admin`, until what it returns is dropped.
    pub fn connected(&self, listener: &'static str) -> Counted {
        Counted::new(self.connections.get_or_create(&ListenerLabels { listener }).clone())
    }

    /// Counts how a request ended that took `duration`.
    pub fn ended(&self, labels: AdmissionLabels, duration: Duration) {
        self.requests.get_or_create(&labels).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts a patch by its operations and its bytes of JSON.
    pub fn patched(&self, operations: usize, bytes: usize) {
        self.patch_operations.observe(operations as f64);
        self.patch_bytes.observe(bytes as f64);
    }

    /// Counts a change of the files of TLS.
    pub fn tls_reloaded(&self, good: bool) {
        self.tls.reloaded(good);
    }

    /// Shows when the serving certificate begins and ceases to be valid, in seconds since 1970.
    pub fn tls_validity(&self, not_before: i64, not_after: i64) {
        self.tls.set_validity(not_before, not_after);
    }

    /// Counts a TLS handshake that failed.
    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.tls.handshake_failed(failure);
    }

    /// Shows whether a condition of readiness holds.
    pub fn set_ready(&self, condition: Condition, holds: bool) {
        self.ready.get_or_create(&ConditionLabels { condition: condition.name() }).set(holds.into());
    }

    /// Counts a ResolutionRequest that ended after `duration`.
    pub fn resolved(&self, outcome: ResolutionOutcome, duration: Duration) {
        self.resolutions.ended(outcome, duration);
    }

    /// All metrics in `format`.
    pub fn text(&self, format: TextFormat) -> Result<String, fmt::Error> {
        let mut open_metrics = String::new();
        encode(&mut open_metrics, &self.registry)?;
        Ok(format.convert(open_metrics))
    }

    fn registered(mut self) -> Self {
        let registry = self.registry.sub_registry_with_prefix("tekton_wrap");
        let build = Info::new(vec![("version", env!("CARGO_PKG_VERSION")), ("commit", COMMIT)]);
        registry.register("build", "Version and git commit of tekton-wrap", build);
        registry.register("admission_requests", "Admission requests by how they ended", self.requests.clone());
        registry.register_with_unit(
            "admission_duration",
            "Time from a request's head to its answer",
            Unit::Seconds,
            self.duration.clone(),
        );
        registry.register("admission_in_flight", "Requests that are not answered yet", self.in_flight.clone());
        registry.register("admission_patch_operations", "Operations of a patch", self.patch_operations.clone());
        registry.register_with_unit(
            "admission_patch",
            "Size of a patch before base64",
            Unit::Bytes,
            self.patch_bytes.clone(),
        );
        registry.register("connections", "Open connections by listener: webhook, admin", self.connections.clone());
        registry.register("ready", "Whether a condition of readiness holds, 1 or 0", self.ready.clone());
        self.tls.register(registry);
        self.resolutions.register(registry);
        self.registry.register_collector(Box::new(ProcessCollector));
        self
    }
}

impl Counted {
    fn new(gauge: Gauge) -> Self {
        gauge.inc();
        Self(gauge)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let metrics = Metrics::default();
        let (_running, _connected) = (metrics.start(), metrics.connected("webhook"));
        metrics
            .ended(AdmissionLabels { operation: "CREATE", outcome: "wrapped", reason: "" }, Duration::from_millis(3));
        metrics.patched(3, 2000);
        metrics.set_ready(Condition::Certificate, true);
        let text = metrics.text(TextFormat::OpenMetrics).unwrap();
        assert!(text.ends_with("# EOF\n"));
        for line in [
            &format!("tekton_wrap_build_info{{version=\"{}\",commit=\"{COMMIT}\"}} 1", env!("CARGO_PKG_VERSION")),
            r#"tekton_wrap_admission_requests_total{operation="CREATE",outcome="wrapped",reason=""} 1"#,
            r#"tekton_wrap_admission_requests_total{operation="CREATE",outcome="untouched",reason=""} 0"#,
            r#"tekton_wrap_admission_duration_seconds_bucket{le="0.002"} 0"#,
            r#"tekton_wrap_admission_duration_seconds_bucket{le="0.005"} 1"#,
            r#"tekton_wrap_admission_duration_seconds_bucket{le="3.5"} 1"#,
            "tekton_wrap_admission_in_flight 1",
            r#"tekton_wrap_admission_patch_operations_bucket{le="4.0"} 1"#,
            r#"tekton_wrap_admission_patch_bytes_bucket{le="4096.0"} 1"#,
            r#"tekton_wrap_connections{listener="webhook"} 1"#,
            r#"tekton_wrap_ready{condition="certificate"} 1"#,
            r#"tekton_wrap_resolutions_total{outcome="unanswered"} 0"#,
            "# TYPE process_cpu_seconds counter",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
        let text = metrics.text(TextFormat::Prometheus).unwrap();
        for line in ["# TYPE tekton_wrap_build_info gauge", "# TYPE process_cpu_seconds_total counter"] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
