//! Tasks that restore a part of a workspace. Random runs with such tasks are in `tests/model`.

use std::{
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, SystemTime},
};

use super::*;

fn part(task: Task, paths: &[&str]) -> Task {
    Task { paths: paths.iter().map(|path| (*path).to_owned()).collect(), ..task }
}

/// The tree that all of these start with.
fn first(dir: &Path) {
    for path in ["Cargo.toml", "docs/a.md", "docs/deep/b.md", "src/main.rs", "src/vendor/x.rs", "src/vendor/y.rs"] {
        put_file(dir, path, path);
    }
    fs::create_dir_all(dir.join("src/empty")).unwrap();
    fs::set_permissions(dir.join("docs"), fs::Permissions::from_mode(0o750)).unwrap();
    fs::set_permissions(dir.join("src"), fs::Permissions::from_mode(0o700)).unwrap();
}

const LINT: [&str; 3] = ["src/**", "*.toml", "!src/vendor/**"];

#[test]
fn only_what_the_patterns_match_is_restored_and_nothing_else_is_deleted() {
    let run = Run::new();
    let whole = seen::see(&run.play(&task(0, &[]), first));
    let lint = part(task(1, &[0]), &LINT);
    let dir = run.play(&lint, |dir| {
        // A pattern with everything in a folder means the folder too, where another one takes out only what is in it.
        assert_eq!(paths_of(dir), ["", "Cargo.toml", "src", "src/empty", "src/main.rs", "src/vendor"]);
        assert_eq!(fs::metadata(dir.join("src")).unwrap().mode() & 0o777, 0o700);
    });
    assert_eq!(run.layers(1), []);
    assert!(!dir.join("docs").exists());
    assert_eq!(whole, seen::see(&run.restore(&task(2, &[1])).unwrap()));
    for end in run.ends() {
        assert_eq!(whole, seen::see(&end));
    }
}

#[test]
fn what_is_deleted_is_what_was_there() {
    let run = Run::new();
    run.play(&task(0, &[]), first);
    run.play(&part(task(1, &[0]), &["src/main.rs", "docs/deep/"]), |dir| {
        assert_eq!(paths_of(dir), ["", "docs", "docs/deep", "docs/deep/b.md", "src", "src/main.rs"]);
        ["src", "docs"].iter().for_each(|path| fs::remove_dir_all(dir.join(path)).unwrap());
    });
    let left =
        ["", "Cargo.toml", "docs", "docs/a.md", "src", "src/empty", "src/vendor", "src/vendor/x.rs", "src/vendor/y.rs"];
    assert_eq!(paths_of(&run.restore(&task(2, &[1])).unwrap()), left);
    for end in run.ends() {
        assert_eq!(paths_of(&end), left);
    }
}

#[test]
fn a_write_elsewhere_merges_like_any_other() {
    let run = Run::new();
    run.play(&task(0, &[]), first);
    let lint = Task { parallel: vec![(2, 2)], joined: vec![(2, 2)], ..part(task(1, &[0]), &LINT) };
    run.play(&lint, |dir| {
        put_file(dir, "docs/lint.md", "new");
        put_file(dir, "docs/deep/b.md", "overwritten");
        let old = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
        File::open(dir.join("docs")).unwrap().set_modified(old).unwrap();
    });
    // Only what was written, in folders that keep the attributes which the task never saw.
    let tables = run.layers(1).iter().map(|layer| read_toc(&*run.store(), layer).unwrap()).collect::<Vec<_>>();
    let entries: Vec<_> = tables.iter().flat_map(|table| table.iter().map(Result::unwrap)).collect();
    let listed: Vec<String> = entries.iter().map(|entry| entry.path.to_string()).collect();
    assert_eq!(listed, [".", "docs", "docs/deep", "docs/deep/b.md", "docs/lint.md"]);
    assert_eq!((entries[1].mode, entries[1].mtime.sec, entries[1].is_touched()), (0o750, 7, true));
    let parallel = Task { parallel: vec![(1, 1)], joined: vec![(1, 1)], ..task(2, &[0]) };
    run.play(&parallel, |dir| put_file(dir, "docs/a.md", "by the other"));
    let joined = run.restore(&task(3, &[1, 2])).unwrap();
    for (path, content) in [("docs/lint.md", "new"), ("docs/deep/b.md", "overwritten"), ("docs/a.md", "by the other")] {
        assert_eq!(fs::read_to_string(joined.join(path)).unwrap(), content);
    }
    assert_eq!(fs::metadata(joined.join("docs")).unwrap().mode() & 0o777, 0o750);
    let joined = seen::see(&joined);
    for end in run.ends() {
        assert_eq!(joined, seen::see(&end));
    }
    // What both change is a conflict, seen or not.
    let other = Task { parallel: vec![(5, 5)], joined: vec![(5, 5)], ..part(task(4, &[1, 2]), &LINT) };
    run.play(&other, |dir| put_file(dir, "docs/a.md", "one"));
    let another = Task { parallel: vec![(4, 4)], joined: vec![(4, 4)], ..task(5, &[1, 2]) };
    run.play(&another, |dir| put_file(dir, "docs/a.md", "two"));
    let error = run.restore(&part(task(6, &[4, 5]), &LINT)).unwrap_err().to_string();
    assert!(error.contains("docs/a.md (task \"t4\" changed it, task \"t5\" changed it)"), "{error}");
}

