//! What one task leaves, the next one finds: random trees and random edits.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::PathBuf};

use proptest::prelude::*;

use super::{
    Compression, Run,
    edits::{self, Edit},
    seen, shard, task,
};

/// Plays a chain of tasks that do `scripts`, one after the other, and compares each workspace with the one before.
fn chain(scripts: &[Vec<Edit>], compression: Compression) {
    let mut run = Run::new();
    run.compression = compression;
    let mut left = None;
    for (order, script) in (0..).zip(scripts) {
        let task = task(order, &if order == 0 { vec![] } else { vec![order - 1] });
        let dir = run.dir(order);
        if let Some(left) = &left {
            run.restore(&task).unwrap();
            assert_same(left, &seen::see(&dir), "restored");
        } else {
            std::fs::create_dir_all(&dir).unwrap();
        }
        edits::apply(&dir, script);
        let before = seen::see(&dir);
        run.save(&task).unwrap();
        assert_same(&before, &seen::see(&dir), "after the save");
        left = Some(before);
    }
    let left = left.unwrap();
    let [ours, plain] = run.ends();
    assert_same(&left, &seen::see(&ours), "the target, restored");
    assert_same(&escaped(&left), &seen::see(&plain), "the target, applied layer by layer");
}

/// With the names that other tools see instead of those that would be whiteouts.
fn escaped(seen: &seen::Seen) -> seen::Seen {
    let escape = |path: &PathBuf| -> PathBuf {
        let name = |name: &OsStr| match name.as_bytes() {
            bytes if bytes.starts_with(b".wh.") || bytes.starts_with(b".tekton-wrap.") => {
                OsStr::from_bytes(&[b".tekton-wrap.", bytes].concat()).to_owned()
            }
            _ => name.to_owned(),
        };
        path.iter().map(name).collect()
    };
    let item = |item: &seen::Item| seen::Item { names: item.names.iter().map(escape).collect(), ..item.clone() };
    seen.iter().map(|(path, found)| (escape(path), item(found))).collect()
}

fn assert_same(expected: &seen::Seen, found: &seen::Seen, what: &str) {
    // The root belongs to the volume: where nothing was ever in it, it is not stored.
    let is_empty = expected.len() == 1;
    for (path, item) in expected.iter().filter(|(path, _)| !is_empty || !path.as_os_str().is_empty()) {
        assert_eq!(Some(item), found.get(path), "{what}: {}", path.display());
    }
    for path in found.keys() {
        assert!(expected.contains_key(path), "{what}: {} should not be there", path.display());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn chains(first in edits::edits(40), then in prop::collection::vec(edits::edits(12), 1..4), form in 0..3, size in 0..4) {
        // A layer for nearly each path, for a few, or one.
        shard::tests::SIZE.set([1, 3 << 10, 20 << 10, 64 << 20][size as usize]);
        let compression = [Compression::Zstd, Compression::Gzip, Compression::None][form as usize];
        let scripts: Vec<_> = std::iter::once(first).chain(then).collect();
        chain(&scripts, compression);
    }
}

#[test]
fn a_task_that_changes_nothing_stores_no_layer() {
    let run = Run::new();
    run.play(&task(0, &[]), |dir| std::fs::write(dir.join("a"), "a").unwrap());
    run.play(&task(1, &[0]), |_| {});
    run.play(&task(2, &[1]), |_| {});
    assert_eq!(run.layers(0).len(), 1);
    assert_eq!(run.layers(1), []);
    assert_eq!(run.layers(2), []);
}

#[test]
fn an_empty_workspace_is_an_image() {
    let run = Run::new();
    run.play(&task(0, &[]), |_| {});
    for end in run.ends() {
        assert_eq!(seen::see(&end).len(), 1);
    }
}
