//! What changed in a workspace since its baseline.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    io::{self, Read},
    path::Path,
    sync::Arc,
};

use super::{
    baseline::Known,
    entry::{Content, Entry, Node},
    error::Error,
    path::TreePath,
    scan::{Found, Walk},
    tree::{self, Access, Cursor, Identity},
};

/// Changes, ready to be written as layers.
#[derive(Debug, Default)]
pub struct Changes {
    /// Paths that are gone, in tree order; what was below them is gone too.
    pub whiteouts: Vec<TreePath>,
    /// What is new or different, by path. Of regular files only the size is known. Directories above a change are there
    /// too. Of several names of one file the first is the file, the others are links to it.
    pub entries: BTreeMap<TreePath, Entry>,
}

/// One name of a file that has several.
struct Name {
    entry: Entry,
    changed: bool,
}

struct Diff {
    cursor: Cursor,
    changes: Changes,
    /// Names by file, of files that have several.
    names: HashMap<(u64, u64), Vec<Name>>,
    /// What is below this path was known and is gone with it.
    gone: Option<TreePath>,
}

/// Compares the directory `root` with what was known of it, in tree order.
pub fn changes(
    root: &Path,
    access: &Arc<Access>,
    baseline: Option<&mut dyn Iterator<Item = Result<Known, Error>>>,
) -> Result<Changes, Error> {
    let has_baseline = baseline.is_some();
    let mut nothing = std::iter::empty();
    let mut baseline = baseline.unwrap_or(&mut nothing).peekable();
    let cursor = Cursor::new(root, access.clone()).map_err(Error::file(root.display(), "can't be opened"))?;
    let mut diff = Diff { cursor, changes: Changes::default(), names: HashMap::new(), gone: None };
    let mut walk = Walk::new(root, access.clone())?;
    while let Some(found) = walk.next() {
        let found = found?;
        while let Some(old) = next_if(&mut baseline, |path| *path < found.path)? {
            diff.deleted(&old);
        }
        match next_if(&mut baseline, |path| *path == found.path)? {
            Some(old) => diff.compare(&walk, &found, &old)?,
            // Without a baseline nothing says that a task changed the root: it belongs to the volume.
            None if found.path.is_root() && !has_baseline => {}
            None => diff.add(&walk, &found, true)?,
        }
    }
    while let Some(old) = next_if(&mut baseline, |_| true)? {
        diff.deleted(&old);
    }
    diff.finish()
}

impl Diff {
    fn deleted(&mut self, old: &Known) {
        let path = &old.entry.path;
        if !self.gone.as_ref().is_some_and(|gone| gone.contains(path)) {
            self.changes.whiteouts.push(path.clone());
            self.gone = Some(path.clone());
        }
    }

    fn compare(&mut self, walk: &Walk, found: &Found, old: &Known) -> Result<(), Error> {
        let (now, was) = (&found.status, &old.entry);
        let same_owner = (now.mode, now.uid, now.gid, now.nlink) == (was.mode, was.uid, was.gid, old.nlink);
        let same_size = was.content().is_none_or(|content| content.size == now.size);
        if old.identity == Some(now.identity) && same_owner && same_size {
            return self.add(walk, found, false);
        }
        let mut entry = walk.describe(found)?;
        let same_kind = std::mem::discriminant(&entry.node) == std::mem::discriminant(&was.node);
        if was.is_dir() && !entry.is_dir() {
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
            Node::Dir { .. } => entry.mtime != was.mtime,
            Node::File(_) => self.file_changed(walk, found, &mut entry, old)?,
            node => *node != was.node || !entry.same_attributes(was) || entry.mtime != was.mtime,
        };
        self.keep(found, entry, changed);
        Ok(())
    }

