//! How many requests the injected steps send: docs/performance.md tells these numbers.

use std::process::Command;

use serde_json::Value;
use support::faults::Faults;

use super::*;

/// Runs an injected step and gives the number of its requests.
fn step(faults: &Faults, verb: &str, state: &Path, step: &Value) -> usize {
    let before = faults.all().len();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    let output = command.arg(verb).current_dir(state).env("TEKTON_WRAP_STEP", step.to_string()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    faults.all().len() - before
}

#[test]
fn a_task_sends_few_requests() {
    let (faults, folder) = (Faults::start(&REGISTRY.address), tempfile::tempdir().unwrap());
    let target = format!("{}/{}:done", faults.address, repository());
    let task = |order: u32, after: &[u32], parallel: Value| {
        let dir = folder.path().join(format!("ws{order}"));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(format!("file{order}")), content(u64::from(order), 1000)).unwrap();
        let after: Vec<_> = after.iter().map(|order| json!({"task": format!("t{order}"), "order": order})).collect();
        let workspace = json!({"name": "ws", "path": dir, "target": target, "after": after, "parallel": parallel});
        json!({"run": uid(&target), "task": format!("t{order}"), "order": order, "workspaces": [workspace]})
    };
    let path = folder.path();
    assert_eq!(step(&faults, "save", path, &task(0, &[], json!([]))), 13, "save, one layer");
    assert_eq!(step(&faults, "restore", path, &task(1, &[0], json!([]))), 5, "restore, one layer");
    // Without a restore this one saves all that it has, on top of nothing.
    assert_eq!(
        step(&faults, "save", path, &task(2, &[], json!([[3, 3]]))),
        18,
        "save, one parallel task that is absent"
    );
}
