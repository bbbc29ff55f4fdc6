//! What a save step does after a failure of one of the task's own steps (param `failed`): it saves, and fails in its place.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

use rustix::fs::{Mode, OFlags};

use super::error::Error;
use crate::step::{AfterFailure, OwnStep};

/// An exit code has not so many bytes.
const LONGEST: u64 = 32;

/// A step of the task that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailedStep<'a> {
    /// Its name.
    pub name: &'a str,
    /// The exit code that the task has to end with.
    pub code: u8,
    /// Whether Tekton will try the task again.
    pub is_retried: bool,
}

/// The first of the steps that failed; none if none did.
pub fn failed_step(after: &AfterFailure) -> Result<Option<FailedStep<'_>>, Error> {
    for OwnStep { name, exit_code: file } in &after.steps {
        let text = read(Path::new(file)).map_err(Error::file(file, "can't be read"))?;
        // What is there may be of any step, and is shown to nobody.
        let code: i32 = text.trim().parse().map_err(|_| Error::damaged(file, "there is no exit code in it"))?;
        if code != 0 {
            return Ok(Some(FailedStep { name, code: exit_code(code), is_retried: !after.is_last_try() }));
        }
    }
    Ok(None)
}

/// The text of a small file, not of what is in its place: the step that it is of may have put anything there, for example a link to
/// what only a save step has, or a pipe that would be waited for.
fn read(path: &Path) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"));
    }
    let mut text = String::new();
    match file.take(LONGEST).read_to_string(&mut text)? as u64 {
        LONGEST => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too long")),
        _ => Ok(text),
    }
}

/// The code as a process can have it; -1 stands for a signal (Go: os.ProcessState.ExitCode).
fn exit_code(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(u8::MAX)
}

impl FailedStep<'_> {
    /// Says what became of the task's files.
    pub fn report(&self, saved: &Result<(), Error>) {
        let Self { name, code, is_retried } = *self;
        match saved {
            _ if is_retried => {
                tracing::info!(
                    "step {name:?} failed with exit code {code}; nothing is saved, because the task is tried again"
                );
            }
            Ok(()) => tracing::info!(
                event = "saved_failed",
                step = name,
                code,
                "step {name:?} failed with exit code {code}; its files are saved, and the task fails as it did"
            ),
            Err(error) => {
                tracing::error!("step {name:?} failed with exit code {code}, and its files are not saved: {error}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rustix::fs::{CWD, FileType};

    use super::*;

    #[test]
    fn the_first_failure_counts() {
        let folder = tempfile::tempdir().unwrap();
        let after = |codes: &[&str], retry: &str| AfterFailure {
            steps: (0..)
                .zip(codes)
                .map(|(number, code)| {
                    let file = folder.path().join(number.to_string());
                    fs::write(&file, code).unwrap();
                    OwnStep { name: format!("s{number}"), exit_code: file.display().to_string() }
                })
                .collect(),
            retries: 2,
            retry: retry.to_owned(),
        };
        for (codes, failed) in [
            (&["0", "0"][..], None),
            (&["0", "3\n"], Some(("s1", 3))),
            (&["7", "3"], Some(("s0", 7))),
            // Killed by a signal.
            (&["-1"], Some(("s0", 255))),
        ] {
            let after = after(codes, "0");
            let found = failed_step(&after).unwrap();
            assert_eq!(found.map(|failed| (failed.name, failed.code)), failed, "{codes:?}");
        }
        for (retry, is_retried) in [("0", true), ("1", true), ("2", false), ("", false)] {
            assert_eq!(failed_step(&after(&["1"], retry)).unwrap().unwrap().is_retried, is_retried, "{retry:?}");
        }
        assert!(failed_step(&after(&["x"], "0")).unwrap_err().to_string().ends_with("there is no exit code in it"));
        let mut missing = after(&["0"], "0");
        missing.steps[0].exit_code.push('x');
        assert!(failed_step(&missing).is_err());
    }

    /// The file lies in a folder of the step that failed, which may have put anything there: what it leads to is there only for the
    /// save step, such as the Secret of param `credentials`, and must not come into its log.
    #[test]
    fn what_a_step_put_in_its_place() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("secret"), "not-a-secret").unwrap();
        fs::write(path("number"), "0").unwrap();
        std::os::unix::fs::symlink(path("secret"), path("link")).unwrap();
        std::os::unix::fs::symlink(path("number"), path("link-to-a-number")).unwrap();
        rustix::fs::mknodat(CWD, path("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        fs::write(path("long"), "0".repeat(100)).unwrap();
        for name in ["secret", "link", "link-to-a-number", "pipe", "long"] {
            let step = OwnStep { name: "s".to_owned(), exit_code: path(name).display().to_string() };
            let after = AfterFailure { steps: vec![step], retries: 0, retry: String::new() };
            let error = failed_step(&after).unwrap_err().to_string();
            assert!(!error.contains("not-a-secret"), "{name}: {error}");
        }
    }
}
