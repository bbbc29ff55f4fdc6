//! Credentials for registries, from the files that Docker, Tekton and Kubernetes write (`config.json`).
//!
//! No secret is ever in an error, in `Debug` output or in a log line.

mod docker_config;
mod helper;

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use self::docker_config::{DockerConfig, Lookup};
use super::StoreError;

/// The environment variable that holds Tekton's `$(credentials.path)` in injected steps: below it lies
/// `.docker/config.json` (Tekton: pkg/credentials/dockercreds).
pub const TEKTON_CREDENTIALS: &str = "TEKTON_WRAP_CREDENTIALS";

/// The files to look for credentials in, in this order.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<PathBuf>,
}

/// How to prove to a registry who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User name and password.
    Basic {
        /// Sent as it is.
        username: String,
        /// Sent to the registry or to its token server.
        password: Secret,
    },
    /// A token that the registry's token server turns into tokens for one repository (OAuth2 refresh token).
    IdentityToken(Secret),
    /// A token that the registry itself takes.
    RegistryToken(Secret),
}

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// The outcome of a search.
#[derive(Debug)]
pub struct Found {
    /// None: anonymous.
    pub credential: Option<Credential>,
    /// A clause for errors that says what to do: where the credential is from, or where none was.
    pub searched: String,
}

impl Credentials {
    /// The files that belong to this process: `$DOCKER_CONFIG/config.json`, then that of Tekton, then
    /// `$HOME/.docker/config.json`.
    pub fn from_env() -> Self {
        let below = |variable: &str, path: &str| {
            env::var_os(variable).filter(|v| !v.is_empty()).map(|folder| Path::new(&folder).join(path))
        };
        let files = [
            below("DOCKER_CONFIG", "config.json"),
            below(TEKTON_CREDENTIALS, ".docker/config.json"),
            below("HOME", ".docker/config.json"),
        ];
        Self { files: files.into_iter().flatten().collect() }
    }

    /// These files and no others.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { files }
    }

    /// The first credential for a repository, for example `quay.io` and `me/build`. A file that is absent or that this
    /// user may not read is passed over; one that is no `config.json` is an error.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Found, StoreError> {
        let mut passed = Vec::new();
        for file in &self.files {
            let shown = file.display();
            let text = match fs::read_to_string(file) {
                Ok(text) => text,
                Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                    return Err(broken(file, "it is not text".to_owned()));
                }
                Err(e) => {
                    passed.push(format!("{shown} ({})", reason(&e)));
                    continue;
                }
            };
            let config = DockerConfig::parse(&text).map_err(|problem| broken(file, problem))?;
            let credential = match config.lookup(registry, repository).map_err(|problem| broken(file, problem))? {
                Lookup::None => None,
                Lookup::Credential(credential) => Some(credential),
                Lookup::Helper { name, server } => match helper::get(&name, &server) {
                    Ok(credential) => credential,
                    Err(problem) => {
                        passed.push(format!("{shown} (docker-credential-{name}: {problem})"));
                        continue;
                    }
                },
            };
            if credential.is_some() {
                return Ok(Found { credential, searched: format!("check the credentials for {registry} in {shown}") });
            }
            passed.push(shown.to_string());
        }
        let searched = match passed.is_empty() {
            true => format!("add credentials for {registry}: neither DOCKER_CONFIG nor HOME is set"),
            false => format!("add credentials for {registry}: there are none in {}", passed.join(", ")),
        };
        Ok(Found { credential: None, searched })
    }
}

impl Secret {
    /// The text itself, to be sent and nothing else.
    pub fn expose(&self) -> &str {
        &self.0
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

fn broken(file: &Path, problem: String) -> StoreError {
    StoreError::Credentials { file: file.display().to_string(), problem }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "absent".to_owned(),
        io::ErrorKind::PermissionDenied => "not readable for this user".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn basic(username: &str, password: &str) -> Option<Credential> {
        Some(Credential::Basic { username: username.to_owned(), password: Secret(password.to_owned()) })
    }

    #[test]
    fn the_first_file_with_a_credential_wins() {
        let folder = tempfile::tempdir().unwrap();
        let other = file(folder.path(), "a", r#"{"auths":{"ghcr.io":{"username":"g","password":"1"}}}"#);
        let first = file(folder.path(), "b", r#"{"auths":{"quay.io":{"username":"q","password":"2"}}}"#);
        let second = file(folder.path(), "c", r#"{"auths":{"quay.io":{"username":"r","password":"3"}}}"#);
        let absent = folder.path().join("absent");
        let credentials = Credentials::from_files(vec![absent.clone(), other.clone(), first.clone(), second]);
        let found = credentials.find("quay.io", "me/a").unwrap();
        assert_eq!(found.credential, basic("q", "2"));
        assert_eq!(found.searched, format!("check the credentials for quay.io in {}", first.display()));

        let found = Credentials::from_files(vec![absent.clone(), other.clone()]).find("quay.io", "me/a").unwrap();
        assert_eq!(found.credential, None);
        let expected = format!(
            "add credentials for quay.io: there are none in {} (absent), {}",
            absent.display(),
            other.display()
        );
        assert_eq!(found.searched, expected);
        assert!(Credentials::default().find("quay.io", "a").unwrap().credential.is_none());
    }

    #[test]
    fn a_broken_file_is_one_error_that_names_it_and_shows_no_secret() {
        let folder = tempfile::tempdir().unwrap();
        for text in [
            r#"{"auths": {"quay.io": "hunter2"}}"#,
            r#"{"auths": ["hunter2"]}"#,
            r#"{"auths": {"quay.io": {"auth": "hunter2"}}}"#,
            r#"{"auths": {"quay.io": {"auth": "aHVudGVyMg=="}}}"#,
            r#"{"auths": {"quay.io": {"password": 7, "username": "hunter2"}}}"#,
            r#"{"auths": {"quay.io": {"password": "hunter2""#,
            "hunter2",
            "",
        ] {
            let path = file(folder.path(), "config.json", text);
            let error = Credentials::from_files(vec![path.clone()]).find("quay.io", "a").unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(shown.starts_with(&path.display().to_string()), "{shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("aHVudGVyMg"), "{shown}");
        }
    }

    #[test]
    fn runs_helpers_where_they_are() {
        let folder = tempfile::tempdir().unwrap();
        let script = "#!/bin/sh\n[ \"$1\" = get ] || exit 1\nread -r server || [ -n \"$server\" ]\n\
                      echo \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"u@$server\\\",\\\"Secret\\\":\\\"s\\\"}\"\n";
        let helper = file(folder.path(), "docker-credential-tekton-wrap-test", script);
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(helper::run(&helper, "quay.io").unwrap(), basic("u@quay.io", "s"));

        let config = file(folder.path(), "config.json", r#"{"credsStore":"tekton-wrap-absent"}"#);
        let found = Credentials::from_files(vec![config]).find("quay.io", "a").unwrap();
        assert!(found.credential.is_none());
        assert!(found.searched.contains("docker-credential-tekton-wrap-absent: the program is not there"), "{found:?}");
    }

    #[test]
    fn debug_output_hides_secrets() {
        let shown =
            format!("{:?}", (basic("user", "hunter2"), Credential::IdentityToken(Secret("hunter2".to_owned()))));
        assert!(shown.contains("user") && !shown.contains("hunter2"), "{shown}");
    }
}
