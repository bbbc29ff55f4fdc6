//! `restore`, `save` and `inspect` as people and scripts meet them: what they print, and how they end.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

/// A folder with a tree and a store.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        fs::create_dir(place.path("tree")).unwrap();
        fs::write(place.path("tree/a"), "some content").unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn image(&self, tag: &str) -> String {
        format!("dir://{}:{tag}", self.path("store").display())
    }
}

fn run(args: &[&str], env: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    command.args(args).env_remove("RUST_LOG").env_remove("TEKTON_WRAP_STEP").envs(env.iter().copied());
    command.output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn one_sentence_for_each_workspace() {
    let place = Place::new();
    let (tree, image, copy) = (place.path("tree"), place.image("one"), place.path("copy"));
    let saved = stderr(&run(&["save", text(&tree), &image], &[]));
    assert!(
        saved.starts_with(&format!("tekton-wrap: saved {image}: 1 file, 12 B, 0 deleted in 1 layer of ")),
        "{saved}"
    );
    let restored = stderr(&run(&["restore", &image, text(&copy)], &[]));
    let expected = format!("tekton-wrap: restored {image}: 1 file, 12 B from 1 layer in ");
    assert!(restored.starts_with(&expected) && restored.lines().count() == 1, "{restored}");
    assert_eq!(fs::read(copy.join("a")).unwrap(), b"some content");
}

#[test]
fn lines_of_json_have_stable_fields() {
    let place = Place::new();
    let (tree, image, copy) = (place.path("tree"), place.image("one"), place.path("copy"));
    let line = |output: Output| -> Value {
        let text = stderr(&output);
        assert_eq!(text.lines().count(), 1, "{text}");
        serde_json::from_str(&text).unwrap()
    };
    let saved = line(run(&["save", "--log-format", "json", text(&tree), &image], &[]));
    let env = [("TEKTON_WRAP_LOG_FORMAT", "json")];
    let restored = line(run(&["restore", &image, text(&copy)], &env));
    let failed = line(run(&["restore", &place.image("typo"), text(&copy)], &env));
    for (line, event, fields) in [
        (&saved, "saved", &["files", "bytes", "deleted", "layers", "stored_bytes", "seconds"][..]),
        (&restored, "restored", &["files", "bytes", "layers", "tasks", "seconds"]),
        (&failed, "failed", &[]),
    ] {
        assert_eq!(line["event"], event);
        assert!(line["timestamp"].is_string() && line["level"].is_string() && line["message"].is_string(), "{line}");
        assert!(fields.iter().all(|field| line[field].is_number()), "{line}");
    }
    assert_eq!(
        (&restored["files"], &restored["bytes"], &restored["workspace"]),
        (&1.into(), &12.into(), &image.into())
    );
    assert_eq!(
        (&failed["level"], failed["message"].as_str().unwrap().contains("no such image")),
        (&"ERROR".into(), true)
    );
}

/// Everything that is no directory counts, by name: links too.
#[test]
fn save_restore_and_inspect_count_the_same() {
    let place = Place::new();
    let (tree, image, copy) = (place.path("tree"), place.image("one"), place.path("copy"));
    fs::create_dir_all(tree.join("d/empty")).unwrap();
    fs::write(tree.join("d/b"), "more").unwrap();
    fs::hard_link(tree.join("a"), tree.join("d/same")).unwrap();
    std::os::unix::fs::symlink("a", tree.join("link")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)
        .unwrap();
    let saved = stderr(&run(&["save", text(&tree), &image], &[]));
    let restored = stderr(&run(&["restore", &image, text(&copy)], &[]));
    assert!(saved.contains(": 5 files, 16 B, 0 deleted in 1 layer of "), "{saved}");
    assert!(restored.contains(": 5 files, 16 B from 1 layer in "), "{restored}");
    let report: Value = serde_json::from_slice(&run(&["inspect", &image, "-o", "json"], &[]).stdout).unwrap();
    for held in [&report["total"], &report["tasks"][0]["added"]] {
        assert_eq!((&held["files"], &held["bytes"]), (&5.into(), &16.into()), "{report}");
    }
    assert_eq!(report["total"]["directories"], 2, "{report}");
    let described = String::from_utf8(run(&["inspect", &image], &[]).stdout).unwrap();
    assert!(described.contains("5 files and 2 directories, 16 B in 1 layer"), "{described}");
}

#[test]
fn what_is_used_wrongly_is_said_and_changes_nothing() {
    let place = Place::new();
    let (tree, image, copy) = (place.path("tree"), place.image("one"), place.path("copy"));
    let (absent, file) = (place.path("absent"), place.path("tree/a"));
    for (args, code, says) in [
        (&["restore"][..], 1, "TEKTON_WRAP_STEP is not set; by hand, give an image and a directory"),
        (&["save"], 1, "TEKTON_WRAP_STEP is not set; by hand, give a directory and an image"),
        (&["restore", &image], 2, "<DIR>"),
        (&["save", text(&tree)], 2, "<TARGET>"),
        (&["restore", "--baseline", "x"], 2, "<DIR>"),
        (&["restore", &image, text(&copy)], 1, "there is no such image"),
        (&["restore", "s3://bucket/x", text(&copy)], 1, "s3://"),
        (&["restore", text(&tree), &image], 1, "is not an image reference"),
        (&["save", text(&absent), &image], 1, "absent: can't be opened: No such file"),
        (&["save", text(&file), &image], 1, "a: can't be opened: Not a directory"),
        (&["save", &image, text(&tree)], 1, "is not an image reference"),
        (&["save", text(&tree), &image, "--baseline", text(&absent)], 1, "absent: the baseline can't be read"),
        (&["restore", &image, text(&copy), "--log-format", "xml"], 2, "possible values: text, json"),
    ] {
        let output = run(args, &[]);
        let stderr = stderr(&output);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(says), "{args:?}: {stderr}");
        assert!(!copy.exists() && !place.path("store").exists(), "{args:?}");
    }
}

