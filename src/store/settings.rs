//! Settings of registries: flags of all commands, and environment variables, which the injected steps use.

use std::{path::PathBuf, str::FromStr, sync::OnceLock, time::Duration};

use clap::{Args, Command, FromArgMatches};

use super::StoreError;
use crate::units;

/// See the module.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Registries")]
pub struct RegistrySettings {
    /// How long to try again while a registry is away or busy, for example 90s or 5m
    #[arg(long, global = true, value_name = "TIME", env = "TEKTON_WRAP_RETRY_FOR", default_value = "5m", value_parser = units::parse_duration)]
    pub retry_for: Duration,
    /// A file with certificates of authorities (PEM) that are trusted too, or a folder of such files; comma-separated
    #[arg(long, global = true, value_name = "PATH", env = "TEKTON_WRAP_CA", value_delimiter = ',')]
    pub ca: Vec<PathBuf>,
    /// Registries (host[:port]) that may be asked over plain HTTP; always: loopback and names that end in .local;
    /// comma-separated
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_INSECURE", value_delimiter = ',')]
    pub insecure: Vec<String>,
    /// A pull-through registry, [http://]host[:port][/prefix], that blobs are read from first, without credentials
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_MIRROR")]
    pub mirror: Option<MirrorAddress>,
    /// Hosts of token servers that may get passwords although the registry is on another site; comma-separated
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_TOKEN_HOSTS", value_delimiter = ',')]
    pub token_hosts: Vec<String>,
    /// A folder with a mounted Secret, whose credentials are tried first: of registries (.dockerconfigjson, .dockercfg or
    /// config.json) or of a cloud (docs/stores.md)
    #[arg(long, global = true, value_name = "DIR", env = "TEKTON_WRAP_REGISTRY_SECRET")]
    pub registry_secret: Option<PathBuf>,
}

/// A mirror, and the prefix of repositories there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorAddress {
    /// Host and port.
    pub host: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
    /// Whether it is accessed over plain HTTP.
    pub plain: bool,
}

/// Not the address of a mirror.
#[derive(Debug, thiserror::Error)]
#[error("it has to be [http://]host[:port][/prefix]")]
pub struct InvalidMirror;

static OF_PROCESS: OnceLock<RegistrySettings> = OnceLock::new();

impl RegistrySettings {
    /// Makes these the settings of the process; later calls have no effect.
    pub fn set(self) {
        let _ = OF_PROCESS.set(self);
    }

    /// The settings of the process, from its command line or else its environment.
    pub fn of_process() -> Result<Self, StoreError> {
        match OF_PROCESS.get() {
            Some(settings) => Ok(settings.clone()),
            None => Self::from_env(),
        }
    }

    /// From environment variables only.
    fn from_env() -> Result<Self, StoreError> {
        let matches = Self::augment_args(Command::new("tekton-wrap")).try_get_matches_from(["tekton-wrap"]);
        matches.and_then(|matches| Self::from_arg_matches(&matches)).map_err(|error| {
            let text = error.render().to_string();
            let problem = text.lines().next().unwrap_or_default().trim_start_matches("error: ").to_owned();
            StoreError::Settings { problem }
        })
    }
}

impl FromStr for MirrorAddress {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Self, InvalidMirror> {
        let (plain, rest) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return Err(InvalidMirror),
            None => (false, text),
        };
        let (host, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        // Valid if it is in an image reference.
        let valid = format!("{host}/{prefix}{}x", if prefix.is_empty() { "" } else { "/" });
        let image = match valid.parse() {
            Ok(crate::target::Target::Registry(image)) if image.registry == host => image,
            _ => return Err(InvalidMirror),
        };
        let prefix = image.repository.strip_suffix('x').ok_or(InvalidMirror)?.to_owned();
        Ok(Self { host: host.to_owned(), prefix, plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors() {
        let mirror = |host: &str, prefix: &str, plain| {
            Some(MirrorAddress { host: host.to_owned(), prefix: prefix.to_owned(), plain })
        };
        for (text, expected) in [
            ("mirror.local:5000", mirror("mirror.local:5000", "", false)),
            ("http://10.0.0.1:5000/", mirror("10.0.0.1:5000", "", true)),
            ("https://harbor.io/quay", mirror("harbor.io", "quay/", false)),
            ("harbor.io/proxy/quay/", mirror("harbor.io", "proxy/quay/", false)),
            ("", None),
            ("mirror", None),
            ("ftp://a.io", None),
            ("user:pw@a.io", None),
            ("a.io/Upper", None),
            ("a.io/x:tag", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
