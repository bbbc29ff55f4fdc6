//! What a workspace must hold, from whole trees in memory alone: no layers, no whiteouts, no tables.
//!
//! A task's *changes* are the paths at which its tree after its last step differs from the tree that it was given. What
//! several tasks left together is, path by path, what the last one left that changed it: a task that comes after another
//! one has the last word, and two that are parallel and differ are a conflict.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::{
    pipeline::Pattern,
    seen::{self, Item, Seen},
};

/// A task, or a combination of its matrix: its place in pipeline order and its number.
pub type Key = (usize, usize);

/// What succeeded tasks left of one workspace.
#[derive(Clone, Default)]
pub struct Model {
    lefts: BTreeMap<Key, Left>,
}

/// What one task left.
#[derive(Clone, Default)]
pub struct Left {
    /// The tasks whose changes it was given.
    ancestors: BTreeSet<Key>,
    /// What it made of paths that it changed; none where it deleted them.
    changes: BTreeMap<PathBuf, Option<Item>>,
    /// Directories among the changes that it only brought back.
    brought_back: BTreeSet<PathBuf>,
    /// The mtime of directories in which, or anywhere below which, it changed something.
    dir_times: BTreeMap<PathBuf, (i64, i64)>,
}

/// What tasks left together.
#[derive(Clone, Default)]
pub struct Merged {
    /// What is there.
    pub tree: Seen,
    /// Paths that parallel tasks changed differently: who won, and those who differ from it.
    pub conflicts: BTreeMap<PathBuf, (Key, BTreeSet<Key>)>,
    /// Directories that a task removed and that are there only because of what is in them.
    pub revived: BTreeSet<PathBuf>,
    /// These, and those that a task brought back: which of several modes they have is not the model's business.
    vague: BTreeSet<PathBuf>,
}

/// A tree on disk, and what tells its files apart whatever they are called.
pub struct Observed {
    tree: Seen,
    inodes: BTreeMap<PathBuf, (u64, u64)>,
}

impl Observed {
    /// What is in `root`.
    pub fn new(root: &Path) -> Self {
        let (tree, files) = seen::see_files(root);
        let names = |(inode, names): (_, BTreeSet<PathBuf>)| names.into_iter().map(move |name| (name, inode));
        Self { tree, inodes: files.into_iter().flat_map(names).collect() }
    }

    /// Nothing, not even a directory: what a task without a restore step was given.
    pub fn nothing() -> Self {
        Self { tree: Seen::new(), inodes: BTreeMap::new() }
    }

    /// The tree.
    pub fn tree(&self) -> &Seen {
        &self.tree
    }

    /// Whether `path` is not what it was in `before`. A directory's mtime is none of its own; see [`Left::dir_times`].
    fn differs(&self, before: &Self, path: &Path) -> bool {
        let (Some(was), Some(is)) = (before.tree.get(path), self.tree.get(path)) else { return true };
        let time = |item: &Item| if item.kind == "dir" { (0, 0) } else { item.mtime };
        let several = was.names.len() > 1 || is.names.len() > 1;
        !same_result(was, is)
            || time(was) != time(is)
            || several && (before.inodes[path] != self.inodes[path] || !is.names.is_subset(&was.names))
    }
}

