//! Credential helpers: programs `docker-credential-<name>` (docker/docker-credential-helpers, "Development").

use std::{
    ffi::OsStr,
    io::{self, Read, Write},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde::Deserialize;

use super::{Credential, Secret, problem::HelperError};

/// Time limit of a helper. Those of clouds ask a metadata server first.
const LIMIT: Duration = Duration::from_secs(30);

/// How many bytes of its output are read.
const OUTPUT_SIZE: u64 = 1 << 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperOutput {
    username: String,
    secret: Secret,
}

/// Runs `docker-credential-<name> get` for `server`.
pub fn get(name: &str, server: &str) -> Result<Option<Credential>, HelperError> {
    run(format!("docker-credential-{name}"), server, LIMIT)
}

pub(super) fn run(
    program: impl AsRef<OsStr>,
    server: &str,
    limit: Duration,
) -> Result<Option<Credential>, HelperError> {
    let child = Command::new(program.as_ref())
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => HelperError::Absent,
        _ => HelperError::Io(e),
    })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that does not read its input reports the rest in its exit code.
        let _ = stdin.write_all(server.as_bytes());
    }
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let Some(status) = wait(&mut child, limit).map_err(HelperError::Io)? else {
        // Its child processes may still hold the pipes: the threads that read them are not joined.
        let _ = child.kill();
        let _ = child.wait();
        return Err(HelperError::Hung(limit));
    };
    let (out, err) = (out.join().unwrap_or_default(), err.join().unwrap_or_default());
    if !status.success() {
        // The protocol's way to say "none" is a message on stdout and exit code 1.
        if out.starts_with(b"credentials not found") {
            return Ok(None);
        }
        let said = first_line(if out.is_empty() { &err } else { &out });
        return Err(HelperError::Failed { status, said });
    }
    match serde_json::from_slice(&out) {
        Ok(HelperOutput { secret, .. }) if secret.is_empty() => Ok(None),
        Ok(HelperOutput { username, secret }) => Ok(Some(Credential::new(username, secret))),
        Err(_) => Err(HelperError::Unclear),
    }
}

fn collect(pipe: Option<impl Read + Send + 'static>) -> thread::JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // The output until an error counts.
        let _ = pipe.map(|pipe| pipe.take(OUTPUT_SIZE).read_to_end(&mut bytes));
        bytes
    })
}

/// None: it is still running when the limit is reached.
fn wait(child: &mut Child, limit: Duration) -> io::Result<Option<ExitStatus>> {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if start.elapsed() >= limit {
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// The message of a helper that failed. Helpers don't print secrets there.
fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(200).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    fn ask(script: &str, limit: Duration) -> Result<Option<Credential>, String> {
        let folder = tempfile::tempdir().unwrap();
        let helper = folder.path().join("helper");
        fs::write(&helper, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&helper, fs::Permissions::from_mode(0o755)).unwrap();
        run(&helper, "quay.io", limit).map_err(|error| error.to_string())
    }

    #[test]
    fn answers() {
        let script = "[ \"$1\" = get ] || exit 1\nread -r server || [ -n \"$server\" ]\n\
                      echo \"{\\\"ServerURL\\\":\\\"$server\\\",\\\"Username\\\":\\\"u@$server\\\",\\\"Secret\\\":\\\"s\\\"}\"";
        let expected = Credential::Basic { username: "u@quay.io".to_owned(), password: "s".to_owned().into() };
        assert_eq!(ask(script, LIMIT), Ok(Some(expected)));
        for (script, expected) in [
            ("echo 'credentials not found in native keychain'; exit 1", Ok(None)),
            ("echo '{\"Username\":\"\",\"Secret\":\"\"}'", Ok(None)),
            ("echo 'no AWS region'; exit 1", Err("it failed with exit status: 1: no AWS region")),
            ("echo 'panic: x\n  at y' >&2; exit 2", Err("it failed with exit status: 2: panic: x")),
            ("exit 3", Err("it failed with exit status: 3")),
            ("echo hello", Err("its answer is not understood")),
        ] {
            assert_eq!(ask(script, LIMIT), expected.map_err(str::to_owned), "{script}");
        }
    }

    #[test]
    fn one_that_hangs_is_ended() {
        let start = Instant::now();
        let asked = ask("exec sleep 60", Duration::from_millis(200));
        assert_eq!(asked, Err("it did not answer within 200 ms".to_owned()));
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
