//! What a task did, decided from tables of contents alone: its input, which its ancestors made, is compared with what it
//! left. Pure: entries in, numbers out.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes that groups and contributors gave out themselves; counts of paths"
)]

use serde::Serialize;

use super::history;
use crate::workspace::{
    Error,
    entry::{Entry, Node},
    snapshot::view::View,
};

/// What became of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeKind {
    /// It is new.
    Added,
    /// It holds something else.
    Content,
    /// It is something else: a directory became a file, or the like.
    Kind,
    /// It holds the same; mode, owner, time or extended attributes differ.
    Attributes,
    /// It is gone.
    Deleted,
}

/// How much was changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// Files that were not there before.
    pub added: Amount,
    /// Files that hold something else; `bytes` is what they hold now.
    pub changed: Amount,
    /// Files that are gone; `bytes` is what they held.
    pub deleted: Amount,
    /// Files and directories of which only mode, owner, time or extended attributes differ.
    pub attributes: u64,
    /// Directories that were not there before.
    pub directories_added: u64,
    /// Directories that are gone.
    pub directories_deleted: u64,
}

/// Everything that is no directory, by name, and the bytes of regular files, each counted once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// Names.
    pub files: u64,
    /// Bytes.
    pub bytes: u64,
}

/// How much each task of `view` changed, in pipeline order.
pub fn of_tasks(view: &View<'_>) -> Result<Vec<Summary>, Error> {
    let mut summaries = vec![Summary::default(); view.contributors().len().saturating_sub(1)];
    history::each(view, &mut |task, before, after| {
        summaries[task].add(before, after);
        Ok(())
    })?;
    Ok(summaries)
}

impl Summary {
    /// Counts a path.
    pub fn add(&mut self, before: Option<&Entry>, after: Option<&Entry>) -> Option<ChangeKind> {
        let change = ChangeKind::between(before, after)?;
        if change == ChangeKind::Attributes {
            self.attributes += 1;
            return Some(change);
        }
        let is_dir = |entry: Option<&Entry>| entry.is_some_and(Entry::is_dir);
        let is_file = |entry: Option<&Entry>| entry.is_some_and(|entry| !entry.is_dir());
        self.directories_added += u64::from(is_dir(after) && !is_dir(before));
        self.directories_deleted += u64::from(is_dir(before) && !is_dir(after));
        match (is_file(before), is_file(after)) {
            (false, true) => self.added.add(after),
            (true, true) => self.changed.add(after),
            (true, false) => self.deleted.add(before),
            (false, false) => {}
        }
        Some(change)
    }
}

impl Amount {
    fn add(&mut self, entry: Option<&Entry>) {
        self.files += 1;
        let bytes = entry.map_or(0, |entry| if let Node::File(content) = &entry.node { content.size } else { 0 });
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

impl ChangeKind {
    /// The difference between what was at a path and what is there. The times of directories don't count.
    pub fn between(before: Option<&Entry>, after: Option<&Entry>) -> Option<Self> {
        let (before, after) = match (before, after) {
            (None, None) => return None,
            (None, Some(_)) => return Some(Self::Added),
            (Some(_), None) => return Some(Self::Deleted),
            (Some(before), Some(after)) => (before, after),
        };
        match (&before.node, &after.node) {
            (Node::Dir { .. }, Node::Dir { .. }) => (!before.same_attributes(after)).then_some(Self::Attributes),
            (a, b) => {
                let same_node = match (before.content(), after.content()) {
                    (Some(a), Some(b)) if a != b => return Some(Self::Content),
                    (Some(_), Some(_)) => true,
                    _ => a == b,
                };
                let same_kind = before.content().is_some() && after.content().is_some()
                    || std::mem::discriminant(a) == std::mem::discriminant(b);
                match (same_node, same_kind) {
                    (true, _) if before.same_attributes(after) && before.mtime == after.mtime => None,
                    (true, _) => Some(Self::Attributes),
                    (false, true) => Some(Self::Content),
                    (false, false) => Some(Self::Kind),
                }
            }
        }
    }

    /// One letter, that of `git diff --name-status` if there is one.
    pub fn letter(self) -> char {
        match self {
            Self::Added => 'A',
            Self::Content => 'M',
            Self::Kind => 'T',
            Self::Attributes => 'm',
            Self::Deleted => 'D',
        }
    }
}
