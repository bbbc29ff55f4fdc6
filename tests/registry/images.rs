//! The images that `images/` makes, as a registry holds them and as crane reads them.

use std::{path::Path, process::Command};

use serde_json::{Value, json};

use support::registry::{self, Registry};

#[tokio::test]
async fn the_products_image_holds_the_binary_and_nothing_else() {
    let registry = Registry::start().await;
    let program = env!("CARGO_BIN_EXE_tekton-wrap");
    let reference = push(&registry, "build", &["tekton-wrap:v1", program]);

    let config: Value = serde_json::from_str(&crane(&["config", &reference])).expect("JSON");
    assert_eq!(config["config"].get("User"), None);
    assert_eq!(config["config"]["Entrypoint"], json!([tekton_wrap::step::PROGRAM]));
    let layer = crane_export(&reference);
    let mut archive = tar::Archive::new(layer.as_slice());
    let mut files = Vec::new();
    for entry in archive.entries().expect("a tar") {
        let header = entry.as_ref().expect("an entry").header().clone();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        assert_eq!(header.mode().unwrap() & 0o777, 0o755);
        if header.entry_type().is_file() {
            assert_eq!(header.size().unwrap(), Path::new(program).metadata().unwrap().len());
            files.push(format!("/{}", entry.unwrap().path().unwrap().display()));
        }
    }
    assert_eq!(files, [tekton_wrap::step::PROGRAM]);
}

#[tokio::test]
async fn the_base_image_is_empty_and_always_the_same() {
    let registry = Registry::start().await;
    let first = push(&registry, "base", &["base:a"]);
    let second = push(&registry, "base", &["base:b"]);
    assert_eq!(first.split_once('@').unwrap().1, second.split_once('@').unwrap().1);
    let layer = crane_export(&first);
    for entry in tar::Archive::new(layer.as_slice()).entries().expect("a tar") {
        assert_eq!(entry.unwrap().path().unwrap(), Path::new("./"));
    }
}

/// Runs a script of `images/`; the reference that it prints, with a digest.
fn push(registry: &Registry, script: &str, args: &[&str]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("images").join(script);
    output(Command::new(script).arg(format!("{}/{}", registry.address, args[0])).args(&args[1..])).trim().to_owned()
}

fn crane(args: &[&str]) -> String {
    output(registry::crane().args(args))
}

fn crane_export(reference: &str) -> Vec<u8> {
    registry::crane().args(["export", reference, "-"]).output().expect("crane starts").stdout
}

fn output(command: &mut Command) -> String {
    let output = command.output().expect("it starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}
