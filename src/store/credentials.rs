//! Credentials for registries, from the files that Docker, Podman, Tekton and Kubernetes write.
//!
//! No secret is ever in an error, in `Debug` output or in a log line.

mod docker_config;
mod glob;
mod helper;
mod problem;

use std::{
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use self::{
    docker_config::{DockerConfig, Lookup},
    problem::InvalidConfig,
};
use super::{StoreError, cloud::is_for_a_cloud};

/// The environment variable that holds Tekton's `$(credentials.path)` in injected steps: below it lies
/// `.docker/config.json` (Tekton: pkg/credentials/dockercreds).
pub const TEKTON_CREDENTIALS: &str = "TEKTON_WRAP_CREDENTIALS";

/// The files to look for credentials in, in this order.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    files: Vec<Source>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Source {
    /// A `config.json`.
    File(PathBuf),
    /// The same, at a place that few use: nobody is told that it is absent.
    Rare(PathBuf),
    /// The folder of a mounted Secret, which has to be there.
    Secret(PathBuf),
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
#[derive(Debug, Default)]
pub struct Found {
    /// In the order in which they are to be tried. None: anonymous.
    pub candidates: Vec<Credential>,
    /// A clause for errors that says what to do: where the credentials are from, or where none were.
    pub searched: String,
}

impl Credentials {
    /// Those of this process: of `secret`, the folder of a mounted Secret; `$DOCKER_CONFIG/config.json`;
    /// `$REGISTRY_AUTH_FILE`; that of Tekton; `$HOME/.docker/config.json`; and the files of Podman and its relatives
    /// (containers-auth.json(5)).
    pub fn from_env(secret: Option<&Path>) -> Self {
        Self::from_variables(secret, |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from))
    }

    fn from_variables(secret: Option<&Path>, variable: impl Fn(&str) -> Option<PathBuf>) -> Self {
        let below = |name: &str, path: &str| variable(name).map(|folder| folder.join(path));
        let configs =
            below("XDG_CONFIG_HOME", "containers/auth.json").or_else(|| below("HOME", ".config/containers/auth.json"));
        let files = [
            secret.map(|folder| Source::Secret(folder.to_owned())),
            below("DOCKER_CONFIG", "config.json").map(Source::File),
            variable("REGISTRY_AUTH_FILE").map(Source::File),
            below(TEKTON_CREDENTIALS, ".docker/config.json").map(Source::File),
            below("HOME", ".docker/config.json").map(Source::File),
            below("XDG_RUNTIME_DIR", "containers/auth.json").map(Source::Rare),
            configs.map(Source::Rare),
        ];
        Self { files: files.into_iter().flatten().collect() }
    }

    /// These files and no others.
    pub fn from_files(files: Vec<PathBuf>) -> Self {
        Self { files: files.into_iter().map(Source::File).collect() }
    }

    /// All credentials for a repository, for example `quay.io` and `me/build`, the best one of each file first. A file that
    /// is absent or that this user may not read is passed over; one that is no `config.json` is an error.
    pub fn find(&self, registry: &str, repository: &str) -> Result<Found, StoreError> {
        let (mut candidates, mut useful, mut passed) = (Vec::new(), Vec::new(), Vec::new());
        for source in &self.files {
            let (file, config) = match source.read()? {
                Read::Config(file, config) => (file, config),
                Read::Passed(why) => {
                    passed.extend(why);
                    continue;
                }
            };
            let shown = file.display().to_string();
            let before = candidates.len();
            let mut helper_problem = None;
            for lookup in config.lookup(registry, repository).map_err(|problem| broken(&file, problem))? {
                let credential = match lookup {
                    Lookup::Credential(credential) => Some(credential),
                    Lookup::Helper { name, server } => helper::get(&name, &server).unwrap_or_else(|problem| {
                        helper_problem = Some(format!("{shown} (docker-credential-{name}: {problem})"));
                        None
                    }),
                };
                candidates.extend(credential.filter(|new| !candidates.contains(new)));
            }
            match helper_problem {
                Some(problem) => passed.push(problem),
                None if candidates.len() > before => useful.push(shown),
                None => passed.push(shown),
            }
        }
        let searched = match (candidates.is_empty(), passed.is_empty()) {
            (false, _) if useful.is_empty() => format!("check the credentials for {registry} in {}", passed.join(", ")),
            (false, _) => format!("check the credentials for {registry} in {}", useful.join(", ")),
            (true, true) => format!("add credentials for {registry}: neither DOCKER_CONFIG nor HOME is set"),
            (true, false) => format!("add credentials for {registry}: there are none in {}", passed.join(", ")),
        };
        Ok(Found { candidates, searched })
    }
}

