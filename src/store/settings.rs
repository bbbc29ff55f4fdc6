//! Settings of registries: flags of all commands, and environment variables, which the injected steps use.

use std::{path::PathBuf, sync::OnceLock, time::Duration};

use clap::{Args, Command, FromArgMatches};

use super::StoreError;
use crate::{mirror::MirrorAddress, units};

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
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_INSECURE", value_delimiter = ',', value_parser = host)]
    pub insecure: Vec<String>,
    /// A pull-through registry, [http://]host[:port][/prefix], that blobs are read from first, without credentials
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_MIRROR")]
    pub mirror: Option<MirrorAddress>,
    /// Hosts of token servers that may get passwords although the registry is on another site; comma-separated
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_TOKEN_HOSTS", value_delimiter = ',', value_parser = host)]
    pub token_hosts: Vec<String>,
    /// Machines (host[:port]) that tkn wrap may run rsync with, although only a run names them; comma-separated
    #[arg(long, global = true, value_name = "HOST", env = "TEKTON_WRAP_RSYNC_HOSTS", value_delimiter = ',', value_parser = host)]
    pub rsync_hosts: Vec<String>,
    /// A folder with a mounted Secret, whose credentials are tried first: of registries (.dockerconfigjson, .dockercfg or
    /// config.json) or of a cloud (docs/stores.md)
    #[arg(long, global = true, value_name = "DIR", env = "TEKTON_WRAP_REGISTRY_SECRET")]
    pub registry_secret: Option<PathBuf>,
}

/// `host[:port]`; an address of it alone is taken for it. Empty ones are none.
fn host(text: &str) -> Result<String, String> {
    let text = text.trim();
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://")).unwrap_or(text);
    let host = host.strip_suffix('/').unwrap_or(host);
    let is_host = host.bytes().all(|b| b.is_ascii_alphanumeric() || b".-:[]_".contains(&b));
    if is_host { Ok(host.to_owned()) } else { Err("it has to be host or host:port".to_owned()) }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, expected) in [
            ("a.io", Some("a.io")),
            (" a.io:5000 ", Some("a.io:5000")),
            ("http://a.io:5000/", Some("a.io:5000")),
            ("https://[::1]:5000", Some("[::1]:5000")),
            ("", Some("")),
            ("a.io/me", None),
            ("a b", None),
            ("ftp://a.io", None),
            ("user@a.io", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), expected, "{text:?}");
        }
    }
}
