//! What the commands do once more themselves, beyond single requests: a layer that arrives damaged, a blob that is lost.

use std::process::Command;

use serde_json::Value;
use support::faults::{Fault, Faults, MOMENT};

use super::*;

/// Saves a file as the injected step of a task does it; what the step printed.
fn save(folder: &Path, image: &str) -> String {
    let dir = folder.join("ws");
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join("file"), content(1, 300_000)).unwrap();
    let workspace = json!({"name": "ws", "path": dir, "target": image});
    let step = json!({"run": uid(image), "task": "t", "order": 0, "workspaces": [workspace]}).to_string();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    let output = command.arg("save").env("TEKTON_WRAP_STEP", step).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{printed}");
    printed
}

/// Restores the image and gives what was printed; the file has to be right.
fn restore(folder: &Path, image: &str) -> Result<String, String> {
    let dir = folder.join("copy");
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    let output = command.args(["restore", image]).arg(&dir).output().unwrap();
    let printed = String::from_utf8(output.stderr).unwrap();
    if !output.status.success() {
        return Err(printed);
    }
    assert!(fs::read(dir.join("file")).unwrap() == content(1, 300_000));
    Ok(printed)
}

/// The address of the only layer of an image.
fn layer(image: &str) -> String {
    let target: Target = image.parse().unwrap();
    let found = store::open_with(&target, &options()).unwrap().manifest("done").unwrap().unwrap();
    let manifest: Value = serde_json::from_slice(&found.bytes).unwrap();
    format!("/blobs/{}", manifest["layers"][0]["digest"].as_str().unwrap())
}

#[test]
fn a_layer_that_arrives_damaged_is_read_once_more() {
    let (faults, folder) = (Faults::start(&REGISTRY.address), tempfile::tempdir().unwrap());
    let image = format!("{}/{}:done", faults.address, repository());
    save(folder.path(), &image);
    let layer = layer(&image);
    // Its table of contents, then the whole.
    faults.on("GET", &layer, 1, Fault::FlipAnswer(10));
    restore(folder.path(), &image).unwrap();
    faults.forget_rules();
    faults.on("GET", &layer, 1, Fault::Trickle(1 << 20, MOMENT)).on("GET", &layer, 1, Fault::FlipAnswer(100_000));
    let printed = restore(folder.path(), &image).unwrap();
    assert!(printed.contains("fetching it once more"), "{printed}");
    faults.forget_rules();
    // What is stored damaged stays damaged.
    faults.on("GET", &layer, 1, Fault::Trickle(1 << 20, MOMENT)).on("GET", &layer, 2, Fault::FlipAnswer(100_000));
    let error = restore(folder.path(), &image).unwrap_err();
    assert!(error.lines().last().unwrap().contains("digest") || error.contains("not what its table"), "{error}");
    assert_eq!(faults.seen("GET", &layer).iter().filter(|head| head.header("range").is_none()).count(), 5);
}

#[test]
fn a_blob_that_the_registry_lost_is_stored_again() {
    let (faults, folder) = (Faults::start(&REGISTRY.address), tempfile::tempdir().unwrap());
    let image = format!("{}/{}:done", faults.address, repository());
    let unknown = br#"{"errors":[{"code":"MANIFEST_BLOB_UNKNOWN","message":"blob unknown to registry"}]}"#;
    // As often as a manifest is tried.
    let snapshot = format!("/manifests/{}.0.ws", uid(&image));
    faults.on("PUT", &snapshot, 4, Fault::Answer("404 Not Found", Vec::new(), unknown.to_vec()));
    let printed = save(folder.path(), &image);
    assert!(printed.contains("storing the workspaces again"), "{printed}");
    assert_eq!(faults.seen("PATCH", "/blobs/uploads/").len(), 2, "the layer, twice");
    restore(folder.path(), &image).unwrap();
}

#[test]
fn threads_that_start_together_ask_once_for_the_scheme() {
    let faults = Faults::start(&REGISTRY.address);
    let store = open(&faults.address, &repository(), &options());
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || put(&**store, &content(thread, 1000)).unwrap());
        }
    });
    assert_eq!(faults.seen("GET", "/v2/").iter().filter(|head| head.target() == "/v2/").count(), 1);
}
