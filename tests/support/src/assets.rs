//! The programs that the tests run beside the product.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

/// Path of the asset `name`, see `tests/assets/build`, which builds it if it is missing.
pub fn path(name: &str) -> PathBuf {
    let script = super::repository("tests/assets/build");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().expect("tests/assets/build starts");
    assert!(output.status.success(), "tests/assets/build {name} failed");
    let stdout = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let (_, path) = stdout.trim_end().split_once('=').expect("tests/assets/build prints NAME=PATH");
    PathBuf::from(path)
}

/// A program of the assets, as a command.
pub fn command(name: &str) -> Command {
    Command::new(path(name))
}

/// The same where it may be that the asset can't be had here; none then, and why is on stderr.
pub fn attempt(name: &str) -> Option<PathBuf> {
    let script = super::repository("tests/assets/build");
    let output = Command::new(script).arg(name).stderr(Stdio::inherit()).output().expect("tests/assets/build starts");
    let stdout = String::from_utf8(output.stdout).expect("paths are UTF-8");
    let (_, path) = stdout.trim_end().split_once('=')?;
    Some(PathBuf::from(path)).filter(|_| output.status.success())
}

/// Path of the asset `name` if it has been built; it is not built for this.
pub fn built(name: &str) -> Option<PathBuf> {
    let script = super::repository("tests/assets/build");
    let output = Command::new(script).args(["--built", name]).output().expect("tests/assets/build starts");
    let stdout = String::from_utf8(output.stdout).expect("paths are UTF-8");
    stdout.trim_end().split_once('=').map(|(_, path)| PathBuf::from(path))
}
