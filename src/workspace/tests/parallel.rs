//! Parallel tasks, joins, skipped tasks and the image at the end, on real directories.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::Path};

use super::{ConflictRule, Descriptor, Error, Keep, OnConflict, Run, Task, put_file, seen, task};
use crate::digest::Digest;

type Contents = BTreeMap<String, String>;

/// The files of a tree as text, directories with a slash.
fn files(root: &Path) -> Contents {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let contents = seen::contents(root).into_iter().filter(|(path, _)| !path.as_os_str().is_empty());
    contents
        .map(|(path, (kind, content))| match kind {
            "dir" => (format!("{}/", path.display()), String::new()),
            _ => (path.display().to_string(), text(content)),
        })
        .collect()
}

fn expected(files: &[(&str, &str)]) -> Contents {
    files.iter().map(|(path, content)| (path.to_string(), content.to_string())).collect()
}

/// A first task, two parallel ones, and what the join of both is to be.
fn fork(run: &Run, first: impl Fn(&Path), left: impl Fn(&Path), right: impl Fn(&Path)) -> Task {
    run.play(&task(0, &[]), first);
    run.play(&Task { parallel: vec![(2, 2)], joined: vec![(2, 2)], ..task(1, &[0]) }, left);
    run.play(&Task { parallel: vec![(1, 1)], joined: vec![(1, 1)], ..task(2, &[0]) }, right);
    task(3, &[1, 2])
}

#[test]
fn a_join_has_what_both_changed() {
    let run = Run::new();
    let join = fork(
        &run,
        |dir| ["kept", "left", "right", "gone", "d/x", "d/y"].iter().for_each(|path| put_file(dir, path, "first")),
        |dir| {
            put_file(dir, "left", "left");
            put_file(dir, "new/left", "");
            fs::remove_file(dir.join("gone")).unwrap();
            fs::remove_file(dir.join("d/x")).unwrap();
        },
        |dir| {
            put_file(dir, "right", "right");
            put_file(dir, "new/right", "");
            fs::remove_file(dir.join("gone")).unwrap();
            fs::remove_file(dir.join("d/y")).unwrap();
        },
    );
    let wanted = expected(&[
        ("d/", ""),
        ("kept", "first"),
        ("left", "left"),
        ("new/", ""),
        ("new/left", ""),
        ("new/right", ""),
        ("right", "right"),
    ]);
    let joined = run.restore(&join).unwrap();
    assert_eq!(files(&joined), wanted);
    let joined = seen::see(&joined);
    run.save(&join).unwrap();
    assert_eq!(run.layers(3), []);
    for end in run.ends() {
        assert_eq!(joined, seen::see(&end));
    }
}

#[test]
fn a_conflict_names_paths_and_tasks_and_nothing_is_restored() {
    let run = Run::new();
    let join = fork(
        &run,
        |dir| (0..30).for_each(|i| put_file(dir, &format!("f{i:02}"), "first")),
        |dir| (0..30).for_each(|i| put_file(dir, &format!("f{i:02}"), "left")),
        |dir| (0..25).for_each(|i| fs::remove_file(dir.join(format!("f{i:02}"))).unwrap()),
    );
    let error = run.restore(&join).unwrap_err();
    assert!(matches!(&error, Error::Conflict { conflicts, .. } if conflicts.count == 25));
    let error = error.to_string();
    assert!(error.contains("f00 (task \"t1\" changed it, task \"t2\" deleted it), f01 "), "{error}");
    assert!(error.contains("f19 ") && !error.contains("f20 ") && error.contains(" and 5 more;"), "{error}");
    assert_eq!(files(&run.dir(3)), Contents::new());
}

#[test]
fn the_later_task_wins_if_that_is_wanted() {
    let mut run = Run::new();
    run.conflict = OnConflict::Last;
    let join = fork(
        &run,
        |dir| ["a", "d/x", "d/y", "e"].iter().for_each(|path| put_file(dir, path, "first")),
        |dir| {
            put_file(dir, "a", "left");
            fs::remove_dir_all(dir.join("d")).unwrap();
            put_file(dir, "e", "left");
        },
        |dir| {
            put_file(dir, "a", "right");
            put_file(dir, "d/x", "right");
            fs::remove_file(dir.join("e")).unwrap();
        },
    );
    let wanted = expected(&[("a", "right"), ("d/", ""), ("d/x", "right")]);
    assert_eq!(files(&run.restore(&join).unwrap()), wanted);
    run.save(&join).unwrap();
    for end in run.ends() {
        assert_eq!(files(&end), wanted);
    }
}

