//! Stores what changed in a workspace as layers, several at a time.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use super::{
    baseline::{self, Known},
    diff::{self, Comparison, Part, Seen},
    entry::{Content, Entry, Node},
    error::Error,
    files::{
        access::{Cursor, DirAccess},
        mounts::MountPoints,
        tree,
    },
    layer::{
        descriptor::Descriptor,
        write::{self, LayerWriter},
    },
    path::TreePath,
    progress::{LayerProgress, Phase, Progress},
    shard::{self, Shard},
    threads,
};
use crate::{step::Compression, store::Store};

/// How often a save is begun anew because files change meanwhile.
const ATTEMPTS: usize = 3;

/// How a workspace is saved.
#[derive(Clone, Copy, Debug)]
pub struct SaveOptions<'a> {
    /// What the task started from; none: from nothing.
    pub baseline: Option<&'a Path>,
    /// How layers are compressed.
    pub compression: Compression,
    /// What of it, and what counts as a change.
    pub how: Comparison<'a>,
}

/// How layers are packed.
#[derive(Clone, Copy, Debug)]
pub struct Packing {
    /// How they are compressed.
    pub compression: Compression,
    /// Whether a file that is not what it was when it was found is an error.
    pub strict: bool,
}

/// What was stored.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Saved {
    /// The layers, with disjoint paths; none if nothing changed.
    pub layers: Vec<Descriptor>,
    /// Everything in them that is no directory, by name.
    pub files: u64,
    /// Bytes of regular files, of hard links once.
    pub bytes: u64,
    /// Paths that are gone.
    pub deleted: u64,
    /// What else is worth telling.
    pub seen: Seen,
}

impl<'a> SaveOptions<'a> {
    /// All of a workspace, in which other containers have something mounted at `mounts`.
    pub fn whole(baseline: Option<&'a Path>, compression: Compression, mounts: &'a MountPoints) -> Self {
        Self { baseline, compression, how: Comparison { part: Part::Whole, ignore_mtimes: false, mounts } }
    }

    /// The same of a part.
    pub fn of(self, part: Part<'a>) -> Self {
        Self { how: Comparison { part, ..self.how }, ..self }
    }

    /// The same, with what differs in nothing but its mtime as unchanged if `ignore_mtimes`.
    pub fn ignoring_mtimes(self, ignore_mtimes: bool) -> Self {
        Self { how: Comparison { ignore_mtimes, ..self.how }, ..self }
    }
}

impl Saved {
    /// Adds what was stored of another part of the workspace.
    pub fn add(&mut self, other: Self) {
        let Self { layers, files, bytes, deleted, seen } = other;
        self.layers.extend(layers);
        self.files = self.files.saturating_add(files);
        self.bytes = self.bytes.saturating_add(bytes);
        self.deleted = self.deleted.saturating_add(deleted);
        self.seen.add(seen);
    }
}

/// Stores what is in the directory `root` and was not so in the baseline, or everything.
pub fn save(store: &dyn Store, root: &Path, options: SaveOptions<'_>, progress: &Progress) -> Result<Saved, Error> {
    let SaveOptions { baseline, compression, how } = options;
    let mut attempt = 1_usize;
    loop {
        let strict = attempt < ATTEMPTS;
        let packing = Packing { compression, strict };
        let saved = match baseline {
            None => store_changes(store, root, how, None, packing, progress),
            Some(path) => {
                let mut known = baseline::BaselineReader::open(path)?;
                threads::ahead(
                    |hand_over| known.try_for_each(|known| hand_over(known?)),
                    |known| store_changes(store, root, how, Some(known), packing, progress),
                )
            }
        };
        match saved {
            Err(Error::Changed(path)) if strict => {
                tracing::warn!("{path} changed while it was being saved; saving again");
                attempt = attempt.saturating_add(1);
            }
            other => return other,
        }
    }
}

/// Packs what changed while the rest is being looked for.
fn store_changes(
    store: &dyn Store,
    root: &Path,
    how: Comparison<'_>,
    known: Option<&mut dyn Iterator<Item = Result<Known, Error>>>,
    packing: Packing,
    progress: &Progress,
) -> Result<Saved, Error> {
    let access = DirAccess::temporary();
    let mut saved = Saved::default();
    progress.begin(Phase::Looking);
    let find = |hand_over: &mut dyn FnMut(Shard) -> Result<(), Error>| {
        let seen = diff::changes(root, &access, how, known, shard::size(), &mut |shard| {
            saved.deleted = saved.deleted.saturating_add(shard.whiteouts.len() as u64);
            saved.files = saved.files.saturating_add(shard.files);
            saved.bytes = saved.bytes.saturating_add(shard.bytes);
            progress.enter(Phase::Files);
            hand_over(shard)
        })?;
        progress.expect(saved.files, saved.bytes);
        Ok(seen)
    };
    let pack = |shard| pack(store, root, &access, &shard, packing, progress);
    let (seen, layers) = threads::pipeline(find, pack)?;
    Ok(Saved { layers, seen, ..saved })
}

