//! The paths that a task changed, as a tree. It is of bounded size, however many there are: of a large folder the first entries
//! are kept, of a large tree the folders near its root; what is left out is counted where it would be.

#![allow(clippy::arithmetic_side_effects, reason = "counts of what is in memory")]

mod build;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, fmt};

pub use self::build::ChangeTreeBuilder;
use super::html::{HtmlPath, HtmlText};
use crate::{
    inspect::changes::ChangeKind,
    units::{count, size},
};

/// A tree of so few rows is open from the start.
const FEW: u64 = 24;

/// What a task changed, by folders.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeTree {
    root: ChangedFolder,
}

/// A folder in which something changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ChangedFolder {
    /// Its name, or several with `/` between them if there is nothing else in the outer ones.
    name: Vec<u8>,
    /// What became of itself.
    change: Option<ChangeKind>,
    counts: ChangeCounts,
    folders: Vec<Self>,
    files: Vec<ChangedFile>,
    /// How many rows are kept of it, while it is built.
    rows: usize,
}

/// Anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ChangedFile {
    name: Vec<u8>,
    change: ChangeKind,
    detail: String,
}

/// How many paths changed, folders not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ChangeCounts {
    added: u64,
    changed: u64,
    deleted: u64,
    attributes: u64,
    /// Bytes of what was added or changed.
    bytes: u64,
}

impl ChangeTree {
    /// How many paths changed; folders don't count.
    pub fn total(&self) -> u64 {
        self.root.counts.total()
    }

    /// How many of them are listed.
    pub fn listed(&self) -> u64 {
        self.root.listed()
    }

    /// Whether nothing at all changed.
    pub fn is_empty(&self) -> bool {
        self.root.folders.is_empty() && self.root.files.is_empty() && self.total() == 0
    }
}

impl ChangedFolder {
    fn listed(&self) -> u64 {
        self.files.len() as u64 + self.folders.iter().map(Self::listed).sum::<u64>()
    }

    /// Folders with nothing in them but one other folder become one with it.
    fn join_single(&mut self) {
        for folder in &mut self.folders {
            folder.join_single();
            let is_single = folder.files.is_empty() && folder.folders.len() == 1;
            let Some(inner) = folder.folders.pop_if(|inner| is_single && inner.counts == folder.counts) else {
                continue;
            };
            let name = [&folder.name[..], b"/", &inner.name].concat();
            *folder = Self { name, ..inner };
        }
    }

    /// Empties folders, the deepest first, until there are no more than `rows` rows. Gives their number.
    fn fit(&mut self, rows: usize) -> usize {
        let (mut left, mut kept) = (rows, 0);
        let mut folders = VecDeque::from([self]);
        let mut is_root = true;
        while let Some(folder) = folders.pop_front() {
            let own = folder.folders.len() + folder.files.len();
            if own > left && !is_root {
                folder.folders.clear();
                folder.files.clear();
                continue;
            }
            left = left.saturating_sub(own);
            kept += own;
            is_root = false;
            folders.extend(&mut folder.folders);
        }
        kept
    }

    /// Paths in it that neither it nor a folder in it lists.
    fn left_out(&self) -> u64 {
        let inside: u64 = self.folders.iter().map(|folder| folder.counts.total()).sum();
        self.counts.total().saturating_sub(inside).saturating_sub(self.files.len() as u64)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, open: &str) -> fmt::Result {
        for folder in &self.folders {
            let class = folder.change.map_or("", class);
            write!(f, "<li class=\"dir {class}\">")?;
            let words = match folder.counts.total() {
                0 => folder.change.map(word).unwrap_or_default().to_owned(),
                _ => folder.counts.to_string(),
            };
            let head = format!("<code>{}/</code> <span>{words}</span>", HtmlPath(&folder.name));
            if folder.folders.is_empty() && folder.files.is_empty() {
                writeln!(f, "{head}</li>")?;
                continue;
            }
            writeln!(f, "<details{open}><summary>{head}</summary><ul>")?;
            folder.write(f, open)?;
            writeln!(f, "</ul></details></li>")?;
        }
        for ChangedFile { name, change, detail } in &self.files {
            let word = word(*change);
            let detail = if detail.is_empty() { String::new() } else { format!(", {}", HtmlText(detail)) };
            writeln!(
                f,
                "<li class=\"{}\"><code>{}</code> <span>{word}{detail}</span></li>",
                class(*change),
                HtmlPath(name)
            )?;
        }
        match self.left_out() {
            0 => Ok(()),
            more => writeln!(
                f,
                "<li class=\"more\">and {} that {} not listed on this page</li>",
                count(more, "more path"),
                if more == 1 { "is" } else { "are" }
            ),
        }
    }
}

/// The rows of a list.
impl fmt::Display for ChangeTree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.root.write(f, if self.listed() <= FEW { " open" } else { "" })
    }
}

impl ChangeCounts {
    fn add(&mut self, change: ChangeKind, bytes: u64) {
        let number = match change {
            ChangeKind::Added => &mut self.added,
            ChangeKind::Content | ChangeKind::Kind => &mut self.changed,
            ChangeKind::Deleted => &mut self.deleted,
            ChangeKind::Attributes => &mut self.attributes,
        };
        *number = number.saturating_add(1);
        if matches!(change, ChangeKind::Added | ChangeKind::Content | ChangeKind::Kind) {
            self.bytes = self.bytes.saturating_add(bytes);
        }
    }

    fn merge(&mut self, other: Self) {
        for (own, other) in [
            (&mut self.added, other.added),
            (&mut self.changed, other.changed),
            (&mut self.deleted, other.deleted),
            (&mut self.attributes, other.attributes),
            (&mut self.bytes, other.bytes),
        ] {
            *own = own.saturating_add(other);
        }
    }

    fn total(&self) -> u64 {
        [self.changed, self.deleted, self.attributes].into_iter().fold(self.added, u64::saturating_add)
    }
}

/// `3 added, 1 deleted, 4.5 MB`
impl fmt::Display for ChangeCounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { added, changed, deleted, attributes, bytes } = *self;
        let numbers =
            [(added, "added"), (changed, "changed"), (deleted, "deleted"), (attributes, "with other attributes")];
        let mut separator = "";
        for (number, what) in numbers.iter().filter(|(number, _)| *number > 0) {
            write!(f, "{separator}{number} {what}")?;
            separator = ", ";
        }
        if bytes > 0 { write!(f, "{separator}{}", size(bytes)) } else { f.write_str("") }
    }
}

/// The class of a change in the style sheet.
fn class(change: ChangeKind) -> &'static str {
    match change {
        ChangeKind::Added => "added",
        ChangeKind::Content | ChangeKind::Kind | ChangeKind::Attributes => "changed",
        ChangeKind::Deleted => "deleted",
    }
}

fn word(change: ChangeKind) -> &'static str {
    match change {
        ChangeKind::Added => "added",
        ChangeKind::Content => "changed",
        ChangeKind::Kind => "another type",
        ChangeKind::Attributes => "other attributes",
        ChangeKind::Deleted => "deleted",
    }
}
