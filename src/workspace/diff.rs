//! What changed in a workspace since its baseline.

use std::{
    collections::{HashMap, hash_map},
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use rustix::fs::FileType;

use super::{
    baseline::Known,
    entry::{Entry, Node},
    error::Error,
    files::{
        access::{Cursor, DirAccess},
        mounts::MountPoints,
        tree::{self, FileIdentity, FileStatus},
        walk::{Walk, WalkEntry},
    },
    path::TreePath,
    selection::Extent,
    shard::{Shard, Sharder},
};

/// Which paths of a workspace are compared.
#[derive(Clone, Copy, Debug, Default)]
pub enum Part<'a> {
    /// All.
    #[default]
    Whole,
    /// A directory and what is in it. The directories above it are listed with what changed.
    Within(&'a TreePath),
    /// All but these directories and what is in them.
    Without(&'a [TreePath]),
}

/// How a workspace is compared.
#[derive(Clone, Copy, Debug)]
pub struct Comparison<'a> {
    /// Which part of it.
    pub part: Part<'a>,
    /// Whether what differs in nothing but its mtime counts as unchanged.
    pub ignore_mtimes: bool,
    /// Where other containers have something mounted.
    pub mounts: &'a MountPoints,
}

/// What [`changes`] saw beside the changes themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Seen {
    /// Paths in the part that was compared, its directory aside.
    pub paths: u64,
    /// Regular files of which, as far as can be told without reading them, only mode, owner or extended attributes changed.
    pub metadata_only: u64,
    /// Their bytes.
    pub metadata_only_bytes: u64,
}

impl Seen {
    /// Adds what was seen in another part.
    pub fn add(&mut self, other: Self) {
        let Self { paths, metadata_only, metadata_only_bytes } = other;
        self.paths = self.paths.saturating_add(paths);
        self.metadata_only = self.metadata_only.saturating_add(metadata_only);
        self.metadata_only_bytes = self.metadata_only_bytes.saturating_add(metadata_only_bytes);
    }
}

/// A file with hard links.
struct Linked {
    /// The file at the first of its paths.
    first: Entry,
    /// The others, in tree order.
    others: Vec<TreePath>,
    /// Whether anything about one of them changed.
    changed: bool,
}

/// A directory that the walk is in.
struct OpenDir {
    path: TreePath,
    attributes: DirAttributes,
    /// It is in a shard.
    listed: bool,
}

/// What a directory is listed with that is listed only because something below it changed.
#[derive(Clone)]
struct DirAttributes {
    /// As it was before it was opened, which may have changed its mode.
    status: FileStatus,
    /// What the task was not given: all but the mtime stays as its ancestors left it.
    left_out: Option<Box<Entry>>,
}

struct Diff<'a> {
    cursor: Cursor,
    how: Comparison<'a>,
    shards: Sharder<'a>,
    seen: Seen,
    /// From the root to the last path: all directories above it, and itself if it is one.
    open: Vec<OpenDir>,
    /// Files with hard links, by device and inode.
    linked: HashMap<(u64, u64), Linked>,
    /// The directories above their paths.
    above_links: HashMap<TreePath, DirAttributes>,
    /// What is below this path was known and is gone with it.
    gone: Option<TreePath>,
}

