//! Conflicts: paths that parallel tasks changed differently.

use std::{collections::BTreeSet, fmt};

use super::path::TreePath;
use crate::{
    globs::{Glob, InvalidGlob},
    quote::Line,
    step::{ConflictRule, OnConflict},
};

/// Files that parallel tasks nearly always change differently, and whose content does not matter: git writes both
/// whenever it reads a tree. A rule of the run's own comes first.
pub const SETTLED_BY_DEFAULT: [&str; 2] = ["**/.git/index", "**/.git/FETCH_HEAD"];

/// How conflicts end, by path.
#[derive(Clone, Debug)]
pub struct ConflictPolicy {
    rules: Vec<(Glob, OnConflict)>,
    rest: OnConflict,
}

impl ConflictPolicy {
    /// The run's own `rules`, then [`SETTLED_BY_DEFAULT`], then `rest` for all other paths.
    pub fn new(rules: &[ConflictRule], rest: OnConflict) -> Result<Self, InvalidGlob> {
        let own = rules.iter().map(|rule| Ok((Glob::new(&rule.paths)?, rule.then)));
        let by_default = SETTLED_BY_DEFAULT.iter().map(|paths| Ok((Glob::new(paths)?, OnConflict::Last)));
        Ok(Self { rules: own.chain(by_default).collect::<Result<_, _>>()?, rest })
    }

    /// The one in which the later task always gets its way.
    pub fn last() -> Self {
        Self { rules: Vec::new(), rest: OnConflict::Last }
    }

    /// What becomes of a conflict about `path`.
    pub fn judge(&self, path: &TreePath, is_dir: bool) -> OnConflict {
        let rule = self.rules.iter().find(|(paths, _)| paths.matches(path.as_bytes(), is_dir));
        rule.map_or(self.rest, |(_, then)| *then)
    }
}

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
    /// Index of the later one, whose result is kept if conflicts are no errors.
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

/// Names in the log what was lost: the first paths, each with the task that won.
pub fn report_settled(workspace: &str, settled: &Conflicts) {
    for lost in &settled.listed {
        let [dropped, kept] = &lost.names;
        let path = lost.path.to_string();
        tracing::info!(
            event = "conflict",
            workspace,
            path,
            kept,
            dropped,
            "{}: {path}: kept what task {kept:?} left, dropped what task {dropped:?} left",
            Line(workspace)
        );
    }
    match settled.unlisted() {
        0 => {}
        more => {
            tracing::info!(event = "conflict", workspace, "{}: the same with {more} more paths", Line(workspace));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let rule = |paths: &str, then| ConflictRule { paths: paths.to_owned(), then };
        let rules = [
            rule("src/keep.log", OnConflict::Fail),
            rule("*.log", OnConflict::Last),
            rule("special/.git/index", OnConflict::Fail),
            rule("out/", OnConflict::Last),
        ];
        let policy = ConflictPolicy::new(&rules, OnConflict::Fail).unwrap();
        for (text, is_dir, then) in [
            ("src/keep.log", false, OnConflict::Fail),
            ("src/a.log", false, OnConflict::Last),
            ("src/a.txt", false, OnConflict::Fail),
            (".git/index", false, OnConflict::Last),
            ("sub/.git/FETCH_HEAD", false, OnConflict::Last),
            ("special/.git/index", false, OnConflict::Fail),
            ("out", true, OnConflict::Last),
            ("out", false, OnConflict::Fail),
        ] {
            assert_eq!(policy.judge(&path(text), is_dir), then, "{text}");
        }
        assert_eq!(ConflictPolicy::last().judge(&path("a"), false), OnConflict::Last);
        assert!(ConflictPolicy::new(&[rule("!a", OnConflict::Last)], OnConflict::Fail).is_err());
    }

    #[test]
    fn the_first_ones_are_listed() {
        let conflict = |number: usize| Conflict {
            path: path(&format!("p{number}")),
            earlier: number % 2,
            later: 2,
            did: ["changed", "deleted"],
            names: ["a".to_owned(), "b".to_owned()],
        };
        let mut conflicts = Conflicts::default();
        conflicts.add(conflict(0));
        let one = r#"parallel tasks left one path differently: p0 (task "a" changed it, task "b" deleted it)"#;
        assert_eq!(conflicts.to_string(), one);
        (1..LISTED).for_each(|number| conflicts.add(conflict(number)));
        let all = conflicts.to_string();
        assert!(
            all.starts_with("parallel tasks left the same paths differently: p0 (task \"a\" changed it, "),
            "{all}"
        );
        assert!(
            all.contains("\"b\" deleted it), p1 (task") && all.ends_with("it)") && conflicts.unlisted() == 0,
            "{all}"
        );
        (0..2).for_each(|more| conflicts.add(conflict(LISTED + more)));
        assert_eq!(conflicts.to_string(), format!("{all} and 2 more"));
        assert_eq!((conflicts.count, conflicts.listed.len(), conflicts.unlisted()), (LISTED + 2, LISTED, 2));
        assert_eq!(conflicts.pairs, [(0, 2), (1, 2)].into());
    }
}
