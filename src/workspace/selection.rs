//! What of a workspace a task restores: the patterns of param `paths`, and what they leave out of a tree.
//!
//! A directory is restored if a pattern matches it or anything below it. What is left out counts neither as deleted nor as
//! seen: the baseline has an [`Extent`] for each directory, so that a save knows what it can't know.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::{
    entry::Entry,
    error::Error,
    path::TreePath,
    snapshot::{merge::kept, view::View},
};
use crate::globs::{Globs, InvalidGlob};

/// How many names of what is left out are listed.
const LISTED: usize = 20;

/// The patterns of a task; by default everything is restored.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    patterns: Option<Globs>,
    /// The patterns as the user wrote them, with commas.
    pub shown: String,
}

/// How much of a path is restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extent {
    /// A file, or a directory with all that is in it.
    #[default]
    Whole,
    /// A directory, but not all that is in it.
    Part,
    /// Nothing.
    Nothing,
}

/// Which paths of a view are restored.
#[derive(Debug, Default)]
pub struct Choice {
    patterns: Option<Globs>,
    /// Directories of which a part is restored.
    partial: HashSet<TreePath>,
    /// The highest directories of which nothing is restored.
    left_out: HashSet<TreePath>,
    /// What is left out, for people.
    pub summary: LeftOut,
}

/// What is left out, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftOut {
    /// Everything that is no directory.
    pub files: u64,
    /// Bytes of regular files, of hard links once.
    pub bytes: u64,
    /// The first names: of a directory of which nothing is restored its own with a slash.
    pub listed: Vec<String>,
    /// How many more there are.
    pub unlisted: u64,
}

/// Tells for the entries of a view, one after the other in tree order, how much of each is restored.
pub struct Extents<'a> {
    choice: &'a Choice,
    left_out: Option<TreePath>,
}

impl Selection {
    /// Those of `patterns`; without any, everything is restored.
    pub fn new(patterns: &[String]) -> Result<Self, InvalidGlob> {
        if patterns.is_empty() {
            return Ok(Self::default());
        }
        Ok(Self { patterns: Some(Globs::new(patterns)?), shown: patterns.join(",") })
    }
}

impl Choice {
    /// What `selection` takes of `view`.
    pub fn new(selection: &Selection, view: &View<'_>) -> Result<Self, Error> {
        let Some(patterns) = selection.patterns.clone() else { return Ok(Self::default()) };
        // Not every base lists its root.
        let root = SurveyedDir { is_wanted: true, ..SurveyedDir::default() };
        let mut survey =
            Survey { choice: Self { patterns: Some(patterns.clone()), ..Self::default() }, open: vec![root] };
        view.for_each(&mut |group, outcome| {
            kept(group, &outcome).into_iter().for_each(|entry| survey.add(&patterns, entry));
            Ok(())
        })?;
        Ok(survey.finish())
    }

    /// How much of each entry is restored.
    pub fn extents(&self) -> Extents<'_> {
        Extents { choice: self, left_out: None }
    }
}

impl Extents<'_> {
    /// How much of `entry` is restored.
    pub fn next(&mut self, entry: &Entry) -> Extent {
        let Choice { patterns, partial, left_out, .. } = self.choice;
        let (Some(patterns), path) = (patterns, &entry.path) else { return Extent::Whole };
        if self.left_out.as_ref().is_some_and(|dir| dir.contains(path)) {
            return Extent::Nothing;
        }
        if left_out.contains(path) {
            self.left_out = Some(path.clone());
            return Extent::Nothing;
        }
        let is_whole = if entry.is_dir() {
            return if partial.contains(path) { Extent::Part } else { Extent::Whole };
        } else {
            !path.parent().is_some_and(|dir| partial.contains(&dir)) || patterns.matches(path.as_bytes(), false)
        };
        if is_whole { Extent::Whole } else { Extent::Nothing }
    }
}

/// Goes through a tree to find out which directories are restored: that depends on what is in them.
struct Survey {
    choice: Choice,
    open: Vec<SurveyedDir>,
}

/// A directory that the survey is in.
#[derive(Default)]
struct SurveyedDir {
    path: TreePath,
    /// It, or something below it, is matched.
    is_wanted: bool,
    is_partial: bool,
    /// What is left out right in it.
    files: LeftOut,
    dirs: Vec<TreePath>,
}

impl Survey {
    fn add(&mut self, patterns: &Globs, entry: &Entry) {
        let path = &entry.path;
        if path.is_root() {
            return;
        }
        while let Some(done) = self.open.pop_if(|dir| !dir.path.contains(path)) {
            self.close(done);
        }
        let is_wanted = patterns.matches(path.as_bytes(), entry.is_dir());
        if entry.is_dir() {
            self.open.push(SurveyedDir { path: path.clone(), is_wanted, ..SurveyedDir::default() });
            return;
        }
        if !is_wanted {
            let summary = &mut self.choice.summary;
            summary.files = summary.files.saturating_add(1);
            summary.bytes = summary.bytes.saturating_add(entry.own_size());
        }
        let Some(dir) = self.open.last_mut() else { return };
        if is_wanted {
            dir.is_wanted = true;
        } else {
            dir.is_partial = true;
            dir.files.list(|| path.to_string());
        }
    }

    fn close(&mut self, dir: SurveyedDir) {
        let parent = self.open.last_mut();
        if !dir.is_wanted {
            if let Some(parent) = parent {
                parent.is_partial = true;
                parent.dirs.push(dir.path);
            }
            return;
        }
        if let Some(parent) = parent {
            parent.is_wanted = true;
            parent.is_partial |= dir.is_partial;
        }
        let Choice { partial, left_out, summary, .. } = &mut self.choice;
        for below in dir.dirs {
            summary.list(|| format!("{below}/"));
            left_out.insert(below);
        }
        summary.unlisted = summary.unlisted.saturating_add(dir.files.unlisted);
        dir.files.listed.into_iter().for_each(|name| summary.list(|| name));
        if dir.is_partial {
            partial.insert(dir.path);
        }
    }

    fn finish(mut self) -> Choice {
        while let Some(done) = self.open.pop() {
            self.close(done);
        }
        self.choice.summary.listed.sort();
        self.choice
    }
}

impl LeftOut {
    fn list(&mut self, name: impl FnOnce() -> String) {
        if self.listed.len() < LISTED {
            self.listed.push(name());
        } else {
            self.unlisted = self.unlisted.saturating_add(1);
        }
    }
}
