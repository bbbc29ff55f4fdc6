//! What a task did, decided from tables of contents alone: its input, which its ancestors made, is compared with what it
//! left. Pure: entries in, numbers out.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes that groups and contributors gave out themselves; counts of paths"
)]

use std::collections::BTreeSet;

use serde::Serialize;

use super::source::merged;
use crate::workspace::{
    Error,
    entry::{Entry, Node},
    path::TreePath,
    snapshot::{
        merge::{Change, Resolver},
        view::View,
    },
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

/// Gets what a task left at a path that it touched: the place of the task in pipeline order, what its ancestors had left there,
/// and what it left.
pub type VisitChange<'a> = dyn FnMut(usize, Option<&Entry>, Option<&Entry>) -> Result<(), Error> + 'a;

/// What a path was for a task, and what it is after it.
struct TaskChanges<'a> {
    before: Resolver<'a>,
    after: Resolver<'a>,
}

/// How much each task of `view` changed, in pipeline order.
pub fn of_tasks(view: &View<'_>) -> Result<Vec<Summary>, Error> {
    let mut summaries = vec![Summary::default(); view.contributors().len().saturating_sub(1)];
    each(view, &mut |task, before, after| {
        summaries[task].add(before, after);
        Ok(())
    })?;
    Ok(summaries)
}

/// Gives every path that a task of `view` touched to `visit`, in tree order; of each one, the tasks in pipeline order.
pub fn each(view: &View<'_>, visit: &mut VisitChange<'_>) -> Result<(), Error> {
    let (sources, none) = (view.contributors(), BTreeSet::new());
    let task = |_| TaskChanges { before: Resolver::new(sources, &none), after: Resolver::new(sources, &none) };
    let mut tasks: Vec<TaskChanges<'_>> = sources.iter().skip(1).map(task).collect();
    // Sources that left no directory at a path: what was below it is gone.
    let mut cuts: Vec<(usize, TreePath)> = Vec::new();
    let (mut groups, mut group) = (view.groups()?, Vec::new());
    let (mut before, mut after) = (Vec::new(), Vec::new());
    while groups.next(&mut group)? {
        let path = &group[0].entry.path;
        cuts.retain(|(_, cut)| cut.contains(path));
        let mut touching: BTreeSet<usize> = group.iter().map(|write| write.contributor).collect();
        touching.extend(cuts.iter().map(|(source, _)| *source));
        for &source in touching.iter().filter(|&&source| source > 0) {
            let ancestors = &sources[source].ancestors;
            let precedes = |write: &Change| ancestors.get(write.contributor).copied().unwrap_or(false);
            let before = those(&group, precedes, &mut before);
            let after = those(&group, |write| precedes(write) || write.contributor == source, &mut after);
            let (old, new) = tasks[source - 1].resolve(before, after);
            // Of a base that is not listed nothing is known but what tasks did to it: then a directory that was merely touched
            // was there, and so was what was deleted.
            match (&old, after) {
                (None, [.., last]) if before.is_empty() && last.entry.is_touched() => {}
                (None, [last]) if last.entry.is_whiteout() => visit(source - 1, Some(&last.entry), None)?,
                _ => visit(source - 1, old.as_ref(), new.as_ref())?,
            }
        }
        cuts.extend(group.iter().filter(|w| !w.entry.is_dir()).map(|w| (w.contributor, w.entry.path.clone())));
    }
    Ok(())
}

/// Those of `group` that `wanted` names. In a chain of tasks they are its beginning, and need no `copy`.
fn those<'a>(group: &'a [Change], wanted: impl Fn(&Change) -> bool, copy: &'a mut Vec<Change>) -> &'a [Change] {
    let (begin, rest) = group.split_at(group.iter().take_while(|change| wanted(change)).count());
    if !rest.iter().any(&wanted) {
        return begin;
    }
    copy.clear();
    copy.extend(group.iter().filter(|change| wanted(change)).cloned());
    copy
}

impl TaskChanges<'_> {
    fn resolve(&mut self, before: &[Change], after: &[Change]) -> (Option<Entry>, Option<Entry>) {
        let resolve = |resolver: &mut Resolver<'_>, group: &[Change]| match group {
            [] => None,
            _ => merged(group, &resolver.resolve(group)),
        };
        (resolve(&mut self.before, before), resolve(&mut self.after, after))
    }
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
