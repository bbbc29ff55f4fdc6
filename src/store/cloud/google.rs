//! Access tokens of Google, as its own tools find them (Google Cloud, "How Application Default Credentials works").

mod exchange;
mod file;

use std::{
    fs, io,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::Request;
use serde::Deserialize;

use self::{exchange::Exchange, file::CredentialsFile};
use super::{Environment, Fetch, Obtained, Problem};
use crate::store::credentials::Secret;

/// What requests show: the text behind `Bearer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessToken {
    /// See above.
    pub secret: Secret,
    /// When it ends.
    pub expires: Option<SystemTime>,
}

/// What a token may be used for. What its owner may do with it is a matter of IAM.
const SCOPE: &str = "https://www.googleapis.com/auth/cloud-platform";

/// Keys of a mounted Secret that may hold a file with credentials.
pub const SECRET_KEYS: [&str; 4] =
    ["credentials.json", "key.json", "service_account.json", "GOOGLE_APPLICATION_CREDENTIALS"];

/// What every token server answers (RFC 6749, 5.1).
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: Secret,
    expires_in: Option<u64>,
}

/// The token of `environment`, or the one that was fetched before.
pub fn token(environment: &Environment, fetch: &Fetch) -> Result<Arc<Obtained<AccessToken>>, Problem> {
    environment.google_cache().get(|| find(environment, fetch))
}

/// Searches one place after the other; the first one that has something decides.
fn find(environment: &Environment, fetch: &Fetch) -> Result<Obtained<AccessToken>, Problem> {
    let found = |token: AccessToken, place: String| {
        let (expires, secrets) = (token.expires, vec![token.secret.expose().to_owned()]);
        Ok(Obtained { keys: Some(token), expires, searched: format!("check the credentials of {place}"), secrets })
    };
    let none = |searched: String| Ok(Obtained { keys: None, expires: None, searched, secrets: Vec::new() });
    if environment.is_anonymous() {
        return none("it is asked without credentials".to_owned());
    }
    environment.check_secret()?;
    let (path, is_named) = match files(environment) {
        (Some(named), _) => (Some(named), true),
        (None, usual) => (usual, false),
    };
    let mut passed = vec!["GOOGLE_APPLICATION_CREDENTIALS".to_owned()];
    if let Some(path) = path {
        let shown = path.display().to_string();
        match fs::read_to_string(&path) {
            Ok(text) => {
                let file = CredentialsFile::parse(&text).map_err(|why| Problem::lasting(format!("{shown}: {why}")))?;
                let token = Exchange { fetch, place: &shown }.token(&file)?;
                return found(token, shown);
            }
            Err(error) if !is_named && error.kind() == io::ErrorKind::NotFound => {
                passed.push(format!("{shown} (absent)"))
            }
            Err(error) => return Err(Problem::lasting(format!("{shown} can't be read: {error}"))),
        }
    }
    match of_machine(environment, fetch)? {
        Some(token) => {
            return found(token, "the service account of this machine or pod (its metadata server)".to_owned());
        }
        None => passed.push("the metadata server of this machine".to_owned()),
    }
    none(format!("add credentials: there are none in {}", passed.join(", ")))
}

/// The file that somebody names, and the one where gcloud keeps it.
fn files(environment: &Environment) -> (Option<PathBuf>, Option<PathBuf>) {
    let in_secret = SECRET_KEYS.into_iter().find_map(|key| environment.secret_file(key));
    let named = in_secret.or_else(|| environment.get("GOOGLE_APPLICATION_CREDENTIALS").map(PathBuf::from));
    let config = environment.get("CLOUDSDK_CONFIG").map(PathBuf::from).or_else(|| environment.home(".config/gcloud"));
    (named, config.map(|config| config.join("application_default_credentials.json")))
}

/// The token of the machine's, or in GKE the pod's, service account; none where there is no such server.
fn of_machine(environment: &Environment, fetch: &Fetch) -> Result<Option<AccessToken>, Problem> {
    const WHAT: &str = "the metadata server of this machine";
    if environment.get("NO_GCE_CHECK").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(None);
    }
    let host = environment.get("GCE_METADATA_HOST").unwrap_or_else(|| "metadata.google.internal".to_owned());
    let url = format!("http://{host}/computeMetadata/v1/instance/service-accounts/default/token?scopes={SCOPE}");
    let request = Request::get(url).header("metadata-flavor", "Google").body(String::new());
    let request = request.map_err(|error| Problem::lasting(format!("{WHAT}: {error}")))?;
    match fetch.near(WHAT, request)? {
        Some(fetched) => parse(WHAT, &fetched.text).map(Some),
        None => Ok(None),
    }
}

fn parse(what: &str, text: &str) -> Result<AccessToken, Problem> {
    let answer = serde_json::from_str(text).ok().filter(|answer: &TokenAnswer| !answer.access_token.is_empty());
    let answer =
        answer.ok_or_else(|| Problem::lasting(format!("{what} gave an unexpected response: no token in it")))?;
    let lifetime = answer.expires_in.map(Duration::from_secs);
    let expires = lifetime.and_then(|lifetime| SystemTime::now().checked_add(lifetime));
    Ok(AccessToken { secret: answer.access_token, expires })
}

#[cfg(test)]
mod tests;
