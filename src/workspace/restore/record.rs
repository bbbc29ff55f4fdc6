//! Records in the baseline what is there after a restore.

use std::path::Path;

use rustix::fs::FileType;

use crate::workspace::{
    baseline::{BaselineWriter, Known},
    entry::{Content, Entry, Node},
    error::Error,
    files::{
        access::DirAccess,
        mounts::MountPoints,
        tree,
        walk::{Walk, WalkEntry},
    },
    selection::{Choice, Extent},
    snapshot::{merge::kept, view::View},
    threads,
};

/// A path of the view that the baseline has to know: a directory, or what was restored.
struct Expected {
    entry: Entry,
    extent: Extent,
}

/// Records what is there now. What was there before the restore counts as known if it is a directory (the container
/// runtime makes working directories) or an empty file as mount point; files that others put there are new.
pub fn write(
    view: &View<'_>,
    choice: &Choice,
    root: &Path,
    mounts: &MountPoints,
    mut baseline: BaselineWriter,
) -> Result<(), Error> {
    let expected = |hand_over: &mut dyn FnMut(Expected) -> Result<(), Error>| {
        let mut extents = choice.extents();
        view.for_each(&mut |group, outcome| {
            let Some(entry) = kept(group, &outcome) else { return Ok(()) };
            let extent = extents.next(entry);
            if extent == Extent::Nothing && !entry.is_dir() {
                return Ok(());
            }
            hand_over(Expected { entry: entry.clone(), extent })
        })
    };
    // The tables are read, the tree is walked and the baseline is packed at the same time.
    let known = |hand_over: &mut dyn FnMut(Known) -> Result<(), Error>| {
        threads::ahead(expected, |expected| {
            let mut expected = expected.peekable();
            let mut walk = Walk::new(root, DirAccess::temporary())?;
            while let Some(found) = walk.next() {
                let found = found?;
                let before = |next: &Result<Expected, _>| matches!(next, Ok(next) if next.entry.path < found.path);
                while let Some(absent) = expected.next_if(before) {
                    left_out(absent?).into_iter().try_for_each(&mut *hand_over)?;
                }
                let here =
                    |next: &Result<Expected, _>| next.as_ref().map_or(true, |next| next.entry.path == found.path);
                let known = match expected.next_if(here).transpose()? {
                    Some(next) if next.extent == Extent::Nothing => left_out(next),
                    next => restored(&walk, &found, next.as_ref(), mounts)?,
                };
                known.into_iter().try_for_each(&mut *hand_over)?;
            }
            expected.try_for_each(|absent| left_out(absent?).into_iter().try_for_each(&mut *hand_over))
        })
    };
    threads::ahead(known, |known| {
        for known in known {
            baseline.push(&known?)?;
        }
        baseline.finish()
    })
}

/// What is recorded of a directory of which nothing was restored.
fn left_out(Expected { entry, extent }: Expected) -> Option<Known> {
    (extent == Extent::Nothing).then_some(Known { entry, identity: None, nlink: 0, extent })
}

/// What is recorded of a path that was restored as `expected`, or was there before.
fn restored(
    walk: &Walk,
    found: &WalkEntry,
    expected: Option<&Expected>,
    mounts: &MountPoints,
) -> Result<Option<Known>, Error> {
    let is_file = found.status.kind == FileType::RegularFile;
    let is_mount_point = is_file && found.status.size == 0 && mounts.contains(&found.path);
    if expected.is_none() && found.status.kind != FileType::Directory && !is_mount_point {
        return Ok(None);
    }
    let mut entry = walk.describe(found)?;
    let mut is_sure = true;
    match (&entry.node, expected.map(|expected| &expected.entry)) {
        (Node::File(Content { size, .. }), Some(expected)) => {
            let Some(content) = expected.content() else { return Ok(None) };
            if is_mount_point && (content.size > 0 || expected.mtime != entry.mtime) {
                // It could not be restored: this is the mount point alone.
                return Ok(None);
            }
            // Someone may have written to it since it was made.
            is_sure = content.size == *size && expected.mtime == entry.mtime;
            entry.node = Node::File(*content);
            entry.mtime = expected.mtime;
            if tree::is_root() {
                entry.xattrs = expected.xattrs.clone();
            }
        }
        (Node::File(_), None) => entry.node = Node::File(Content { size: 0, hash: *blake3::hash(&[]).as_bytes() }),
        _ => {}
    }
    let identity = is_sure.then_some(found.status.identity);
    let extent = expected.map_or(Extent::Whole, |expected| expected.extent);
    Ok(Some(Known { entry, identity, nlink: found.status.nlink, extent }))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::*;

    /// What is recorded of the file `f` that holds `1234` or nothing, if it was restored as said.
    fn recorded(is_empty: bool, is_mount_point: bool, change: Option<&dyn Fn(&mut Entry)>) -> Option<Known> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("f");
        fs::write(&path, if is_empty { "" } else { "1234" }).unwrap();
        File::open(&path).unwrap().set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(9)).unwrap();
        let mut walk = Walk::new(folder.path(), DirAccess::temporary()).unwrap();
        let found = std::iter::from_fn(|| walk.next()).map(Result::unwrap).find(|found| !found.path.is_root()).unwrap();
        let expected = change.map(|change| {
            let mut entry = walk.describe(&found).unwrap();
            change(&mut entry);
            Expected { entry, extent: Extent::Whole }
        });
        let mounts: &[String] = if is_mount_point { &["f".to_owned()] } else { &[] };
        restored(&walk, &found, expected.as_ref(), &MountPoints::new(mounts)).unwrap()
    }

    fn with_content(size: u64) -> impl Fn(&mut Entry) {
        move |entry| entry.node = Node::File(Content { size, hash: [7; 32] })
    }

    /// One that somebody wrote to since is compared in any case.
    #[test]
    fn what_was_restored() {
        let sure = |change: &dyn Fn(&mut Entry)| {
            let known = recorded(false, false, Some(change)).unwrap();
            assert_eq!(known.entry.content().unwrap().hash, [7; 32]);
            known.identity.is_some()
        };
        assert!(sure(&with_content(4)));
        assert!(!sure(&with_content(5)));
        assert!(!sure(&|entry| {
            with_content(4)(entry);
            entry.mtime.nsec += 1;
        }));
        // What others put there is new.
        assert!(recorded(false, false, None).is_none());
        assert!(recorded(false, false, Some(&|entry| entry.node = Node::Fifo)).is_none());
    }

    #[test]
    fn mount_points() {
        let empty = recorded(true, true, None).unwrap().entry;
        assert_eq!(empty.content(), Some(&Content { size: 0, hash: *blake3::hash(&[]).as_bytes() }));
        assert!(recorded(true, true, Some(&with_content(0))).is_some());
        // What should be there is hidden by the mount: nothing is known of it.
        assert!(recorded(true, true, Some(&with_content(4))).is_none());
        assert!(recorded(true, true, Some(&|entry| entry.mtime.sec += 1)).is_none());
    }
}