impl Left {
    /// What a task left that was given the `part` of `merged`, was seen to have `before` and had `after` in the end.
    pub fn new(ancestors: BTreeSet<Key>, merged: &Merged, part: &Merged, before: &Observed, after: &Observed) -> Self {
        let mut changes = BTreeMap::new();
        let is_left_out = |path: &Path| merged.tree.contains_key(path) && !part.tree.contains_key(path);
        // A directory with more in it than the task was given is not deleted by it.
        let has_more = |path: &Path| merged.tree.keys().any(|below| below.starts_with(path) && is_left_out(below));
        for path in before.tree.keys().filter(|path| !after.tree.contains_key(*path) && !has_more(path)) {
            changes.insert(path.clone(), None);
        }
        // A directory that it was not given is the one that is there, whoever makes it.
        let is_known = |path: &Path, item: &Item| {
            item.kind == "dir" && is_left_out(path) && merged.tree.get(path).is_some_and(|known| known.kind == "dir")
        };
        for (path, item) in after.tree.iter().filter(|(path, item)| !is_root(path) && !is_known(path, item)) {
            // All names of a file change with it.
            let names = item.names.iter().chain([path]);
            if names.into_iter().any(|name| after.differs(before, name)) {
                changes.insert(path.clone(), Some(item.clone()));
            }
        }
        let mut dir_times = BTreeMap::new();
        for (path, item) in after.tree.iter().filter(|(_, item)| item.kind == "dir") {
            let touched = before.tree.get(path).is_some_and(|was| was.mtime != item.mtime);
            if touched || changes.keys().any(|changed| changed.starts_with(path)) {
                dir_times.insert(path.clone(), item.mtime);
            }
        }
        // Whoever changes something in a directory that another task had removed brings it back.
        let brought_back: BTreeSet<PathBuf> =
            merged.revived.iter().filter(|path| dir_times.contains_key(*path)).cloned().collect();
        for path in &brought_back {
            changes.entry(path.clone()).or_insert_with(|| Some(after.tree[path].clone()));
        }
        Self { ancestors, changes, brought_back, dir_times }
    }

    /// What it did to `path`, if anything. Where it removed a directory or put something else in its place, it removed
    /// all that anyone has below it.
    fn effect(&self, path: &Path) -> Option<Option<&Item>> {
        let own = self.changes.get(path).map(Option::as_ref);
        let mut above = path.ancestors().skip(1).filter_map(|above| self.changes.get(above));
        let mut cut = || above.any(|item| item.as_ref().is_none_or(|item| item.kind != "dir"));
        own.or_else(|| cut().then_some(None))
    }
}

impl Model {
    /// A task has saved what it left.
    pub fn add(&mut self, key: Key, left: Left) {
        self.lefts.insert(key, left);
    }

    /// The tasks that have saved.
    pub fn saved(&self) -> BTreeSet<Key> {
        self.lefts.keys().copied().collect()
    }

    /// What the tasks in `set` left together.
    pub fn merge(&self, set: &BTreeSet<Key>) -> Merged {
        let lefts: BTreeMap<Key, &Left> = set.iter().map(|key| (*key, &self.lefts[key])).collect();
        let paths: BTreeSet<&PathBuf> = lefts.values().flat_map(|left| left.changes.keys()).collect();
        let mut merged = Merged::default();
        let mut winners: BTreeMap<&Path, Key> = BTreeMap::new();
        for path in paths {
            let effects: BTreeMap<Key, Option<&Item>> =
                lefts.iter().filter_map(|(key, left)| Some((*key, left.effect(path)?))).collect();
            let counting = last_ones(&lefts, effects);
            let Some((winner, result)) = counting.last_key_value() else { continue };
            let differs = |other: &Option<&Item>| match (result, other) {
                (Some(one), Some(other)) => !same_result(one, other),
                (one, other) => one.is_some() != other.is_some(),
            };
            let others: BTreeSet<Key> =
                counting.iter().filter(|(_, other)| differs(other)).map(|(key, _)| *key).collect();
            if !others.is_empty() {
                merged.conflicts.insert(path.clone(), (*winner, others));
            }
            if let Some(item) = result {
                winners.insert(path, *winner);
                merged.tree.insert(path.clone(), (*item).clone());
            }
        }
        merged.revive();
        // Names of one file are those that one task left so, and that no directory came back in place of.
        for (path, item) in &mut merged.tree {
            let same_task = |name: &Path| winners.get(name) == winners.get(path.as_path());
            item.names.retain(|name| same_task(name) && !merged.revived.contains(name));
        }
        merged.vague = lefts.values().flat_map(|left| &left.brought_back).chain(&merged.revived).cloned().collect();
        let mut times: BTreeMap<Key, (i64, i64)>;
        let root = lefts.values().any(|left| left.dir_times.contains_key(Path::new("")));
        if root {
            merged.tree.insert(PathBuf::new(), directory());
        }
        for (path, item) in merged.tree.iter_mut().filter(|(_, item)| item.kind == "dir") {
            times = lefts.iter().filter_map(|(key, left)| Some((*key, *left.dir_times.get(path)?))).collect();
            item.mtime = last_ones(&lefts, times).into_values().max().unwrap_or_default();
        }
        merged
    }
}