/// Stores one layer.
pub fn pack(
    store: &dyn Store,
    root: &Path,
    access: &Arc<DirAccess>,
    shard: &Shard,
    packing: Packing,
    progress: &Progress,
) -> Result<Descriptor, Error> {
    let Packing { compression, strict } = packing;
    let progress = progress.of_layer();
    // The store may want the layer from its beginning again.
    write::store(store, compression, &shard.whiteouts, &mut move |layer| {
        progress.begin();
        fill(layer, root, access, shard, strict, &progress)
    })
}

fn fill(
    layer: &mut LayerWriter<'_>,
    root: &Path,
    access: &Arc<DirAccess>,
    shard: &Shard,
    strict: bool,
    progress: &LayerProgress<'_>,
) -> Result<(), Error> {
    let unwritable = || Error::file("a new layer", "can't be stored");
    let mut cursor = Cursor::new(root, access.clone()).map_err(Error::file(root.display(), "can't be opened"))?;
    let mut firsts: HashMap<TreePath, Entry> = HashMap::new();
    let linked: HashSet<&TreePath> = shard.linked().collect();
    layer.replaces_directories(shard.replaced);
    for entry in shard.entries() {
        let entry = entry?;
        if !entry.is_dir() {
            progress.file();
        }
        match &entry.node {
            Node::File(_) => {
                let added = add_file(layer, &mut cursor, &entry, strict, progress)?;
                if linked.contains(&entry.path) {
                    firsts.insert(entry.path, added);
                }
            }
            Node::Link { to, .. } => {
                let first = firsts.get(to).ok_or_else(|| Error::Changed(to.clone()))?;
                let node = Node::Link { to: to.clone(), content: first.content().copied().unwrap_or_default() };
                layer.push(&Entry { path: entry.path.clone(), node, ..first.clone() }).map_err(unwritable())?;
            }
            _ => layer.push(&entry).map_err(unwritable())?,
        }
    }
    Ok(())
}

/// Adds a file as it is now. If it is not what it was when it was found, or changes while it is read, that is an error,
/// as long as `strict`; one that becomes shorter always is. Returns what was added.
fn add_file(
    layer: &mut LayerWriter<'_>,
    cursor: &mut Cursor,
    entry: &Entry,
    strict: bool,
    progress: &LayerProgress<'_>,
) -> Result<Entry, Error> {
    let changed = || Error::Changed(entry.path.clone());
    let unreadable = || Error::file(&entry.path, "can't be read");
    let open = cursor.parent(&entry.path).and_then(|parent| tree::open_file(parent, entry.path.name()));
    let (file, before) = match open {
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return Err(unreadable()(e)),
        other => other.map_err(|_| changed())?,
    };
    let size = entry.content().map_or(0, |content| content.size);
    if strict && (before.size, before.mtime) != (size, entry.mtime) {
        return Err(changed());
    }
    let xattrs = tree::xattrs(&file).map_err(unreadable())?;
    let mut now = before.entry(entry.path.clone(), Node::File(Content { size: before.size, hash: [0; 32] }), xattrs);
    now.mode = entry.mode;
    let mut input = Marked { file: &file, failed: false, progress };
    let content = layer.push_file(now.clone(), &mut input).map_err(|e| {
        if input.failed {
            unreadable()(e)
        } else if e.kind() == io::ErrorKind::UnexpectedEof {
            changed()
        } else {
            Error::file("a new layer", "can't be stored")(e)
        }
    })?;
    let after = tree::status_of(&file).map_err(unreadable())?;
    if (before.size, before.mtime) != (after.size, after.mtime) {
        if strict {
            return Err(changed());
        }
        tracing::warn!("{} changed while it was being saved; what is saved may be a mix", entry.path);
    }
    Ok(Entry { node: Node::File(content), ..now })
}

/// Remembers whether reading the file failed, as opposed to writing the layer.
struct Marked<'a> {
    file: &'a std::fs::File,
    failed: bool,
    progress: &'a LayerProgress<'a>,
}

impl Read for Marked<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = (&mut &*self.file).read(buffer);
        self.progress.bytes(*result.as_ref().unwrap_or(&0) as u64);
        self.failed = matches!(&result, Err(e) if e.kind() != io::ErrorKind::Interrupted);
        result
    }
}