#[test]
fn rules_by_path_settle_conflicts_and_the_rest_fails() {
    let rule = |paths: &str, then| ConflictRule { paths: paths.to_owned(), then };
    let tree = |left: &'static str| {
        move |dir: &Path| [".git/index", "x.log", "out/y.log", "z"].iter().for_each(|path| put_file(dir, path, left))
    };
    for (rules, rest, failing) in [
        // git's index is settled without a rule.
        (vec![], OnConflict::Fail, &["out/y.log", "x.log", "z"][..]),
        (vec![rule("*.log", OnConflict::Last)], OnConflict::Fail, &["z"]),
        (vec![rule("/x.log", OnConflict::Fail), rule("*.log", OnConflict::Last)], OnConflict::Fail, &["x.log", "z"]),
        (vec![rule("**/.git/index", OnConflict::Fail)], OnConflict::Last, &[".git/index"]),
        (vec![rule("out/", OnConflict::Fail)], OnConflict::Last, &["out/y.log"]),
        (vec![rule("*.log", OnConflict::Last), rule("**", OnConflict::Last)], OnConflict::Fail, &[]),
    ] {
        let mut run = Run::new();
        (run.conflict_rules, run.conflict) = (rules, rest);
        let join = fork(&run, |_| (), tree("left"), tree("right"));
        match run.restore(&join) {
            Ok(dir) => {
                assert_eq!(failing, &[] as &[&str]);
                assert!(files(&dir).values().all(|content| content != "left"));
            }
            Err(Error::Conflict { conflicts, .. }) => {
                let paths: Vec<String> = conflicts.listed.iter().map(|conflict| conflict.path.to_string()).collect();
                assert_eq!(paths, failing, "{:?}", run.conflict_rules);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn the_same_result_twice_is_no_conflict() {
    let run = Run::new();
    let both = |dir: &Path| {
        put_file(dir, "out/generated", "same");
        fs::remove_file(dir.join("old")).unwrap();
    };
    let join = fork(&run, |dir| put_file(dir, "old", ""), both, both);
    assert_eq!(files(&run.restore(&join).unwrap()), expected(&[("out/", ""), ("out/generated", "same")]));
}

#[test]
fn a_deleted_directory_stays_deleted_in_the_image() {
    // The right task only touched what the left one deleted: stacked, its header would bring it back.
    for now in [&[][..], &["d"], &["d", "a name before it"], &["d", "e", "k/behind it"]] {
        let run = Run::new();
        let join = fork(
            &run,
            |dir| ["d/x", "d/y", "k/x"].iter().for_each(|path| put_file(dir, path, "first")),
            |dir| {
                fs::remove_dir_all(dir.join("d")).unwrap();
                if let Some((file, further)) = now.split_first() {
                    put_file(dir, file, "a file now");
                    further.iter().for_each(|name| fs::hard_link(dir.join(file), dir.join(name)).unwrap());
                }
            },
            |dir| fs::remove_file(dir.join("d/x")).unwrap(),
        );
        let joined = run.restore(&join).unwrap();
        assert_eq!(joined.join("d").exists(), !now.is_empty());
        let joined = seen::see(&joined);
        for end in run.ends() {
            assert_eq!(joined, seen::see(&end), "{now:?}");
        }
    }
}

#[test]
fn a_name_outlives_the_file_that_it_was_linked_to() {
    let run = Run::new();
    let links = |dir: &Path| {
        put_file(dir, "a", "linked");
        ["b", "c"].iter().for_each(|name| fs::hard_link(dir.join("a"), dir.join(name)).unwrap());
        // Not every file system has them.
        let _ = rustix::fs::lsetxattr(dir.join("a"), "user.a", b"kept", rustix::fs::XattrFlags::empty());
    };
    let join = fork(
        &run,
        links,
        |dir| fs::remove_file(dir.join("a")).unwrap(),
        |dir| {
            put_file(dir, "other", "right");
        },
    );
    let joined = run.restore(&join).unwrap();
    assert_eq!(files(&joined), expected(&[("b", "linked"), ("c", "linked"), ("other", "right")]));
    let joined = seen::see(&joined);
    assert_eq!(joined[Path::new("b")].names.len(), 2);
    for end in run.ends() {
        assert_eq!(joined, seen::see(&end));
    }
}

#[test]
fn a_skipped_task_is_passed_over_and_a_missing_one_is_an_error() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| put_file(dir, "a", ""));
    let after_skipped = Task { optional: vec![1], ..task(2, &[0]) };
    assert_eq!(files(&run.restore(&after_skipped).unwrap()), expected(&[("a", "")]));
    let error = run.restore(&task(3, &[1])).unwrap_err().to_string();
    assert!(error.contains("task \"t1\" left no snapshot of workspace \"ws\" at dir://"), "{error}");
}

#[test]
fn another_run_is_not_seen() {
    let mut run = Run::new();
    run.play(&task(0, &[]), |dir| put_file(dir, "a", ""));
    // Under a tag of this run, but of another one.
    let store = run.store();
    let foreign = store.manifest("run.0.ws").unwrap().unwrap();
    store.put_manifest("next.0.ws", &foreign.media_type, &foreign.bytes).unwrap();
    run.uid = "next";
    let error = run.restore(&task(1, &[0])).unwrap_err().to_string();
    assert!(error.contains("task \"t0\" of the run run, not of this run next"), "{error}");
}

#[test]
fn the_image_at_the_end_has_what_every_last_task_left() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| put_file(dir, "first", ""));
    // Both restore before either saves; neither knows of the other, and no one joins them.
    let last = [Task { parallel: vec![(2, 2)], ..task(1, &[0]) }, Task { parallel: vec![(1, 1)], ..task(2, &[0]) }];
    for task in &last {
        let dir = run.restore(task).unwrap();
        put_file(&dir, &format!("last{}", task.order), "");
    }
    last.iter().for_each(|task| run.save(task).unwrap());
    for end in run.ends() {
        assert_eq!(files(&end), expected(&[("first", ""), ("last1", ""), ("last2", "")]));
    }
}

