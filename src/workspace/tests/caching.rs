//! Caches between runs: what they restore, what is sent for them, and that one that is damaged is never half there.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, SystemTime},
};

use super::{CacheStep, Descriptor, Lineage, Run, Store, Task, image, load, put_file, save_dir, seen, task};
use crate::{
    step::{CacheFiles, cache_tag},
    store::StoredManifest,
};

/// The cache of the folder `modules`, by the file `lock`.
fn modules(run: &Run) -> CacheStep {
    let files = CacheFiles { workspace: "ws".to_owned(), patterns: vec!["/lock".to_owned()] };
    CacheStep { files: vec![files], path: "modules".to_owned(), ..cache(run, "mod-{{hash}}") }
}

fn cache(run: &Run, key: &str) -> CacheStep {
    let cache = serde_json::json!({"target": run.target(), "key": key, "order": 20});
    serde_json::from_value(cache).unwrap()
}

/// A run that comes after all before it.
fn next(run: &mut Run, uid: &'static str) {
    run.uid = uid;
    for entry in fs::read_dir(run.folder.path()).unwrap().flatten().filter(|entry| entry.file_name() != "store") {
        seen::open_up(&entry.path());
        fs::remove_dir_all(entry.path()).unwrap();
    }
}

/// A run whose first task leaves `lock`, and whose second one does `install` in what its restore made.
fn play(run: &mut Run, uid: &'static str, lock: &str, cache: CacheStep, install: impl FnOnce(&Path)) {
    next(run, uid);
    run.play(&task(0, &[]), |dir| fs::write(dir.join("lock"), lock).unwrap());
    run.play(&second(cache), install);
}

fn second(cache: CacheStep) -> Task {
    Task { caches: vec![cache], ..task(100, &[0]) }
}

/// What such an install task finds, if it changes nothing.
fn found(run: &mut Run, uid: &'static str, lock: &str, cache: CacheStep) -> Vec<String> {
    let mut found = Vec::new();
    play(run, uid, lock, cache, |dir| found = super::paths_of(dir));
    found
}

fn write(dir: &Path, files: &[(&str, &str)]) {
    files.iter().for_each(|(path, text)| put_file(dir, path, text));
}

/// The tags of caches, and the manifest of the cache with this tag.
fn caches(store: &dyn Store) -> Vec<String> {
    store.tags().unwrap().into_iter().filter(|tag| crate::step::is_cache_tag(tag)).collect()
}

fn layers_of(store: &dyn Store, tag: &str) -> Vec<Descriptor> {
    load::image(store, tag, tag).unwrap().unwrap().manifest.layers
}

fn lineage(run: &Run) -> Lineage {
    let step = run.step(&task(100, &[0]));
    load::snapshot(&*run.store(), &step, &step.workspaces[0], 100).unwrap().unwrap()
}

#[test]
fn the_second_run_sends_nothing_and_all_after_it_have_it() {
    let mut run = Run::new();
    let whole = modules(&run);
    play(&mut run, "one", "a", whole.clone(), |dir| {
        assert_eq!(super::paths_of(dir), ["", "lock"]);
        write(dir, &[("modules/a/x", "x"), ("modules/y", "y"), ("result", "r")]);
    });
    let [tag] = &caches(&*run.store())[..] else { panic!("one cache") };
    let stored = layers_of(&*run.store(), tag);
    let first = run.restore(&Task { order: 200, ..task(200, &[100]) }).unwrap();
    let first = seen::see(&first);

    next(&mut run, "two");
    run.play(&task(0, &[]), |dir| fs::write(dir.join("lock"), "a").unwrap());
    let dir = run.play(&second(whole.clone()), |dir| {
        assert_eq!(fs::read_to_string(dir.join("modules/a/x")).unwrap(), "x");
        assert!(!dir.join("result").exists());
        write(dir, &[("result", "r")]);
    });
    // The task's own layer is about the result alone; those of the cache come right before it.
    let lineage = lineage(&run);
    let orders: Vec<u32> = lineage.writers.iter().map(|writer| writer.order).collect();
    assert_eq!(orders, [0, 20, 100]);
    assert_eq!(lineage.writers[1].layers[0].digest, stored[0].digest);
    assert_eq!(lineage.writers[1].task, "cache ws/modules");
    let toc = super::read_toc(&*run.store(), &lineage.writers[2].layers[0]).unwrap();
    assert_eq!(toc.iter().map(|entry| entry.unwrap().path.to_string()).collect::<Vec<_>>(), [".", "result"]);
    let after = run.restore(&task(200, &[100])).unwrap();
    assert_eq!(seen::see(&after), seen::see(&dir));
    assert_eq!(seen::see(&after).len(), first.len());
    let [ours, plain] = run.ends();
    assert_eq!(seen::see(&ours), seen::see(&dir));
    assert_eq!(seen::see(&plain), seen::see(&dir));
    assert_eq!(caches(&*run.store()).len(), 1);
}

