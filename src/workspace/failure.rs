//! What a save step does after a failure of one of the task's own steps (param `failed`): it saves, and fails in its place.

use std::fs;

use super::error::Error;
use crate::step::{AfterFailure, OwnStep};

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
        let text = fs::read_to_string(file).map_err(Error::file(file, "can't be read"))?;
        let code: i32 =
            text.trim().parse().map_err(|_| Error::damaged(file, format!("{text:?} is not an exit code")))?;
        if code != 0 {
            return Ok(Some(FailedStep { name, code: exit_code(code), is_retried: !after.is_last_try() }));
        }
    }
    Ok(None)
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
        assert!(failed_step(&after(&["x"], "0")).unwrap_err().to_string().ends_with("\"x\" is not an exit code"));
        let mut missing = after(&["0"], "0");
        missing.steps[0].exit_code.push('x');
        assert!(failed_step(&missing).is_err());
    }
}
