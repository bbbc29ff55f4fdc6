//! Credential helpers: programs `docker-credential-<name>` (docker/docker-credential-helpers, "Development").

use std::{
    ffi::OsStr,
    io::{self, Write},
    process::{Command, Stdio},
};

use serde::Deserialize;

use super::{Credential, Secret};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

/// Asks `docker-credential-<name>` for `server`. Errors are clauses.
pub fn get(name: &str, server: &str) -> Result<Option<Credential>, String> {
    run(format!("docker-credential-{name}"), server)
}

pub(super) fn run(program: impl AsRef<OsStr>, server: &str) -> Result<Option<Credential>, String> {
    let output = Command::new(program.as_ref())
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .and_then(|mut child| {
            if let Some(mut stdin) = child.stdin.take() {
                // A helper that does not read its input tells the rest by its exit code.
                let _ = stdin.write_all(server.as_bytes());
            }
            child.wait_with_output()
        })
        .map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => "the program is not there".to_owned(),
            _ => e.to_string(),
        })?;
    if !output.status.success() {
        // The protocol's way to say "none" is a message on stdout and exit code 1.
        return match output.stdout.starts_with(b"credentials not found") {
            true => Ok(None),
            false => Err(format!("it failed with {}", output.status)),
        };
    }
    match serde_json::from_slice(&output.stdout) {
        Ok(Answer { secret, .. }) if secret.is_empty() => Ok(None),
        Ok(Answer { username, secret }) => Ok(Some(Credential::new(username, secret))),
        Err(_) => Err("its answer is not understood".to_owned()),
    }
}
