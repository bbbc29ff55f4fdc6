//! What each task of a view found at a path and what it left there. Pure: entries in, entries out.
//!
//! What a task found is what its last ancestor left that touched the path, if it has seen all that other ancestors did there: then
//! nothing has to be merged, and a path takes as long as tasks touched it. Only where ancestors were parallel are their entries
//! merged, for each such task.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes of contributors and of groups, which views gave out"
)]

use std::borrow::Cow;

use crate::workspace::{
    Error,
    entry::{Entry, Time},
    path::TreePath,
    snapshot::{
        merge::{Change, Contributor, Decision, Groups, Rules},
        view::View,
    },
};

/// Gets what a task left at a path that it touched: the place of the task in pipeline order, what its ancestors had left there,
/// and what it left.
pub type VisitChange<'a> = dyn FnMut(usize, Option<&Entry>, Option<&Entry>) -> Result<(), Error> + 'a;

/// Gives every path that a task of `view` touched to `visit`, in tree order; of each one, the tasks in pipeline order.
pub fn each(view: &View<'_>, visit: &mut VisitChange<'_>) -> Result<(), Error> {
    let sources = view.contributors();
    each_of(view.groups()?, sources, &lines(sources), visit)
}

fn each_of<I: Iterator<Item = Result<Entry, Error>>>(
    mut groups: Groups<I>,
    contributors: &[Contributor],
    lines: &[usize],
    visit: &mut VisitChange<'_>,
) -> Result<(), Error> {
    let mut history = PathHistory { rules: Rules::new(contributors), lines, tasks: Vec::new() };
    // Sources that left no directory at a path: what was below it is gone. Each path is below the one before.
    let mut cuts: Vec<(usize, TreePath)> = Vec::new();
    let mut group = Vec::new();
    while groups.next(&mut group)? {
        let path = &group[0].entry.path;
        while cuts.pop_if(|(_, cut)| !cut.contains(path)).is_some() {}
        history.go_through(&group, &cuts, visit)?;
        cuts.extend(group.iter().filter(|w| !w.entry.is_dir()).map(|w| (w.contributor, w.entry.path.clone())));
    }
    Ok(())
}

/// For each contributor the first one of its line. Those of a line come after each other, and whatever else precedes one of them
/// precedes the first one too.
fn lines(contributors: &[Contributor]) -> Vec<usize> {
    let ancestors = |source: usize| contributors[source].ancestors.iter().filter(|&&is_one| is_one).count();
    let counts: Vec<usize> = (0..contributors.len()).map(ancestors).collect();
    let mut lines: Vec<usize> = Vec::with_capacity(contributors.len());
    for (source, contributor) in contributors.iter().enumerate() {
        let last = contributor.ancestors.iter().rposition(|&is_one| is_one);
        // It has its last ancestor and what precedes that, and nothing else.
        let above = last.filter(|&last| counts[last] + 1 == counts[source]);
        lines.push(above.map_or(source, |above| lines[above]));
    }
    lines
}

/// One path, task by task.
struct PathHistory<'a> {
    rules: Rules<'a>,
    /// See [`lines`].
    lines: &'a [usize],
    /// The contributors that touch the path, in pipeline order, with what is there after each.
    tasks: Vec<(usize, PathState)>,
}

/// What is at a path after a task and all its ancestors.
#[derive(Clone, Copy, Debug, Default)]
struct PathState {
    /// The entry, by its index in the group, with its mtime.
    kept: Option<(usize, Time)>,
    /// See [`Decision::by_effect`].
    by_effect: bool,
    /// See [`Decision::latest_is_dir`].
    latest_is_dir: Option<bool>,
    /// Whether one of them has an entry in the group.
    is_listed: bool,
}