    /// Whether a file of which the status changed is different, or belongs to another set of names.
    fn file_changed(&self, walk: &Walk, found: &Found, entry: &mut Entry, old: &Known) -> Result<bool, Error> {
        let other_file = old.identity.is_none_or(|identity| !same_file(&identity, &found.status.identity));
        let several = found.status.nlink > 1 || old.nlink > 1;
        let Some(was) = old.entry.content() else { return Ok(true) };
        if other_file && several || was.size != found.status.size || entry.mtime != old.entry.mtime {
            return Ok(true);
        }
        let unreadable =
            |e: io::Error| Error::File { path: found.path.to_string(), action: "can't be read", source: e };
        let (mut file, _) = match tree::open_file(walk.parent(), found.path.name()) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Changed(found.path.clone())),
            other => other.map_err(unreadable)?,
        };
        entry.xattrs = tree::xattrs(&file).map_err(unreadable)?;
        if !entry.same_attributes(&old.entry) {
            return Ok(true);
        }
        let mut hash = blake3::Hasher::new();
        let mut buffer = vec![0; usize::try_from(was.size).unwrap_or(usize::MAX).clamp(1, 256 * 1024)];
        loop {
            match file.read(&mut buffer).map_err(unreadable)? {
                0 => return Ok(hash.finalize() != was.hash),
                len => drop(hash.update(&buffer[..len])),
            }
        }
    }

    fn add(&mut self, walk: &Walk, found: &Found, changed: bool) -> Result<(), Error> {
        // What did not change is of interest only if it is one of several names.
        if changed || found.status.nlink > 1 && found.status.kind == rustix::fs::FileType::RegularFile {
            let entry = walk.describe(found)?;
            self.keep(found, entry, changed);
        }
        Ok(())
    }

    fn keep(&mut self, found: &Found, entry: Entry, changed: bool) {
        if matches!(entry.node, Node::File(_)) && found.status.nlink > 1 {
            let Identity { dev, ino, .. } = found.status.identity;
            self.names.entry((dev, ino)).or_default().push(Name { entry, changed });
        } else if changed {
            self.changes.entries.insert(entry.path.clone(), entry);
        }
    }

    fn finish(mut self) -> Result<Changes, Error> {
        for names in self.names.into_values().filter(|names| names.iter().any(|name| name.changed)) {
            let mut first: Option<TreePath> = None;
            for Name { mut entry, .. } in names {
                if let Some(to) = &first {
                    let content = entry.content().copied().unwrap_or_default();
                    entry.node = Node::Link { to: to.clone(), content };
                }
                first.get_or_insert_with(|| entry.path.clone());
                self.changes.entries.insert(entry.path.clone(), entry);
            }
        }
        let paths = self.changes.entries.keys().chain(&self.changes.whiteouts);
        let mut above = BTreeSet::new();
        for path in paths {
            let mut path = path.parent();
            while let Some(dir) = path.filter(|dir| !self.changes.entries.contains_key(dir)) {
                path = dir.parent();
                if !above.insert(dir) {
                    break;
                }
            }
        }
        for path in above {
            let describe = |cursor: &mut Cursor| -> io::Result<Entry> {
                let dir = cursor.dir(&path)?;
                let node = Node::Dir { touched: true };
                Ok(tree::status_of(dir)?.entry(path.clone(), node, tree::xattrs(dir)?))
            };
            let entry = describe(&mut self.cursor).map_err(|_| Error::Changed(path.clone()))?;
            self.changes.entries.insert(path, entry);
        }
        Ok(self.changes)
    }
}

impl Changes {
    /// Whether nothing changed.
    pub fn is_empty(&self) -> bool {
        self.whiteouts.is_empty() && self.entries.is_empty()
    }

    /// Splits them into parts of about equal size, none much smaller than `size` bytes of content and at most `most`, with
    /// all names of a file in one part.
    pub fn split(self, size: u64, most: u64) -> Vec<Self> {
        let weight = |entry: &Entry| match &entry.node {
            Node::File(Content { size, .. }) => *size + 512,
            _ => 512,
        };
        let total: u64 = self.entries.values().map(weight).sum();
        let parts = (total / size).clamp(1, most);
        let mut split: Vec<Self> = (0..parts).map(|_| Self::default()).collect();
        let mut part_of = HashMap::new();
        let (mut part, mut filled) = (0, 0);
        for (path, entry) in self.entries {
            let weight = weight(&entry);
            let mut this = part;
            match &entry.node {
                Node::Link { to, .. } => this = part_of.get(to).copied().unwrap_or(part),
                Node::File(_) => drop(part_of.insert(path.clone(), part)),
                _ => {}
            }
            filled += weight;
            split[this].entries.insert(path, entry);
            if filled * parts >= (part as u64 + 1) * total && part + 1 < split.len() {
                part += 1;
            }
        }
        split[0].whiteouts = self.whiteouts;
        split.retain(|part| !part.is_empty());
        split
    }
}

fn same_file(a: &Identity, b: &Identity) -> bool {
    (a.dev, a.ino) == (b.dev, b.ino)
}

fn next_if<I: Iterator<Item = Result<Known, Error>>>(
    baseline: &mut std::iter::Peekable<I>,
    wanted: impl Fn(&TreePath) -> bool,
) -> Result<Option<Known>, Error> {
    baseline.next_if(|known| known.as_ref().map_or(true, |known| wanted(&known.entry.path))).transpose()
}
