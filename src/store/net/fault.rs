//! Requests without a response, as clauses of errors.

use std::io;

use rustls::{CertificateError, InvalidMessage};
use ureq::Proxy;

use super::trust;
use crate::redact::redact;

/// Why a request has no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A clause that follows the name of the host.
    pub clause: String,
    /// Whether another attempt may succeed.
    pub transient: bool,
    /// What decides on the next step.
    pub kind: FaultKind,
}

/// Kinds of faults that are treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No connection was established; with a proxy, none to the proxy.
    Unreachable,
    /// The peer speaks TLS but is not trusted: plain HTTP must not be tried.
    Untrusted,
    /// The peer does not speak TLS.
    NoTls,
    /// Anything else.
    Other,
}

const UNKNOWN_HOST: &str =
    "is an unknown host; check its name, and that the name service of the cluster can resolve it";

impl Fault {
    /// The fault behind `error`.
    pub fn of(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::Rustls(error) => tls(error),
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => tls(error),
                None => socket(error),
            },
            ureq::Error::HostNotFound => Self::lasting(UNKNOWN_HOST.to_owned()).with_kind(FaultKind::Unreachable),
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                Self::transient("can't be reached: the connection timed out".to_owned())
                    .with_kind(FaultKind::Unreachable)
            }
            ureq::Error::Timeout(_) => Self::transient("did not answer in time".to_owned()),
            ureq::Error::ConnectProxyFailed(why) => Self::transient(why.clone()),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Self::lasting(format!("can't be asked: {}", redact(&error.to_string(), &[], 200)))
            }
            _ => Self::transient(format!("gave an unexpected response: {}", redact(&error.to_string(), &[], 200))),
        }
    }

    /// One that another attempt may avoid.
    pub fn transient(clause: String) -> Self {
        Self { clause, transient: true, kind: FaultKind::Other }
    }

    /// One that another attempt would meet again.
    pub fn lasting(clause: String) -> Self {
        Self { clause, transient: false, kind: FaultKind::Other }
    }

    /// The same for a request through `proxy`, which the environment variable `variable` names.
    pub fn through(self, variable: &str, proxy: &Proxy) -> Self {
        let name = format!("the proxy {}:{}, named by {variable},", proxy.host(), proxy.port());
        match self.kind {
            FaultKind::Unreachable => {
                let clause = format!("can't be reached: {name} {}", self.clause);
                Self { clause, transient: self.transient, kind: FaultKind::Unreachable }
            }
            FaultKind::Other if self.clause.contains("407") => Self::lasting(format!(
                "can't be reached: {name} wants a user and a password (407): write them before the host, http://user:password@host"
            )),
            FaultKind::Other if self.clause.starts_with("proxy server") => {
                Self::transient(format!("can't be reached: {name} refused to connect to it ({})", self.clause))
            }
            _ => self,
        }
    }

    fn with_kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

fn socket(error: &io::Error) -> Fault {
    // The standard library has no error kind for getaddrinfo(3); only EAI_AGAIN is transient.
    let text = error.to_string();
    if text.starts_with("failed to lookup address information") {
        let transient = text.contains("Temporary failure") || text.contains("Try again");
        return Fault { clause: UNKNOWN_HOST.to_owned(), transient, kind: FaultKind::Unreachable };
    }
    let unreachable = |clause: String| Fault::transient(clause).with_kind(FaultKind::Unreachable);
    match error.kind() {
        io::ErrorKind::ConnectionRefused => {
            unreachable("can't be reached: nothing listens there (connection refused)".to_owned())
        }
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
            unreachable(format!("can't be reached: {error}"))
        }
        _ => Fault::transient(format!("broke the connection off: {error}")),
    }
}

fn tls(error: &rustls::Error) -> Fault {
    let untrusted = |clause: String| Fault::lasting(clause).with_kind(FaultKind::Untrusted);
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => untrusted(format!(
                "has a certificate of an unknown authority; mount the authority's certificate and name the file in TEKTON_WRAP_CA or SSL_CERT_FILE{}",
                trust::problems()
            )),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => untrusted(
                "has a certificate that has expired; renew it, or correct the clock of this machine".to_owned(),
            ),
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                untrusted("has a certificate for another name; use a name that the certificate holds".to_owned())
            }
            why => untrusted(format!("has a certificate that can't be trusted: {why}")),
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Fault::lasting("does not speak HTTPS".to_owned()).with_kind(FaultKind::NoTls)
        }
        _ => Fault::transient(format!("failed to agree on TLS: {error}")),
    }
}