#[test]
fn another_lock_file_starts_from_the_newest_and_sends_what_differs() {
    let mut run = Run::new();
    let cache = CacheStep { restore_keys: vec!["other-".to_owned(), "mod-".to_owned()], ..modules(&run) };
    play(&mut run, "one", "a", cache.clone(), |dir| write(dir, &[("modules/a", "a"), ("modules/b", "b")]));
    let [first] = &caches(&*run.store())[..] else { panic!("one cache") };
    age(&run, first);
    play(&mut run, "two", "b", cache.clone(), |dir| {
        assert_eq!(super::paths_of(dir), ["", "lock", "modules", "modules/a", "modules/b"]);
        fs::remove_file(dir.join("modules/b")).unwrap();
        write(dir, &[("modules/c", "c")]);
    });
    let second = caches(&*run.store()).into_iter().find(|tag| tag != first).unwrap();
    let (one, two) = (layers_of(&*run.store(), first), layers_of(&*run.store(), &second));
    assert_eq!((two.len(), two[0].digest), (2, one[0].digest));
    // The newest of the two, and not the other one.
    let paths = found(&mut run, "three", "c", cache.clone());
    assert_eq!(paths, ["", "lock", "modules", "modules/a", "modules/c"]);
    // That one is stored too, without a layer of its own.
    assert_eq!(caches(&*run.store()).len(), 3);
    let without = CacheStep { restore_keys: vec!["other-".to_owned()], ..cache };
    assert_eq!(found(&mut run, "four", "d", without), ["", "lock"]);
}

/// Makes an image one that was made long ago.
fn age(run: &Run, tag: &str) {
    annotate(run, tag, image::CREATED, "2020-01-01T00:00:00Z");
}

fn annotate(run: &Run, tag: &str, name: &str, value: &str) {
    let store = run.store();
    let StoredManifest { bytes, media_type, .. } = store.manifest(tag).unwrap().unwrap();
    let mut manifest: image::Manifest = serde_json::from_slice(&bytes).unwrap();
    manifest.annotations.insert(name.to_owned(), value.to_owned());
    store.put_manifest(tag, &media_type, &serde_json::to_vec(&manifest).unwrap()).unwrap();
}

#[test]
fn scopes() {
    let mut run = Run::new();
    let plain = modules(&run);
    let of = |scope: &str, default: Option<&str>| CacheStep {
        scope: scope.to_owned(),
        default_scope: default.map(str::to_owned),
        restore_keys: vec![String::new()],
        ..plain.clone()
    };
    play(&mut run, "one", "a", of("feature", Some("main")), |dir| write(dir, &[("modules/feature", "")]));
    // What a branch left is not for the others.
    assert_eq!(found(&mut run, "two", "a", of("other", Some("main"))), ["", "lock"]);
    play(&mut run, "three", "a", of("main", None), |dir| {
        assert_eq!(super::paths_of(dir), ["", "lock"]);
        write(dir, &[("modules/main", "")]);
    });
    assert_eq!(found(&mut run, "four", "a", of("other", Some("main"))), ["", "lock", "modules", "modules/main"]);
    // Its own comes first.
    assert_eq!(found(&mut run, "five", "a", of("feature", Some("main"))), ["", "lock", "modules", "modules/feature"]);
    // One that says another scope than its tag.
    let tag = caches(&*run.store()).into_iter().find(|tag| {
        let manifest = load::image(&*run.store(), tag, tag).unwrap().unwrap().manifest;
        manifest.annotations[image::CACHE_SCOPE] == "main"
    });
    annotate(&run, &tag.unwrap(), image::CACHE_SCOPE, "feature");
    assert_eq!(found(&mut run, "six", "a", of("other", Some("main"))), ["", "lock"]);
}