#[test]
fn a_conflict_of_last_tasks_fails_the_later_save_unless_a_join_will_report_it() {
    for joined in [false, true] {
        let run = Run::new();
        let parallel = |order: u32, other: u32| Task {
            parallel: vec![(other, other)],
            joined: if joined { vec![(other, other)] } else { vec![] },
            ..task(order, &[0])
        };
        run.play(&task(0, &[]), |_| {});
        run.play(&parallel(1, 2), |dir| put_file(dir, "a", "left"));
        let right = parallel(2, 1);
        put_file(&run.restore(&right).unwrap(), "a", "right");
        let saved = run.save(&right);
        assert_eq!(saved.is_ok(), joined, "{saved:?}");
        let step = run.step(&right);
        let snapshot = super::load::snapshot(&*run.store(), &step, &step.workspaces[0], 2).unwrap();
        assert_eq!(snapshot.is_some(), joined, "a task that fails leaves no snapshot");
        let [end, _] = run.ends();
        assert_eq!(files(&end), expected(&[("a", "left")]));
    }
}

#[test]
fn a_save_that_fails_leaves_no_snapshot_of_any_workspace() {
    let run = Run::new();
    let first = task(0, &[]);
    put_file(&run.dir(0), "a", "");
    let mut step = run.step(&first);
    let mut other = step.workspaces[0].clone();
    "other".clone_into(&mut other.name);
    // Layers can be stored there, but no manifest.
    put_file(&run.dir(1), "index.json/in-the-way", "");
    other.target = format!("dir://{}:done", run.dir(1).display());
    step.workspaces.push(other);
    super::save_task(step.clone(), &run.state(&first)).unwrap_err();
    let left = super::load::snapshot(&*run.store(), &step, &step.workspaces[0], 0).unwrap();
    assert!(left.is_none_or(|left| left.writers.iter().all(|writer| writer.layers.is_empty())));
}

