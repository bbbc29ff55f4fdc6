//! Conflicts: paths that parallel tasks changed differently.

use std::{collections::BTreeSet, fmt};

use super::path::TreePath;

/// How many paths of a conflict are listed.
const LISTED: usize = 20;

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

impl Conflicts {
    /// Adds one.
    pub fn add(&mut self, conflict: Conflict) {
        self.count = self.count.saturating_add(1);
        self.pairs.insert((conflict.earlier, conflict.later));
        if self.listed.len() < LISTED {
            self.listed.push(conflict);
        }
    }

    /// How many are not listed.
    pub fn unlisted(&self) -> usize {
        self.count.saturating_sub(self.listed.len())
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
        match self.unlisted() {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}