impl Merged {
    /// The part that `paths` match, with the directories that it is in; all of it without any.
    pub fn part(&self, paths: &[Pattern]) -> Self {
        let matches = |path: &Path, item: &Item| {
            let is_dir = item.kind == "dir";
            is_root(path) || paths.is_empty() || paths.iter().any(|pattern| pattern.matches(path, is_dir))
        };
        let matched: BTreeSet<&PathBuf> =
            self.tree.iter().filter(|(path, item)| matches(path, item)).map(|(path, _)| path).collect();
        let is_kept = |path: &Path| matched.iter().any(|kept| kept.starts_with(path));
        let mut part = self.clone();
        part.tree.retain(|path, item| matched.contains(path) || item.kind == "dir" && is_kept(path));
        let kept: BTreeSet<PathBuf> = part.tree.keys().cloned().collect();
        part.tree.values_mut().for_each(|item| item.names.retain(|name| kept.contains(name)));
        part
    }

    /// What got its way needs its directories, whoever removed them.
    fn revive(&mut self) {
        let paths: Vec<PathBuf> = self.tree.keys().cloned().collect();
        for above in paths.iter().flat_map(|path| path.ancestors().skip(1)).filter(|above| !is_root(above)) {
            if self.tree.get(above).is_none_or(|item| item.kind != "dir") {
                self.tree.insert(above.to_owned(), directory());
                self.revived.insert(above.to_owned());
            }
        }
    }

    /// Says where `tree` is not this.
    pub fn compare(&self, tree: &Seen) -> Result<(), String> {
        let vague = |path: &Path, item: &Item| match self.vague.contains(path) {
            true => Item { mode: 0, owner: None, xattrs: Vec::new(), ..item.clone() },
            false => item.clone(),
        };
        for path in self.tree.keys().chain(tree.keys().filter(|path| !is_root(path))) {
            let [wanted, found] = [&self.tree, tree].map(|tree| tree.get(path).map(|item| vague(path, item)));
            if wanted != found {
                return Err(format!("{}:\nthe model has {}\nthere is {}", path.display(), show(&wanted), show(&found)));
            }
        }
        Ok(())
    }
}

/// Those that no other one comes after.
fn last_ones<T: Copy>(lefts: &BTreeMap<Key, &Left>, all: BTreeMap<Key, T>) -> BTreeMap<Key, T> {
    let superseded = |key: &Key| all.keys().any(|other| lefts[other].ancestors.contains(key));
    all.iter().filter(|(key, _)| !superseded(key)).map(|(key, value)| (*key, *value)).collect()
}

/// Whether two tasks that left this and that at one path left the same.
fn same_result(one: &Item, other: &Item) -> bool {
    let relevant = |item: &Item| (item.kind, item.mode, item.owner, item.content.clone(), item.xattrs.clone());
    relevant(one) == relevant(other)
}

fn directory() -> Item {
    let (content, names, xattrs) = Default::default();
    Item { kind: "dir", mode: 0, owner: None, mtime: (0, 0), content, names, xattrs }
}

fn is_root(path: &Path) -> bool {
    path.as_os_str().is_empty()
}

fn show(item: &Option<Item>) -> String {
    match item {
        Some(item) => {
            let bytes = &item.content[..item.content.len().min(20)];
            format!("{:?}", Item { content: bytes.to_vec(), ..item.clone() })
        }
        None => "nothing".to_owned(),
    }
}
