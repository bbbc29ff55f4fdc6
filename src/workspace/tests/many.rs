//! More tasks than an image may have layers.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{Descriptor, FileHashes, Run, Store, Task, load, restore_workspace, seen, task};
use crate::{
    digest::Digest,
    store::{Blob, Produce, StoreError, StoredManifest},
    target::Target,
};

/// Counts what is read and sent.
pub(super) struct Counted {
    store: Box<dyn Store>,
    read: AtomicU64,
    sent: AtomicU64,
}

impl Counted {
    pub(super) fn new(store: Box<dyn Store>) -> Self {
        Self { store, read: AtomicU64::new(0), sent: AtomicU64::new(0) }
    }

    /// The bytes of blobs that were read.
    pub(super) fn read(&self) -> u64 {
        self.read.load(Ordering::Relaxed)
    }

    /// The layers that were stored.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

fn target_layers(run: &Run) -> Vec<Descriptor> {
    load::image(&*run.store(), "done", "done").unwrap().unwrap().manifest.layers
}

#[test]
fn a_long_chain_on_a_base_ends_in_an_image_with_few_layers() {
    let maker = Run::new();
    maker.play(&task(0, &[]), |dir| {
        for i in 0..35 {
            fs::create_dir_all(dir.join(format!("base{i}"))).unwrap();
            ["x", "y"].iter().for_each(|name| fs::write(dir.join(format!("base{i}/{name}")), "base").unwrap());
        }
    });
    let mut run = Run::new();
    run.base = Some(maker.target());
    let mut last = run.dir(0);
    for order in 0..70 {
        let after = if order == 0 { vec![] } else { vec![order - 1] };
        last = run.play(&task(order, &after), |dir| {
            fs::write(dir.join(format!("new{order}")), vec![0; order as usize % 7]).unwrap();
            fs::hard_link(dir.join(format!("new{order}")), dir.join(format!("link{order}"))).unwrap();
            match order % 4 {
                // Deleted, deleted and made again by a later task, changed, with another mode.
                0 => fs::remove_dir_all(dir.join(format!("base{}", order / 2))).unwrap(),
                1 if order > 4 => {
                    let again = dir.join(format!("base{}", order / 4 * 2));
                    fs::create_dir_all(&again).unwrap();
                    fs::write(again.join("z"), "again").unwrap();
                }
                2 => fs::write(dir.join(format!("base{}/y", order / 2)), "changed").unwrap(),
                _ if order > 3 => {
                    let (old, mode) = (dir.join(format!("new{}", order - 3)), fs::Permissions::from_mode(0o711));
                    fs::set_permissions(old, mode).unwrap();
                    fs::remove_file(dir.join(format!("new{}", order - 2))).unwrap();
                }
                _ => {}
            }
        });
    }
    assert!(target_layers(&run).len() <= 64, "{}", target_layers(&run).len());
    let last = seen::see(&last);
    for end in run.ends() {
        assert_eq!(last, seen::see(&end));
    }
}

#[test]
fn a_join_of_hundreds() {
    let run = Run::new();
    let all: Vec<u32> = (0..300).collect();
    for &order in &all {
        run.play(&task(order, &[]), |dir| {
            fs::create_dir(dir.join("common")).unwrap();
            fs::write(dir.join(format!("common/{order}")), vec![b'x'; 1000]).unwrap();
            fs::write(dir.join("same"), "same").unwrap();
        });
    }
    let join = task(300, &all);
    let left = run.play(&join, |dir| fs::write(dir.join("joined"), "").unwrap());
    assert_eq!(fs::read_dir(left.join("common")).unwrap().count(), 300);
    assert!(target_layers(&run).len() <= 64, "{}", target_layers(&run).len());
    let left = seen::see(&left);
    for end in run.ends() {
        assert_eq!(left, seen::see(&end));
    }
    // Registries take manifests up to 4 MiB (OCI distribution-spec, "Pushing Manifests"); a config is a blob like any other.
    let snapshot = load::image(&*run.store(), "run.300.ws", "").unwrap().unwrap();
    let manifest = serde_json::to_vec(&snapshot.manifest).unwrap().len();
    assert!(manifest < 10_000 && snapshot.manifest.config.size < 1 << 20, "{manifest}, {:?}", snapshot.manifest.config);
}

#[test]
fn a_conflict_is_found_without_reading_layers() {
    let run = Run::new();
    for order in 0..3 {
        run.play(&task(order, &[]), |dir| {
            let noise: Vec<u8> = (0..400_000_u32)
                .flat_map(|i| Digest::of(&i.to_le_bytes()).to_string().into_bytes())
                .take(1 << 20)
                .collect();
            fs::write(dir.join(format!("large{order}")), noise).unwrap();
            fs::write(dir.join("a"), order.to_string()).unwrap();
        });
    }
    let join: Task = task(3, &[0, 1, 2]);
    let store = Counted::new(run.store());
    fs::create_dir_all(run.dir(3)).unwrap();
    let step = run.step(&join);
    let error = restore_workspace(&store, &step, &step.workspaces[0], &mut FileHashes::default(), &run.state(&join))
        .unwrap_err()
        .to_string();
    assert!(error.contains("a (task \"t1\" changed it, task \"t2\" changed it)"), "{error}");
    let read = store.read();
    assert!(0 < read && read < 20_000, "{read}");
}

impl Store for Counted {
    fn manifest(&self, tag: &str) -> Result<Option<StoredManifest>, StoreError> {
        self.store.manifest(tag)
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.store.put_manifest(tag, media_type, bytes)
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.store.delete_manifest(digest)
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.store.has_blob(digest)
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        self.read.fetch_add(blob.size, Ordering::Relaxed);
        self.store.blob(blob)
    }

    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        self.read.fetch_add(len, Ordering::Relaxed);
        self.store.blob_range(blob, offset, len)
    }

    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        self.sent.fetch_add(1, Ordering::Relaxed);
        self.store.put_blob(produce)
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        self.store.put_bytes(bytes)
    }

    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        self.store.mount_blob(digest, from)
    }
}