/// Compares the directory `root` with what was known of it, in tree order, and hands what changed over as it is found: in
/// shards, the first ones of `size`. Directories above a change are there too. What a container runtime made as mount point
/// at a mount point, or on the way to it, is not a change.
pub fn changes(
    root: &Path,
    access: &Arc<DirAccess>,
    how: Comparison<'_>,
    baseline: Option<&mut dyn Iterator<Item = Result<Known, Error>>>,
    size: u64,
    out: &mut dyn FnMut(Shard) -> Result<(), Error>,
) -> Result<Seen, Error> {
    let has_baseline = baseline.is_some();
    let mut nothing = std::iter::empty();
    let mut baseline = baseline.unwrap_or(&mut nothing).peekable();
    let cursor = Cursor::new(root, access.clone()).map_err(Error::file(root.display(), "can't be opened"))?;
    let shards = Sharder::new(size, out)?;
    let mut diff = Diff {
        cursor,
        how,
        shards,
        seen: Seen::default(),
        open: Vec::new(),
        linked: HashMap::new(),
        above_links: HashMap::new(),
        gone: None,
    };
    let mut walk = Walk::new(root, access.clone())?;
    while let Some(found) = walk.next() {
        let found = found?;
        while let Some(old) = next_if(&mut baseline, |path| *path < found.path)? {
            diff.deleted(&old)?;
        }
        diff.leave(&found.path);
        let old = next_if(&mut baseline, |path| *path == found.path)?;
        let is_compared = how.part.has(&found.path);
        diff.seen.paths = diff.seen.paths.saturating_add(u64::from(is_compared && !how.part.is_at(&found.path)));
        let listed = match &old {
            _ if !is_compared => false,
            Some(old) if old.extent == Extent::Nothing => diff.compare_left_out(&walk, &found)?,
            Some(old) => diff.compare(&walk, &found, old)?,
            None if diff.is_mount_point(&found) => false,
            // Without a baseline nothing says that a task changed the root: it belongs to the volume.
            None if found.path.is_root() && !has_baseline => false,
            None => diff.add(&walk, &found, true)?,
        };
        if found.status.kind == FileType::Directory {
            let left_out = old.filter(|old| old.extent == Extent::Nothing).map(|old| Box::new(old.entry));
            let attributes = DirAttributes { status: found.status, left_out };
            diff.open.push(OpenDir { path: found.path, attributes, listed });
        }
    }
    while let Some(old) = next_if(&mut baseline, |_| true)? {
        diff.deleted(&old)?;
    }
    diff.finish()
}

impl Part<'_> {
    fn has(&self, path: &TreePath) -> bool {
        let within = |place: &TreePath| place == path || place.contains(path);
        match self {
            Self::Whole => true,
            Self::Within(place) => within(place),
            Self::Without(places) => !places.iter().any(within),
        }
    }

    /// Whether `path` is the directory that the part is in.
    fn is_at(&self, path: &TreePath) -> bool {
        match self {
            Self::Within(place) => *place == path,
            Self::Whole | Self::Without(_) => path.is_root(),
        }
    }
}

