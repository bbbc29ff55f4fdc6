//! What is at each path of a workspace, and which layer made it: a tree of names, in a third of the memory that as many
//! entries take. What an operation costs depends on the length of its path, not on how much else there is.

use std::{collections::BTreeMap, io};

use crate::workspace::{
    entry::Entry,
    layer::toc::{Toc, TocWriter},
    path::TreePath,
};

/// The place of the root in [`Listing::nodes`].
const ROOT: usize = 0;

/// Entries by path. Above each entry, except for the root, there are directories.
pub struct Listing {
    nodes: Vec<ListedNode>,
    /// Places in `nodes` that are not in use.
    free: Vec<usize>,
    /// The directory that something was put in last, or that was put in: most often the next entry is in it.
    last: (TreePath, usize),
}

#[derive(Default)]
struct ListedNode {
    /// None: there is nothing yet, which only the root can be.
    there: Option<Packed>,
    /// The layer that hid what lower layers have below it: nothing else than what it keeps is left of them.
    cleared_by: Option<u32>,
    children: BTreeMap<Box<[u8]>, usize>,
}

struct Packed {
    layer: u32,
    is_dir: bool,
    /// The entry without its path, a postcard.
    rest: Box<[u8]>,
}

impl Listing {
    /// Nothing at all.
    pub fn new() -> Self {
        Self { nodes: vec![ListedNode::default()], free: Vec::new(), last: (TreePath::root(), ROOT) }
    }

    /// What is at `path`.
    pub fn get(&self, path: &TreePath) -> Option<Entry> {
        self.there(path)?.unpack(path.clone())
    }

    /// Whether there is a directory at `path`, or something else, or nothing.
    pub fn is_dir(&self, path: &TreePath) -> Option<bool> {
        self.there(path).map(|there| there.is_dir)
    }

    /// Which layer made what is at `path`.
    pub fn layer_of(&self, path: &TreePath) -> Option<u32> {
        self.there(path).map(|there| there.layer)
    }

    /// Whether there is anything below `path`.
    pub fn has_below(&self, path: &TreePath) -> bool {
        self.find(path).and_then(|node| self.nodes.get(node)).is_some_and(|node| !node.children.is_empty())
    }

    /// The length of the part of `path` that leads through directories that are there, and whether what follows is something
    /// else than a directory. All of `path` is there if it is its whole length.
    pub fn known_part(&self, path: &TreePath) -> (usize, bool) {
        let (mut node, mut known) = (ROOT, 0);
        for name in path.names() {
            let Some(child) = self.child(node, name) else { return (known, false) };
            if self.nodes.get(child).and_then(|node| node.there.as_ref()).is_some_and(|there| !there.is_dir) {
                return (known, true);
            }
            node = child;
            known = known.saturating_add(name.len()).saturating_add(usize::from(known > 0));
        }
        (known, false)
    }

    /// Puts `entry`, which is of `layer`, in its place; its parent must be there. Gives what was there.
    pub fn insert(&mut self, layer: u32, mut entry: Entry) -> io::Result<Option<Entry>> {
        let path = std::mem::take(&mut entry.path);
        let rest = postcard::to_stdvec(&entry).map_err(io::Error::other)?.into_boxed_slice();
        let (is_dir, absent) = (entry.is_dir(), || io::Error::other("its directory is not there"));
        let place = match path.parent() {
            None => ROOT,
            Some(parent) => {
                if self.last.0 != parent {
                    self.last = (parent.clone(), self.find(&parent).ok_or_else(absent)?);
                }
                let parent = self.last.1;
                let child = self.child(parent, path.name()).or_else(|| self.add_child(parent, path.name()));
                child.ok_or_else(absent)?
            }
        };
        if is_dir {
            self.last = (path.clone(), place);
        }
        let node = self.nodes.get_mut(place).ok_or_else(absent)?;
        Ok(node.there.replace(Packed { layer, is_dir, rest }).and_then(|old| old.unpack(path)))
    }

    /// Takes out what is at `path` and all below it. Gives the bytes that these files held.
    pub fn remove(&mut self, path: &TreePath, bytes_of: fn(&Entry) -> u64) -> u64 {
        let Some(parent) = path.parent().and_then(|parent| self.find(&parent)) else { return 0 };
        let node = self.nodes.get_mut(parent).and_then(|parent| parent.children.remove(path.name()));
        node.map_or(0, |node| self.free_all(node, bytes_of))
    }

