//! Errors of credentials. No message holds any part of them.

use std::time::Duration;

use crate::units;

/// An invalid `config.json`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidConfig {
    #[error("it is not text")]
    NotText,
    #[error("it is not JSON: see line {line}, column {column}")]
    NotJson { line: usize, column: usize },
    #[error("it is not a Docker config.json: line {line}, column {column} has a value of the wrong type")]
    WrongType { line: usize, column: usize },
    #[error("the entry {key:?} of auths {problem}")]
    Entry { key: String, problem: InvalidEntry },
    #[error(
        "a Secret with credentials is expected there, and none of .dockerconfigjson, .dockercfg and config.json is; does the Secret exist, and is it of the type kubernetes.io/dockerconfigjson?"
    )]
    NoSecret,
}

/// An invalid entry of `auths`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidEntry {
    #[error("has an auth that is not base64")]
    NotBase64,
    #[error("has an auth that is not text in base64")]
    NotText,
    #[error("has an auth that is not base64 of username:password")]
    NoColon,
    #[error("has a password but no username")]
    NoUsername,
}

/// A credential helper without a result.
#[derive(Debug, thiserror::Error)]
pub enum HelperError {
    #[error("the program is not there")]
    Absent,
    #[error("it failed with {status}{}", behind_colon(.said))]
    Failed { status: std::process::ExitStatus, said: String },
    #[error("it did not answer within {}", units::duration(*.0))]
    Hung(Duration),
    #[error("its answer is not understood")]
    Unclear,
    #[error("{0}")]
    Io(std::io::Error),
}

fn behind_colon(said: &str) -> String {
    if said.is_empty() { String::new() } else { format!(": {said}") }
}
