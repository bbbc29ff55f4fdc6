//! Docker's `config.json`, read as containers-auth.json(5) and docker/cli, "config/configfile" describe it.

use std::collections::BTreeMap;

use base64::{Engine, alphabet, engine};
use serde::Deserialize;

use super::{Credential, Secret};

/// What of the file is about credentials.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    auths: Option<BTreeMap<String, Option<Entry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// What the file says about one repository.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
    /// Nothing.
    None,
    /// The credential itself.
    Credential(Credential),
    /// The program `docker-credential-<name>` is to be asked for `server`.
    Helper {
        /// Without `docker-credential-`.
        name: String,
        /// The key that the program knows the registry by.
        server: String,
    },
}

#[derive(Debug, Deserialize)]
struct Entry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl DockerConfig {
    /// Errors are clauses without any of the text, which may be a secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        serde_json::from_str(text).map_err(|e| match e.is_data() {
            true => format!(
                "it is not a Docker config.json: line {}, column {} has a value of the wrong type",
                e.line(),
                e.column()
            ),
            false => format!("it is not JSON: see line {}, column {}", e.line(), e.column()),
        })
    }

    /// A helper for the registry wins over `auths`, which win over the common helper: `docker login` leaves empty entries
    /// in `auths` for what it gave to the common helper.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<Lookup, String> {
        let helper = |name: &String, server: &str| match name.is_empty() || name.contains('/') {
            true => Lookup::None,
            false => Lookup::Helper { name: name.clone(), server: server.to_owned() },
        };
        if let Some((key, name)) = longest(self.cred_helpers.iter().flatten(), registry, repository) {
            return Ok(helper(name, key));
        }
        let entries = self.auths.iter().flatten().filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
        if let Some((key, entry)) = longest(entries.filter(|(_, e)| !e.is_empty()), registry, repository) {
            let credential = entry.credential().map_err(|problem| format!("the entry {key:?} of auths {problem}"))?;
            return Ok(Lookup::Credential(credential));
        }
        Ok(match &self.creds_store {
            // Docker's helpers know Docker Hub by this name only.
            Some(name) if registry == HUB => helper(name, "https://index.docker.io/v1/"),
            Some(name) => helper(name, registry),
            None => Lookup::None,
        })
    }
}

const HUB: &str = "index.docker.io";

impl Entry {
    fn is_empty(&self) -> bool {
        let none = |secret: &Option<Secret>| secret.as_ref().is_none_or(Secret::is_empty);
        none(&self.auth) && none(&self.password) && none(&self.identitytoken) && none(&self.registrytoken)
    }

    fn credential(&self) -> Result<Credential, String> {
        let some = |secret: &Option<Secret>| secret.clone().filter(|s| !s.is_empty());
        if let Some(token) = some(&self.identitytoken) {
            return Ok(Credential::IdentityToken(token));
        }
        if let Some(token) = some(&self.registrytoken) {
            return Ok(Credential::RegistryToken(token));
        }
        if let Some(auth) = some(&self.auth) {
            return decode(&auth);
        }
        match (&self.username, some(&self.password)) {
            (Some(username), Some(password)) => Ok(Credential::new(username.clone(), password)),
            _ => Err("has a password but no username".to_owned()),
        }
    }
}

impl Credential {
    /// `<token>` as a name marks an identity token (docker/docker-credential-helpers).
    pub(super) fn new(username: String, password: Secret) -> Self {
        match username == "<token>" {
            true => Self::IdentityToken(password),
            false => Self::Basic { username, password },
        }
    }
}

/// `base64(username:password)`
fn decode(auth: &Secret) -> Result<Credential, String> {
    const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
        &alphabet::STANDARD,
        engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
    );
    let bytes = BASE64.decode(auth.expose().trim()).map_err(|_| "has an auth that is not base64".to_owned())?;
    let text = String::from_utf8(bytes).map_err(|_| "has an auth that is not text in base64".to_owned())?;
    match text.split_once(':') {
        Some((username, password)) => {
            Ok(Credential::new(username.to_owned(), Secret(password.trim_end_matches('\0').to_owned())))
        }
        None => Err("has an auth that is not base64 of username:password".to_owned()),
    }
}

/// The entry whose key is the longest prefix of the repository's name.
fn longest<'a, T>(
    entries: impl Iterator<Item = (&'a String, &'a T)>,
    registry: &str,
    repository: &str,
) -> Option<(&'a str, &'a T)> {
    entries
        .filter_map(|(key, value)| Some((matched(key, registry, repository)?, key.as_str(), value)))
        .max_by_key(|(length, ..)| *length)
        .map(|(_, key, value)| (key, value))
}

