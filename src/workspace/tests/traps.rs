//! What goes wrong elsewhere: each of these was a bug in a tool that moves files through images.

use std::{
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    time::{Duration, SystemTime},
};

use super::{access::DirAccess, diff, save, walk::Walk, *};

/// A task that had these files, and the next one, which does `work`: what that one stores.
fn second(run: &Run, first: impl Fn(&Path), work: impl Fn(&Path)) -> Vec<Descriptor> {
    run.play(&task(0, &[]), first);
    let dir = run.play(&task(1, &[0]), work);
    let next = run.restore(&task(2, &[1])).unwrap();
    assert_eq!(seen::see(&dir), seen::see(&next));
    run.layers(1)
}

/// The paths in the layers.
fn paths(run: &Run, layers: &[Descriptor]) -> Vec<String> {
    let mut paths = Vec::new();
    for layer in layers {
        let toc = read_toc(&*run.store(), layer).unwrap();
        paths.extend(toc.iter().map(|entry| entry.unwrap().path.to_string()));
    }
    paths
}

#[test]
fn a_change_of_the_same_size_with_the_old_mtime_is_seen() {
    let run = Run::new();
    let layers = second(
        &run,
        |dir| fs::write(dir.join("a"), "one").unwrap(),
        |dir| {
            let mtime = fs::metadata(dir.join("a")).unwrap().modified().unwrap();
            let mut file = File::options().write(true).open(dir.join("a")).unwrap();
            file.write_all(b"two").unwrap();
            file.set_modified(mtime).unwrap();
        },
    );
    assert_eq!(paths(&run, &layers), [".", "a"]);
}

#[test]
fn what_is_renamed_and_renamed_back_or_chmodded_back_is_unchanged() {
    let run = Run::new();
    let old = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let layers = second(
        &run,
        |dir| {
            fs::create_dir(dir.join("d")).unwrap();
            fs::write(dir.join("d/a"), "one").unwrap();
        },
        |dir| {
            let (a, b) = (dir.join("d/a"), dir.join("d/b"));
            let mtime = fs::metadata(dir.join("d")).unwrap().modified().unwrap();
            fs::rename(&a, &b).unwrap();
            fs::rename(&b, &a).unwrap();
            File::open(dir.join("d")).unwrap().set_modified(mtime).unwrap();
            let (was, file) = (fs::metadata(&a).unwrap(), File::options().write(true).open(&a).unwrap());
            fs::set_permissions(&a, fs::Permissions::from_mode(0o600)).unwrap();
            fs::set_permissions(&a, was.permissions()).unwrap();
            file.set_modified(old).unwrap();
            file.set_modified(was.modified().unwrap()).unwrap();
        },
    );
    assert_eq!(layers, []);
}

#[test]
fn all_names_of_a_changed_file_are_in_one_layer() {
    let run = Run::new();
    let layers = second(
        &run,
        |dir| {
            fs::write(dir.join("a"), "one").unwrap();
            ["b", "c"].iter().for_each(|name| fs::hard_link(dir.join("a"), dir.join(name)).unwrap());
        },
        |dir| fs::write(dir.join("c"), "two").unwrap(),
    );
    assert_eq!(paths(&run, &layers), [".", "a", "b", "c"]);
}

#[test]
fn a_file_that_loses_a_name_is_unchanged() {
    let run = Run::new();
    let layers = second(
        &run,
        |dir| {
            fs::write(dir.join("a"), "one").unwrap();
            ["b", "c"].iter().for_each(|name| fs::hard_link(dir.join("a"), dir.join(name)).unwrap());
            // Not every file system has them.
            let _ = rustix::fs::lsetxattr(dir.join("a"), "user.a", b"kept", rustix::fs::XattrFlags::empty());
        },
        |dir| fs::remove_file(dir.join("a")).unwrap(),
    );
    assert_eq!(paths(&run, &layers), [".", "a"]);
}

