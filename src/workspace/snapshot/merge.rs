//! What a workspace looks like after several tasks, some of them parallel, decided from tables of contents alone.
//!
//! The rules, for one path. *Effects* on it are the entries of tasks at the path, and *cuts*: a task that deleted a
//! directory above it, or put something else in its place, deleted the path as well. An effect counts if its task is not
//! an ancestor of another one that has an effect. If those that count agree, that is the result; two that differ are a
//! conflict. A directory of which a task changed nothing but the mtime is no effect.
//!
//! All this is pure: entries in, outcomes out, in tree order, one path at a time.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes of contributors, streams and groups that this module gave out; a group is never empty"
)]

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, binary_heap::PeekMut},
};

use crate::{
    step::OnConflict,
    workspace::{
        conflict::{Conflict, ConflictPolicy, Conflicts},
        entry::{Entry, Time},
        error::Error,
        path::TreePath,
    },
};

/// A task in a merge. Contributors are sorted by pipeline order.
#[derive(Clone, Debug)]
pub struct Contributor {
    /// How messages name it.
    pub name: String,
    /// For each contributor whether it is an ancestor of this one. Ancestors come first in the sort.
    pub ancestors: Vec<bool>,
}

/// An entry with where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Index of the contributor.
    pub contributor: usize,
    /// Index of the stream of entries, a layer.
    pub layer: usize,
    /// Index of the entry in its stream.
    pub index: u64,
    /// The entry itself.
    pub entry: Entry,
}

/// All entries of several sorted streams, those of one path together.
pub struct Groups<I> {
    streams: Vec<(usize, u64, I)>,
    heads: BinaryHeap<Reverse<Head>>,
}

/// What becomes of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is what one of the entries says.
    Keep {
        /// Index of the entry in the group.
        from: usize,
        /// A directory's mtime may be that of another entry.
        mtime: Time,
        /// No task changed anything but its mtime.
        touched: bool,
    },
    /// It is not there.
    Gone {
        /// The directory that it would be in is there.
        visible: bool,
    },
}

/// What the entries of one path come to, for whoever comes after all of their contributors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Index of the entry in the group that is kept; none: it is not there.
    pub from: Option<usize>,
    /// A directory's mtime may be that of another entry.
    pub mtime: Time,
    /// An effect decided it, and not just a directory of which the mtime changed.
    pub by_effect: bool,
    /// Whether the latest effect left a directory; none: there is no effect.
    pub latest_is_dir: Option<bool>,
}

/// The rules of the module.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    contributors: &'a [Contributor],
}

/// Decides about one path after the other.
pub struct Resolver<'a> {
    rules: Rules<'a>,
    revived: &'a BTreeSet<TreePath>,
    scopes: Vec<OpenPath>,
    /// The conflicts so far; in each the later task wins.
    pub conflicts: Conflicts,
    /// Those that the policy settles: the later task wins in them too.
    pub settled: Conflicts,
    policy: Option<&'a ConflictPolicy>,
    /// Paths that must be directories because a descendant won, although they did not: directories to recreate.
    pub to_revive: BTreeSet<TreePath>,
}

/// A path that further ones may lie below.
struct OpenPath {
    path: TreePath,
    /// Contributors that deleted what was below it.
    cutters: Vec<usize>,
    is_dir: bool,
}

/// An effect: the contributor, and the index of its entry in the group; none deletes.
#[derive(Clone, Copy)]
struct Effect {
    contributor: usize,
    keeps: Option<usize>,
}

/// The next entry of a stream. There is one for each, so that those which are equal in order are equal.
#[derive(PartialEq, Eq)]
struct Head(Change);

impl<I: Iterator<Item = Result<Entry, Error>>> Groups<I> {
    /// The streams, each with the index of its contributor.
    pub fn new(streams: impl IntoIterator<Item = (usize, I)>) -> Result<Self, Error> {
        let streams: Vec<_> = streams.into_iter().map(|(contributor, stream)| (contributor, 0, stream)).collect();
        let mut groups = Self { heads: BinaryHeap::with_capacity(streams.len()), streams };
        for layer in 0..groups.streams.len() {
            if let Some(head) = groups.advance(layer)? {
                groups.heads.push(Reverse(head));
            }
        }
        Ok(groups)
    }