/// Damages the bytes at `at` of the blob of `layer`.
fn damage(run: &Run, layer: &Descriptor, at: usize) {
    let path = run.folder.path().join("store/blobs/sha256").join(layer.digest.hex());
    let mut bytes = fs::read(&path).unwrap();
    bytes[at] ^= 0x55;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&path, bytes).unwrap();
}

#[test]
fn a_damaged_one_is_never_half_there_and_is_replaced() {
    // In the content, which is found out when files have been written; in the table of contents; the whole image.
    for what in ["content", "table", "blob", "manifest"] {
        let mut run = Run::new();
        let cache = modules(&run);
        let content: String = (0..200_000).map(|i| char::from(b'a' + (i % 7) as u8)).collect();
        let files = [("modules/a/first", "first"), ("modules/z", content.as_str())];
        play(&mut run, "one", "a", cache.clone(), |dir| write(dir, &files));
        let [tag] = &caches(&*run.store())[..] else { panic!("one cache") };
        let layer = &layers_of(&*run.store(), tag)[0];
        let blob = run.folder.path().join("store/blobs/sha256").join(layer.digest.hex());
        match what {
            "content" => damage(&run, layer, 60),
            "table" => damage(&run, layer, usize::try_from(layer.info().unwrap().toc_offset).unwrap() + 5),
            "blob" => fs::remove_file(blob).unwrap(),
            _ => annotate(&run, tag, image::CACHE_KEY, "other"),
        }
        play(&mut run, "two", "a", cache.clone(), |dir| {
            assert_eq!(super::paths_of(dir), ["", "lock"], "{what}");
            write(dir, &[("modules/new", "new")]);
        });
        let expected = match what {
            // It is not one of this key, as far as it says; it stays.
            "manifest" => vec!["", "lock"],
            _ => vec!["", "lock", "modules", "modules/new"],
        };
        assert_eq!(found(&mut run, "three", "a", cache.clone()), expected, "{what}");
    }
}

#[test]
fn what_may_not_be_in_a_cache() {
    let mut run = Run::new();
    let cache = modules(&run);
    // A program that gives rights is not saved.
    play(&mut run, "one", "a", cache.clone(), |dir| {
        write(dir, &[("modules/program", "")]);
        fs::set_permissions(dir.join("modules/program"), fs::Permissions::from_mode(0o4755)).unwrap();
    });
    assert_eq!(caches(&*run.store()), [] as [String; 0]);
    // An image that has more than the folder, or a link out of it, made by someone else.
    let folder = tempfile::tempdir().unwrap();
    for (files, links) in [
        (&["modules/a", "elsewhere"][..], &[][..]),
        (&["modules"], &[]),
        (&["modules/a", "elsewhere"], &[("modules/link", "elsewhere")]),
    ] {
        let dir = folder.path().join(files.join("-").replace('/', "_") + &links.len().to_string());
        write(&dir, &files.iter().map(|file| (*file, "evil")).collect::<Vec<_>>());
        links.iter().for_each(|(link, to)| fs::hard_link(dir.join(to), dir.join(link)).unwrap());
        let key = format!("mod-{}", hash_of_lock(&run, "a"));
        let tag = cache_tag("ws/modules", "", &key);
        save_dir(&dir, &run.target().replace("done", &tag), None).unwrap();
        annotate(&run, &tag, image::CACHE, "ws/modules");
        annotate(&run, &tag, image::CACHE_KEY, &key);
        assert_eq!(found(&mut run, "two", "a", cache.clone()), ["", "lock"], "{files:?} {links:?}");
    }
}

/// The hash in the key of [`modules`] where the lock file holds `lock`.
fn hash_of_lock(run: &Run, lock: &str) -> String {
    let mut other = Run::new();
    let cache = CacheStep { target: other.target(), ..modules(run) };
    play(&mut other, "one", lock, cache, |dir| write(dir, &[("modules/x", "")]));
    let tag = &caches(&*other.store())[0];
    let manifest = load::image(&*other.store(), tag, tag).unwrap().unwrap().manifest;
    manifest.annotations[image::CACHE_KEY].strip_prefix("mod-").unwrap().to_owned()
}

