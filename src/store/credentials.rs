//! Credentials for registries, from the files that Docker, Podman, Tekton and Kubernetes write.
//!
//! No secret is ever in an error, in `Debug` output or in a log line.

mod docker_config;
mod glob;
mod helper;
mod problem;
mod secret;
mod source;

use std::{
    env,
    path::{Path, PathBuf},
};

pub use self::secret::{Credential, Secret};
use self::{
    docker_config::Lookup,
    source::{CredentialSource, LoadedSource},
};
use super::StoreError;

/// The environment variable that holds Tekton's `$(credentials.path)` in injected steps: below it lies
/// `.docker/config.json` (Tekton: pkg/credentials/dockercreds).
pub const TEKTON_CREDENTIALS: &str = "TEKTON_WRAP_CREDENTIALS";

/// The files that are searched for credentials, in this order.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    sources: Vec<CredentialSource>,
}

/// The result of a search.
#[derive(Debug, Default)]
pub struct FoundCredentials {
    /// In the order in which they are tried. Empty: anonymous.
    pub candidates: Vec<Credential>,
    /// A clause for errors that says what to do: the files that the credentials are from, or the files without any.
    pub searched: String,
}

impl Credentials {
    /// The sources of this process: `secret`, the folder of a mounted Secret; `$DOCKER_CONFIG/config.json`;
    /// `$REGISTRY_AUTH_FILE`; Tekton's file; `$HOME/.docker/config.json`; and the files of Podman
    /// (containers-auth.json(5)).
    pub fn from_env(secret: Option<&Path>) -> Self {
        Self::from_variables(secret, |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn from_variables(secret: Option<&Path>, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let below = |name: &str, path: &str| variable(name).map(|folder| folder.join(path));
        let configs =
            below("XDG_CONFIG_HOME", "containers/auth.json").or_else(|| below("HOME", ".config/containers/auth.json"));
        let sources = [
            secret.map(|folder| CredentialSource::Secret(folder.to_owned())),
            below("DOCKER_CONFIG", "config.json").map(CredentialSource::File),
            variable("REGISTRY_AUTH_FILE").map(CredentialSource::File),
            below(TEKTON_CREDENTIALS, ".docker/config.json").map(CredentialSource::File),
            below("HOME", ".docker/config.json").map(CredentialSource::File),
            below("XDG_RUNTIME_DIR", "containers/auth.json").map(CredentialSource::Uncommon),
            configs.map(CredentialSource::Uncommon),
        ];
        Self { sources: sources.into_iter().flatten().collect() }
    }

    /// These files only.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { sources: files.into_iter().map(CredentialSource::File).collect() }
    }

    /// All credentials for a repository, for example `quay.io` and `me/build`, the best one of each file first. A file that
    /// is absent or unreadable for this user is skipped; an invalid `config.json` is an error.
    pub fn find(&self, registry: &str, repository: &str) -> Result<FoundCredentials, StoreError> {
        let mut search = Search { registry, repository, candidates: Vec::new(), used: Vec::new(), unused: Vec::new() };
        self.sources.iter().try_for_each(|source| search.add(source))?;
        Ok(search.finish())
    }
}

/// A search for the credentials of a repository.
struct Search<'a> {
    registry: &'a str,
    repository: &'a str,
    candidates: Vec<Credential>,
    /// Files that gave candidates.
    used: Vec<String>,
    /// Files that did not, with the reason where there is one.
    unused: Vec<String>,
}

