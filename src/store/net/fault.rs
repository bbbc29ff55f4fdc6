//! What a failed connection is about.

use std::io;

use rustls::{CertificateError, InvalidMessage};
use ureq::Proxy;

use super::trust;
use crate::redact::redact;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// A clause that fits after the name of the host.
    pub clause: String,
    /// Whether it may pass.
    pub transient: bool,
    /// What more is known.
    pub kind: FaultKind,
}

/// What matters for what is done next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// No connection came about: where a proxy is asked, none to the proxy.
    Unreachable,
    /// The other side answered with TLS but could not be trusted: it must not be asked without TLS.
    Untrusted,
    /// The other side does not speak TLS.
    NoTls,
    /// Anything else.
    Other,
}

const UNKNOWN_HOST: &str =
    "is an unknown host; check its name, and that the name service of the cluster can resolve it";

impl Fault {
    /// What `error` means to the user.
    pub fn of(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::Rustls(error) => tls(error),
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => tls(error),
                None => socket(error),
            },
            ureq::Error::HostNotFound => Self::lasting(UNKNOWN_HOST.to_owned()).of_kind(FaultKind::Unreachable),
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                Self::transient("can't be reached: the connection timed out".to_owned()).of_kind(FaultKind::Unreachable)
            }
            ureq::Error::Timeout(_) => Self::transient("did not answer in time".to_owned()),
            ureq::Error::ConnectProxyFailed(why) => Self::transient(why.clone()),
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => {
                Self::lasting(format!("can't be asked: {}", redact(&error.to_string(), &[], 200)))
            }
            _ => Self::transient(format!("gave an unexpected response: {}", redact(&error.to_string(), &[], 200))),
        }
    }

    /// One that may pass.
    pub fn transient(clause: String) -> Self {
        Self { clause, transient: true, kind: FaultKind::Other }
    }

    /// One that does not pass by itself.
    pub fn lasting(clause: String) -> Self {
        Self { clause, transient: false, kind: FaultKind::Other }
    }

    /// The same where the request went to `proxy`, which the environment variable `variable` names.
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

    fn of_kind(self, kind: FaultKind) -> Self {
        Self { kind, ..self }
    }
}

fn socket(error: &io::Error) -> Fault {
    // The standard library has no kind of its own for what getaddrinfo(3) says; EAI_AGAIN is the one that passes.
    let text = error.to_string();
    if text.starts_with("failed to lookup address information") {
        let transient = text.contains("Temporary failure") || text.contains("Try again");
        return Fault { clause: UNKNOWN_HOST.to_owned(), transient, kind: FaultKind::Unreachable };
    }
    let unreachable = |clause: String| Fault::transient(clause).of_kind(FaultKind::Unreachable);
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
    let untrusted = |clause: String| Fault::lasting(clause).of_kind(FaultKind::Untrusted);
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
            Fault::lasting("does not speak HTTPS".to_owned()).of_kind(FaultKind::NoTls)
        }
        _ => Fault::transient(format!("failed to agree on TLS: {error}")),
    }
}
