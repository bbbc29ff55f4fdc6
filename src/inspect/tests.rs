//! Of runs that were really played, with a store in a folder.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use clap::Parser;

use super::*;
use crate::{
    step::{OnConflict, StepConfig},
    workspace::tests::{Run, Task, task},
};

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    args: Args,
}

/// What the command prints.
fn shown(args: &[&str]) -> Result<String, String> {
    let cli = Cli::try_parse_from([&["inspect"], args].concat()).map_err(|e| e.to_string())?;
    let mut out = Vec::new();
    inspect(&cli.args, &mut out).map_err(|e| e.to_string())?;
    Ok(String::from_utf8(out).unwrap())
}

fn json(args: &[&str]) -> serde_json::Value {
    serde_json::from_str(&shown(&[args, &["-o", "json"]].concat()).unwrap()).unwrap()
}

fn write(dir: &Path, name: &str, content: &str) {
    fs::write(dir.join(name), content).unwrap();
    // Always the same, and other than that of the task before.
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000 + content.len() as u64);
    File::options().write(true).open(dir.join(name)).unwrap().set_modified(time).unwrap();
}

/// `0` makes files, `1` and `2` change them at the same time, `3` comes after both and changes nothing.
pub(super) fn played() -> Run {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| {
        fs::create_dir_all(dir.join("d/e")).unwrap();
        ["a", "b", "d/c", "d/e/f"].iter().for_each(|name| write(dir, name, "first"));
        fs::hard_link(dir.join("a"), dir.join("z")).unwrap();
        std::os::unix::fs::symlink("a\u{1b}", dir.join("s")).unwrap();
    });
    run.play(&Task { parallel: vec![(2, 2)], joined: vec![(2, 2)], ..task(1, &[0]) }, |dir| {
        write(dir, "b", "longer than before");
        fs::remove_dir_all(dir.join("d/e")).unwrap();
        fs::create_dir(dir.join("new")).unwrap();
        write(dir, "new/line\nbreak", "x");
    });
    run.play(&Task { parallel: vec![(1, 1)], joined: vec![(1, 1)], ..task(2, &[0]) }, |dir| {
        fs::set_permissions(dir.join("d/c"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::remove_file(dir.join("s")).unwrap();
        fs::create_dir(dir.join("s")).unwrap();
    });
    run.play(&task(3, &[0, 1, 2]), |_| {});
    run
}

fn snapshot(run: &Run, order: u32) -> String {
    run.target().replace(":done", &format!(":{}", StepConfig::tag("run", order, "ws")))
}

#[test]
fn a_run_by_its_target() {
    let run = played();
    let report = json(&[&run.target()]);
    assert_eq!((&report["kind"], &report["run"], &report["workspace"]), (&"run".into(), &"run".into(), &"ws".into()));
    let tasks = report["tasks"].as_array().unwrap();
    let numbers = |task: usize, what: &str| (tasks[task][what]["files"].as_u64(), tasks[task][what]["bytes"].as_u64());
    let some = |files, bytes| (Some(files), Some(bytes));
    for (task, after, added, changed, deleted, attributes) in [
        (0, vec![], some(6, 20), some(0, 0), some(0, 0), 0),
        (1, vec!["t0"], some(1, 1), some(1, 18), some(1, 5), 0),
        (2, vec!["t0"], some(0, 0), some(0, 0), some(1, 0), 1),
        (3, vec!["t1", "t2"], some(0, 0), some(0, 0), some(0, 0), 0),
    ] {
        assert_eq!(tasks[task]["task"], format!("t{task}"));
        assert_eq!(tasks[task]["after"], serde_json::json!(after), "{task}");
        assert_eq!(
            [numbers(task, "added"), numbers(task, "changed"), numbers(task, "deleted")],
            [added, changed, deleted],
            "{task}"
        );
        assert_eq!(tasks[task]["attributes"], attributes, "{task}");
    }
    assert_eq!(tasks[1]["directoriesAdded"], 1);
    assert_eq!(tasks[1]["directoriesDeleted"], 1);
    assert_eq!(tasks[3]["layers"], 0);
    assert_eq!(
        (&report["total"]["files"], &report["total"]["bytes"], &report["total"]["directories"]),
        (&5.into(), &29.into(), &3.into())
    );
    assert_eq!(report.get("note"), None);
}

#[test]
fn the_tree_of_a_target_is_what_a_restore_makes() {
    let run = played();
    let tree = shown(&[&run.target(), "--tree"]).unwrap();
    let meta = std::os::unix::fs::MetadataExt::uid(&fs::metadata(run.folder.path()).unwrap());
    let tree = tree.replace(&format!(" {meta}/{} ", rustix::process::getegid().as_raw()), " me ");
    let expected = "\
        -rw-r--r-- me          5 a\n\
        -rw-r--r-- me         18 b\n\
        drwxr-xr-x me          0 d/\n\
        -rwxr-xr-x me          5 d/c\n\
        drwxr-xr-x me          0 new/\n\
        -rw-r--r-- me          1 \"new/line\\nbreak\"\n\
        drwxr-xr-x me          0 s/\n\
        -rw-r--r-- me          5 z link to a\n";
    let (root, rest) = tree.split_once('\n').unwrap();
    assert!(root.ends_with(" ./"), "{root}");
    assert_eq!(rest, expected);
    let listed = json(&[&run.target(), "--tree"]);
    let [ours, _] = run.ends();
    let seen: Vec<_> = crate::workspace::tests::paths_of(&ours);
    let paths: Vec<_> = listed["entries"].as_array().unwrap().iter().map(|e| e["path"].as_str().unwrap()).collect();
    assert_eq!(paths, seen);
    assert_eq!(listed["entries"][1]["mtime"], "2001-09-09T01:46:45.000000000Z");
}

#[test]
fn what_differs() {
    let run = played();
    let (first, last) = (snapshot(&run, 0), run.target());
    let expected = "\
        M b  5 B -> 18 B\n\
        m d/c  mode 0644 -> 0755\n\
        D d/e/\n\
        D d/e/f  -5 B\n\
        A new/\n\
        A \"new/line\\nbreak\"  +1 B\n\
        T s/  symlink -> directory\n\
        1 file (1 B) added, 1 file (18 B) changed, 2 files (5 B) deleted, 1 with other attributes only\n";
    assert_eq!(shown(&["--diff", &first, &last]).unwrap(), expected);
    let back = shown(&["--diff", &last, &first]).unwrap();
    assert!(back.starts_with("M b  18 B -> 5 B\n") && back.contains("A d/e/f  +5 B\n"), "{back}");
    let differs = json(&["--diff", &first, &last]);
    let letters: Vec<_> =
        differs["changes"].as_array().unwrap().iter().map(|c| c["change"].as_str().unwrap()).collect();
    assert_eq!(letters.concat(), "MmDDAAT");
    assert_eq!(differs["changes"][0]["after"]["size"], 18);
    assert_eq!(differs["summary"]["added"]["files"], 1);
    let same = shown(&["--diff", &last, &snapshot(&run, 3)]).unwrap();
    assert_eq!(same.lines().count(), 1, "{same}");
}

#[test]
fn no_layer_is_read() {
    let run = played();
    let [tree, report] = [shown(&[&run.target(), "--tree"]).unwrap(), shown(&[&run.target()]).unwrap()];
    // What is not a table of contents is gone: reading it would fail.
    for layer in (0..4).flat_map(|order| run.layers(order)) {
        let path = run.folder.path().join("store/blobs/sha256").join(layer.digest.hex());
        let mut bytes = fs::read(&path).unwrap();
        bytes[..layer.info().unwrap().toc_offset as usize].fill(0xff);
        fs::write(path, bytes).unwrap();
    }
    assert_eq!(tree, shown(&[&run.target(), "--tree"]).unwrap());
    assert_eq!(report, shown(&[&run.target()]).unwrap());
    assert_eq!(shown(&["--diff", &run.target(), &run.target()]).unwrap().lines().count(), 1);
}

#[test]
fn a_base_that_is_itself_the_target_of_a_run_is_listed() {
    let first = played();
    let mut run = Run::new();
    run.base = Some(first.target());
    run.play(&task(0, &[]), |dir| {
        fs::remove_file(dir.join("a")).unwrap();
        write(dir, "b", "again");
    });
    let report = json(&[&run.target()]);
    assert_eq!((report.get("note"), &report["base"]["image"]), (None, &first.target().into()));
    assert_eq!(report["tasks"][0]["deleted"], serde_json::json!({"files": 1, "bytes": 5}));
    assert_eq!(report["tasks"][0]["changed"], serde_json::json!({"files": 1, "bytes": 5}));
    assert_eq!(report["total"]["files"], 4);
}

#[test]
fn conflicts_are_told() {
    let mut run = Run::new();
    run.conflict = OnConflict::Last;
    run.play(&Task { parallel: vec![(1, 1)], ..task(0, &[]) }, |dir| write(dir, "a", "one"));
    run.play(&Task { parallel: vec![(0, 0)], ..task(1, &[]) }, |dir| write(dir, "a", "other"));
    let text = shown(&[&run.target()]).unwrap();
    assert!(text.contains("parallel tasks left 1 path differently"), "{text}");
}

#[test]
fn an_image_of_someone_else() {
    let run = Run::new();
    let image = format!("dir://{}:other", run.folder.path().join("store").display());
    crate::workspace::tests::put_foreign(&*run.store(), "other");
    let text = shown(&[&image]).unwrap();
    assert!(text.contains("1 layer") && text.contains("note: other programs made its layers"), "{text}");
    for args in [&[&*image, "--tree"][..], &["--diff", &image, &image]] {
        let error = shown(args).unwrap_err();
        assert!(error.contains("its files can't be listed") && error.contains("tekton-wrap restore"), "{error}");
    }
}

#[test]
fn what_is_asked_wrongly() {
    let run = Run::new();
    let absent = run.target();
    for (args, says) in [
        (&[&*absent][..], "there is no such image"),
        (&["dir://x"], "absolute path"),
        (&["quay.io/Me/x"], "lower-case"),
        (&[], "required arguments were not provided"),
        (&["--diff", "a"], "2 values required"),
        (&["x", "--diff", "a", "b"], "cannot be used with"),
        (&["a", "b"], "unexpected argument"),
    ] {
        let error = shown(args).unwrap_err();
        assert!(error.contains(says), "{args:?}: {error}");
    }
}
