//! What `inspect IMAGE` says, as JSON says it and as text. The names of its fields are stable.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes that groups gave out themselves, columns of a table; counts of paths and layers"
)]

use std::{collections::HashSet, fmt};

use serde::Serialize;

use super::{
    changes::{self, Amount, Summary},
    source::{ImageKind, InspectedImage, merged},
};
use crate::{
    digest::Digest,
    quote::{Line, Quoted},
    units::{count, size},
    workspace::{
        Error,
        entry::{Entry, Node},
        layer::descriptor::Descriptor,
        path::TreePath,
        snapshot::{
            lineage::{Lineage, Writer},
            merge::Outcome,
            view::View,
        },
    },
};

/// An image and what is behind it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    image: String,
    digest: Digest,
    kind: ImageKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<BaseReport>,
    /// In pipeline order.
    tasks: Vec<TaskReport>,
    /// Layers of no task.
    other: Layers,
    total: Total,
    /// How many paths parallel tasks left differently; the image has what the later one left.
    #[serde(skip_serializing_if = "is_zero")]
    conflicts: usize,
    /// What the numbers do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BaseReport {
    image: String,
    digest: Digest,
    #[serde(flatten)]
    layers: Layers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskReport {
    task: String,
    order: u32,
    /// The tasks right before it, of those that saved the workspace.
    after: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Digest>,
    #[serde(flatten)]
    layers: Layers,
    #[serde(flatten)]
    changes: Summary,
}

/// Layers in numbers.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layers {
    layers: usize,
    /// Bytes as they are stored, compressed.
    stored_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    #[serde(flatten)]
    layers: Layers,
    #[serde(flatten)]
    amount: Amount,
    directories: u64,
}

impl Report {
    /// Of `source`.
    pub fn new(source: &InspectedImage) -> Result<Self, Error> {
        let lineage = &source.lineage;
        let view = source.view()?;
        let changes = changes::of_tasks(&view)?;
        let base = lineage.base.as_ref().map(|base| BaseReport {
            image: base.image.clone(),
            digest: base.manifest,
            layers: Layers::of(&base.layers),
        });
        let task = |(writer, changes): (&Writer, Summary)| TaskReport {
            task: writer.task.clone(),
            order: writer.order,
            after: right_before(lineage, writer),
            snapshot: writer.manifest,
            layers: Layers::of(&writer.layers),
            changes,
        };
        let tasks = lineage.writers.iter().zip(changes).map(task).collect();
        let base_layers = lineage.base.iter().flat_map(|base| &base.layers);
        let all = base_layers.chain(lineage.layers().map(|(_, layer)| layer)).chain(&source.other);
        let mut total = Total { layers: Layers::of(all), ..Total::default() };
        total.count(&view)?;
        Ok(Self {
            image: source.image.clone(),
            digest: source.digest,
            kind: source.kind,
            run: source.run.clone(),
            workspace: source.workspace.clone(),
            base,
            tasks,
            other: Layers::of(&source.other),
            conflicts: view.conflicts.count,
            total,
            note: source.unlisted.clone(),
        })
    }
}

/// Names of the ancestors of `writer` that are no ancestors of another one of them.
fn right_before(lineage: &Lineage, writer: &Writer) -> Vec<String> {
    let is_ancestor = |other: &&Writer| writer.ancestors.binary_search(&other.order).is_ok();
    let ancestors: Vec<&Writer> = lineage.writers.iter().filter(is_ancestor).collect();
    let is_nearest = |one: &&&Writer| !ancestors.iter().any(|other| other.ancestors.binary_search(&one.order).is_ok());
    ancestors.iter().filter(is_nearest).map(|writer| writer.task.clone()).collect()
}

impl Layers {
    fn of<'a>(layers: impl IntoIterator<Item = &'a Descriptor>) -> Self {
        layers.into_iter().fold(Self::default(), |sum, layer| Self {
            layers: sum.layers + 1,
            stored_bytes: sum.stored_bytes.saturating_add(layer.size),
        })
    }
}

