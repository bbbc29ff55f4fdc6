//! Verification of clients if `--client-ca` is given: only clients are served that have a certificate of one of its authorities and with one of the names of
//! `--client-cn`. All others fail in the handshake.

use std::sync::Arc;

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{
        CertificateDer, UnixTime,
        pem::{self, PemObject},
    },
    server::{
        VerifierBuilderError, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::certificate::common_name;

/// Verifies certificates of clients.
#[derive(Debug)]
pub struct ClientVerifier {
    authorities: Arc<dyn ClientCertVerifier>,
    /// Any name if there is none.
    names: Vec<String>,
}

/// Why the authorities can't be used: a clause.
#[derive(Debug, thiserror::Error)]
pub enum AuthoritiesError {
    /// It is not PEM.
    #[error("{0}")]
    Pem(#[from] pem::Error),
    /// One of them can't be an authority.
    #[error("{0}")]
    Certificate(#[from] Error),
    /// There is none.
    #[error("{0}")]
    Verifier(#[from] VerifierBuilderError),
}

/// The certificate is good but for its name.
#[derive(Debug, thiserror::Error)]
#[error("the client's common name is not one of --client-cn")]
struct OtherName;

impl ClientVerifier {
    /// Accepts certificates of an authority in `pem` and with one of the common `names`.
    pub fn new(pem: &[u8], names: Vec<String>) -> Result<Self, AuthoritiesError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            roots.add(certificate?)?;
        }
        let provider = Arc::new(ring::default_provider());
        let authorities = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
        Ok(Self { authorities, names })
    }
}

impl ClientCertVerifier for ClientVerifier {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.authorities.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.authorities.verify_client_cert(end_entity, intermediates, now)?;
        let name = common_name(end_entity).unwrap_or_default();
        if self.names.is_empty() || self.names.iter().any(|known| known.as_bytes() == name) {
            return Ok(verified);
        }
        Err(CertificateError::Other(OtherError(Arc::new(OtherName))).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.authorities.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.authorities.supported_verify_schemes()
    }
}