impl Diff<'_> {
    /// Leaves the directories that `path` is not in.
    fn leave(&mut self, path: &TreePath) {
        while self.open.pop_if(|dir| !dir.path.contains(path)).is_some() {}
    }

    fn deleted(&mut self, old: &Known) -> Result<(), Error> {
        let path = &old.entry.path;
        // What is in it, and was not given to the task, is not deleted with it.
        if old.extent != Extent::Whole || !self.how.part.has(path) {
            return Ok(());
        }
        if self.gone.as_ref().is_some_and(|gone| gone.contains(path)) {
            return Ok(());
        }
        self.leave(path);
        self.gone = Some(path.clone());
        // Who lists the directory that it was in lists that this is gone too.
        let is_gone_with_more =
            self.open.last().is_none_or(|dir| path.parent().is_some_and(|parent| parent != dir.path));
        if matches!(self.how.part, Part::Within(place) if place == path) && is_gone_with_more {
            return Ok(());
        }
        self.list_above()?;
        self.shards.whiteout(path.clone())
    }

    /// Whether it is what a container runtime makes as mount point, or on the way to one. A directory is listed if there is more
    /// in it.
    fn is_mount_point(&self, found: &WalkEntry) -> bool {
        match found.status.kind {
            FileType::Directory => !found.path.is_root() && self.how.mounts.needs(&found.path),
            FileType::RegularFile => found.status.size == 0 && self.how.mounts.contains(&found.path),
            _ => false,
        }
    }

    /// The task made something at the path of a directory that it was not given. Whether it is listed as changed: a directory
    /// is there as it was for others.
    fn compare_left_out(&mut self, walk: &Walk, found: &WalkEntry) -> Result<bool, Error> {
        if found.status.kind == FileType::Directory {
            return Ok(false);
        }
        self.shards.replaces_directory();
        self.add(walk, found, true)
    }

    /// Whether it is listed as changed.
    fn compare(&mut self, walk: &Walk, found: &WalkEntry, old: &Known) -> Result<bool, Error> {
        let (now, was) = (&found.status, &old.entry);
        let same_owner = (now.mode, now.uid, now.gid, now.nlink) == (was.mode, was.uid, was.gid, old.nlink);
        let same_size = was.content().is_none_or(|content| content.size == now.size);
        if old.identity == Some(now.identity) && same_owner && same_size {
            return self.add(walk, found, false);
        }
        let mut entry = walk.describe(found)?;
        let same_kind = std::mem::discriminant(&entry.node) == std::mem::discriminant(&was.node);
        if was.is_dir() && !entry.is_dir() {
            self.shards.replaces_directory();
            self.gone = Some(found.path.clone());
        }
        if let (Node::Dir { touched }, true) = (&mut entry.node, was.is_dir()) {
            // Below, attributes decide whether it is more than that.
            *touched = true;
        }
        let changed = match &entry.node {
            _ if !same_kind => true,
            Node::Dir { .. } if !entry.same_attributes(was) => {
                entry.node = Node::Dir { touched: false };
                true
            }
            Node::Dir { .. } => self.has_other_mtime(&entry, was),
            Node::File(_) => self.file_changed(walk, found, &mut entry, old)?,
            node => *node != was.node || !entry.same_attributes(was) || self.has_other_mtime(&entry, was),
        };
        self.keep(found, entry, changed)
    }

    fn has_other_mtime(&self, now: &Entry, was: &Entry) -> bool {
        !self.how.ignore_mtimes && now.mtime != was.mtime
    }

    /// Whether a file of which the status changed is different, or is a hard link to another file.
    fn file_changed(&mut self, walk: &Walk, found: &WalkEntry, entry: &mut Entry, old: &Known) -> Result<bool, Error> {
        let other_file = old.identity.is_none_or(|identity| !same_file(&identity, &found.status.identity));
        let has_links = found.status.nlink > 1 || old.nlink > 1;
        let Some(was) = old.entry.content() else { return Ok(true) };
        let has_other_mtime = self.has_other_mtime(entry, &old.entry);
        if other_file && has_links || was.size != found.status.size || has_other_mtime {
            return Ok(true);
        }
        let unreadable =
            |e: io::Error| Error::File { path: found.path.to_string(), action: "can't be read", source: e };
        let (mut file, _) = match tree::open_file(walk.parent(), found.path.name()) {
            Err(e) if tree::is_change(&e) => return Err(Error::Changed(found.path.clone())),
            other => other.map_err(unreadable)?,
        };
        entry.xattrs = tree::xattrs(&file).map_err(unreadable)?;
        if !entry.same_attributes(&old.entry) {
            self.seen.metadata_only = self.seen.metadata_only.saturating_add(1);
            self.seen.metadata_only_bytes = self.seen.metadata_only_bytes.saturating_add(was.size);
            return Ok(true);
        }
        let mut hash = blake3::Hasher::new();
        let mut buffer = vec![0; usize::try_from(was.size).unwrap_or(usize::MAX).clamp(1, 256 * 1024)];
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => return Ok(hash.finalize() != was.hash),
                len => drop(hash.update(buffer.get(..len).unwrap_or_default())),
            }
        }
    }

    /// Whether it is listed as changed.
    fn add(&mut self, walk: &Walk, found: &WalkEntry, changed: bool) -> Result<bool, Error> {
        // What did not change is of interest only if it is a hard link.
        if changed || found.status.nlink > 1 && found.status.kind == FileType::RegularFile {
            let entry = walk.describe(found)?;
            return self.keep(found, entry, changed);
        }
        Ok(false)
    }

    fn keep(&mut self, found: &WalkEntry, entry: Entry, changed: bool) -> Result<bool, Error> {
        if matches!(entry.node, Node::File(_)) && found.status.nlink > 1 {
            let FileIdentity { dev, ino, .. } = found.status.identity;
            match self.linked.entry((dev, ino)) {
                hash_map::Entry::Vacant(vacant) => {
                    vacant.insert(Linked { first: entry, others: Vec::new(), changed });
                }
                hash_map::Entry::Occupied(mut known) => {
                    known.get_mut().others.push(entry.path);
                    known.get_mut().changed |= changed;
                }
            }
            for dir in self.open.iter().rev() {
                if self.above_links.insert(dir.path.clone(), dir.attributes.clone()).is_some() {
                    break;
                }
            }
            return Ok(false);
        }
        if changed {
            self.list_above()?;
            self.shards.push(&entry)?;
        }
        Ok(changed)
    }

    /// Lists the directories above a change that are not listed yet.
    fn list_above(&mut self) -> Result<(), Error> {
        let listed = self.open.iter().rposition(|dir| dir.listed);
        let unlisted = self.open.iter_mut().enumerate().filter(|(place, _)| listed.is_none_or(|last| *place > last));
        for (_, dir) in unlisted {
            self.shards.push(&header(&mut self.cursor, &dir.path, &dir.attributes)?)?;
            dir.listed = true;
        }
        Ok(())
    }

    /// Files with hard links are listed last, as only then all their paths are known.
    fn finish(mut self) -> Result<Seen, Error> {
        let mut sets: Vec<Linked> = self.linked.into_values().filter(|linked| linked.changed).collect();
        sets.sort_by(|a, b| a.first.path.cmp(&b.first.path));
        for Linked { first, others, .. } in sets {
            let node = Node::Link { to: first.path.clone(), content: first.content().copied().unwrap_or_default() };
            let links = others.into_iter().map(|path| Entry { path, node: node.clone(), ..first.clone() });
            let names: Vec<Entry> = std::iter::once(first.clone()).chain(links).collect();
            let mut entries = Vec::with_capacity(names.len());
            for entry in names {
                let mut path = entry.path.parent();
                while let Some((dir, attributes)) = path.and_then(|dir| self.above_links.remove_entry(&dir)) {
                    entries.push(header(&mut self.cursor, &dir, &attributes)?);
                    path = dir.parent();
                }
                entries.push(entry);
            }
            self.shards.push_linked(entries)?;
        }
        self.shards.finish()?;
        Ok(self.seen)
    }
}

