//! Docker's `config.json`, read as containers-auth.json(5) and docker/cli, "config/configfile" describe it.

use std::collections::BTreeMap;

use base64::{Engine, alphabet, engine};
use serde::Deserialize;

use super::{
    Credential, Secret, glob,
    problem::{InvalidConfig, InvalidEntry},
};

/// The fields of the file that hold credentials.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DockerConfig {
    auths: Option<BTreeMap<String, Option<AuthEntry>>>,
    cred_helpers: Option<BTreeMap<String, String>>,
    creds_store: Option<String>,
}

/// A result of a lookup.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup {
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
struct AuthEntry {
    auth: Option<Secret>,
    username: Option<String>,
    password: Option<Secret>,
    identitytoken: Option<Secret>,
    registrytoken: Option<Secret>,
}

impl DockerConfig {
    /// Errors hold no part of the text, which may be a secret.
    pub fn parse(text: &str) -> Result<Self, InvalidConfig> {
        serde_json::from_str(text).map_err(|e| not_understood(&e))
    }

    /// The older form, `.dockercfg`: what is `auths` in the newer one.
    pub fn parse_old(text: &str) -> Result<Self, InvalidConfig> {
        let auths = serde_json::from_str(text).map_err(|e| not_understood(&e))?;
        Ok(Self { auths: Some(auths), cred_helpers: None, creds_store: None })
    }

    /// All matches for the repository, the best one first. A helper for the registry wins over `auths`, which win over the
    /// common helper: `docker login` leaves empty entries in `auths` for what it stored with the common helper. The longest
    /// key of `auths` is the best one, and of two equally long ones the one without a wildcard.
    pub fn lookup(&self, registry: &str, repository: &str) -> Result<Vec<Lookup>, InvalidConfig> {
        let helper = |name: &String, server: &str| {
            let usable = !name.is_empty() && !name.contains('/');
            usable.then(|| Lookup::Helper { name: name.clone(), server: server.to_owned() })
        };
        let mut found = Vec::new();
        let own_helper = sorted(self.cred_helpers.iter().flatten(), registry, repository).into_iter().next();
        found.extend(own_helper.and_then(|(key, name)| helper(name, key)));
        let entries = self.auths.iter().flatten().filter_map(|(key, entry)| Some((key, entry.as_ref()?)));
        for (key, entry) in sorted(entries.filter(|(_, e)| !e.is_empty()), registry, repository) {
            let credential = entry.credential();
            let credential = credential.map_err(|problem| InvalidConfig::Entry { key: key.to_owned(), problem })?;
            found.push(Lookup::Credential(credential));
        }
        found.extend(self.creds_store.as_ref().and_then(|name| match registry {
            // Docker's helpers know Docker Hub by this name only.
            HUB => helper(name, "https://index.docker.io/v1/"),
            _ => helper(name, registry),
        }));
        Ok(found)
    }
}

fn not_understood(error: &serde_json::Error) -> InvalidConfig {
    let (line, column) = (error.line(), error.column());
    if error.is_data() { InvalidConfig::WrongType { line, column } } else { InvalidConfig::NotJson { line, column } }
}

const HUB: &str = "index.docker.io";

impl AuthEntry {
    fn is_empty(&self) -> bool {
        let none = |secret: &Option<Secret>| secret.as_ref().is_none_or(Secret::is_empty);
        none(&self.auth) && none(&self.password) && none(&self.identitytoken) && none(&self.registrytoken)
    }

    fn credential(&self) -> Result<Credential, InvalidEntry> {
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
            _ => Err(InvalidEntry::NoUsername),
        }
    }
}

impl Credential {
    /// `<token>` as a name marks an identity token (docker/docker-credential-helpers).
    pub(super) fn new(username: String, password: Secret) -> Self {
        if username == "<token>" { Self::IdentityToken(password) } else { Self::Basic { username, password } }
    }
}

