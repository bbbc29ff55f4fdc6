//! Trusted certificate authorities: Mozilla's list, which is built in because a `scratch` image has no certificates; those
//! of the system or, in their place, of `SSL_CERT_FILE` and `SSL_CERT_DIR`; and those of the setting `ca`. So a company's
//! own authority is trusted in addition to the public ones.

use std::{env, path::PathBuf, sync::LazyLock};

use ureq::tls::Certificate;

use crate::store::StoreError;

/// Authorities that every process trusts, and problems with the variables that name more.
struct Common {
    certificates: Vec<Certificate<'static>>,
    /// Clauses for errors.
    problems: Vec<String>,
}

static COMMON: LazyLock<Common> = LazyLock::new(|| {
    let native = rustls_native_certs::load_native_certs();
    let mut problems: Vec<String> = native.errors.iter().map(ToString::to_string).collect();
    if native.certs.is_empty()
        && let Some(file) = env::var_os("SSL_CERT_FILE")
    {
        problems.push(format!("{}, which SSL_CERT_FILE names, holds no certificate in PEM form", file.display()));
    }
    for problem in &problems {
        tracing::warn!("a certificate authority is not used: {problem}");
    }
    let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().map(|c| Certificate::from_der(c));
    let native = native.certs.iter().map(|c| Certificate::from_der(c).to_owned());
    Common { certificates: built_in.chain(native).collect(), problems }
});

/// All trusted authorities, with those of the files or folders `authorities`. A file or folder without a certificate is an
/// error.
pub fn roots(authorities: &[PathBuf]) -> Result<Vec<Certificate<'static>>, StoreError> {
    let mut roots = COMMON.certificates.clone();
    for path in authorities {
        let (file, folder) = if path.is_dir() { (None, Some(path.as_path())) } else { (Some(path.as_path()), None) };
        let loaded = rustls_native_certs::load_certs_from_paths(file, folder);
        if loaded.certs.is_empty() {
            let wrong = match (path.metadata(), loaded.errors.first()) {
                (Err(error), _) => format!("can't be read: {error}"),
                (_, Some(error)) => format!("holds no certificate in PEM form: {error}"),
                (_, None) => "holds no certificate in PEM form".to_owned(),
            };
            let problem = format!("{}, named by --ca or TEKTON_WRAP_CA, {wrong}", path.display());
            return Err(StoreError::Settings { problem });
        }
        roots.extend(loaded.certs.iter().map(|c| Certificate::from_der(c).to_owned()));
    }
    Ok(roots)
}

/// What could not be read, as a clause in parentheses, or the empty string: why an authority may be unknown.
pub fn problems() -> String {
    match COMMON.problems.first() {
        Some(problem) => format!(" ({problem})"),
        None => String::new(),
    }
}
