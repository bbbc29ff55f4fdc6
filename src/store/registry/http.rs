//! HTTP as registries need it: no redirects on its own, statuses are no errors, no limit on how long a transfer takes but
//! one on how long nothing may happen.

use std::{
    io,
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
};

use rustls::{CertificateError, InvalidMessage};
use ureq::{
    Agent, Proxy, ProxyProtocol,
    tls::{Certificate, RootCerts, TlsConfig},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector},
    },
};

use super::early::EarlyReplyConnector;

/// Limits and trust of connections.
#[derive(Clone, Debug)]
pub struct HttpOptions {
    /// How long a connection may take to stand, TLS included.
    pub connect_timeout: Duration,
    /// How long nothing may arrive, or nothing may be taken, before the connection counts as broken.
    pub stall_timeout: Duration,
    /// Files with certificates of authorities (PEM) that are trusted too.
    pub authorities: Vec<PathBuf>,
}

/// What a failed connection is about.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    /// A clause that fits after the name of the host.
    pub clause: String,
    /// Whether it may pass.
    pub transient: bool,
    /// Whether the other side answered with TLS but could not be trusted: then it must not be asked without TLS.
    pub untrusted: bool,
}

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            // Registries that copy a finished upload to its final place answer only after that.
            stall_timeout: Duration::from_secs(120),
            authorities: Vec::new(),
        }
    }
}

/// Connections are kept and used again as long as the agent or a clone of it lives.
pub fn agent(options: &HttpOptions) -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(roots(options))
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(Some(options.stall_timeout))
        .timeout_per_write(Some(options.stall_timeout))
        .max_idle_connections(32)
        .max_idle_connections_per_host(16)
        .user_agent(concat!("tekton-wrap/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy())
        .tls_config(tls)
        .build();
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(EarlyReplyConnector)
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Whom we trust: Mozilla's list, which is built in because a `scratch` image has no certificates, and besides it those
/// of the system or, in their place, those that `SSL_CERT_FILE` and `SSL_CERT_DIR` name. A mounted authority of a company
/// thus adds to the public ones and does not cut off public registries.
fn roots(options: &HttpOptions) -> RootCerts {
    static COMMON: LazyLock<Vec<Certificate<'static>>> = LazyLock::new(|| {
        let native = rustls_native_certs::load_native_certs();
        for error in native.errors {
            tracing::warn!("a certificate authority is not used: {error}");
        }
        let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|c| Certificate::from_der(c));
        built_in.chain(native.certs.iter().map(|c| Certificate::from_der(c).to_owned())).collect()
    });
    let mut roots = COMMON.clone();
    for file in &options.authorities {
        let loaded = rustls_native_certs::load_certs_from_paths(Some(file), None);
        for error in loaded.errors {
            tracing::warn!("a certificate authority is not used: {error}");
        }
        roots.extend(loaded.certs.iter().map(|c| Certificate::from_der(c).to_owned()));
    }
    roots.into()
}

/// The proxy of the environment (`HTTPS_PROXY`, `ALL_PROXY`, `HTTP_PROXY`). As everywhere else, and unlike in ureq, a name
/// in `NO_PROXY` stands for the names below it too, may have blanks around it, and this machine is never asked for
/// through a proxy.
fn proxy() -> Option<Proxy> {
    let found = Proxy::try_from_env()?;
    if !matches!(found.protocol(), ProxyProtocol::Http | ProxyProtocol::Https) {
        tracing::warn!("the proxy {} is not used: only http and https proxies are supported", found.host());
        return None;
    }
    let mut builder = Proxy::builder(found.protocol()).host(found.host()).port(found.port());
    if let (Some(username), Some(password)) = (found.username(), found.password()) {
        builder = builder.username(username).password(password);
    }
    for entry in ["localhost", "*.localhost", "127.*", "[::1]"] {
        builder = builder.no_proxy(entry);
    }
    let listed = std::env::var("NO_PROXY").or_else(|_| std::env::var("no_proxy")).unwrap_or_default();
    for entry in listed.split(',').map(str::trim).filter(|e| !e.is_empty()) {
        builder = builder.no_proxy(entry).no_proxy(&format!(".{}", entry.trim_start_matches(['*', '.'])));
    }
    builder.build().ok()
}

impl Fault {
    /// What `error` means to the user.
    pub fn of(error: &ureq::Error) -> Self {
        let transient = |clause: String| Self { clause, transient: true, untrusted: false };
        let lasting = |clause: String| Self { clause, transient: false, untrusted: false };
        match error {
            ureq::Error::Rustls(error) => tls(error),
            ureq::Error::Io(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
                Some(error) => tls(error),
                None => socket(error),
            },
            ureq::Error::HostNotFound => lasting(UNKNOWN_HOST.to_owned()),
            ureq::Error::Timeout(ureq::Timeout::Connect) => {
                transient("can't be reached: the connection timed out".to_owned())
            }
            ureq::Error::Timeout(_) => transient("did not answer in time".to_owned()),
            ureq::Error::ConnectProxyFailed(why) => {
                transient(format!("can't be reached through the proxy of HTTPS_PROXY: {why}"))
            }
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => lasting(format!("can't be asked: {error}")),
            _ => transient(format!("did not answer properly: {error}")),
        }
    }
}

const UNKNOWN_HOST: &str =
    "is an unknown host; check its name, and that the name service of the cluster can resolve it";

fn socket(error: &io::Error) -> Fault {
    // The standard library has no kind of its own for what getaddrinfo(3) says; EAI_AGAIN is the one that passes.
    let text = error.to_string();
    if text.starts_with("failed to lookup address information") {
        let transient = text.contains("Temporary failure") || text.contains("Try again");
        return Fault { clause: UNKNOWN_HOST.to_owned(), transient, untrusted: false };
    }
    let clause = match error.kind() {
        io::ErrorKind::ConnectionRefused => "can't be reached: nothing listens there (connection refused)".to_owned(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => format!("can't be reached: {error}"),
        _ => format!("broke the connection off: {error}"),
    };
    Fault { clause, transient: true, untrusted: false }
}

fn tls(error: &rustls::Error) -> Fault {
    let untrusted = |clause: &str| Fault { clause: clause.to_owned(), transient: false, untrusted: true };
    match error {
        rustls::Error::InvalidCertificate(why) => match why {
            CertificateError::UnknownIssuer => untrusted(
                "has a certificate of an unknown authority; mount the authority's certificate and name the file in SSL_CERT_FILE",
            ),
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                untrusted("has a certificate that has expired; renew it, or correct the clock of this machine")
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                untrusted("has a certificate for another name; use a name that the certificate holds")
            }
            why => untrusted(&format!("has a certificate that can't be trusted: {why}")),
        },
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            Fault { clause: "does not speak HTTPS".to_owned(), transient: false, untrusted: false }
        }
        _ => Fault { clause: format!("failed to agree on TLS: {error}"), transient: true, untrusted: false },
    }
}
