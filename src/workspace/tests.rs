//! Tests of the whole data plane, on real directories and a store in a folder.

mod caching;
mod damaged;
mod detection;
mod edits;
mod hostile;
mod loading;
mod many;
mod merging;
mod mounted;
mod parallel;
mod partial;
mod progressing;
mod round_trip;
mod schedules;
mod seen;
mod stacking;
mod traps;

use std::path::{Path, PathBuf};

use super::{
    by_hand::{restore_image, save_dir},
    cache::hash::FileHashes,
    conflict::ConflictPolicy,
    diff, entry,
    error::Error,
    files::{access, extract, handle, mounts::MountPoints, space, tree, walk},
    layer::{
        descriptor::{self, Descriptor},
        read::read_toc,
        write::{self, LayerWriter},
    },
    path,
    progress::{self, Action, Progress},
    publish::{self, PendingSnapshot},
    restore::{self, RestoreOptions},
    save::{self, Packing, SaveOptions},
    selection::{LeftOut, Selection},
    shard,
    snapshot::{
        image,
        lineage::{self, Input, Lineage, Writer},
        load,
    },
    steps::{restore_workspace, save_task},
};
use crate::{
    step::{
        CacheStep, Compression, ConflictRule, EarlierRun, Keep, OnConflict, Predecessor, StepConfig, WorkspaceStep,
    },
    store::{self, Store},
    target::Target,
};

/// A run of a Pipeline whose tasks share one workspace, kept in a folder of its own.
pub(crate) struct Run {
    pub(crate) folder: tempfile::TempDir,
    uid: &'static str,
    pub(crate) conflict: OnConflict,
    pub(crate) conflict_rules: Vec<ConflictRule>,
    pub(crate) earlier: Vec<EarlierRun>,
    compression: Compression,
    pub(crate) keep: Keep,
    pub(crate) target_expires: Option<String>,
    pub(crate) base: Option<String>,
}

/// A task of a run: its place in pipeline order, the tasks right before it, and the parallel ones.
#[derive(Clone, Default)]
pub(crate) struct Task {
    pub(crate) order: u32,
    pub(crate) after: Vec<u32>,
    pub(crate) optional: Vec<u32>,
    pub(crate) parallel: Vec<(u32, u32)>,
    pub(crate) joined: Vec<(u32, u32)>,
    pub(crate) mounts: Vec<String>,
    pub(crate) paths: Vec<String>,
    pub(crate) caches: Vec<CacheStep>,
}