impl PathHistory<'_> {
    /// Gives what each task found and left at the path of `group` to `visit`.
    fn go_through(
        &mut self,
        group: &[Change],
        cuts: &[(usize, TreePath)],
        visit: &mut VisitChange<'_>,
    ) -> Result<(), Error> {
        let mut touching: Vec<usize> = group.iter().map(|write| write.contributor).collect();
        touching.extend(cuts.iter().map(|(source, _)| *source));
        touching.sort_unstable();
        touching.dedup();
        self.tasks.clear();
        let shown = |kept: Option<(usize, Time)>| kept.map(|(i, mtime)| with_mtime(&group[i].entry, mtime));
        for source in touching {
            // Entries are sorted by contributor.
            let start = group.partition_point(|change| change.contributor < source);
            let own = &group[start..group.partition_point(|change| change.contributor <= source)];
            let before = self.before(source, group, cuts);
            let after = match own {
                [] => before.without(),
                [own] => before.with(start, own, group),
                _ => self.merged(group, cuts, |other| other == source || self.rules.precedes(other, source)),
            };
            self.tasks.push((source, after));
            let Some(task) = source.checked_sub(1) else { continue };
            let (old, new) = (shown(before.kept), shown(after.kept));
            match own {
                // Of a base that is not listed nothing is known but what tasks did to it: then a directory that was merely touched
                // was there, and so was what was deleted.
                [.., last] if old.is_none() && !before.is_listed && last.entry.is_touched() => {}
                [last] if old.is_none() && !before.is_listed && last.entry.is_whiteout() => {
                    visit(task, Some(&last.entry), None)?;
                }
                _ => visit(task, old.as_deref(), new.as_deref())?,
            }
        }
        Ok(())
    }

    /// What the ancestors of `source` left.
    fn before(&self, source: usize, group: &[Change], cuts: &[(usize, TreePath)]) -> PathState {
        match self.tasks.iter().rev().find(|(other, _)| self.rules.precedes(*other, source)) {
            None => PathState::default(),
            Some((last, state)) if self.lines[*last] == self.lines[source] => *state,
            Some(_) => self.merged(group, cuts, |other| self.rules.precedes(other, source)),
        }
    }

    /// What those contributors left together that are `wanted`.
    fn merged(&self, group: &[Change], cuts: &[(usize, TreePath)], wanted: impl Fn(usize) -> bool) -> PathState {
        let (places, changes): (Vec<usize>, Vec<Change>) =
            group.iter().cloned().enumerate().filter(|(_, change)| wanted(change.contributor)).unzip();
        let cutters: Vec<usize> = cuts.iter().map(|(source, _)| *source).filter(|source| wanted(*source)).collect();
        let Decision { from, mtime, by_effect, latest_is_dir } = self.rules.decide(&changes, &cutters);
        let kept = from.map(|from| (places[from], mtime));
        PathState { kept, by_effect, latest_is_dir, is_listed: !changes.is_empty() }
    }
}

impl PathState {
    /// After a task that has seen all of it and has one entry, `own` at `place` of `group`: the rules of a merge, where nothing is
    /// parallel.
    fn with(self, place: usize, own: &Change, group: &[Change]) -> Self {
        let Entry { mtime, .. } = own.entry;
        let its_own = Self { kept: Some((place, mtime)), is_listed: true, ..self };
        if !own.entry.is_touched() {
            let kept = its_own.kept.filter(|_| !own.entry.is_whiteout());
            return Self { kept, by_effect: true, latest_is_dir: Some(own.entry.is_dir()), ..its_own };
        }
        match self {
            // It restored the directory.
            Self { latest_is_dir: Some(false), .. } => Self { by_effect: true, ..its_own },
            Self { by_effect: false, .. } => its_own,
            Self { kept, .. } => {
                let kept = kept.map(|(i, old)| (i, if group[i].entry.is_dir() { mtime } else { old }));
                Self { kept, is_listed: true, ..self }
            }
        }
    }

    /// After a task that has seen all of it and deleted what was below a directory above.
    fn without(self) -> Self {
        Self { kept: None, by_effect: true, latest_is_dir: Some(false), ..self }
    }
}

fn with_mtime(entry: &Entry, mtime: Time) -> Cow<'_, Entry> {
    if entry.mtime == mtime { Cow::Borrowed(entry) } else { Cow::Owned(Entry { mtime, ..entry.clone() }) }
}

#[cfg(test)]
mod tests;
