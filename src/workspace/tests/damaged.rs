//! A layer that arrives damaged is fetched once more, and what was made of it by then is made anew.

use std::{
    fs,
    io::Read,
    sync::atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    digest::Digest,
    store::{Blob, Produce, StoreError, StoredManifest},
};

/// A store that gives layers damaged the first times.
struct Damaging {
    inner: Box<dyn Store>,
    /// How often each blob is damaged.
    times: usize,
    reads: AtomicUsize,
}

impl Store for Damaging {
    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        let mut bytes = Vec::new();
        self.inner.blob(blob)?.read_to_end(&mut bytes).unwrap();
        if self.reads.fetch_add(1, Ordering::Relaxed) < self.times {
            // In the content of the last file: everything before it is made by then.
            let at = bytes.windows(6).rposition(|window| window == b"so far").unwrap();
            bytes[at] ^= 1;
            bytes.truncate(at + 6);
        }
        Ok(Box::new(std::io::Cursor::new(bytes)))
    }

    fn manifest(&self, reference: &str) -> Result<Option<StoredManifest>, StoreError> {
        self.inner.manifest(reference)
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.inner.put_manifest(tag, media_type, bytes)
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.inner.delete_manifest(digest)
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.inner.has_blob(digest)
    }

    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.inner.blob_range(blob, offset, len)
    }

    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        self.inner.put_blob(produce)
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        self.inner.put_bytes(bytes)
    }

    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        self.inner.mount_blob(digest, from)
    }
}

#[test]
fn it_is_fetched_once_more_and_leaves_nothing_wrong() {
    let mut run = Run::new();
    run.compression = Compression::None;
    let left = run.play(&task(0, &[]), |dir| {
        fs::create_dir(dir.join("d")).unwrap();
        fs::write(dir.join("d/a"), "linked").unwrap();
        fs::hard_link(dir.join("d/a"), dir.join("d/b")).unwrap();
        std::os::unix::fs::symlink("a", dir.join("d/s")).unwrap();
        fs::write(dir.join("z"), "so far, so good").unwrap();
    });
    for (times, is_restored) in [(0, true), (1, true), (2, false)] {
        let store = Damaging { inner: run.store(), times, reads: AtomicUsize::new(0) };
        let (step, dir) = (run.step(&task(1, &[0])), run.folder.path().join(format!("restored{times}")));
        fs::create_dir(&dir).unwrap();
        let input = load::input(&*run.store(), &step, &step.workspaces[0]).unwrap();
        let progress = Progress::new(Action::Restore, "ws");
        let options = RestoreOptions::whole(ConflictPolicy::last(), None);
        let restored = restore::restore(&store, &input, &dir, &options, None, &progress);
        assert_eq!(store.reads.into_inner(), times.min(1) + 1);
        if is_restored {
            assert_eq!(seen::see(&left), seen::see(&dir), "damaged {times} times");
            assert_eq!((restored.unwrap().files, progress.now().files, progress.now().bytes), (4, 4, 21));
        } else {
            let error = restored.unwrap_err().to_string();
            assert!(error.contains("at z it is not what its table of contents says"), "{error}");
        }
    }
}
