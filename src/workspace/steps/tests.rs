//! What the injected steps leave besides images.

use std::os::unix::fs::symlink;

use serde_json::json;

use super::*;

/// The task's own steps write there too, perhaps as another user.
#[test]
fn results_are_written_to_nothing_that_lies_there() {
    let folder = tempfile::tempdir().unwrap();
    let (other, dir) = (folder.path().join("other"), folder.path().join("results"));
    fs::create_dir(&dir).unwrap();
    fs::write(&other, "alive").unwrap();
    symlink(&other, dir.join("one")).unwrap();
    fs::hard_link(&other, dir.join("two")).unwrap();
    fs::write(dir.join("three"), "a longer value").unwrap();
    let step = json!({"run": "r", "task": "t", "order": 0, "workspaces": [], "results": {"one": "1", "two": ["2"], "three": "3"}});
    let step: StepConfig = serde_json::from_value(step).unwrap();
    write_results(&step, &dir).unwrap();
    assert_eq!(fs::read_to_string(&other).unwrap(), "alive");
    let read = |name: &str| fs::read_to_string(dir.join(name)).unwrap();
    assert_eq!(["one", "two", "three"].map(read), ["1", r#"["2"]"#, "3"]);
}