impl Run {
    pub(crate) fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            uid: "run",
            conflict: OnConflict::Fail,
            conflict_rules: Vec::new(),
            earlier: Vec::new(),
            compression: Compression::Zstd,
            keep: Keep::Target,
            target_expires: None,
            base: None,
        }
    }

    /// The workspace of the task at `order`.
    pub(crate) fn dir(&self, order: u32) -> PathBuf {
        self.folder.path().join(format!("ws{order}"))
    }

    /// What is written when the run is over.
    pub(crate) fn target(&self) -> String {
        format!("dir://{}:done", self.folder.path().join("store").display())
    }

    pub(crate) fn store(&self) -> Box<dyn Store> {
        store::open(&self.target().parse::<Target>().unwrap()).unwrap()
    }

    fn step(&self, task: &Task) -> StepConfig {
        let predecessor =
            |optional| move |&order: &u32| Predecessor { task: format!("t{order}"), order, last: None, optional };
        let mut after: Vec<_> = task.after.iter().map(predecessor(false)).collect();
        after.extend(task.optional.iter().map(predecessor(true)));
        StepConfig {
            run: self.uid.to_owned(),
            task: format!("t{}", task.order),
            order: task.order,
            matrix: None,
            conflict: self.conflict,
            conflict_rules: self.conflict_rules.clone(),
            compression: self.compression,
            expires: Some("1d".to_owned()),
            target_expires: self.target_expires.clone(),
            keep: self.keep,
            after_failure: None,
            earlier: self.earlier.clone(),
            results: Default::default(),
            workspaces: vec![WorkspaceStep {
                name: "ws".to_owned(),
                path: self.dir(task.order).display().to_string(),
                target: self.target(),
                base: self.base.clone(),
                sized: false,
                after,
                parallel: task.parallel.clone(),
                joined: task.joined.clone(),
                mounts: task.mounts.clone(),
                paths: task.paths.clone(),
                caches: task.caches.clone(),
            }],
        }
    }

    /// A fresh directory, restored as the step in front of the task does it.
    fn restore(&self, task: &Task) -> Result<PathBuf, Error> {
        let dir = self.dir(task.order);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::create_dir_all(self.state(task)).unwrap();
        let step = self.step(task);
        let mut hashes = FileHashes::wanted_by(&step)?;
        restore_workspace(&*self.store(), &step, &step.workspaces[0], &mut hashes, &self.state(task)).map(|()| dir)
    }

    /// What it would be restored from.
    fn input(&self, task: &Task) -> Result<Input, Error> {
        let step = self.step(task);
        load::input(&*self.store(), &step, &step.workspaces[0])
    }

    /// Saved as the step at the end of the task does it.
    fn save(&self, task: &Task) -> Result<(), Error> {
        let mut step = self.step(task);
        step.workspaces[0].after.clear();
        save_task(step, &self.state(task)).map(drop)
    }

    /// A whole task that does `work` in its directory.
    pub(crate) fn play(&self, task: &Task, work: impl FnOnce(&Path)) -> PathBuf {
        let dir = self.dir(task.order);
        let starts_empty = task.after.is_empty() && task.optional.is_empty() && self.base.is_none();
        if starts_empty && task.caches.is_empty() {
            std::fs::create_dir_all(&dir).unwrap();
        } else {
            self.restore(task).unwrap();
        }
        work(&dir);
        self.save(task).unwrap();
        dir
    }

    /// The layers of the snapshot of the task at `order`.
    pub(crate) fn layers(&self, order: u32) -> Vec<Descriptor> {
        let step = self.step(&task(order, &[]));
        let found = load::snapshot(&*self.store(), &step, &step.workspaces[0], order).unwrap().unwrap();
        found.writers.into_iter().find(|writer| writer.order == order).unwrap().layers
    }

    /// `target` restored by this program, and applied layer by layer as other tools do.
    pub(crate) fn ends(&self) -> [PathBuf; 2] {
        let ours = self.folder.path().join("end");
        std::fs::create_dir(&ours).unwrap();
        let target = self.target().parse::<Target>().unwrap();
        // As a step, which restores setuid files and devices too.
        let lineage = Lineage { origin: None, ..load::lineage(&*self.store(), &target).unwrap() };
        let (input, progress) = (Input { lineage, ..Input::default() }, Progress::new(Action::Restore, "ws"));
        let options = RestoreOptions::whole(ConflictPolicy::last(), None);
        restore::restore(&*self.store(), &input, &ours, &options, None, &progress).unwrap();
        let plain = self.folder.path().join("end-plain");
        std::fs::create_dir(&plain).unwrap();
        let store = self.store();
        let found = load::image(&*store, "done", "done").unwrap().unwrap();
        let (manifest, mut layers, diff_ids) = (found.digest, found.manifest.layers, found.config.rootfs.diff_ids);
        layers.iter_mut().for_each(|layer| layer.annotations.clear());
        assert_eq!(layers.len(), diff_ids.len());
        let base = Some(lineage::Base { image: self.target(), manifest, layers, diff_ids });
        let plain_input = Input { lineage: Lineage { base, ..Lineage::default() }, ..Input::default() };
        restore::restore(&*store, &plain_input, &plain, &options, None, &progress).unwrap();
        [ours, plain]
    }

    fn state(&self, task: &Task) -> PathBuf {
        self.folder.path().join(format!("state{}", task.order))
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // So that directories with odd modes can be removed.
        seen::open_up(self.folder.path());
    }
}

/// How many cases a property is tested with: the environment variable `PROPTEST_CASES`, or else `usual`.
fn cases(usual: u32) -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(usual)
}

pub(crate) fn task(order: u32, after: &[u32]) -> Task {
    Task { order, after: after.to_vec(), ..Task::default() }
}

/// Writes a file, with the directories above it.
fn put_file(dir: &Path, path: &str, content: &str) {
    std::fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
    std::fs::write(dir.join(path), content).unwrap();
}

/// Paths below `root` in tree order, the root first.
pub(crate) fn paths_of(root: &Path) -> Vec<String> {
    let mut walk = walk::Walk::new(root, access::DirAccess::temporary()).unwrap();
    let path = |found: walk::WalkEntry| String::from_utf8(found.path.as_bytes().to_vec()).unwrap();
    std::iter::from_fn(|| walk.next()).map(|found| path(found.unwrap())).collect()
}

/// Stores an image that another program could have made, with one file.
pub(crate) fn put_foreign(store: &dyn Store, tag: &str) {
    let file = hostile::file("f");
    let layer = Descriptor::new(descriptor::LAYER, store.put_bytes(&file).unwrap());
    hostile::put(store, tag, &[layer]);
}
