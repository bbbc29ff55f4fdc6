//! Who is served where `--client-ca` says so: clients with a certificate of one of its authorities and with one of the names
//! of `--client-cn`. Then whoever else reaches the port gets no further than the handshake.

use std::{fs, path::Path, sync::Arc};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{CertificateDer, UnixTime, pem::PemObject},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::tls::TlsError;

/// The object identifier of a common name (RFC 5280: `id-at-commonName`, 2.5.4.3).
const COMMON_NAME: [u8; 3] = [0x55, 4, 3];

/// Tags of DER (ITU-T X.690).
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 6;
const VERSION: u8 = 0xa0;

/// Whom to serve.
#[derive(Debug)]
pub struct Clients {
    authorities: Arc<dyn ClientCertVerifier>,
    /// Any name where there is none.
    names: Vec<String>,
}

impl Clients {
    /// Those with a certificate of an authority in `file` and one of the common `names`.
    pub fn load(file: &Path, names: Vec<String>) -> Result<Self, TlsError> {
        let bytes = fs::read(file).map_err(|source| TlsError::Read { path: file.to_owned(), source })?;
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(&bytes) {
            let unusable = |source| TlsError::Pem { path: file.to_owned(), what: "certificate", source };
            roots.add(certificate.map_err(unusable)?).map_err(TlsError::Setup)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::new(ring::default_provider())).build();
        let authorities = verifier.map_err(|source| TlsError::Authorities { path: file.to_owned(), source })?;
        Ok(Self { authorities, names })
    }
}

impl ClientCertVerifier for Clients {
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
        Err(Error::General("the client's common name is not one of --client-cn".to_owned()))
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

/// The common name of the subject of `certificate`, if it has exactly one (RFC 5280, 4.1).
fn common_name<'a>(certificate: &'a CertificateDer<'_>) -> Option<&'a [u8]> {
    let mut outer = Der(certificate.as_ref()).value(SEQUENCE)?;
    let mut fields = outer.value(SEQUENCE)?;
    if fields.0.first() == Some(&VERSION) {
        fields.next()?;
    }
    // Serial number, signature, issuer, validity.
    for _ in 0..4 {
        fields.next()?;
    }
    let mut subject = fields.value(SEQUENCE)?;
    let mut found = None;
    while !subject.0.is_empty() {
        let mut names = subject.value(SET)?;
        while !names.0.is_empty() {
            let mut name = names.value(SEQUENCE)?;
            if name.value(OBJECT_IDENTIFIER)?.0 == COMMON_NAME {
                let (_, value) = name.next()?;
                if found.replace(value).is_some() {
                    return None;
                }
            }
        }
    }
    found
}

/// What is left of a series of values in DER.
struct Der<'a>(&'a [u8]);

impl<'a> Der<'a> {
    /// The next value with its tag.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// What is inside of the next value, which must have this tag.
    fn value(&mut self, tag: u8) -> Option<Self> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| Self(value))
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair};

    use super::*;

    #[test]
    fn common_names() {
        for names in [&["kube-apiserver"][..], &[], &["one"]] {
            let mut params = CertificateParams::new(vec!["san.example.com".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "kube-apiserver");
            names.iter().for_each(|name| params.distinguished_name.push(DnType::CommonName, *name));
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            assert_eq!(common_name(certificate.der()), names.first().map(|name| name.as_bytes()));
            let whole = certificate.der().as_ref();
            for end in 0..whole.len() {
                assert_eq!(common_name(&CertificateDer::from(&whole[..end])), None);
            }
        }
    }
}