/// A directory that is listed because something below it changed.
fn header(cursor: &mut Cursor, path: &TreePath, attributes: &DirAttributes) -> Result<Entry, Error> {
    let DirAttributes { status, left_out } = attributes;
    if let Some(known) = left_out {
        return Ok(Entry { node: Node::Dir { touched: true }, mtime: status.mtime, ..(**known).clone() });
    }
    let xattrs = cursor.dir(path).and_then(tree::xattrs).map_err(|_| Error::Changed(path.clone()))?;
    Ok(status.entry(path.clone(), Node::Dir { touched: true }, xattrs))
}

fn same_file(a: &FileIdentity, b: &FileIdentity) -> bool {
    (a.dev, a.ino) == (b.dev, b.ino)
}

fn next_if<I: Iterator<Item = Result<Known, Error>>>(
    baseline: &mut std::iter::Peekable<I>,
    wanted: impl Fn(&TreePath) -> bool,
) -> Result<Option<Known>, Error> {
    baseline.next_if(|known| known.as_ref().map_or(true, |known| wanted(&known.entry.path))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_of_a_part() {
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        let (places, place) = ([path("a/b")], path("a/b"));
        for (part, at) in [(Part::Whole, ""), (Part::Without(&places), ""), (Part::Within(&place), "a/b")] {
            for other in ["", "a", "a/b", "a/b/c"] {
                assert_eq!(part.is_at(&path(other)), other == at, "{part:?} {other}");
            }
        }
    }

    #[test]
    fn what_was_seen_in_all_parts() {
        let mut seen = Seen { paths: 1, metadata_only: 2, metadata_only_bytes: 3 };
        seen.add(Seen { paths: 10, metadata_only: 20, metadata_only_bytes: 30 });
        assert_eq!(seen, Seen { paths: 11, metadata_only: 22, metadata_only_bytes: 33 });
    }
}