impl Total {
    fn count(&mut self, view: &View<'_>) -> Result<(), Error> {
        // Files with hard links, by their first path: their bytes count once.
        let mut linked: HashSet<(usize, TreePath)> = HashSet::new();
        view.for_each(&mut |group, outcome| {
            let Some(Entry { path, node, .. }) = merged(group, &outcome) else { return Ok(()) };
            let layer = match outcome {
                Outcome::Keep { from, .. } => group[from].layer,
                Outcome::Gone { .. } => 0,
            };
            self.directories += u64::from(matches!(node, Node::Dir { .. }) && !path.is_root());
            self.amount.files += u64::from(!matches!(node, Node::Dir { .. }));
            let first = match &node {
                Node::File(content) if !view.has_links(layer) => {
                    self.amount.bytes = self.amount.bytes.saturating_add(content.size);
                    None
                }
                Node::File(content) => Some((path, content.size)),
                Node::Link { to, content } => Some((to.clone(), content.size)),
                _ => None,
            };
            if let Some((_, size)) = first.filter(|(path, _)| linked.insert((layer, path.clone()))) {
                self.amount.bytes = self.amount.bytes.saturating_add(size);
            }
            Ok(())
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", Line(&self.image))?;
        writeln!(f, "digest     {}", self.digest)?;
        if let (Some(run), Some(workspace)) = (&self.run, &self.workspace) {
            writeln!(f, "run        {}\nworkspace  {}", Quoted(run.as_bytes()), Quoted(workspace.as_bytes()))?;
        }
        if let Some(base) = &self.base {
            writeln!(f, "base       {} ({}), {}", Quoted(base.image.as_bytes()), base.digest, base.layers)?;
        }
        if self.other.layers > 0 {
            let what = match self.kind {
                ImageKind::Image => "with unknown files",
                _ => "so that other tools see the same",
            };
            writeln!(f, "besides    {} {what}", self.other)?;
        }
        if !self.tasks.is_empty() {
            writeln!(f)?;
            self.table(f)?;
        }
        writeln!(f)?;
        let Total { layers, amount, directories } = &self.total;
        let directories =
            if *directories == 1 { "1 directory".to_owned() } else { format!("{directories} directories") };
        writeln!(f, "{} and {directories}, {} in {layers}", count(amount.files, "file"), size(amount.bytes))?;
        if self.conflicts > 0 {
            let paths = count(self.conflicts as u64, "path");
            writeln!(f, "parallel tasks left {paths} differently; what the later task left counts")?;
        }
        self.note.iter().try_for_each(|note| writeln!(f, "note: {}", Line(note)))
    }
}

impl Report {
    fn table(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["TASK", "AFTER", "LAYERS", "STORED", "ADDED", "CHANGED", "DELETED", "ATTRIBUTES"];
        let amount = |Amount { files, bytes }: Amount| match files {
            0 => "-".to_owned(),
            _ if bytes == 0 => files.to_string(),
            _ => format!("{files} ({})", size(bytes)),
        };
        let number = |number: u64| if number == 0 { "-".to_owned() } else { number.to_string() };
        let quoted = |name: &String| Quoted(name.as_bytes()).to_string();
        let row = |task: &TaskReport| {
            let Summary { added, changed, deleted, attributes, .. } = task.changes;
            [
                quoted(&task.task),
                if task.after.is_empty() {
                    "-".to_owned()
                } else {
                    task.after.iter().map(quoted).collect::<Vec<_>>().join(", ")
                },
                number(task.layers.layers as u64),
                if task.layers.layers == 0 { "-".to_owned() } else { size(task.layers.stored_bytes) },
                amount(added),
                amount(changed),
                amount(deleted),
                number(attributes),
            ]
        };
        let rows: Vec<_> = std::iter::once(head.map(str::to_owned)).chain(self.tasks.iter().map(row)).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..head.len()).map(width).collect();
        for row in &rows {
            // Names to the left, numbers to the right.
            write!(f, "{:<w$}  {:<v$}", row[0], row[1], w = widths[0], v = widths[1])?;
            for (cell, width) in row.iter().zip(&widths).skip(2) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Layers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} stored)", count(self.layers as u64, "layer"), size(self.stored_bytes))
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inspect::tests::played;

    #[test]
    fn as_people_see_it() {
        let run = played();
        let mut report = Report::new(&InspectedImage::open(&run.target()).unwrap()).unwrap();
        // What depends on the folder and the clock.
        report.image = "quay.io/me/build-x7k2p-sources:latest".to_owned();
        report.digest = Digest::of(b"");
        let layers = report.tasks.iter_mut().map(|task| &mut task.layers);
        for layers in layers.chain([&mut report.other, &mut report.total.layers]) {
            layers.stored_bytes = 1234 * layers.layers as u64;
        }
        let expected = "\
quay.io/me/build-x7k2p-sources:latest
digest     sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
run        run
workspace  ws
besides    1 layer (1.2 kB stored) so that other tools see the same

TASK  AFTER   LAYERS  STORED     ADDED   CHANGED  DELETED  ATTRIBUTES
t0    -            1  1.2 kB  6 (20 B)         -        -           -
t1    t0           1  1.2 kB   1 (1 B)  1 (18 B)  1 (5 B)           -
t2    t0           1  1.2 kB         -         -        1           1
t3    t1, t2       -       -         -         -        -           -

5 files and 3 directories, 29 B in 4 layers (4.9 kB stored)
";
        assert_eq!(report.to_string(), expected);
    }
}