#[test]
fn a_base_image_is_the_beginning_and_part_of_the_end() {
    let maker = Run::new();
    maker
        .play(&task(0, &[]), |dir| ["keep", "drop", "d/x", "d/y", "e/z"].iter().for_each(|p| put_file(dir, p, "base")));
    let mut run = Run::new();
    run.base = Some(maker.target());
    let dir = run.play(&task(0, &[]), |dir| {
        assert_eq!(files(dir).len(), 7);
        fs::remove_file(dir.join("drop")).unwrap();
        fs::remove_dir_all(dir.join("d")).unwrap();
        put_file(dir, "d/new", "first");
    });
    let left = seen::see(&dir);
    let next = run.play(&task(1, &[0]), |_| {});
    assert_eq!(left, seen::see(&next));
    assert_eq!(run.layers(1), []);
    for end in run.ends() {
        assert_eq!(left, seen::see(&end));
    }
}

/// A directory in which one of them made a file keeps the mode that the other one gave it, whichever comes first in order.
#[test]
fn a_mode_is_not_lost_to_a_file_in_the_directory() {
    for chmod in [1, 2] {
        let run = Run::new();
        run.play(&task(0, &[]), |dir| put_file(dir, "d/a", ""));
        for order in [1, 2] {
            let parallel = vec![(3 - order, 3 - order)];
            run.play(&Task { parallel, ..task(order, &[0]) }, |dir| match order == chmod {
                true => fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o700)).unwrap(),
                false => put_file(dir, "d/b", ""),
            });
        }
        let joined = run.play(&task(4, &[1, 2]), |_| {});
        let mode = |dir: &Path| fs::metadata(dir.join("d")).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode(&joined), joined.join("d/b").exists()), (0o700, true), "{chmod}");
        assert!(run.ends().iter().all(|end| mode(end) == 0o700 && end.join("d/b").exists()), "{chmod}");
    }
}

/// Also if another one deleted it: it is there again for the file.
#[test]
fn a_directory_that_is_brought_back_has_the_mode_that_a_task_gave_it() {
    let mut run = Run::new();
    run.conflict = OnConflict::Last;
    run.play(&task(0, &[]), |dir| put_file(dir, "d/a", ""));
    for order in [1, 2, 3] {
        run.play(&Task { parallel: vec![(1, 3)], joined: vec![(1, 3)], ..task(order, &[0]) }, |dir| match order {
            1 => fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o700)).unwrap(),
            2 => fs::remove_dir_all(dir.join("d")).unwrap(),
            _ => put_file(dir, "d/b", ""),
        });
    }
    let joined = run.play(&task(4, &[1, 2, 3]), |_| {});
    for dir in run.ends().into_iter().chain([joined]) {
        assert_eq!(files(&dir), expected(&[("d/", ""), ("d/b", "")]));
        assert_eq!(fs::metadata(dir.join("d")).unwrap().permissions().mode() & 0o7777, 0o700);
    }
}

/// An image holds them under other names, which are theirs again wherever it is the base.
#[test]
fn names_like_whiteouts_in_a_base() {
    let maker = Run::new();
    let left = maker
        .play(&task(0, &[]), |dir| ["a", ".wh.a", "d/.wh..wh..opq", "d/b"].iter().for_each(|p| put_file(dir, p, p)));
    let mut run = Run::new();
    run.base = Some(maker.target());
    let found = run.play(&task(0, &[]), |_| {});
    assert_eq!(super::paths_of(&found), super::paths_of(&left));
}

#[test]
fn by_hand_only_what_changed_is_stored_on_top() {
    let folder = tempfile::tempdir().unwrap();
    let place = |tag: &str| format!("dir://{}:{tag}", folder.path().join("store").display());
    let (one, two, three) = (folder.path().join("1"), folder.path().join("2"), folder.path().join("3"));
    let baseline = folder.path().join("baseline");
    ["a", "b", "d/c"].iter().for_each(|path| put_file(&one, path, "one"));
    super::save_dir(&one, &place("one"), None).unwrap();
    super::restore_image(&place("one"), &two, Some(&baseline)).unwrap();
    put_file(&two, "a", "two");
    fs::remove_file(two.join("b")).unwrap();
    // Another store gets the layers of the first one as well.
    let other = format!("dir://{}:two", folder.path().join("other").display());
    super::save_dir(&two, &other, Some(&baseline)).unwrap();
    fs::remove_dir_all(folder.path().join("store")).unwrap();
    super::restore_image(&other, &three, None).unwrap();
    assert_eq!(seen::see(&two), seen::see(&three));
    let store = super::store::open(&other.parse::<super::Target>().unwrap()).unwrap();
    let image = super::load::image(&*store, "two", "two").unwrap().unwrap();
    assert_eq!(image.manifest.layers.len(), 2);
    let error = super::restore_image(&place("none"), &three, None).unwrap_err().to_string();
    assert!(error.ends_with(":none: there is no such image"), "{error}");
}

