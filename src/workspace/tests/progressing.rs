//! What is told while a tree is saved and restored is what was really done.

use std::{fs, sync::Mutex, time::Duration};

use super::{
    ConflictPolicy,
    progress::{Action, Moment, Phase, Progress},
    *,
};

#[test]
fn of_a_real_save_and_restore() {
    let run = Run::new();
    let tree = run.folder.path().join("tree");
    for i in 0..200 {
        let dir = tree.join(format!("{:02}", i % 10));
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(i.to_string()), vec![i as u8; 100_000]).unwrap();
    }
    fs::hard_link(tree.join("00/0"), tree.join("00/link")).unwrap();
    // Everything that is no directory counts as a file.
    std::os::unix::fs::symlink("0", tree.join("00/symlink")).unwrap();
    let all = (202, 200 * 100_000);
    let interval = Duration::from_micros(500);
    let told = Mutex::new(Vec::<Moment>::new());
    let tell = |_, now| told.lock().unwrap().push(now);

    let progress = Progress::new(Action::Save, "ws");
    let mounts = MountPoints::default();
    let options = SaveOptions::whole(None, Compression::Zstd, &mounts);
    let save = || save::save(&*run.store(), &tree, options, &progress);
    let saved = progress.every(interval, &tell, save).unwrap();
    check(&told, progress.now(), all);
    assert_eq!((saved.files, saved.bytes), all);

    let progress = Progress::new(Action::Restore, "ws");
    let writers = vec![Writer::unsaved("save", 0, &Lineage::default(), saved.layers)];
    let input = Input { lineage: Lineage { writers, ..Lineage::default() }, ..Input::default() };
    let dir = run.dir(0);
    let options = RestoreOptions::whole(ConflictPolicy::last(), None);
    fs::create_dir(&dir).unwrap();
    let restore = || restore::restore(&*run.store(), &input, &dir, &options, None, &progress);
    let restored = progress.every(interval, &tell, restore).unwrap();
    assert_eq!((restored.files, restored.bytes), all);
    check(&told, progress.now(), all);
    assert_eq!(seen::see(&tree), seen::see(&dir));
}

/// What was told never runs ahead of what is to be done, and the end is all of it.
fn check(told: &Mutex<Vec<Moment>>, end: Moment, all: (u64, u64)) {
    let told = std::mem::take(&mut *told.lock().unwrap());
    assert!(told.iter().any(|moment| moment.phase == Phase::Files), "{told:?}");
    for moment in told.iter().filter(|moment| moment.total_files > 0) {
        assert_eq!((moment.total_files, moment.total_bytes), all);
        assert!(moment.files <= all.0 && moment.bytes <= all.1, "{moment:?}");
    }
    assert_eq!((end.files, end.bytes), all);
}