#[test]
fn a_copy_in_place_of_a_link_is_a_change() {
    let run = Run::new();
    let layers = second(
        &run,
        |dir| {
            fs::write(dir.join("a"), "one").unwrap();
            fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
        },
        |dir| {
            let mtime = fs::metadata(dir.join("a")).unwrap().modified().unwrap();
            fs::remove_file(dir.join("b")).unwrap();
            fs::write(dir.join("b"), "one").unwrap();
            File::options().write(true).open(dir.join("b")).unwrap().set_modified(mtime).unwrap();
        },
    );
    assert_eq!(paths(&run, &layers), [".", "b"]);
}

#[test]
fn a_deleted_directory_is_one_whiteout() {
    let run = Run::new();
    let layers = second(
        &run,
        |dir| {
            fs::create_dir_all(dir.join("d/e")).unwrap();
            ["d/a", "d/e/b"].iter().for_each(|path| fs::write(dir.join(path), "").unwrap());
        },
        |dir| fs::remove_dir_all(dir.join("d")).unwrap(),
    );
    assert_eq!(paths(&run, &layers), [".", "d"]);
}

#[test]
fn sockets_are_left_out() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| {
        drop(std::os::unix::net::UnixListener::bind(dir.join("socket")).unwrap());
        fs::write(dir.join("a"), "").unwrap();
    });
    assert_eq!(paths(&run, &run.layers(0)), [".", "a"]);
}

#[test]
fn a_device_is_kept_where_it_can_be_made() {
    let run = Run::new();
    let number = rustix::fs::makedev(1, 3);
    let make = |path: &Path| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::CharacterDevice, mode, number)
    };
    if let Err(e) = make(&run.folder.path().join("try")) {
        eprintln!("skipped: no device can be made here: {e}");
        return;
    }
    run.play(&task(0, &[]), |dir| make(&dir.join("null")).unwrap());
    let dir = run.restore(&task(1, &[0])).unwrap();
    assert_eq!(fs::metadata(dir.join("null")).unwrap().rdev(), number);
    assert_eq!(seen::see(&run.dir(0)), seen::see(&dir));
}

#[test]
fn a_working_directory_that_was_there_before_is_kept_and_is_nobodys_change() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| {
        fs::create_dir(dir.join("src")).unwrap();
        fs::write(dir.join("src/a"), "").unwrap();
    });
    let next = task(1, &[0]);
    for dir in ["src", "other/deep", "lost+found"] {
        fs::create_dir_all(run.dir(1).join(dir)).unwrap();
    }
    fs::write(run.dir(1).join("sidecar"), "").unwrap();
    fs::write(run.dir(1).join("lost+found/x"), "").unwrap();
    let inode = fs::metadata(run.dir(1).join("src")).unwrap().ino();
    let dir = run.restore(&next).unwrap();
    assert_eq!(fs::metadata(dir.join("src")).unwrap().ino(), inode);
    assert!(dir.join("src/a").exists());
    run.save(&next).unwrap();
    // A file that someone put there while the restore ran is the task's.
    assert_eq!(paths(&run, &run.layers(1)), [".", "sidecar"]);
}

#[test]
fn something_in_the_way_is_replaced() {
    let run = Run::new();
    let left = run.play(&task(0, &[]), |dir| {
        fs::create_dir(dir.join("d")).unwrap();
        ["d/a", "f", "g"].iter().for_each(|path| fs::write(dir.join(path), "ours").unwrap());
    });
    let outside = run.folder.path().join("outside");
    fs::write(&outside, "alive").unwrap();
    fs::create_dir_all(run.dir(1).join("f/deep")).unwrap();
    fs::write(run.dir(1).join("d"), "").unwrap();
    std::os::unix::fs::symlink(&outside, run.dir(1).join("g")).unwrap();
    let dir = run.restore(&task(1, &[0])).unwrap();
    assert_eq!(seen::see(&left), seen::see(&dir));
    assert_eq!(fs::read(outside).unwrap(), b"alive");
}

