//! A report as people read it.

#![allow(clippy::indexing_slicing, reason = "columns of a table")]

use std::fmt;

use super::{Layers, Report, TaskReport, Total};
use crate::{
    inspect::{
        changes::{Amount, Summary},
        holding::Holding,
        source::ImageKind,
    },
    quote::{Line, Quoted},
    units::{count, size},
};

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
        let Total { layers, holds: Holding { amount, directories } } = &self.total;
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
    /// A row for each task.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        inspect::{source::InspectedImage, tests::played},
    };

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
