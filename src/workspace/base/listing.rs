//! What is at each path of a workspace, and which layer made it, in a third of the memory that as many entries take.

use std::{collections::BTreeMap, io};

use crate::workspace::{
    entry::Entry,
    layer::toc::{Toc, TocWriter},
    path::TreePath,
};

/// Entries by path.
#[derive(Default)]
pub struct Listing(BTreeMap<TreePath, Packed>);

struct Packed {
    layer: u32,
    is_dir: bool,
    /// The entry without its path, a postcard.
    rest: Box<[u8]>,
}

impl Listing {
    /// What is at `path`.
    pub fn get(&self, path: &TreePath) -> Option<Entry> {
        self.0.get(path)?.unpack(path.clone())
    }

    /// Whether there is a directory at `path`, or something else, or nothing.
    pub fn is_dir(&self, path: &TreePath) -> Option<bool> {
        self.0.get(path).map(|there| there.is_dir)
    }

    /// Which layer made what is at `path`.
    pub fn layer_of(&self, path: &TreePath) -> Option<u32> {
        self.0.get(path).map(|there| there.layer)
    }

    /// Puts `entry`, which is of `layer`, in its place. Gives what was there.
    pub fn insert(&mut self, layer: u32, mut entry: Entry) -> io::Result<Option<Entry>> {
        let path = std::mem::take(&mut entry.path);
        let rest = postcard::to_stdvec(&entry).map_err(io::Error::other)?.into_boxed_slice();
        let old = self.0.insert(path.clone(), Packed { layer, is_dir: entry.is_dir(), rest });
        Ok(old.and_then(|old| old.unpack(path)))
    }

    /// Takes out what is at `path`.
    pub fn remove(&mut self, path: &TreePath) -> Option<Entry> {
        self.0.remove(path)?.unpack(path.clone())
    }

    /// All paths below `dir` with the layers that made them, in tree order.
    pub fn below<'a>(&'a self, dir: &'a TreePath) -> impl Iterator<Item = (&'a TreePath, u32)> {
        let from = self.0.range(dir.clone()..).skip_while(move |(path, _)| *path == dir);
        from.take_while(move |(path, _)| dir.contains(path)).map(|(path, there)| (path, there.layer))
    }

    /// All of it as a table of contents, and how many files there are.
    pub fn finish(self) -> io::Result<(Toc, u64)> {
        let (mut table, mut files) = (TocWriter::new()?, 0);
        for (path, packed) in self.0 {
            if let Some(entry) = packed.unpack(path) {
                files += u64::from(entry.content().is_some());
                table.push(&entry)?;
            }
        }
        let (payload, entries) = table.finish()?;
        Ok((Toc::new("the base", payload, entries), files))
    }
}

impl Packed {
    fn unpack(&self, path: TreePath) -> Option<Entry> {
        let entry: Entry = postcard::from_bytes(&self.rest).ok()?;
        Some(Entry { path, ..entry })
    }
}