#[test]
fn what_takes_the_place_of_a_folder_replaces_it() {
    let run = Run::new();
    run.play(&task(0, &[]), first);
    run.play(&part(task(1, &[0]), &["src/**"]), |dir| {
        fs::write(dir.join("docs"), "a file now").unwrap();
        fs::create_dir_all(dir.join("Cargo.toml/sub")).unwrap();
    });
    let last = run.restore(&task(2, &[1])).unwrap();
    assert_eq!(fs::read_to_string(last.join("docs")).unwrap(), "a file now");
    assert!(last.join("Cargo.toml/sub").is_dir());
    let last = seen::see(&last);
    for end in run.ends() {
        assert_eq!(last, seen::see(&end));
    }
}

#[test]
fn of_hard_links_those_that_match_are_restored() {
    let run = Run::new();
    let left = run.play(&task(0, &[]), |dir| {
        put_file(dir, "a/file", "linked");
        fs::create_dir(dir.join("b")).unwrap();
        ["b/one", "b/two"].iter().for_each(|path| fs::hard_link(dir.join("a/file"), dir.join(path)).unwrap());
    });
    let dir = run.play(&part(task(1, &[0]), &["b/**"]), |_| {});
    assert_eq!(paths_of(&dir), ["", "b", "b/one", "b/two"]);
    let [one, two] = ["b/one", "b/two"].map(|path| fs::metadata(dir.join(path)).unwrap());
    assert_eq!((one.ino(), one.nlink(), one.len()), (two.ino(), 2, 6));
    assert_eq!(run.layers(1), []);
    assert_eq!(seen::see(&left), seen::see(&run.restore(&task(2, &[1])).unwrap()));
}

#[test]
fn a_base_is_restored_in_part_too() {
    let maker = Run::new();
    let whole = maker.play(&task(0, &[]), first);
    let mut run = Run::new();
    run.base = Some(maker.target());
    let dir = run.play(&part(task(0, &[]), &["docs/deep/**"]), |dir| {
        assert_eq!(paths_of(dir), ["", "docs", "docs/deep", "docs/deep/b.md"]);
        put_file(dir, "docs/deep/c.md", "new");
    });
    put_file(&whole, "docs/deep/c.md", "new");
    assert!(!dir.join("src").exists());
    assert_eq!(paths_of(&whole), paths_of(&run.restore(&task(1, &[0])).unwrap()));
}

#[test]
fn a_base_that_does_not_list_its_root_is_restored_in_part_too() {
    let mut run = Run::new();
    put_foreign(&*run.store(), "foreign");
    run.base = Some(run.target().replace(":done", ":foreign"));
    for (order, paths, expected) in [(0, "g", &[""][..]), (1, "f", &["", "f"])] {
        let dir = run.restore(&part(task(order, &[]), &[paths])).unwrap();
        assert_eq!(paths_of(&dir), expected, "{paths}");
    }
}

#[test]
fn the_log_says_what_is_left_out() {
    let run = Run::new();
    run.play(&task(0, &[]), first);
    let (store, lint) = (run.store(), part(task(1, &[0]), &LINT));
    let step = run.step(&lint);
    let input = load::input(&*store, &step, &step.workspaces[0]).unwrap();
    let options = RestoreOptions {
        selection: Selection::new(&lint.paths).unwrap(),
        ..RestoreOptions::whole(ConflictPolicy::last(), None)
    };
    let dir = run.dir(1);
    fs::create_dir(&dir).unwrap();
    let progress = Progress::new(Action::Restore, "ws");
    let restored = restore::restore(&*store, &input, &dir, &options, None, &progress).unwrap();
    let LeftOut { files, bytes, listed, unlisted } = restored.left_out;
    assert_eq!((restored.files, files, bytes, unlisted), (2, 4, 9 + 14 + 15 + 15, 0));
    assert_eq!(listed, ["docs/", "src/vendor/x.rs", "src/vendor/y.rs"]);
}