    /// Takes out what layers before `layer` made below `dir`, except directories that later things are in. Gives the highest
    /// paths of what is gone, and the bytes that these files held.
    pub fn clear(&mut self, dir: &TreePath, layer: u32, bytes_of: fn(&Entry) -> u64) -> (Vec<TreePath>, u64) {
        let (mut gone, mut bytes) = (Vec::new(), 0_u64);
        let Some(start) = self.find_uncleared(dir, layer) else { return (gone, bytes) };
        // Each directory is looked at twice: before what is in it, and after.
        let mut open = vec![(start, dir.clone(), false)];
        while let Some((at, path, is_done)) = open.pop() {
            let Some(node) = self.nodes.get_mut(at) else { continue };
            if !is_done {
                if node.cleared_by.replace(layer) == Some(layer) {
                    continue;
                }
                let children: Vec<_> = node.children.iter().map(|(name, child)| (*child, path.join(name))).collect();
                open.push((at, path, true));
                open.extend(children.into_iter().map(|(child, path)| (child, path, false)));
                continue;
            }
            // What is left of the content has decided about itself by now.
            let is_old = |node: &ListedNode| node.there.as_ref().is_some_and(|there| there.layer < layer);
            let old: Vec<Box<[u8]>> = node.children.keys().cloned().collect();
            for name in old {
                let Some(child) = self.child(at, &name) else { continue };
                if self.nodes.get(child).is_some_and(|node| is_old(node) && node.children.is_empty()) {
                    bytes = bytes.saturating_add(self.free_all(child, bytes_of));
                    if let Some(node) = self.nodes.get_mut(at) {
                        node.children.remove(&name);
                    }
                    let path = path.join(&name);
                    while gone.pop_if(|below| path.contains(below)).is_some() {}
                    gone.push(path);
                }
            }
        }
        (gone, bytes)
    }

    /// All of it as a table of contents, and how many files there are.
    pub fn finish(mut self) -> io::Result<(Toc, u64)> {
        let (mut table, mut files) = (TocWriter::new()?, 0_u64);
        let mut open = vec![(ROOT, TreePath::root())];
        while let Some((at, path)) = open.pop() {
            let Some(node) = self.nodes.get_mut(at).map(std::mem::take) else { continue };
            open.extend(node.children.into_iter().rev().map(|(name, child)| (child, path.join(&name))));
            if let Some(entry) = node.there.and_then(|packed| packed.unpack(path)) {
                files = files.saturating_add(u64::from(!entry.is_dir()));
                table.push(&entry)?;
            }
        }
        let (payload, entries) = table.finish()?;
        Ok((Toc::new("the base", payload, entries), files))
    }

    fn there(&self, path: &TreePath) -> Option<&Packed> {
        self.nodes.get(self.find(path)?)?.there.as_ref()
    }

    fn find(&self, path: &TreePath) -> Option<usize> {
        path.names().try_fold(ROOT, |node, name| self.child(node, name))
    }

    /// What is at `path`, unless `layer` cleared it already, or something above it.
    fn find_uncleared(&self, path: &TreePath, layer: u32) -> Option<usize> {
        let is_cleared = |node: usize| self.nodes.get(node).is_some_and(|node| node.cleared_by == Some(layer));
        let mut node = ROOT;
        for name in path.names() {
            if is_cleared(node) {
                return None;
            }
            node = self.child(node, name)?;
        }
        (!is_cleared(node)).then_some(node)
    }

    fn child(&self, node: usize, name: &[u8]) -> Option<usize> {
        self.nodes.get(node)?.children.get(name).copied()
    }

    fn add_child(&mut self, parent: usize, name: &[u8]) -> Option<usize> {
        let child = self.free.pop().unwrap_or(self.nodes.len());
        self.nodes.get_mut(parent)?.children.insert(name.into(), child);
        if child == self.nodes.len() {
            self.nodes.push(ListedNode::default());
        }
        Some(child)
    }

    /// Frees the places of `node` and of all below it, which nothing leads to any more.
    fn free_all(&mut self, node: usize, bytes_of: fn(&Entry) -> u64) -> u64 {
        self.last = (TreePath::root(), ROOT);
        let (mut open, mut bytes) = (vec![node], 0_u64);
        while let Some(at) = open.pop() {
            let Some(node) = self.nodes.get_mut(at).map(std::mem::take) else { continue };
            open.extend(node.children.into_values());
            self.free.push(at);
            let entry = node.there.and_then(|packed| packed.unpack(TreePath::root()));
            bytes = bytes.saturating_add(entry.map_or(0, |entry| bytes_of(&entry)));
        }
        bytes
    }
}

impl Packed {
    fn unpack(&self, path: TreePath) -> Option<Entry> {
        let entry: Entry = postcard::from_bytes(&self.rest).ok()?;
        Some(Entry { path, ..entry })
    }
}

#[cfg(test)]
mod tests;