#[test]
fn paths_longer_than_any_system_call_takes() {
    let run = Run::new();
    let name = vec![b'n'; 200];
    let deep = (0..30).fold(path::TreePath::root(), |path, _| path.join(&name));
    let make = |dir: &Path| {
        let mut maker = extract::Extractor::new(dir).unwrap();
        let mut path = path::TreePath::root();
        for _ in 0..30 {
            path = path.join(&name);
            maker.make_dir(&path).unwrap();
        }
    };
    run.play(&task(0, &[]), make);
    let dir = run.restore(&task(1, &[0])).unwrap();
    let mut walk = Walk::new(&dir, DirAccess::temporary()).unwrap();
    let mut last = None;
    while let Some(found) = walk.next() {
        last = Some(found.unwrap().path);
    }
    assert_eq!(last, Some(deep));
    run.save(&task(1, &[0])).unwrap();
    assert_eq!(run.layers(1), []);
    // The standard library can't remove it by its whole path on every system.
    for order in [0, 1] {
        extract::Extractor::new(&run.dir(order)).unwrap().remove(&path::TreePath::root().join(&name)).unwrap();
    }
}

#[test]
fn a_path_that_is_too_long_to_be_stored_has_a_sentence_of_its_own() {
    let run = Run::new();
    let name = vec![b'n'; 250];
    let dir = run.dir(0);
    fs::create_dir_all(&dir).unwrap();
    let mut maker = extract::Extractor::new(&dir).unwrap();
    let mut path = path::TreePath::root();
    while path.as_bytes().len() <= path::MAX_LEN {
        path = path.join(&name);
        maker.make_dir(&path).unwrap();
    }
    let error = run.save(&task(0, &[])).unwrap_err().to_string();
    let says =
        format!("the path has {} bytes, more than the {} that can be stored", path.as_bytes().len(), path::MAX_LEN);
    assert!(error.starts_with("nnn") && error.contains(&says) && error.len() < 500, "{error}");
    maker.remove(&path::TreePath::root().join(&name)).unwrap();
}

/// Whatever becomes of a path between two looks at it is a change, not a failure.
#[test]
fn what_changes_its_type_while_it_is_saved_is_retried() {
    for (make, change) in [
        (Kind::Link, Kind::File),
        (Kind::Link, Kind::Dir),
        (Kind::Link, Kind::Nothing),
        (Kind::File, Kind::Link),
        (Kind::File, Kind::Dir),
        (Kind::File, Kind::Nothing),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        make.make(&path);
        let mut walk = Walk::new(folder.path(), DirAccess::temporary()).unwrap();
        let found = [walk.next(), walk.next()].map(|found| found.unwrap().unwrap());
        make.remove(&path);
        change.make(&path);
        let described = walk.describe(&found[1]);
        let opened = tree::open_file(walk.parent(), b"a");
        match (make, opened) {
            (Kind::Link, _) => {
                assert!(matches!(described, Err(Error::Changed(_))), "{make:?} {change:?} {described:?}")
            }
            (_, Err(e)) => assert!(tree::is_change(&e), "{make:?} {change:?} {e}"),
            (_, Ok(_)) => panic!("{make:?} {change:?}"),
        }
    }
    // A directory that is a file when the walk enters it.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("d"), "").unwrap();
    let dir = tree::Dir::open_root(folder.path()).unwrap();
    let entered = DirAccess::temporary().dir(std::os::fd::AsFd::as_fd(&dir), b"d").map(drop).unwrap_err();
    assert!(tree::is_change(&entered), "{entered}");
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Link,
    File,
    Dir,
    Nothing,
}

impl Kind {
    fn make(self, path: &Path) {
        match self {
            Self::Link => std::os::unix::fs::symlink("x", path).unwrap(),
            Self::File => fs::write(path, "x").unwrap(),
            Self::Dir => fs::create_dir(path).unwrap(),
            Self::Nothing => {}
        }
    }

