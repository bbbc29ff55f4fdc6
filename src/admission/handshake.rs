//! Why TLS handshakes fail: counted by reason, and logged seldom, since whoever reaches the port can make them fail.

use std::{
    collections::HashMap,
    io,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rustls::{AlertDescription, Error};

use crate::metrics::{HandshakeFailure, Metrics};

/// Of each kind of failure one is logged in this time.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// When each kind was logged last.
static LOGGED: Mutex<Option<HashMap<HandshakeFailure, Instant>>> = Mutex::new(None);

/// Counts and logs a handshake that ended with `error`.
pub fn failed(error: &io::Error, metrics: &Metrics) {
    record(kind(error), &error.to_string(), metrics);
}

/// The same for one that took too long.
pub fn timed_out(metrics: &Metrics) {
    record(HandshakeFailure::Timeout, "it took too long", metrics);
}

fn record(failure: HandshakeFailure, error: &str, metrics: &Metrics) {
    metrics.handshake_failed(failure);
    let reason = failure.label();
    match failure {
        HandshakeFailure::Untrusted if is_due(failure) => tracing::warn!(
            reason,
            error,
            "a client does not accept the serving certificate: look at its names, its validity and the caBundle of the MutatingWebhookConfiguration"
        ),
        HandshakeFailure::ClientCertificate if is_due(failure) => {
            tracing::warn!(reason, error, "a client has no certificate that --client-ca and --client-cn accept");
        }
        _ => tracing::debug!(reason, error, "a TLS handshake failed"),
    }
}

fn is_due(failure: HandshakeFailure) -> bool {
    let mut logged = LOGGED.lock().unwrap_or_else(PoisonError::into_inner);
    let logged = logged.get_or_insert_default();
    let is_due = logged.get(&failure).is_none_or(|last| last.elapsed() >= LOG_EVERY);
    if is_due {
        logged.insert(failure, Instant::now());
    }
    is_due
}

fn kind(error: &io::Error) -> HandshakeFailure {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<Error>()) {
        None => HandshakeFailure::Closed,
        Some(Error::NoCertificatesPresented | Error::InvalidCertificate(_)) => HandshakeFailure::ClientCertificate,
        Some(Error::AlertReceived(
            AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::CertificateRevoked
            | AlertDescription::UnknownCA,
        )) => HandshakeFailure::Untrusted,
        Some(_) => HandshakeFailure::Protocol,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{CertificateError, PeerIncompatible};

    use super::*;

    #[test]
    fn kinds() {
        for (error, expected) in [
            (io::ErrorKind::UnexpectedEof.into(), HandshakeFailure::Closed),
            (io::Error::other(Error::AlertReceived(AlertDescription::UnknownCA)), HandshakeFailure::Untrusted),
            (io::Error::other(Error::AlertReceived(AlertDescription::HandshakeFailure)), HandshakeFailure::Protocol),
            (io::Error::other(Error::NoCertificatesPresented), HandshakeFailure::ClientCertificate),
            (
                io::Error::other(Error::InvalidCertificate(CertificateError::UnknownIssuer)),
                HandshakeFailure::ClientCertificate,
            ),
            (io::Error::other(Error::PeerIncompatible(PeerIncompatible::Tls12NotOffered)), HandshakeFailure::Protocol),
        ] {
            assert_eq!(kind(&error), expected, "{error:?}");
        }
    }
}
