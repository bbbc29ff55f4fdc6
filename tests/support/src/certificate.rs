//! Certificates for the programs of a test.

use std::{fs, path::Path};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// The names of a server on the loopback interface.
pub const LOOPBACK: [&str; 2] = ["localhost", "127.0.0.1"];

/// A certificate authority that lives as long as the test.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// A new authority.
    #[expect(clippy::new_without_default, reason = "each one has a new key: none is the default")]
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

    /// A key for signing (PKCS #8), and its certificate, DER.
    pub fn issue_signer(&self) -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(["signer".to_owned()]).expect("valid names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (key.serialize_der(), certificate.der().to_vec())
    }

    /// Writes `tls.crt` and `tls.key`, for a client with this common name, into `dir`.
    pub fn issue_client(&self, name: &str, dir: &Path) {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new([]).expect("valid parameters");
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::create_dir_all(dir).expect("the folder");
        fs::write(dir.join("tls.crt"), certificate.pem()).expect("tls.crt");
        fs::write(dir.join("tls.key"), key.serialize_pem()).expect("tls.key");
    }

    /// Writes `tls.crt` and `tls.key`, for a server on the loopback interface, into `dir`.
    pub fn issue(&self, dir: &Path) {
        self.issue_for(&LOOPBACK, dir);
    }

    /// Writes `tls.crt` and `tls.key`, for a server with these names, into `dir`.
    pub fn issue_for(&self, names: &[&str], dir: &Path) {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new(names.iter().map(|n| n.to_string()).collect::<Vec<_>>());
        let params = params.expect("valid names");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        fs::create_dir_all(dir).expect("the folder");
        fs::write(dir.join("tls.crt"), certificate.pem()).expect("tls.crt");
        fs::write(dir.join("tls.key"), key.serialize_pem()).expect("tls.key");
    }
}