    fn remove(self, path: &Path) {
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn a_file_that_becomes_shorter_while_it_is_saved_is_an_error_in_the_end() {
    let run = Run::new();
    fs::create_dir_all(run.dir(0)).unwrap();
    let path = run.dir(0).join("a");
    fs::write(&path, vec![0; 10_000]).unwrap();
    let access = DirAccess::temporary();
    let mut shards = Vec::new();
    let mounts = MountPoints::default();
    let how = SaveOptions::whole(None, Compression::Zstd, &mounts).how;
    diff::changes(&run.dir(0), &access, how, None, shard::size(), &mut |shard| {
        shards.push(shard);
        Ok(())
    })
    .unwrap();
    fs::write(&path, "short").unwrap();
    let (store, progress) = (run.store(), Progress::new(Action::Save, "ws"));
    let packing = Packing { compression: Compression::Zstd, strict: true };
    let stored = save::pack(&*store, &run.dir(0), &access, &shards[0], packing, &progress);
    assert!(matches!(stored, Err(Error::Changed(path)) if path.to_string() == "a"));
}

#[test]
fn large_saves_are_several_layers_with_disjoint_paths() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| {
        for i in 0..40 {
            fs::write(dir.join(format!("{i:02}")), vec![i; 4 << 20]).unwrap();
        }
        fs::hard_link(dir.join("00"), dir.join("99")).unwrap();
    });
    let layers = run.layers(0);
    assert_eq!(layers.len(), 3);
    let last = paths(&run, &layers[2..]);
    assert!(["00", "99"].iter().all(|name| last.contains(&(*name).to_owned())), "{last:?}");
    let mut files: Vec<String> = paths(&run, &layers).into_iter().filter(|path| path != ".").collect();
    let all = files.len();
    files.sort();
    files.dedup();
    assert_eq!((all, files.len()), (41, 41));
    let dir = run.restore(&task(1, &[0])).unwrap();
    assert_eq!(seen::see(&run.dir(0)), seen::see(&dir));
}

#[test]
fn a_sparse_file_stays_sparse() {
    let run = Run::new();
    let size = 256 << 20;
    let left = run.play(&task(0, &[]), |dir| {
        let file = File::create(dir.join("disk.img")).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(b"boot", 0).unwrap();
        file.write_all_at(b"middle", size / 2 + 12345).unwrap();
    });
    let dir = run.restore(&task(1, &[0])).unwrap();
    let [before, after] = [left, dir].map(|dir| File::open(dir.join("disk.img")).unwrap());
    let meta = after.metadata().unwrap();
    assert_eq!((meta.len(), meta.mtime_nsec()), (size, before.metadata().unwrap().mtime_nsec()));
    assert!(meta.blocks() * 512 < 1 << 20, "{} blocks", meta.blocks());
    let mut read = [vec![0; 1 << 20], vec![0; 1 << 20]];
    for at in (0..size).step_by(1 << 20) {
        before.read_exact_at(&mut read[0], at).unwrap();
        after.read_exact_at(&mut read[1], at).unwrap();
        assert!(read[0] == read[1], "at {at}");
    }
}

#[test]
fn the_same_tree_gives_the_same_layer() {
    let run = Run::new();
    let make = |dir: &Path| {
        ["b", "a", "c"].iter().for_each(|name| {
            fs::write(dir.join(name), name).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(7);
            File::options().write(true).open(dir.join(name)).unwrap().set_modified(time).unwrap();
        });
        File::open(dir).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    };
    run.play(&task(0, &[]), make);
    run.play(&task(1, &[]), make);
    assert_eq!(run.layers(0)[0].digest, run.layers(1)[0].digest);
}

#[test]
fn a_damaged_baseline_is_an_error() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| fs::write(dir.join("a"), "").unwrap());
    run.restore(&task(1, &[0])).unwrap();
    let baseline = run.state(&task(1, &[0])).join("run.1.ws");
    let bytes = fs::read(&baseline).unwrap();
    fs::write(&baseline, &bytes[..bytes.len() - 1]).unwrap();
    let error = run.save(&task(1, &[0])).unwrap_err().to_string();
    assert!(error.contains("the baseline can't be read"), "{error}");
}
