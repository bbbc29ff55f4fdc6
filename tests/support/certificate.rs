//! Certificates for the programs of a test.

use std::{fs, path::Path};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};

/// A certificate authority that lives as long as the test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new authority.
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("valid parameters");
        params.distinguished_name.push(DnType::CommonName, "test CA");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a certificate"))
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Writes `tls.crt` and `tls.key`, for a server on the loopback interface, into `dir`.
    pub fn issue(&self, dir: &Path) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("valid names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::create_dir_all(dir).expect("the folder");
        fs::write(dir.join("tls.crt"), certificate.pem()).expect("tls.crt");
        fs::write(dir.join("tls.key"), key.serialize_pem()).expect("tls.key");
    }
}
