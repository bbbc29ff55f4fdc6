//! A layer that someone else made.

use std::{
    fs,
    io::Read,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use crate::{
    step::Compression,
    workspace::{
        Error,
        base::BaseUnpacker,
        entry::Entry,
        files::{access::DirAccess, extract::Extractor, tree::Dir, walk::Walk},
        layer::codec,
        path::TreePath,
        progress::{Action, Progress},
    },
};

/// More is not read of an archive.
const MOST: u64 = 4 << 20;

/// Unpacks `bytes` twice, as two layers, in a workspace in `folder`, which is empty: nothing beside the workspace changes,
/// and what is said to be there is there. Gives whether they are
/// accepted.
pub fn archive(bytes: &[u8], folder: &Path) -> bool {
    let (ws, outside) = (folder.join("ws"), folder.join("outside"));
    fs::create_dir_all(&ws).expect("a workspace");
    fs::create_dir_all(&outside).expect("a folder beside it");
    fs::write(outside.join("canary"), "alive").expect("a canary");
    let before = beside(folder);
    let unpacked = unpack(bytes, &ws);
    assert_eq!(before, beside(folder), "something beside the workspace changed");
    let accepted = unpacked.is_ok();
    if let Ok(entries) = unpacked {
        let expected: Vec<&TreePath> = entries.iter().map(|entry| &entry.path).filter(|path| !path.is_root()).collect();
        let found = found(&ws);
        assert_eq!(found.iter().collect::<Vec<_>>(), expected, "what is there is not what is said to be there");
    }
    let mut cleaner = Extractor::new(&ws).expect("the workspace");
    let dir = Dir::open_root(&ws).expect("the workspace");
    for name in dir.names().expect("its names") {
        cleaner.remove(&TreePath::root().join(&name)).expect("what was made can be removed");
    }
    accepted
}

fn unpack(bytes: &[u8], ws: &Path) -> Result<Vec<Entry>, Error> {
    let compression = match bytes {
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
        [0x1f, 0x8b, ..] => Compression::Gzip,
        _ => Compression::None,
    };
    let progress = Progress::new(Action::Restore, "fuzz");
    let mut base = BaseUnpacker::new(Extractor::new(ws)?.keeping_privileges(true), MOST);
    for number in 0..2 {
        base.take_for_ours(number > 0);
        let input =
            codec::decoder(compression, false, bytes).map_err(|e| Error::damaged("the archive", e.to_string()))?;
        base.unpack(number, input.take(MOST), &progress).map_err(|e| e.within("the archive"))?;
    }
    let entries = base.finish()?.0.iter().collect::<Result<Vec<_>, _>>()?;
    let mut extractor = Extractor::new(ws)?;
    for dir in entries.iter().rev().filter(|entry| entry.is_dir()) {
        extractor.finish_dir(dir, true)?;
    }
    Ok(entries)
}

fn found(ws: &Path) -> Vec<TreePath> {
    let mut walk = Walk::new(ws, DirAccess::temporary()).expect("a walk");
    let paths = std::iter::from_fn(|| walk.next()).map(|found| found.expect("a path").path);
    paths.filter(|path| !path.is_root()).collect()
}

/// Everything that is not the workspace, with what a write would change.
fn beside(folder: &Path) -> Vec<(PathBuf, u32, u64, i64, Vec<u8>)> {
    let mut all = Vec::new();
    for dir in [folder.to_owned(), folder.join("outside")] {
        for entry in fs::read_dir(&dir).expect("the folder") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("what it is");
            let content = if meta.is_file() { fs::read(&path).expect("its content") } else { Vec::new() };
            let is_workspace = path == folder.join("ws");
            // The workspace itself may get another mode and owner.
            let mode = if is_workspace { meta.mode() & 0o170_000 } else { meta.mode() };
            let changed = if is_workspace { 0 } else { meta.ctime_nsec() };
            all.push((path, mode, if is_workspace { 0 } else { meta.nlink() }, changed, content));
        }
    }
    all.sort();
    all
}