#[test]
fn an_installer_that_writes_everything_anew_changes_nothing_with_mtime_ignore() {
    for ignore_mtimes in [true, false] {
        let mut run = Run::new();
        let cache = CacheStep { ignore_mtimes, ..modules(&run) };
        let install = |dir: &Path, mtime: u64| {
            write(dir, &[("modules/a/x", "x"), ("modules/y", "y")]);
            std::os::unix::fs::symlink("y", dir.join("modules/link")).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(mtime);
            for path in ["modules/a/x", "modules/y", "modules/a", "modules"] {
                File::open(dir.join(path)).unwrap().set_modified(time).unwrap();
            }
        };
        play(&mut run, "one", "a", cache.clone(), |dir| install(dir, 1_000_000));
        play(&mut run, "two", "a", cache.clone(), |dir| {
            fs::remove_dir_all(dir.join("modules")).unwrap();
            install(dir, 2_000_000);
        });
        let own = lineage(&run).writers.pop().unwrap().layers;
        let after = run.restore(&task(200, &[100])).unwrap();
        let modified = fs::metadata(after.join("modules/a/x")).unwrap().modified().unwrap();
        let modified = modified.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        if ignore_mtimes {
            // The times are those of the cache; that of the folder's own directory changed.
            let [layer] = &own[..] else { panic!("{own:?}") };
            let toc = super::read_toc(&*run.store(), layer).unwrap();
            assert_eq!(toc.iter().map(|entry| entry.unwrap().path.to_string()).collect::<Vec<_>>(), ["."]);
            assert_eq!(modified, 1_000_000);
        } else {
            assert_eq!(modified, 2_000_000);
        }
    }
}

#[test]
fn a_folder_that_is_not_empty_is_left_as_it_is() {
    let mut run = Run::new();
    let cache = modules(&run);
    play(&mut run, "one", "a", cache.clone(), |dir| write(dir, &[("modules/cached", "")]));
    next(&mut run, "two");
    run.play(&task(0, &[]), |dir| write(dir, &[("lock", "a"), ("modules/own", "")]));
    run.play(&second(cache.clone()), |dir| {
        assert_eq!(super::paths_of(dir), ["", "lock", "modules", "modules/own"]);
        write(dir, &[("modules/more", "")]);
    });
    next(&mut run, "three");
    // An empty one is filled, and so is one that a task deleted.
    run.play(&task(0, &[]), |dir| {
        write(dir, &[("lock", "a"), ("modules/own", "")]);
    });
    run.play(&task(1, &[0]), |dir| fs::remove_dir_all(dir.join("modules")).unwrap());
    run.play(&Task { caches: vec![cache], ..task(100, &[1]) }, |dir| {
        assert_eq!(super::paths_of(dir), ["", "lock", "modules", "modules/cached"]);
    });
}

/// Alone, or with the directory that it is in.
#[test]
fn a_folder_that_its_own_task_deletes() {
    for deleted in ["deep/modules", "deep"] {
        let mut run = Run::new();
        let cache = CacheStep { path: "deep/modules".to_owned(), ..modules(&run) };
        play(&mut run, "one", "a", cache.clone(), |dir| write(dir, &[("deep/modules/x", ""), ("deep/y", "")]));
        next(&mut run, "two");
        run.play(&task(0, &[]), |dir| write(dir, &[("lock", "a"), ("deep/y", "")]));
        let left = run.play(&second(cache.clone()), |dir| {
            assert!(dir.join("deep/modules/x").exists());
            fs::remove_dir_all(dir.join(deleted)).unwrap();
        });
        let after = run.restore(&task(200, &[100])).unwrap();
        assert_eq!(super::paths_of(&after), super::paths_of(&left), "{deleted}");
        for end in run.ends() {
            assert_eq!(super::paths_of(&end), super::paths_of(&left), "{deleted}");
        }
    }
}

#[test]
fn a_run_does_not_restore_what_it_saved_itself() {
    let mut run = Run::new();
    let cache = modules(&run);
    next(&mut run, "one");
    run.play(&task(0, &[]), |dir| fs::write(dir.join("lock"), "a").unwrap());
    run.play(&second(cache.clone()), |dir| write(dir, &[("modules/a", "first")]));
    let other = CacheStep { order: 130, ..cache.clone() };
    run.play(&Task { caches: vec![other], ..task(200, &[0]) }, |dir| {
        assert_eq!(super::paths_of(dir), ["", "lock"]);
        write(dir, &[("modules/a", "second")]);
    });
    // The first one stays.
    play(&mut run, "two", "a", cache, |dir| assert_eq!(fs::read_to_string(dir.join("modules/a")).unwrap(), "first"));
}

