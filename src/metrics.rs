//! All metrics, in the text format of Prometheus. No label holds anything that a user can choose.

mod resolutions;

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

pub use self::resolutions::Outcome as ResolutionOutcome;
use self::resolutions::Resolutions;

/// Seconds. Finer at the low end than the apiserver's own buckets, whose first is 5 ms
/// (Kubernetes: apiserver/pkg/admission/metrics).
const DURATIONS: [f64; 11] = [0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.5, 10.0];

/// All metrics of the server.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    duration: Histogram,
    in_flight: Gauge,
    patch_operations: Histogram,
    patch_bytes: Histogram,
    tls_reloads: Family<Reload, Counter>,
    resolutions: Resolutions,
}

/// How one request ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Request {
    /// The operation of the review; `none` where there was none to read.
    pub operation: &'static str,
    /// `untouched`, `passed` (a dry run), `wrapped`, `refused` (an answer to the user) or `rejected` (an answer to the apiserver).
    pub outcome: &'static str,
    /// CamelCase code of a refusal or rejection, else empty.
    pub reason: &'static str,
}

/// One more request in flight for as long as it lives.
#[derive(Debug)]
pub struct InFlight(Gauge);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reload {
    result: &'static str,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("tekton_wrap"),
            requests: Family::default(),
            duration: Histogram::new(DURATIONS),
            in_flight: Gauge::default(),
            patch_operations: Histogram::new(exponential_buckets(1.0, 2.0, 10)),
            patch_bytes: Histogram::new(exponential_buckets(1024.0, 4.0, 6)),
            tls_reloads: Family::default(),
            resolutions: Resolutions::default(),
        };
        metrics.registered()
    }
}

impl Metrics {
    /// Counts a request until what it returns is dropped.
    pub fn start(&self) -> InFlight {
        self.in_flight.inc();
        InFlight(self.in_flight.clone())
    }

    /// Counts how a request ended that took `duration`.
    pub fn ended(&self, request: Request, duration: Duration) {
        self.requests.get_or_create(&request).inc();
        self.duration.observe(duration.as_secs_f64());
    }

    /// Counts a patch of so many operations and bytes of JSON.
    pub fn patched(&self, operations: usize, bytes: usize) {
        self.patch_operations.observe(operations as f64);
        self.patch_bytes.observe(bytes as f64);
    }

    /// Counts a change of the certificate's files.
    pub fn tls_reloaded(&self, good: bool) {
        self.tls_reloads.get_or_create(&Reload { result: if good { "success" } else { "error" } }).inc();
    }

    /// Counts a ResolutionRequest that ended after `duration`.
    pub fn resolved(&self, outcome: ResolutionOutcome, duration: Duration) {
        self.resolutions.ended(outcome, duration);
    }

    /// All of them (OpenMetrics text).
    pub fn text(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "build",
            "The version of tekton-wrap",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
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
        self.resolutions.register(registry);
        registry.register("tls_reload", "Changes of the certificate's files by result", self.tls_reloads.clone());
        self
    }
}

impl Drop for InFlight {
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
        let _running = metrics.start();
        metrics.ended(Request { operation: "CREATE", outcome: "wrapped", reason: "" }, Duration::from_millis(3));
        metrics.patched(3, 2000);
        metrics.tls_reloaded(true);
        metrics.tls_reloaded(false);
        let text = metrics.text().unwrap();
        for line in [
            concat!("tekton_wrap_build_info{version=\"", env!("CARGO_PKG_VERSION"), "\"} 1"),
            r#"tekton_wrap_admission_requests_total{operation="CREATE",outcome="wrapped",reason=""} 1"#,
            r#"tekton_wrap_admission_duration_seconds_bucket{le="0.002"} 0"#,
            r#"tekton_wrap_admission_duration_seconds_bucket{le="0.005"} 1"#,
            "tekton_wrap_admission_in_flight 1",
            r#"tekton_wrap_admission_patch_operations_bucket{le="4.0"} 1"#,
            r#"tekton_wrap_admission_patch_bytes_bucket{le="4096.0"} 1"#,
            r#"tekton_wrap_tls_reload_total{result="success"} 1"#,
            r#"tekton_wrap_tls_reload_total{result="error"} 1"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
