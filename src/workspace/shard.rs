//! What a task changed, in parts that are small in memory and large as layers.
//!
//! A part is closed when it is heavy enough, and packed while the next one is still being found. Later parts are larger,
//! so that a save of any size makes few layers.

use std::io;

use super::{
    entry::{Entry, Node},
    error::Error,
    layer::toc::{Toc, TocWriter},
    path::TreePath,
};

/// See [`size`].
const SIZE: u64 = 64 << 20;

/// So many parts are of one size, then the size doubles: with two, 1 GiB makes 10 layers, 100 GiB makes 36.
const OF_ONE_SIZE: u32 = 4;

/// A part of what changed. Paths of different parts are disjoint, except that a directory may be in several.
pub struct Shard {
    /// Paths that are gone, in tree order; what was below them is gone too.
    pub whiteouts: Vec<TreePath>,
    /// Everything that is no directory, by name.
    pub files: u64,
    /// Bytes of regular files, of hard links once.
    pub bytes: u64,
    /// How many entries are in place of directories.
    pub replaced: u64,
    listed: Toc,
    /// Files with hard links, and the directories above them, in tree order.
    linked: Vec<Entry>,
}

/// Distributes changes to shards and hands each over when it is full.
pub struct Sharder<'a> {
    size: u64,
    handed_over: u32,
    open: Open,
    out: &'a mut dyn FnMut(Shard) -> Result<(), Error>,
}

/// A shard that is not full.
struct Open {
    whiteouts: Vec<TreePath>,
    listed: TocWriter,
    linked: Vec<Entry>,
    files: u64,
    bytes: u64,
    replaced: u64,
    weight: u64,
}

/// The weight of the first parts: bytes of content, and 1 KiB for each path.
pub fn size() -> u64 {
    #[cfg(test)]
    return tests::SIZE.get();
    #[cfg(not(test))]
    SIZE
}

impl Shard {
    /// What is new or different, in tree order. Of regular files only the size is known. Of several paths of one file the
    /// first is the file, the others are links to it.
    pub fn entries(&self) -> impl Iterator<Item = Result<Entry, Error>> + '_ {
        let (mut listed, mut linked) = (self.listed.iter().peekable(), self.linked.iter().peekable());
        std::iter::from_fn(move || match (listed.peek(), linked.peek()) {
            (Some(Ok(entry)), Some(link)) if link.path < entry.path => linked.next().cloned().map(Ok),
            (None, _) => linked.next().cloned().map(Ok),
            (Some(Ok(entry)), Some(link)) if link.path == entry.path => {
                linked.next();
                listed.next()
            }
            _ => listed.next(),
        })
    }

    /// Files that hard links of the same shard lead to.
    pub fn linked(&self) -> impl Iterator<Item = &TreePath> {
        self.linked.iter().filter_map(|entry| match &entry.node {
            Node::Link { to, .. } => Some(to),
            _ => None,
        })
    }
}

impl<'a> Sharder<'a> {
    /// The first shards are of `size`.
    pub fn new(size: u64, out: &'a mut dyn FnMut(Shard) -> Result<(), Error>) -> Result<Self, Error> {
        Ok(Self { size, handed_over: 0, open: Open::new()?, out })
    }

    /// Adds a path that is gone. They come in tree order.
    pub fn whiteout(&mut self, path: TreePath) -> Result<(), Error> {
        self.make_room(weight(&[]))?;
        self.open.weight = self.open.weight.saturating_add(weight(&[]));
        self.open.whiteouts.push(path);
        Ok(())
    }

    /// Notes that the next entry is in place of a directory.
    pub fn replaces_directory(&mut self) {
        self.open.replaced = self.open.replaced.saturating_add(1);
    }

    /// Adds what has no hard links. They come in tree order.
    pub fn push(&mut self, entry: &Entry) -> Result<(), Error> {
        self.make_room(weight([entry]))?;
        self.open.count(entry);
        self.open.listed.push(entry).map_err(unlisted())
    }

    /// Adds all paths of a file, or of none, and directories above them: after everything else, in any order.
    pub fn push_linked(&mut self, entries: Vec<Entry>) -> Result<(), Error> {
        self.make_room(weight(&entries))?;
        entries.iter().for_each(|entry| self.open.count(entry));
        self.open.linked.extend(entries);
        Ok(())
    }

    /// Hands the last shard over.
    pub fn finish(mut self) -> Result<(), Error> {
        if self.open.weight > 0 {
            self.hand_over()?;
        }
        Ok(())
    }

    fn make_room(&mut self, weight: u64) -> Result<(), Error> {
        let size = self.size << (self.handed_over / OF_ONE_SIZE).min(20);
        if self.open.weight > 0 && self.open.weight.saturating_add(weight) > size {
            self.hand_over()?;
        }
        Ok(())
    }

    fn hand_over(&mut self) -> Result<(), Error> {
        let full = std::mem::replace(&mut self.open, Open::new()?);
        self.handed_over = self.handed_over.saturating_add(1);
        (self.out)(full.close()?)
    }
}

impl Open {
    fn new() -> Result<Self, Error> {
        let listed = TocWriter::new().map_err(unlisted())?;
        Ok(Self { whiteouts: Vec::new(), listed, linked: Vec::new(), files: 0, bytes: 0, replaced: 0, weight: 0 })
    }

    fn count(&mut self, entry: &Entry) {
        self.weight = self.weight.saturating_add(weight([entry]));
        self.files = self.files.saturating_add(u64::from(!entry.is_dir()));
        self.bytes = self.bytes.saturating_add(entry.own_size());
    }

    fn close(self) -> Result<Shard, Error> {
        let Self { whiteouts, listed, mut linked, files, bytes, replaced, .. } = self;
        let (payload, count) = listed.finish().map_err(unlisted())?;
        linked.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Shard { whiteouts, files, bytes, replaced, listed: Toc::new("what changed", payload, count), linked })
    }
}

/// Bytes of content, and 1 KiB for each path: what it costs in headers and tables.
fn weight<'e>(entries: impl IntoIterator<Item = &'e Entry>) -> u64 {
    entries.into_iter().map(|entry| entry.own_size().saturating_add(1024)).fold(0, u64::saturating_add).max(1024)
}

fn unlisted() -> impl FnOnce(io::Error) -> Error {
    Error::file("what changed", "can't be listed")
}

#[cfg(test)]
pub mod tests {
    use std::cell::Cell;

    thread_local! {
        /// For tests that want many small shards.
        pub static SIZE: Cell<u64> = const { Cell::new(super::SIZE) };
    }

    #[test]
    fn a_large_save_has_few_layers() {
        let megabytes = |shards: u32| (0..shards).map(|i| super::SIZE << (i / super::OF_ONE_SIZE)).sum::<u64>() >> 20;
        assert!(megabytes(10) > 1 << 10 && megabytes(36) > 100 << 10);
    }
}