/// `base64(username:password)`
fn decode(auth: &Secret) -> Result<Credential, InvalidEntry> {
    const BASE64: engine::GeneralPurpose = engine::GeneralPurpose::new(
        &alphabet::STANDARD,
        engine::GeneralPurposeConfig::new().with_decode_padding_mode(engine::DecodePaddingMode::Indifferent),
    );
    let bytes = BASE64.decode(auth.expose().trim()).map_err(|_| InvalidEntry::NotBase64)?;
    let text = String::from_utf8(bytes).map_err(|_| InvalidEntry::NotText)?;
    match text.split_once(':') {
        Some((username, password)) => {
            Ok(Credential::new(username.to_owned(), password.trim_end_matches('\0').to_owned().into()))
        }
        None => Err(InvalidEntry::NoColon),
    }
}

/// The entries that fit the repository, the best one first.
fn sorted<'a, T>(
    entries: impl Iterator<Item = (&'a String, &'a T)>,
    registry: &str,
    repository: &str,
) -> Vec<(&'a str, &'a T)> {
    let fitting = entries.filter_map(|(key, value)| Some((matched(key, registry, repository)?, key.as_str(), value)));
    let mut fitting: Vec<_> = fitting.collect();
    fitting.sort_by(|(one, ..), (other, ..)| other.cmp(one));
    fitting.into_iter().map(|(_, key, value)| (key, value)).collect()
}

/// How well a key fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Fit {
    /// How many bytes of the repository's path it covers.
    path: usize,
    /// Whether it names the host without a wildcard.
    exact: bool,
}

/// How well `key` fits, none if it is for another repository. Keys are `host[:port][/path]`, older ones URLs such as
/// `https://index.docker.io/v1/`.
fn matched(key: &str, registry: &str, repository: &str) -> Option<Fit> {
    let key = key.split_once("://").map_or(key, |(_, rest)| rest).trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_once('/').unwrap_or((key, ""));
    let (host, registry) = (canonical(host), canonical(registry));
    let exact = host == registry;
    if !exact && !glob::matches(&host, &registry) {
        return None;
    }
    let rest = repository.strip_prefix(path)?;
    let covers = path.is_empty() || rest.is_empty() || rest.starts_with('/');
    covers.then_some(Fit { path: path.len(), exact })
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

    fn shown(lookup: &Lookup) -> String {
        match lookup {
            Lookup::Credential(Credential::Basic { username, password }) => format!("{username}:{}", password.expose()),
            Lookup::Credential(Credential::IdentityToken(token)) => format!("identity {}", token.expose()),
            Lookup::Credential(Credential::RegistryToken(token)) => format!("registry {}", token.expose()),
            Lookup::Helper { name, server } => format!("{name} for {server}"),
        }
    }

    fn user(config: &str, registry: &str, repository: &str) -> String {
        let found = DockerConfig::parse(config).unwrap().lookup(registry, repository).unwrap();
        found.first().map_or("none".to_owned(), shown)
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

    #[test]
    fn all_that_fits_is_kept_in_order() {
        let config = r#"{"credsStore": "s", "auths": {
            "quay.io": {"username": "host", "password": "p"},
            "*.io": {"username": "glob", "password": "p"},
            "quay.io/me": {"username": "me", "password": "p"},
            "*.io/me": {"username": "glob-me", "password": "p"},
            "ghcr.io": {"username": "other", "password": "p"}}}"#;
        let found = DockerConfig::parse(config).unwrap().lookup("quay.io", "me/a").unwrap();
        let found: Vec<_> = found.iter().map(shown).collect();
        assert_eq!(found, ["me:p", "glob-me:p", "host:p", "glob:p", "s for quay.io"]);
    }

    #[test]
    fn reads_the_older_form() {
        let config = DockerConfig::parse_old(r#"{"quay.io": {"auth": "dTpw", "email": "x"}}"#).unwrap();
        assert_eq!(config.lookup("quay.io", "a").unwrap().iter().map(shown).collect::<Vec<_>>(), ["u:p"]);
        assert!(DockerConfig::parse_old(r#"{"auths": 7}"#).is_err());
    }
}