/// How many bytes of the repository's path `key` covers, none if it is for another one. Keys are `host[:port][/path]`,
/// older ones URLs such as `https://index.docker.io/v1/`.
fn matched(key: &str, registry: &str, repository: &str) -> Option<usize> {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    if canonical(host) != canonical(registry) {
        return None;
    }
    let rest = repository.strip_prefix(path)?;
    (path.is_empty() || rest.is_empty() || rest.starts_with('/')).then_some(path.len())
}

fn canonical(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    match host.as_str() {
        "docker.io" | "registry-1.docker.io" => HUB.to_owned(),
        _ => host.strip_suffix(":443").unwrap_or(&host).to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(config: &str, registry: &str, repository: &str) -> String {
        match DockerConfig::parse(config).unwrap().lookup(registry, repository).unwrap() {
            Lookup::None => "none".to_owned(),
            Lookup::Credential(Credential::Basic { username, password }) => format!("{username}:{}", password.expose()),
            Lookup::Credential(Credential::IdentityToken(token)) => format!("identity {}", token.expose()),
            Lookup::Credential(Credential::RegistryToken(token)) => format!("registry {}", token.expose()),
            Lookup::Helper { name, server } => format!("{name} for {server}"),
        }
    }

    #[test]
    fn finds_the_longest_prefix() {
        let config = r#"{"auths": {
            "quay.io": {"username": "host", "password": "p"},
            "quay.io/me": {"username": "me", "password": "p"},
            "https://quay.io/me/build/": {"username": "build", "password": "p"},
            "https://index.docker.io/v1/": {"username": "hub", "password": "p"},
            "Example.com:443/v2/": {"username": "example", "password": "p"},
            "localhost:5000": {"username": "local", "password": "p"}}}"#;
        for (registry, repository, expected) in [
            ("quay.io", "you/build", "host:p"),
            ("quay.io", "me/other", "me:p"),
            ("quay.io", "me", "me:p"),
            ("quay.io", "mean/other", "host:p"),
            ("quay.io", "me/build", "build:p"),
            ("quay.io", "me/build/deep", "build:p"),
            ("quay.io", "me/builder", "me:p"),
            ("quay.io:8443", "me", "none"),
            ("index.docker.io", "library/busybox", "hub:p"),
            ("example.com", "a", "example:p"),
            ("localhost:5000", "a", "local:p"),
            ("localhost", "a", "none"),
        ] {
            assert_eq!(user(config, registry, repository), expected, "{registry}/{repository}");
        }
    }

    #[test]
    fn reads_every_form_of_an_entry() {
        for (entry, expected) in [
            (r#"{"auth": "dTpwOnE="}"#, "u:p:q"),
            (r#"{"auth": "dTpwOnE"}"#, "u:p:q"),
            (r#"{"auth": "dTpwAAA="}"#, "u:p"),
            (r#"{"auth": "dTpw", "username": "x", "password": "y"}"#, "u:p"),
            (r#"{"auth": "PHRva2VuPjpw"}"#, "identity p"),
            (r#"{"auth": "dTpw", "identitytoken": "t"}"#, "identity t"),
            (r#"{"auth": "", "username": "x", "password": "y"}"#, "x:y"),
            (r#"{"username": "x", "password": "y", "email": "z"}"#, "x:y"),
            (r#"{"registrytoken": "t"}"#, "registry t"),
            (r#"{}"#, "none"),
            ("null", "none"),
        ] {
            assert_eq!(user(&format!(r#"{{"auths": {{"quay.io": {entry}}}}}"#), "quay.io", "a"), expected, "{entry}");
        }
    }

    #[test]
    fn finds_helpers() {
        for (config, expected) in [
            (r#"{"auths": {"quay.io": {}}, "credsStore": "desktop"}"#, "desktop for quay.io"),
            (r#"{"auths": {"quay.io": {"auth": "dTpw"}}, "credsStore": "desktop"}"#, "u:p"),
            (r#"{"auths": {"quay.io": {"auth": "dTpw"}}, "credHelpers": {"quay.io": "q"}}"#, "q for quay.io"),
            (r#"{"credHelpers": {"gcr.io": "g"}}"#, "none"),
            (r#"{"credsStore": "../bin/sh"}"#, "none"),
            (r#"{"auths": null, "credHelpers": null, "HttpHeaders": {"a": "b"}}"#, "none"),
        ] {
            assert_eq!(user(config, "quay.io", "a"), expected, "{config}");
        }
        assert_eq!(user(r#"{"credsStore": "s"}"#, "index.docker.io", "a"), "s for https://index.docker.io/v1/");
    }
}
