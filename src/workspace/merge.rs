//! What a workspace looks like after several tasks, some of them parallel, decided from tables of contents alone.
//!
//! The rules, for one path. *Effects* on it are the entries of tasks at the path, and *cuts*: a task that deleted a
//! directory above it, or put something else in its place, deleted the path as well. An effect counts if its task is not
//! an ancestor of another one that has an effect. If those that count agree, that is the result; two that differ are a
//! conflict. A directory of which a task changed nothing but the mtime is no effect.
//!
//! All this is pure: entries in, outcomes out, in tree order, one path at a time.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap, binary_heap::PeekMut},
    fmt,
};

use super::{
    entry::{Entry, Time},
    error::Error,
    path::TreePath,
};

/// How many paths of a conflict are listed.
const LISTED: usize = 20;

/// A task in a merge. Sources are sorted by pipeline order.
#[derive(Clone, Debug)]
pub struct Source {
    /// How messages name it.
    pub name: String,
    /// For each source whether it is an ancestor of this one. Ancestors come first in the sort.
    pub ancestors: Vec<bool>,
}

/// An entry with where it is from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Index of the source.
    pub source: usize,
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

/// Decides about one path after the other.
pub struct Resolver<'a> {
    sources: &'a [Source],
    revived: &'a BTreeSet<TreePath>,
    scopes: Vec<Scope>,
    /// The conflicts so far; in each the later task got its way.
    pub conflicts: Conflicts,
    /// Paths that must be directories because something below them got its way, although they did not.
    pub to_revive: BTreeSet<TreePath>,
}

/// Paths that parallel tasks changed differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Conflicts {
    /// The first ones.
    pub listed: Vec<Conflict>,
    /// How many there are in all.
    pub count: usize,
    /// The sources that differ, in pairs, the earlier first.
    pub pairs: BTreeSet<(usize, usize)>,
}

/// A path that two tasks changed differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// Which path.
    pub path: TreePath,
    /// Index of the earlier source.
    pub earlier: usize,
    /// Index of the later one, whose result is kept where conflicts are no errors.
    pub later: usize,
    /// What they did, in this order, for messages.
    pub did: [&'static str; 2],
    /// Their names.
    pub names: [String; 2],
}

/// A path that further ones may lie below.
struct Scope {
    path: TreePath,
    /// Sources that deleted what was below it.
    cutters: Vec<usize>,
    is_dir: bool,
}

/// An effect: the source, and the index of its entry in the group; none deletes.
#[derive(Clone, Copy)]
struct Effect {
    source: usize,
    keeps: Option<usize>,
}

struct Head(Write);

impl<I: Iterator<Item = Result<Entry, Error>>> Groups<I> {
    /// The streams, each with the index of its source.
    pub fn new(streams: impl IntoIterator<Item = (usize, I)>) -> Result<Self, Error> {
        let streams: Vec<_> = streams.into_iter().map(|(source, stream)| (source, 0, stream)).collect();
        let mut groups = Self { heads: BinaryHeap::with_capacity(streams.len()), streams };
        for layer in 0..groups.streams.len() {
            if let Some(head) = groups.advance(layer)? {
                groups.heads.push(Reverse(head));
            }
        }
        Ok(groups)
    }

    /// Fills `group` with all entries of the next path, by stream. False at the end.
    pub fn next(&mut self, group: &mut Vec<Write>) -> Result<bool, Error> {
        group.clear();
        while let Some(mut head) = self.heads.peek_mut() {
            if group.first().is_some_and(|first| first.entry.path != head.0.0.entry.path) {
                break;
            }
            let layer = head.0.0.layer;
            let (source, index, stream) = &mut self.streams[layer];
            let next = match stream.next() {
                None => PeekMut::pop(head).0,
                Some(entry) => {
                    let write = Write { source: *source, layer, index: *index, entry: entry? };
                    *index += 1;
                    std::mem::replace(&mut head.0, Head(write))
                }
            };
            group.push(next.0);
        }
        Ok(!group.is_empty())
    }

    fn advance(&mut self, layer: usize) -> Result<Option<Head>, Error> {
        let (source, index, stream) = &mut self.streams[layer];
        let Some(entry) = stream.next().transpose()? else { return Ok(None) };
        let write = Write { source: *source, layer, index: *index, entry };
        *index += 1;
        Ok(Some(Head(write)))
    }
}

impl<'a> Resolver<'a> {
    /// Begins at the root. `revived` is what an earlier pass over the same entries found [`Resolver::to_revive`].
    pub fn new(sources: &'a [Source], revived: &'a BTreeSet<TreePath>) -> Self {
        Self { sources, revived, scopes: Vec::new(), conflicts: Conflicts::default(), to_revive: BTreeSet::new() }
    }