#[test]
fn images_say_how_long_they_are_kept() {
    for (keep, target_expires) in [(Keep::Target, None), (Keep::Target, Some("30d".to_owned())), (Keep::All, None)] {
        let mut run = Run::new();
        (run.keep, run.target_expires) = (keep, target_expires.clone());
        run.play(&task(0, &[]), |_| {});
        for (tag, expires) in [("done", target_expires.as_deref()), ("run.0.ws", Some("1d"))] {
            let image = super::load::image(&*run.store(), tag, tag).unwrap().unwrap();
            let mut config = Vec::new();
            let blob = image.manifest.config.blob();
            std::io::copy(&mut run.store().blob(&blob).unwrap(), &mut config).unwrap();
            let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
            let label = config["config"]["Labels"]["quay.expires-after"].as_str();
            let annotation = |name: &str| image.manifest.annotations.get(name).map(String::as_str);
            assert_eq!(label, expires, "{keep:?} {tag}");
            assert_eq!(annotation("quay.expires-after"), expires, "{keep:?} {tag}");
            assert_eq!(annotation("dev.tekton-wrap.task"), Some("t0"));
            let keeps = (keep == Keep::All && tag == "run.0.ws").then_some("all");
            assert_eq!(annotation("dev.tekton-wrap.keep"), keeps, "{keep:?} {tag}");
        }
    }
}

#[test]
fn a_run_that_keeps_nothing_writes_no_target() {
    let mut run = Run::new();
    run.keep = Keep::None;
    run.play(&task(0, &[]), |dir| fs::write(dir.join("a"), "good").unwrap());
    assert_eq!(run.store().tags().unwrap(), ["run.0.ws"]);
}

#[test]
fn a_save_on_top_of_a_snapshot_that_was_replaced_is_refused() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| fs::write(dir.join("a"), "good").unwrap());
    let next = task(1, &[0]);
    let dir = run.restore(&next).unwrap();
    fs::write(dir.join("b"), "more").unwrap();
    // Someone who may push to the repository replaces what this task started from.
    let store = run.store();
    let other = store.manifest("done").unwrap().unwrap();
    store.put_manifest("run.0.ws", &other.media_type, &other.bytes).unwrap();
    let error = run.save(&next).unwrap_err().to_string();
    assert!(error.starts_with("the snapshot of task \"t0\" changed"), "{error}");
    assert!(error.contains(":run.0.ws was sha256:"), "{error}");
    assert!(error.contains(&format!("is {}", other.digest)), "{error}");
    assert!(store.manifest("run.1.ws").unwrap().is_none(), "nothing is published");
}

#[test]
fn the_image_at_the_end_names_all_snapshots_also_those_whose_layers_are_left_out() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| put_file(dir, "d/0", "0"));
    for order in 1..70 {
        let content = Digest::of(&[order as u8]).to_string();
        run.play(&task(order, &[order - 1]), |dir| match order {
            // The smallest layers of all: without a file, so that this program restores the others one by one.
            1..=8 => fs::set_permissions(dir.join("d"), fs::Permissions::from_mode(0o700 + order)).unwrap(),
            69 => put_file(dir, "d/69", &content),
            _ => put_file(dir, &order.to_string(), &content),
        });
    }
    let image = super::load::image(&*run.store(), "done", "done").unwrap().unwrap();
    assert!(image.manifest.layers.len() <= 64);
    let left_out: Vec<Descriptor> = (1..=8).flat_map(|order| run.layers(order)).collect();
    assert!(image.manifest.layers.iter().all(|layer| left_out.iter().all(|left_out| layer.digest != left_out.digest)));
    assert!(image.manifest.layers.iter().all(Descriptor::has_toc));
    let lineage = image.config.lineage.unwrap();
    assert_eq!(lineage.writers.len(), 70);
    assert!(lineage.writers.iter().all(|writer| writer.manifest.is_some()));
    // What these alone say of the directory is there all the same, also where a later one has a file in it.
    let left = seen::see(&run.dir(69));
    for end in run.ends() {
        assert_eq!(left, seen::see(&end));
    }
}
