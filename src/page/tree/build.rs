//! Makes trees of paths, and keeps them small.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

use super::{ChangeTree, ChangedFile, ChangedFolder};
use crate::inspect::changes::ChangeKind;

/// Entries of one folder that are kept, of files and of folders.
const IN_FOLDER: usize = 200;

/// Makes a tree of paths that come in tree order, in memory for a few times its rows.
#[derive(Debug)]
pub struct ChangeTreeBuilder {
    /// The most rows of the tree.
    rows: usize,
    /// The root, and the folders that are open, each in the one before it.
    open: Vec<ChangedFolder>,
}

impl ChangeTreeBuilder {
    /// One of at most `rows` rows, if its root alone has not more.
    pub fn new(rows: usize) -> Self {
        Self { rows, open: vec![ChangedFolder::default()] }
    }

    /// Adds a path (not the root, which stands for the whole). `bytes` is what a regular file holds now; `detail` is for people.
    pub fn push(&mut self, path: &[u8], is_dir: bool, change: ChangeKind, bytes: u64, detail: impl FnOnce() -> String) {
        let mut names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let file = if is_dir { None } else { names.pop() };
        self.enter(&names);
        let Some(folder) = self.open.last_mut() else { return };
        let Some(name) = file else {
            folder.change = Some(change);
            return;
        };
        folder.counts.add(change, bytes);
        if folder.files.len() < IN_FOLDER {
            folder.rows += 1;
            folder.files.push(ChangedFile { name: name.to_vec(), change, detail: detail() });
        }
    }

    /// The tree.
    pub fn finish(mut self) -> ChangeTree {
        self.close_to(1);
        let mut root = self.open.pop().unwrap_or_default();
        root.join_single();
        root.fit(self.rows);
        ChangeTree { root }
    }

    /// Makes the folder with these names the open one.
    fn enter(&mut self, names: &[&[u8]]) {
        let same = self.open.iter().skip(1).zip(names).take_while(|(folder, name)| folder.name == **name).count();
        self.close_to(same + 1);
        for name in names.iter().skip(same) {
            self.open.push(ChangedFolder { name: name.to_vec(), ..ChangedFolder::default() });
        }
    }

    /// Closes folders until `depth` are open.
    fn close_to(&mut self, depth: usize) {
        while self.open.len() > depth.max(1) {
            let (Some(done), Some(parent)) = (self.open.pop(), self.open.last_mut()) else { return };
            parent.counts.merge(done.counts);
            if parent.folders.len() < IN_FOLDER {
                parent.rows += 1 + done.rows;
                parent.folders.push(done);
            }
            if parent.rows > 4 * self.rows {
                parent.rows = parent.fit(2 * self.rows);
            }
        }
    }
}