    /// Decides about the path that all entries of `group` (not empty) are of. Paths must come in tree order.
    pub fn resolve(&mut self, group: &[Write]) -> Outcome {
        let path = &group[0].entry.path;
        while self.scopes.last().is_some_and(|scope| !scope.path.contains(path)) {
            self.scopes.pop();
        }
        let (inherited, visible) = match self.scopes.last() {
            Some(scope) => (&scope.cutters[..], scope.is_dir),
            None => (&[][..], true),
        };
        let counting = self.counting(group, inherited);
        let mut from = self.decide(group, &counting);
        if let Some(conflict) = self.conflict(group, &counting) {
            self.conflicts.add(conflict);
        }
        let cuts = group.iter().filter(|write| !write.entry.is_dir()).map(|write| write.source);
        let cutters = inherited.iter().copied().chain(cuts).collect();
        if self.revived.contains(path) {
            from = latest_dir(group);
        }
        let is_dir = from.is_some_and(|from| group[from].entry.is_dir());
        let outcome = match from {
            Some(from) => {
                let touched = counting.is_empty();
                let mtime = if is_dir { self.dir_mtime(group) } else { group[from].entry.mtime };
                if !visible {
                    self.to_revive.extend(self.scopes.iter().filter(|s| !s.is_dir).map(|s| s.path.clone()));
                }
                Outcome::Keep { from, mtime, touched }
            }
            None => Outcome::Gone { visible },
        };
        self.scopes.push(Scope { path: path.clone(), cutters, is_dir });
        outcome
    }

    /// Those effects on the path whose source is no ancestor of another one's.
    fn counting(&self, group: &[Write], inherited: &[usize]) -> Vec<Effect> {
        let effect = |(i, write): (usize, &Write)| Effect {
            source: write.source,
            keeps: (!write.entry.is_whiteout()).then_some(i),
        };
        let (touched, direct): (Vec<_>, Vec<_>) = group.iter().enumerate().partition(|(_, w)| w.entry.is_touched());
        let cut = inherited.iter().filter(|&&source| group.iter().all(|write| write.source != source));
        let mut effects: Vec<Effect> = direct.into_iter().map(effect).collect();
        effects.extend(cut.map(|&source| Effect { source, keeps: None }));
        // A source that has a directory where its ancestors left none brings it back. It never was away for a task that started
        // from a conflict which went against this directory; and in a stack of layers it just is so.
        let left = |source| {
            effects.iter().filter(|effect| self.precedes(effect.source, source)).max_by_key(|effect| effect.source)
        };
        let back = |source| left(source).is_some_and(|effect| !effect.keeps.is_some_and(|i| group[i].entry.is_dir()));
        let back: Vec<Effect> = touched.into_iter().filter(|(_, write)| back(write.source)).map(effect).collect();
        effects.extend(back);
        self.latest(&effects)
    }

    fn latest(&self, effects: &[Effect]) -> Vec<Effect> {
        let superseded = |effect: &Effect| effects.iter().any(|e| self.precedes(effect.source, e.source));
        effects.iter().filter(|effect| !superseded(effect)).copied().collect()
    }

    /// The entry that is kept, if any: the latest of the effects that count decides.
    fn decide(&self, group: &[Write], counting: &[Effect]) -> Option<usize> {
        match counting.iter().max_by_key(|effect| effect.source) {
            Some(latest) => latest.keeps,
            None => group.iter().rposition(|write| write.entry.is_dir()),
        }
    }

    /// The two latest effects that count and differ.
    fn conflict(&self, group: &[Write], counting: &[Effect]) -> Option<Conflict> {
        let latest = counting.iter().max_by_key(|effect| effect.source)?;
        let differs = |effect: &&Effect| match (effect.keeps, latest.keeps) {
            (Some(a), Some(b)) => !group[a].entry.same_result(&group[b].entry),
            (a, b) => a.is_some() != b.is_some(),
        };
        let other = counting.iter().filter(differs).max_by_key(|effect| effect.source)?;
        let did = |effect: &Effect| if effect.keeps.is_some() { "changed" } else { "deleted" };
        let name = |effect: &Effect| self.sources[effect.source].name.clone();
        Some(Conflict {
            path: group[0].entry.path.clone(),
            earlier: other.source,
            later: latest.source,
            did: [did(other), did(latest)],
            names: [name(other), name(latest)],
        })
    }

    /// The latest mtime that a directory has in a source that is no ancestor of another one which has the directory.
    fn dir_mtime(&self, group: &[Write]) -> Time {
        let dirs = || group.iter().filter(|write| write.entry.is_dir());
        let last = dirs().filter(|write| !dirs().any(|other| self.precedes(write.source, other.source)));
        last.map(|write| write.entry.mtime).max().unwrap_or_default()
    }

    fn precedes(&self, ancestor: usize, source: usize) -> bool {
        self.sources[source].ancestors.get(ancestor).copied().unwrap_or(false)
    }
}

/// The latest entry that is a directory, one that says more than an mtime if there is one.
fn latest_dir(group: &[Write]) -> Option<usize> {
    let changed = group.iter().rposition(|write| write.entry.is_dir() && !write.entry.is_touched());
    changed.or_else(|| group.iter().rposition(|write| write.entry.is_dir()))
}

impl Conflicts {
    fn add(&mut self, conflict: Conflict) {
        self.count += 1;
        self.pairs.insert((conflict.earlier, conflict.later));
        if self.listed.len() < LISTED {
            self.listed.push(conflict);
        }
    }
}

impl fmt::Display for Conflicts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let paths = if self.count == 1 { "one path" } else { "the same paths" };
        write!(f, "parallel tasks left {paths} differently: ")?;
        for (i, conflict) in self.listed.iter().enumerate() {
            let separator = if i == 0 { "" } else { ", " };
            let ([did, also], [task, other]) = (conflict.did, &conflict.names);
            write!(f, "{separator}{} (task {task:?} {did} it, task {other:?} {also} it)", conflict.path)?;
        }
        match self.count - self.listed.len() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
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

impl PartialEq for Head {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Head {}