#[test]
fn what_is_in_a_directory_stays_unless_the_image_has_it_too() {
    let place = Place::new();
    let (tree, image, copy) = (place.path("tree"), place.image("one"), place.path("copy"));
    run(&["save", text(&tree), &image], &[]);
    fs::create_dir_all(copy.join("a")).unwrap();
    fs::write(copy.join("a/below"), "").unwrap();
    fs::write(copy.join("other"), "mine").unwrap();
    assert!(run(&["restore", &image, text(&copy)], &[]).status.success());
    assert_eq!(fs::read(copy.join("a")).unwrap(), b"some content");
    assert_eq!(fs::read(copy.join("other")).unwrap(), b"mine");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let (tree, image) = (place.path("tree"), place.image("one"));
    for i in 0..5000 {
        fs::write(tree.join(format!("a-rather-long-name-{i}")), "").unwrap();
    }
    run(&["save", text(&tree), &image], &[]);
    let script = r#"{ "$0" inspect "$1" --tree; echo "$?" >&2; } | head -1"#;
    let args = ["-o", "pipefail", "-c", script, env!("CARGO_BIN_EXE_tekton-wrap"), &image];
    let output = Command::new("bash").args(args).output().unwrap();
    assert_eq!(stderr(&output), "0\n");
}

/// Few of the directories on the way down are held open.
#[test]
fn a_tree_may_be_deeper_than_files_may_be_open() {
    const DEPTH: usize = 1200;
    let place = Place::new();
    let (tree, image, copy, state) = (place.path("tree"), place.image("deep"), place.path("copy"), place.path("state"));
    let limited = |args: &[&str]| {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n 200 && exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_tekton-wrap")]).args(args);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", stderr(&output));
        stderr(&output)
    };
    // As deep as a path may be long, and below it once more.
    let script = "for half in 1 2; do i=0; while [ $i -lt $1 ]; do echo $i >f; mkdir d; cd d; i=$((i + 1)); done; done";
    let made =
        Command::new("sh").args(["-c", script, "sh", &(DEPTH / 2).to_string()]).current_dir(&tree).output().unwrap();
    assert!(made.status.success(), "{}", stderr(&made));
    let saved = limited(&["save", text(&tree), &image]);
    assert!(saved.contains(&format!("saved {image}: {} files,", DEPTH + 1)), "{saved}");
    let restored = limited(&["restore", &image, text(&copy), "--baseline", text(&state)]);
    assert!(restored.contains(&format!("restored {image}: {} files,", DEPTH + 1)), "{restored}");
    let deepest = copy.join("d/".repeat(DEPTH));
    fs::write(deepest.join("new"), "new").unwrap();
    let changed = place.image("changed");
    let saved = limited(&["save", text(&copy), &changed, "--baseline", text(&state)]);
    assert!(saved.contains(&format!("saved {changed}: 1 file, 3 B, 0 deleted")), "{saved}");
    let listed = String::from_utf8(run(&["inspect", &changed, "--tree"], &[]).stdout).unwrap();
    assert_eq!(listed.lines().count(), 2 * DEPTH + 3, "the root, all directories, their files, `a` and `new`");
    // What is in the way goes, however deep it is. It also clears up: other programs can't always remove this.
    for folder in [&tree, &copy] {
        let flat = place.path("flat");
        fs::create_dir_all(&flat).unwrap();
        fs::write(flat.join("d"), "").unwrap();
        limited(&["save", text(&flat), &place.image("flat")]);
        limited(&["restore", &place.image("flat"), text(folder)]);
        assert!(folder.join("d").is_file());
    }
}