    /// Fills `group` with all entries of the next path, by stream. False at the end.
    pub fn next(&mut self, group: &mut Vec<Change>) -> Result<bool, Error> {
        group.clear();
        while let Some(mut head) = self.heads.peek_mut() {
            if group.first().is_some_and(|first| first.entry.path != head.0.0.entry.path) {
                break;
            }
            let layer = head.0.0.layer;
            let (contributor, index, stream) = &mut self.streams[layer];
            let next = match stream.next() {
                None => PeekMut::pop(head).0,
                Some(entry) => {
                    let change = Change { contributor: *contributor, layer, index: *index, entry: entry? };
                    *index += 1;
                    std::mem::replace(&mut head.0, Head(change))
                }
            };
            group.push(next.0);
        }
        Ok(!group.is_empty())
    }

    fn advance(&mut self, layer: usize) -> Result<Option<Head>, Error> {
        let (contributor, index, stream) = &mut self.streams[layer];
        let Some(entry) = stream.next().transpose()? else { return Ok(None) };
        let change = Change { contributor: *contributor, layer, index: *index, entry };
        *index += 1;
        Ok(Some(Head(change)))
    }
}

impl<'a> Resolver<'a> {
    /// Begins at the root. `revived` is what an earlier pass over the same entries found [`Resolver::to_revive`].
    pub fn new(contributors: &'a [Contributor], revived: &'a BTreeSet<TreePath>) -> Self {
        Self {
            rules: Rules::new(contributors),
            revived,
            scopes: Vec::new(),
            conflicts: Conflicts::default(),
            settled: Conflicts::default(),
            policy: None,
            to_revive: BTreeSet::new(),
        }
    }

    /// Tells conflicts apart by `policy`; without one all of them count.
    pub fn judged_by(mut self, policy: &'a ConflictPolicy) -> Self {
        self.policy = Some(policy);
        self
    }

    /// Decides about the path that all entries of `group` (not empty) are of. Paths must come in tree order.
    pub fn resolve(&mut self, group: &[Change]) -> Outcome {
        let path = &group[0].entry.path;
        while self.scopes.last().is_some_and(|scope| !scope.path.contains(path)) {
            self.scopes.pop();
        }
        let (inherited, visible) = match self.scopes.last() {
            Some(scope) => (&scope.cutters[..], scope.is_dir),
            None => (&[][..], true),
        };
        let effects = self.rules.effects(group, inherited);
        let counting = self.rules.counting(group, effects);
        let mut from = decide(group, &counting);
        if let Some(conflict) = self.rules.conflict(group, &counting) {
            let is_dir = group.iter().any(|change| change.entry.is_dir());
            match self.policy.map(|policy| policy.judge(path, is_dir)) {
                Some(OnConflict::Last) => self.settled.add(conflict),
                Some(OnConflict::Fail) | None => self.conflicts.add(conflict),
            }
        }
        let cuts = group.iter().filter(|change| !change.entry.is_dir()).map(|change| change.contributor);
        let cutters = inherited.iter().copied().chain(cuts).collect();
        if self.revived.contains(path) {
            from = latest_dir(group);
        }
        let is_dir = from.is_some_and(|from| group[from].entry.is_dir());
        let outcome = match from {
            Some(from) => {
                let touched = counting.is_empty();
                let mtime = if is_dir { self.rules.dir_mtime(group) } else { group[from].entry.mtime };
                if !visible {
                    self.to_revive.extend(self.scopes.iter().filter(|s| !s.is_dir).map(|s| s.path.clone()));
                }
                Outcome::Keep { from, mtime, touched }
            }
            None => Outcome::Gone { visible },
        };
        self.scopes.push(OpenPath { path: path.clone(), cutters, is_dir });
        outcome
    }
}

impl<'a> Rules<'a> {
    /// For these contributors, sorted by pipeline order.
    pub fn new(contributors: &'a [Contributor]) -> Self {
        Self { contributors }
    }

    /// Whether the first contributor is an ancestor of the second one.
    pub fn precedes(&self, ancestor: usize, contributor: usize) -> bool {
        self.contributors[contributor].ancestors.get(ancestor).copied().unwrap_or(false)
    }

    /// What `group`, of one path, comes to if `cutters` deleted what was below a directory above it.
    pub fn decide(&self, group: &[Change], cutters: &[usize]) -> Decision {
        let effects = self.effects(group, cutters);
        let latest = effects.iter().max_by_key(|effect| effect.contributor);
        let latest_is_dir = latest.map(|effect| effect.keeps.is_some_and(|i| group[i].entry.is_dir()));
        let counting = self.counting(group, effects);
        let from = decide(group, &counting);
        let mtime = match from.map(|from| &group[from].entry) {
            Some(entry) if entry.is_dir() => self.dir_mtime(group),
            entry => entry.map(|entry| entry.mtime).unwrap_or_default(),
        };
        Decision { from, mtime, by_effect: !counting.is_empty(), latest_is_dir }
    }

