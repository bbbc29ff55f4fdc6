//! Files with credentials, and mounted Secrets.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use super::{docker_config::DockerConfig, problem::InvalidConfig};
use crate::store::{StoreError, cloud::is_for_another_store};

/// Where credentials may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CredentialSource {
    /// A `config.json`.
    File(PathBuf),
    /// The same at an uncommon place: errors don't say that it is absent.
    Uncommon(PathBuf),
    /// The folder of a mounted Secret, which has to exist.
    Secret(PathBuf),
}

/// The content of a source.
pub enum LoadedSource {
    /// A valid file.
    Config {
        /// Its path.
        file: PathBuf,
        /// Its content.
        config: DockerConfig,
    },
    /// No file that this user can read; a clause for errors, unless the place is uncommon.
    Skipped(Option<String>),
}

impl CredentialSource {
    /// Reads and parses it.
    pub fn load(&self) -> Result<LoadedSource, StoreError> {
        match self {
            Self::File(file) => Ok(match read(file)? {
                Ok(text) => loaded(file, DockerConfig::parse(&text))?,
                Err(error) => LoadedSource::Skipped(Some(format!("{} ({})", file.display(), reason(&error)))),
            }),
            Self::Uncommon(file) => Ok(match read(file)? {
                Ok(text) => loaded(file, DockerConfig::parse(&text))?,
                Err(_) => LoadedSource::Skipped(None),
            }),
            Self::Secret(folder) => {
                for name in [".dockerconfigjson", "config.json"] {
                    let file = folder.join(name);
                    if let Ok(text) = read(&file)? {
                        return loaded(&file, DockerConfig::parse(&text));
                    }
                }
                let file = folder.join(".dockercfg");
                match read(&file)? {
                    Ok(text) => loaded(&file, DockerConfig::parse_old(&text)),
                    Err(_) if is_for_another_store(folder) => Ok(LoadedSource::Skipped(None)),
                    Err(_) => Err(invalid(folder, InvalidConfig::NoSecret)),
                }
            }
        }
    }
}

/// The text of a file, or why it is skipped.
fn read(file: &Path) -> Result<io::Result<String>, StoreError> {
    match fs::read_to_string(file) {
        Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(invalid(file, InvalidConfig::NotText)),
        text => Ok(text),
    }
}

fn loaded(file: &Path, config: Result<DockerConfig, InvalidConfig>) -> Result<LoadedSource, StoreError> {
    let config = config.map_err(|problem| invalid(file, problem))?;
    Ok(LoadedSource::Config { file: file.to_owned(), config })
}

/// The error for an invalid file.
pub fn invalid(file: &Path, problem: InvalidConfig) -> StoreError {
    StoreError::Credentials { file: file.display().to_string(), problem: problem.to_string() }
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => "absent".to_owned(),
        io::ErrorKind::PermissionDenied => "not readable for this user".to_owned(),
        _ => error.to_string(),
    }
}
