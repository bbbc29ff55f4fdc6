//! How connections are secured, as files say: read again while the server runs.
//!
//! A mounted Secret is swapped by renaming a symlink (`..data`) above the files. Watches on the files miss that, so the
//! files are read every few seconds and their bytes compared (cert-manager does the same). Files that can't be used, for
//! example because only one of a pair has changed yet, leave the last good ones in use.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer, ServerName,
        pem::{self, PemObject},
    },
};
use tokio_rustls::TlsAcceptor;

use super::{
    certificate::{CertificateFacts, shown},
    client::{AuthoritiesError, ClientVerifier},
};
use crate::{
    health::{Condition, Health},
    metrics::Metrics,
};

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Time between two looks at the files, as cert-manager and controller-runtime have it.
pub const POLL: Duration = Duration::from_secs(10);

/// Where the files are, and what is expected of them.
#[derive(Clone, Debug)]
pub struct TlsSettings {
    /// The folder of `tls.crt` and `tls.key`.
    pub dir: PathBuf,
    /// The name that clients use, for which the certificate must be valid.
    pub server_name: Option<ServerName<'static>>,
    /// Authorities of clients; none to serve every client.
    pub client_ca: Option<PathBuf>,
    /// Common names of clients; any if there is none.
    pub client_names: Vec<String>,
}

/// What new connections get.
#[derive(Debug)]
pub struct Tls {
    settings: TlsSettings,
    current: RwLock<Arc<LoadedPair>>,
}

/// What was made of the files.
#[derive(Debug)]
struct LoadedPair {
    files: TlsFiles,
    config: Arc<ServerConfig>,
    /// None if the certificate, which TLS could use, can't be parsed.
    facts: Option<CertificateFacts>,
}

/// Why the files can't be used: one sentence that names the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file can't be read.
    #[error("the file {} can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file holds no PEM of the kind that it has to hold.
    #[error("the file {} holds no usable PEM {what}: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// `certificate` or `private key`.
        what: &'static str,
        /// What is wrong with it.
        source: pem::Error,
    },
    /// The two files don't belong together, or the key is of an unknown kind.
    #[error("the certificate and the key in {} can't be used together: {source}", dir.display())]
    Pair {
        /// The folder of both files.
        dir: PathBuf,
        /// What is wrong with them.
        source: rustls::Error,
    },
    /// The authorities of clients can't be used.
    #[error("the authorities in {} can't be used: {source}", path.display())]
    Authorities {
        /// The file.
        path: PathBuf,
        /// What is wrong with them.
        source: AuthoritiesError,
    },
    /// The settings of TLS contradict each other.
    #[error("TLS can't be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// The bytes of the files, as they were at one look.
#[derive(Clone, Debug, PartialEq)]
struct TlsFiles {
    certificate: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

impl Tls {
    /// Reads the files.
    pub fn load(settings: TlsSettings) -> Result<Self, TlsError> {
        let loaded = TlsFiles::read(&settings)?.load(&settings)?;
        Ok(Self { settings, current: RwLock::new(Arc::new(loaded)) })
    }

    /// Where the files are.
    #[cfg(test)]
    pub fn settings(&self) -> &TlsSettings {
        &self.settings
    }

    /// Secures a new connection.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current().config.clone())
    }

    /// Shows the certificate in the log, in metrics and in `health`: to be called before connections are accepted.
    pub fn show(&self, metrics: &Metrics, health: &Health) {
        if let Some(facts) = &self.current().facts {
            let (serial, not_after) = (&facts.serial, shown(facts.not_after));
            tracing::info!(serial, not_after, "the serving certificate is loaded");
            metrics.tls_validity(facts.not_before, facts.not_after);
        }
        self.check(health);
    }

    /// Looks at the files again and again, forever. What can't be used is logged and counted once, not at each look.
    pub async fn keep_fresh(&self, every: Duration, metrics: &Metrics, health: &Health) {
        let mut refused = None;
        loop {
            tokio::time::sleep(every).await;
            match self.reload() {
                Ok(false) => refused = None,
                Ok(true) => {
                    refused = None;
                    metrics.tls_reloaded(true);
                    self.show(metrics, health);
                }
                Err(error) => {
                    let error = error.to_string();
                    if refused.as_ref() != Some(&error) {
                        metrics.tls_reloaded(false);
                        tracing::error!(error, "the last good files of TLS stay in use");
                        refused = Some(error);
                    }
                }
            }
            // Time passes too.
            self.check(health);
        }
    }

    /// Uses the files as they are now; whether they had changed.
    fn reload(&self) -> Result<bool, TlsError> {
        let files = TlsFiles::read(&self.settings)?;
        if files == self.current().files {
            return Ok(false);
        }
        let loaded = Arc::new(files.load(&self.settings)?);
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = loaded;
        Ok(true)
    }

    fn check(&self, health: &Health) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let problem = match &self.current().facts {
            Some(facts) => facts.problem(now),
            None => Some("the serving certificate can't be parsed".to_owned()),
        };
        health.set(Condition::Certificate, problem.map_or(Ok(()), Err));
    }

    fn current(&self) -> Arc<LoadedPair> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl TlsFiles {
    fn read(settings: &TlsSettings) -> Result<Self, TlsError> {
        let read = |path: PathBuf| fs::read(&path).map_err(|source| TlsError::Read { path, source });
        Ok(Self {
            certificate: read(settings.dir.join(CERTIFICATE))?,
            key: read(settings.dir.join(KEY))?,
            client_ca: settings.client_ca.clone().map(read).transpose()?,
        })
    }

    /// TLS 1.2 or 1.3, HTTP/1.1 only.
    fn load(self, settings: &TlsSettings) -> Result<LoadedPair, TlsError> {
        let (chain, key) = self.pair(&settings.dir)?;
        let facts = chain.first().and_then(|leaf| CertificateFacts::read(leaf, settings.server_name.as_ref()));
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match (&self.client_ca, &settings.client_ca) {
            (Some(pem), Some(path)) => {
                let unusable = |source| TlsError::Authorities { path: path.clone(), source };
                let clients = ClientVerifier::new(pem, settings.client_names.clone()).map_err(unusable)?;
                builder.with_client_cert_verifier(Arc::new(clients))
            }
            _ => builder.with_no_client_auth(),
        };
        let unusable = |source| TlsError::Pair { dir: settings.dir.clone(), source };
        let mut config = builder.with_single_cert(chain, key).map_err(unusable)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(LoadedPair { files: self, config: Arc::new(config), facts })
    }

    fn pair(&self, dir: &Path) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), TlsError> {
        let unusable = |name, what| move |source| TlsError::Pem { path: dir.join(name), what, source };
        let chain = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .and_then(|chain: Vec<_>| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
            .map_err(unusable(CERTIFICATE, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(unusable(KEY, "private key"))?;
        Ok((chain, key))
    }
}