#[test]
fn without_files_there_is_no_key() {
    let mut run = Run::new();
    let cache = CacheStep { restore_keys: vec![String::new()], ..modules(&run) };
    play(&mut run, "one", "a", cache.clone(), |dir| write(dir, &[("modules/a", "")]));
    next(&mut run, "two");
    run.play(&task(0, &[]), |dir| fs::write(dir.join("other"), "").unwrap());
    run.play(&second(cache), |dir| assert_eq!(super::paths_of(dir), ["", "modules", "modules/a", "other"]));
    assert_eq!(caches(&*run.store()).len(), 1);
}

/// Each by its own files, one of them by where a link leads.
#[test]
fn two_caches_of_a_workspace() {
    let mut run = Run::new();
    let of = |path: &str, pattern: &str, order: u32| CacheStep {
        files: vec![CacheFiles { workspace: "ws".to_owned(), patterns: vec![pattern.to_owned()] }],
        path: path.to_owned(),
        order,
        ..cache(&run, &format!("{path}-{{{{hash}}}}"))
    };
    let caches = vec![of("one", "/lock", 20), of("two", "/link", 70), of("three", "/lock", 120)];
    let mut play = |uid: &'static str, lock: &str, link: &str| {
        next(&mut run, uid);
        run.play(&task(0, &[]), |dir| {
            fs::write(dir.join("lock"), lock).unwrap();
            std::os::unix::fs::symlink(link, dir.join("link")).unwrap();
        });
        let mut paths = Vec::new();
        run.play(&Task { caches: caches.clone(), ..task(200, &[0]) }, |dir| {
            paths = super::paths_of(dir);
            write(dir, &[("one/a", lock), ("two/b", link), ("three/c", lock)]);
        });
        paths.retain(|path| path.contains('/'));
        paths
    };
    assert_eq!(play("first", "x", "y"), [""; 0]);
    assert_eq!(play("second", "x", "y"), ["one/a", "three/c", "two/b"]);
    assert_eq!(play("third", "x", "z"), ["one/a", "three/c"]);
    assert_eq!(play("fourth", "z", "z"), ["two/b"]);
}

#[test]
fn a_whole_workspace_in_a_repository_of_its_own() {
    let mut run = Run::new();
    let other = tempfile::tempdir().unwrap();
    let cache = CacheStep { target: format!("dir://{}", other.path().display()), ..cache(&run, "k") };
    for uid in ["one", "two"] {
        next(&mut run, uid);
        let only = Task { caches: vec![cache.clone()], ..task(100, &[]) };
        let dir = run.play(&only, |dir| match uid {
            "one" => write(dir, &[("a/b", "c")]),
            _ => assert_eq!(super::paths_of(dir), ["", "a", "a/b"]),
        });
        let after = run.restore(&task(200, &[100])).unwrap();
        assert_eq!(seen::see(&after), seen::see(&dir));
    }
    assert_eq!(caches(&*run.store()), [] as [String; 0]);
    // Removed without a trace, it is a miss; so is a folder that is no store.
    fs::remove_dir_all(other.path()).unwrap();
    fs::write(other.path(), "").unwrap();
    next(&mut run, "three");
    run.play(&Task { caches: vec![cache], ..task(100, &[]) }, |dir| assert_eq!(super::paths_of(dir), [""]));
}

#[test]
fn many_saves_make_no_long_stack() {
    let mut run = Run::new();
    let cache = CacheStep { restore_keys: vec![String::new()], ..modules(&run) };
    let most = 40;
    for number in 0..most {
        let (lock, uid) = (number.to_string(), &*format!("run-{number}").leak());
        play(&mut run, uid, &lock, cache.clone(), |dir| write(dir, &[(&format!("modules/{number}"), &lock)]));
    }
    let longest = caches(&*run.store()).iter().map(|tag| layers_of(&*run.store(), tag).len()).max().unwrap();
    assert!((20..=26).contains(&longest), "{longest}");
    let last = (most - 1).to_string();
    assert_eq!(found(&mut run, "last", &last, cache).len(), 3 + most);
}
