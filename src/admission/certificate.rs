//! What a certificate says of itself: serial number, validity, names.

use jiff::Timestamp;
use rustls::{
    client::verify_server_name,
    pki_types::{CertificateDer, ServerName},
    server::ParsedCertificate,
};
use x509_parser::prelude::{FromDer, X509Certificate};

/// What the operator should know of a serving certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// In hexadecimal with colons, as openssl prints it.
    pub serial: String,
    /// Seconds since 1970.
    pub not_before: i64,
    /// Likewise.
    pub not_after: i64,
    /// That it is not for the name of the service, if so.
    wrong_name: Option<String>,
}

impl CertificateFacts {
    /// Those of `certificate`, which is to be for `server_name`, if that is known; none if it can't be parsed.
    pub fn read(certificate: &CertificateDer<'_>, server_name: Option<&ServerName<'_>>) -> Option<Self> {
        let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
        let validity = parsed.validity();
        let wrong_name = server_name.and_then(|name| {
            let certificate = ParsedCertificate::try_from(certificate).ok()?;
            let error = verify_server_name(&certificate, name).err()?;
            Some(format!("the serving certificate is not for {:?}: {error}", name.to_str()))
        });
        Some(Self {
            serial: parsed.raw_serial_as_string(),
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            wrong_name,
        })
    }

    /// Why no client can accept the certificate at `now`, in seconds since 1970.
    pub fn problem(&self, now: i64) -> Option<String> {
        if now > self.not_after {
            return Some(format!("the serving certificate expired at {}", shown(self.not_after)));
        }
        if now < self.not_before {
            return Some(format!("the serving certificate is not valid before {}", shown(self.not_before)));
        }
        self.wrong_name.clone()
    }
}

/// A time in seconds since 1970, as RFC 3339 has it.
pub fn shown(seconds: i64) -> String {
    Timestamp::from_second(seconds).map_or_else(|_| seconds.to_string(), |time| time.to_string())
}

/// The common name of the subject of `certificate`, if it has exactly one.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let mut names = parsed.subject().iter_common_name();
    let name = names.next()?.attr_value().data.to_vec();
    names.next().is_none().then_some(name)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber, date_time_ymd};

    use super::*;

    #[test]
    fn common_names() {
        for names in [&["kube-apiserver"][..], &[], &["one", "two"]] {
            let mut params = CertificateParams::new(vec!["san.example.com".to_owned()]).unwrap();
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(DnType::OrganizationName, "kube-apiserver");
            names.iter().for_each(|name| params.distinguished_name.push(DnType::CommonName, *name));
            let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
            // rcgen keeps the last of several.
            let expected = names.last().map(|name| name.as_bytes().to_vec());
            assert_eq!(common_name(certificate.der()), expected);
            let whole = certificate.der().as_ref();
            for end in 0..whole.len() {
                assert_eq!(common_name(&CertificateDer::from(&whole[..end])), None);
            }
        }
    }

    #[test]
    fn problems() {
        let mut params = CertificateParams::new(vec!["wrap.ns.svc".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(0x1234_u64));
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2026, 2, 1);
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let facts = |name: &'static str| {
            CertificateFacts::read(certificate.der(), Some(&ServerName::try_from(name).unwrap())).unwrap()
        };
        let good = facts("wrap.ns.svc");
        assert_eq!(good.serial, "12:34");
        let january: Timestamp = "2026-01-15T00:00:00Z".parse().unwrap();
        assert_eq!(good.problem(january.as_second()), None);
        assert_eq!(
            good.problem(good.not_after + 1).unwrap(),
            "the serving certificate expired at 2026-02-01T00:00:00Z"
        );
        assert_eq!(
            good.problem(good.not_before - 1).unwrap(),
            "the serving certificate is not valid before 2026-01-01T00:00:00Z"
        );
        let wrong = facts("other.ns.svc").problem(january.as_second()).unwrap();
        assert!(wrong.starts_with("the serving certificate is not for \"other.ns.svc\": "), "{wrong}");
        assert_eq!(CertificateFacts::read(certificate.der(), None).unwrap().problem(january.as_second()), None);
    }
}