/// What became of a source.
enum Read {
    Config(PathBuf, DockerConfig),
    /// A clause for messages, if it is worth one.
    Passed(Option<String>),
}

impl Source {
    fn read(&self) -> Result<Read, StoreError> {
        match self {
            Self::File(file) => Ok(match read_file(file)? {
                Ok(text) => parsed(file, DockerConfig::parse(&text))?,
                Err(why) => Read::Passed(Some(format!("{} ({why})", file.display()))),
            }),
            Self::Rare(file) => Ok(match read_file(file)? {
                Ok(text) => parsed(file, DockerConfig::parse(&text))?,
                Err(_) => Read::Passed(None),
            }),
            Self::Secret(folder) => {
                for name in [".dockerconfigjson", "config.json"] {
                    let file = folder.join(name);
                    if let Ok(text) = read_file(&file)? {
                        return parsed(&file, DockerConfig::parse(&text));
                    }
                }
                let file = folder.join(".dockercfg");
                match read_file(&file)? {
                    Ok(text) => parsed(&file, DockerConfig::parse_old(&text)),
                    Err(_) if is_for_a_cloud(folder) => Ok(Read::Passed(None)),
                    Err(_) => Err(broken(folder, InvalidConfig::NoSecret)),
                }
            }
        }
    }
}

/// The text; a clause where there is no file that can be read.
fn read_file(file: &Path) -> Result<Result<String, String>, StoreError> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Ok(text)),
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(broken(file, InvalidConfig::NotText)),
        Err(e) => Ok(Err(reason(&e))),
    }
}

fn parsed(file: &Path, config: Result<DockerConfig, InvalidConfig>) -> Result<Read, StoreError> {
    let config = config.map_err(|problem| broken(file, problem))?;
    Ok(Read::Config(file.to_owned(), config))
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

fn broken(file: &Path, problem: InvalidConfig) -> StoreError {
    StoreError::Credentials { file: file.display().to_string(), problem: problem.to_string() }
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
    use super::*;

    fn file(folder: &Path, name: &str, text: &str) -> PathBuf {
        let path = folder.join(name);
        fs::write(&path, text).unwrap();
        path
    }

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.to_owned(), password: Secret(password.to_owned()) }
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
        let file = |path: &str| Source::File(path.into());
        let expected = [
            Source::Secret("/s".into()),
            file("/d/config.json"),
            file("/r/auth.json"),
            file("/t/.docker/config.json"),
            file("/h/.docker/config.json"),
            Source::Rare("/run/1/containers/auth.json".into()),
            Source::Rare("/h/.config/containers/auth.json".into()),
        ];
        assert_eq!(Credentials::from_variables(Some(Path::new("/s")), all).files, expected);
        let podman = Credentials::from_variables(None, set(&[("XDG_CONFIG_HOME", "/c")]));
        assert_eq!(podman.files, [Source::Rare("/c/containers/auth.json".into())]);
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

    #[test]
    fn debug_output_hides_secrets() {
        let shown =
            format!("{:?}", (basic("user", "hunter2"), Credential::IdentityToken(Secret("hunter2".to_owned()))));
        assert!(shown.contains("user") && !shown.contains("hunter2"), "{shown}");
    }
}
