//! The serving certificate, read again while the server runs.
//!
//! A mounted Secret is swapped by renaming a symlink (`..data`) above the files. Watches on the files miss that, so the
//! files are read every few seconds and their bytes compared (cert-manager does the same). A pair that can't be used,
//! for example because only one of the two files has changed yet, leaves the last good one in place.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject},
    },
    server::{ClientHello, ResolvesServerCert, VerifierBuilderError},
    sign::CertifiedKey,
};

use super::client::Clients;
use crate::metrics::Metrics;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Time between two looks at the files, as cert-manager and controller-runtime have it.
pub const POLL: Duration = Duration::from_secs(10);

/// The certificate chain and key that new connections get.
#[derive(Debug)]
pub struct Certificate {
    dir: PathBuf,
    good: RwLock<Arc<CertifiedKey>>,
}

/// Why a certificate can't be used: one sentence that names the file.
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
        source: VerifierBuilderError,
    },
    /// The settings of TLS contradict each other.
    #[error("TLS can't be set up: {0}")]
    Setup(#[source] rustls::Error),
}

/// The bytes of both files, as they were at one look.
#[derive(PartialEq)]
struct Files {
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Certificate {
    /// Reads `tls.crt` and `tls.key` in `dir`.
    pub fn load(dir: &Path) -> Result<Self, TlsError> {
        let pair = Files::read(dir)?.pair(dir)?;
        Ok(Self { dir: dir.to_owned(), good: RwLock::new(Arc::new(pair)) })
    }

    /// Looks at the files again and again, forever. What can't be used is logged and counted once, not at each look.
    pub async fn keep_fresh(&self, every: Duration, metrics: &Metrics) {
        let mut seen = None;
        loop {
            let now = Files::read(&self.dir).map_err(|e| e.to_string());
            if seen.as_ref() != Some(&now) {
                match now.as_ref().map_err(Clone::clone).and_then(|f| f.pair(&self.dir).map_err(|e| e.to_string())) {
                    Ok(pair) => self.replace(pair, metrics),
                    Err(error) => {
                        metrics.tls_reloaded(false);
                        tracing::error!(error, "the last good serving certificate stays in use");
                    }
                }
                seen = Some(now);
            }
            tokio::time::sleep(every).await;
        }
    }

    /// How connections are secured: TLS 1.2 or 1.3, HTTP/1.1 only. `clients` says who is served, if not everybody.
    pub fn server_config(self: &Arc<Self>, clients: Option<Arc<Clients>>) -> Result<ServerConfig, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Setup)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn replace(&self, pair: CertifiedKey, metrics: &Metrics) {
        if pair.cert == self.current().cert {
            return;
        }
        *self.good.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(pair);
        metrics.tls_reloaded(true);
        tracing::info!(dir = %self.dir.display(), "the serving certificate was replaced");
    }

    fn current(&self) -> Arc<CertifiedKey> {
        self.good.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

impl Files {
    fn read(dir: &Path) -> Result<Self, TlsError> {
        let read = |path: PathBuf| fs::read(&path).map_err(|source| TlsError::Read { path, source });
        Ok(Self { certificate: read(dir.join(CERTIFICATE))?, key: read(dir.join(KEY))? })
    }

    fn pair(&self, dir: &Path) -> Result<CertifiedKey, TlsError> {
        let unusable = |name, what| move |source| TlsError::Pem { path: dir.join(name), what, source };
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .and_then(|chain: Vec<_>| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
            .map_err(unusable(CERTIFICATE, "certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(&self.key).map_err(unusable(KEY, "private key"))?;
        CertifiedKey::from_der(chain, key, &ring::default_provider())
            .map_err(|source| TlsError::Pair { dir: dir.to_owned(), source })
    }
}
