//! Metrics of TLS: the serving certificate, its files, and handshakes.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Counters and gauges of TLS.
#[derive(Debug)]
pub struct TlsMetrics {
    reloads: Family<ReloadLabels, Counter>,
    not_before: Gauge,
    not_after: Gauge,
    handshake_failures: Family<HandshakeLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReloadLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HandshakeLabels {
    reason: &'static str,
}

/// Why a TLS handshake failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The client does not accept the serving certificate.
    Untrusted,
    /// The client has no certificate that `--client-ca` and `--client-cn` accept.
    ClientCertificate,
    /// The connection ended, as after a TCP probe.
    Closed,
    /// It took too long.
    Timeout,
    /// No common version or cipher, or no TLS at all.
    Protocol,
}

impl HandshakeFailure {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Untrusted, Self::ClientCertificate, Self::Closed, Self::Timeout, Self::Protocol];

    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Untrusted => "untrusted",
            Self::ClientCertificate => "client_certificate",
            Self::Closed => "closed",
            Self::Timeout => "timeout",
            Self::Protocol => "protocol",
        }
    }
}

impl Default for TlsMetrics {
    fn default() -> Self {
        let metrics = Self {
            reloads: Family::default(),
            not_before: Gauge::default(),
            not_after: Gauge::default(),
            handshake_failures: Family::default(),
        };
        for result in ["success", "error"] {
            drop(metrics.reloads.get_or_create(&ReloadLabels { result }));
        }
        for failure in HandshakeFailure::ALL {
            drop(metrics.handshake_failures.get_or_create(&HandshakeLabels { reason: failure.label() }));
        }
        metrics
    }
}

impl TlsMetrics {
    /// Counts a change of the files.
    pub fn reloaded(&self, good: bool) {
        self.reloads.get_or_create(&ReloadLabels { result: if good { "success" } else { "error" } }).inc();
    }

    /// Sets the validity of the serving certificate, in seconds since 1970.
    pub fn set_validity(&self, not_before: i64, not_after: i64) {
        self.not_before.set(not_before);
        self.not_after.set(not_after);
    }

    /// Counts a handshake that failed.
    pub fn handshake_failed(&self, failure: HandshakeFailure) {
        self.handshake_failures.get_or_create(&HandshakeLabels { reason: failure.label() }).inc();
    }

    /// Shows them in `registry`.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("tls_reload", "Changes of the files of TLS by result: success, error", self.reloads.clone());
        registry.register_with_unit(
            "tls_certificate_not_before_timestamp",
            "When the serving certificate begins to be valid, since 1970",
            Unit::Seconds,
            self.not_before.clone(),
        );
        registry.register_with_unit(
            "tls_certificate_not_after_timestamp",
            "When the serving certificate ceases to be valid, since 1970",
            Unit::Seconds,
            self.not_after.clone(),
        );
        registry.register(
            "tls_handshake_failures",
            "TLS handshakes that failed, by reason: untrusted, client_certificate, closed, timeout, protocol",
            self.handshake_failures.clone(),
        );
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;

    use super::*;

    #[test]
    fn names() {
        let (metrics, mut registry) = (TlsMetrics::default(), Registry::with_prefix("tekton_wrap"));
        metrics.register(&mut registry);
        metrics.reloaded(true);
        metrics.reloaded(false);
        metrics.set_validity(1, 2);
        metrics.handshake_failed(HandshakeFailure::Untrusted);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        for line in [
            r#"tekton_wrap_tls_reload_total{result="success"} 1"#,
            r#"tekton_wrap_tls_reload_total{result="error"} 1"#,
            "tekton_wrap_tls_certificate_not_before_timestamp_seconds 1",
            "tekton_wrap_tls_certificate_not_after_timestamp_seconds 2",
            r#"tekton_wrap_tls_handshake_failures_total{reason="untrusted"} 1"#,
            r#"tekton_wrap_tls_handshake_failures_total{reason="closed"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is not in\n{text}");
        }
    }
}