    /// All effects on the path, but for directories of which only the mtime changed.
    fn effects(&self, group: &[Change], cutters: &[usize]) -> Vec<Effect> {
        let cut = cutters.iter().filter(|&&contributor| group.iter().all(|change| change.contributor != contributor));
        let direct = group.iter().enumerate().filter(|(_, change)| !change.entry.is_touched());
        let mut effects: Vec<Effect> = direct.map(effect).collect();
        effects.extend(cut.map(|&contributor| Effect { contributor, keeps: None }));
        effects
    }

    /// Those of `effects` on the path whose contributor is no ancestor of another one's.
    fn counting(&self, group: &[Change], mut effects: Vec<Effect>) -> Vec<Effect> {
        let touched = group.iter().enumerate().filter(|(_, change)| change.entry.is_touched());
        // A contributor that has a directory, of which its ancestors left none, restores it. It never was away for a task that started
        // from a conflict which went against this directory; and in a stack of layers it just is so.
        let left = |contributor| {
            effects
                .iter()
                .filter(|effect| self.precedes(effect.contributor, contributor))
                .max_by_key(|effect| effect.contributor)
        };
        let back = |contributor| {
            left(contributor).is_some_and(|effect| !effect.keeps.is_some_and(|i| group[i].entry.is_dir()))
        };
        let back: Vec<Effect> = touched.filter(|(_, change)| back(change.contributor)).map(effect).collect();
        effects.extend(back);
        self.latest(&effects)
    }

    fn latest(&self, effects: &[Effect]) -> Vec<Effect> {
        // From the latest on: in a chain of tasks it has seen all others.
        let superseded =
            |effect: &Effect| effects.iter().rev().any(|e| self.precedes(effect.contributor, e.contributor));
        effects.iter().filter(|effect| !superseded(effect)).copied().collect()
    }

    /// The two latest effects that count and differ.
    fn conflict(&self, group: &[Change], counting: &[Effect]) -> Option<Conflict> {
        let latest = counting.iter().max_by_key(|effect| effect.contributor)?;
        let differs = |effect: &&Effect| match (effect.keeps, latest.keeps) {
            (Some(a), Some(b)) => !group[a].entry.same_result(&group[b].entry),
            (a, b) => a.is_some() != b.is_some(),
        };
        let other = counting.iter().filter(differs).max_by_key(|effect| effect.contributor)?;
        let did = |effect: &Effect| if effect.keeps.is_some() { "changed" } else { "deleted" };
        let name = |effect: &Effect| self.contributors[effect.contributor].name.clone();
        Some(Conflict {
            path: group[0].entry.path.clone(),
            earlier: other.contributor,
            later: latest.contributor,
            did: [did(other), did(latest)],
            names: [name(other), name(latest)],
        })
    }

    /// The latest mtime that a directory has in a contributor that is no ancestor of another one which has the directory.
    fn dir_mtime(&self, group: &[Change]) -> Time {
        let dirs = || group.iter().filter(|change| change.entry.is_dir());
        let last =
            dirs().filter(|change| !dirs().rev().any(|other| self.precedes(change.contributor, other.contributor)));
        last.map(|change| change.entry.mtime).max().unwrap_or_default()
    }
}

/// What an entry of a group does to its path.
fn effect((i, change): (usize, &Change)) -> Effect {
    Effect { contributor: change.contributor, keeps: (!change.entry.is_whiteout()).then_some(i) }
}

/// The entry that is kept, if any: the latest of the effects that count decides.
fn decide(group: &[Change], counting: &[Effect]) -> Option<usize> {
    match counting.iter().max_by_key(|effect| effect.contributor) {
        Some(latest) => latest.keeps,
        None => group.iter().rposition(|change| change.entry.is_dir()),
    }
}

/// The entry of `group` that `outcome` keeps, if any.
pub fn kept<'g>(group: &'g [Change], outcome: &Outcome) -> Option<&'g Entry> {
    match *outcome {
        Outcome::Keep { from, .. } => group.get(from).map(|change| &change.entry),
        Outcome::Gone { .. } => None,
    }
}

/// The latest entry that is a directory, one that says more than an mtime if there is one.
fn latest_dir(group: &[Change]) -> Option<usize> {
    let changed = group.iter().rposition(|change| change.entry.is_dir() && !change.entry.is_touched());
    changed.or_else(|| group.iter().rposition(|change| change.entry.is_dir()))
}

impl Ord for Head {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (&self.0.entry.path, self.0.layer).cmp(&(&other.0.entry.path, other.0.layer))
    }
}

impl PartialOrd for Head {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
