//! The product's `render`, as a user runs it.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use serde_json::Value;

/// What `tekton-wrap render` prints for one run among the documents of `yaml`, or its error.
pub fn render(yaml: &str, image: &str) -> Result<Value, String> {
    let mut child = Command::new(super::program())
        .args(["render", "-f", "-", "-o", "json", "--image", image, "--image-has", "rsync"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| e.to_string())?;
    child.stdin.take().expect("stdin is piped").write_all(yaml.as_bytes()).map_err(|e| e.to_string())?;
    let output = child.wait_with_output().map_err(|e| e.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|e| e.to_string())
}
