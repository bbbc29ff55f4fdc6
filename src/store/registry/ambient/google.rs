//! Google Cloud: an access token as a password (Artifact Registry, "Configure authentication to Artifact Registry for Docker",
//! access token).

use crate::store::{
    cloud::{
        Environment, Fetch, Obtained, Problem,
        google::{self, AccessToken},
    },
    credentials::Credential,
};

/// Whether `host` is Artifact Registry or its older form.
pub fn is_registry(host: &str) -> bool {
    host.ends_with(".pkg.dev") || host == "gcr.io" || host.ends_with(".gcr.io")
}

/// The token of `environment` as a credential; none if there is no token.
pub fn obtain(environment: &Environment, fetch: &Fetch) -> Result<Obtained<Credential>, Problem> {
    let token = google::token(environment, fetch)?;
    let Obtained { keys, expires, searched, .. } = &*token;
    let keys = keys.as_ref().map(credential);
    Ok(Obtained { keys, expires: *expires, searched: searched.clone(), secrets: Vec::new() })
}

/// How a registry takes a token.
pub fn credential(token: &AccessToken) -> Credential {
    Credential::Basic { username: "oauth2accesstoken".to_owned(), password: token.secret.clone() }
}