impl Search<'_> {
    fn add(&mut self, source: &CredentialSource) -> Result<(), StoreError> {
        let (file, config) = match source.load()? {
            LoadedSource::Config { file, config } => (file, config),
            LoadedSource::Skipped(reason) => {
                self.unused.extend(reason);
                return Ok(());
            }
        };
        let shown = file.display().to_string();
        let count_before = self.candidates.len();
        let mut helper_problem = None;
        let lookups =
            config.lookup(self.registry, self.repository).map_err(|problem| source::invalid(&file, problem))?;
        for lookup in lookups {
            let credential = match lookup {
                Lookup::Credential(credential) => Some(credential),
                Lookup::Helper { name, server } => helper::get(&name, &server).unwrap_or_else(|problem| {
                    helper_problem = Some(format!("{shown} (docker-credential-{name}: {problem})"));
                    None
                }),
            };
            self.candidates.extend(credential.filter(|new| !self.candidates.contains(new)));
        }
        match helper_problem {
            Some(problem) => self.unused.push(problem),
            None if self.candidates.len() > count_before => self.used.push(shown),
            None => self.unused.push(shown),
        }
        Ok(())
    }

    fn finish(self) -> FoundCredentials {
        let Self { registry, candidates, used, unused, .. } = self;
        let searched = match (candidates.is_empty(), unused.is_empty()) {
            (false, _) if used.is_empty() => format!("check the credentials for {registry} in {}", unused.join(", ")),
            (false, _) => format!("check the credentials for {registry} in {}", used.join(", ")),
            (true, true) => format!("add credentials for {registry}: neither DOCKER_CONFIG nor HOME is set"),
            (true, false) => format!("add credentials for {registry}: there are none in {}", unused.join(", ")),
        };
        FoundCredentials { candidates, searched }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.to_owned(), password: password.to_owned().into() }
    }

    #[test]
    fn all_files_with_a_credential_count_the_first_one_first() {
        let folder = tempfile::tempdir().unwrap();
        let other = file(folder.path(), "a", r#"{"auths":{"ghcr.io":{"username":"g","password":"1"}}}"#);
        let first = file(folder.path(), "b", r#"{"auths":{"quay.io":{"username":"q","password":"2"}}}"#);
        let entries = r#"{"auths":{"quay.io":{"username":"r","password":"3"},"*.io":{"username":"q","password":"2"}}}"#;
        let second = file(folder.path(), "c", entries);
        let absent = folder.path().join("absent");
        let files = vec![absent.clone(), other.clone(), first.clone(), second.clone()];
        let found = Credentials::from_files(files).find("quay.io", "me/a").unwrap();
        assert_eq!(found.candidates, [basic("q", "2"), basic("r", "3")]);
        let (first, second) = (first.display(), second.display());
        assert_eq!(found.searched, format!("check the credentials for quay.io in {first}, {second}"));

        let found = Credentials::from_files(vec![absent.clone(), other.clone()]).find("quay.io", "me/a").unwrap();
        assert_eq!(found.candidates, []);
        let expected = format!(
            "add credentials for quay.io: there are none in {} (absent), {}",
            absent.display(),
            other.display()
        );
        assert_eq!(found.searched, expected);
        assert!(Credentials::default().find("quay.io", "a").unwrap().candidates.is_empty());
    }

    #[test]
    fn places_in_the_environment() {
        let set = |variables: &'static [(&str, &str)]| {
            move |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| PathBuf::from(value))
        };
        let all = set(&[
            ("DOCKER_CONFIG", "/d"),
            ("REGISTRY_AUTH_FILE", "/r/auth.json"),
            (TEKTON_CREDENTIALS, "/t"),
            ("HOME", "/h"),
            ("XDG_RUNTIME_DIR", "/run/1"),
        ]);
        let file = |path: &str| CredentialSource::File(path.into());
        let expected = [
            CredentialSource::Secret("/s".into()),
            file("/d/config.json"),
            file("/r/auth.json"),
            file("/t/.docker/config.json"),
            file("/h/.docker/config.json"),
            CredentialSource::Uncommon("/run/1/containers/auth.json".into()),
            CredentialSource::Uncommon("/h/.config/containers/auth.json".into()),
        ];
        assert_eq!(Credentials::from_variables(Some(Path::new("/s")), all).sources, expected);
        let podman = Credentials::from_variables(None, set(&[("XDG_CONFIG_HOME", "/c")]));
        assert_eq!(podman.sources, [CredentialSource::Uncommon("/c/containers/auth.json".into())]);
    }

    #[test]
    fn a_mounted_secret() {
        let auths = r#"{"auths":{"quay.io":{"username":"q","password":"2"}}}"#;
        let old = r#"{"quay.io":{"username":"q","password":"2"}}"#;
        for (name, text) in [(".dockerconfigjson", auths), (".dockercfg", old), ("config.json", auths)] {
            let folder = tempfile::tempdir().unwrap();
            file(folder.path(), name, text);
            let credentials = Credentials::from_variables(Some(folder.path()), |_| None);
            assert_eq!(credentials.find("quay.io", "a").unwrap().candidates, [basic("q", "2")], "{name}");
        }
        let folder = tempfile::tempdir().unwrap();
        let absent = folder.path().join("absent");
        for folder in [folder.path(), &absent] {
            let error =
                Credentials::from_variables(Some(folder), |_| None).find("quay.io", "a").unwrap_err().to_string();
            assert!(
                error.starts_with(&folder.display().to_string()) && error.contains("does the Secret exist"),
                "{error}"
            );
        }
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
    fn a_helper_that_fails_is_passed_over_with_its_words() {
        let folder = tempfile::tempdir().unwrap();
        let config = file(folder.path(), "config.json", r#"{"credsStore":"tekton-wrap-absent"}"#);
        let found = Credentials::from_files(vec![config]).find("quay.io", "a").unwrap();
        assert!(found.candidates.is_empty());
        assert!(found.searched.contains("docker-credential-tekton-wrap-absent: the program is not there"), "{found:?}");
    }
}
