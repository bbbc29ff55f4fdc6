//! How answers are written.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use std::io::Write;

use serde_json::Value;

use super::PluginError;
use crate::{quote::Line, yaml};

/// Forms of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Form {
    /// YAML
    Yaml,
    /// JSON
    Json,
    /// `pipelinerun.tekton.dev/NAME`, for scripts
    Name,
}

/// Forms of what is told about a run and its files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum DescriptionForm {
    /// For people
    #[default]
    Text,
    /// The same with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// Names alone, for scripts
    Name,
}

/// Forms of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum TableForm {
    /// A table for people
    #[default]
    Table,
    /// The same with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// pipelinerun.tekton.dev/NAME, for scripts
    Name,
}

/// Wider columns are no columns any more: a long name in one row must not fill the screen in all others.
const WIDEST: usize = 120;

/// A table: columns as wide as they have to be, two blanks between them. Names in it may be anybody's.
pub fn table(rows: &[Vec<String>], out: &mut dyn Write) -> Result<(), PluginError> {
    let quoted = |row: &Vec<String>| row.iter().map(|cell| Line(cell).to_string()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(quoted).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
            .min(WIDEST)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in &rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}"));
        let line = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{}", line.trim_end()).map_err(PluginError::Output)?;
    }
    Ok(())
}

/// How long ago `then` was, as kubectl says it; `-` where there is no such time. Both are RFC 3339.
pub fn age(then: &str, now: &str) -> String {
    let point = |text: &str| text.parse::<jiff::Timestamp>().ok();
    let (Some(then), Some(now)) = (point(then), point(now)) else { return "-".to_owned() };
    let seconds = now.as_second().saturating_sub(then.as_second()).max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..7200 => format!("{}m", seconds / 60),
        7200..172_800 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// Writes `object`, a PipelineRun.
pub fn object(object: &Value, form: Form, out: &mut dyn Write) -> Result<(), PluginError> {
    let text = match form {
        Form::Yaml => yaml::to_string(object),
        Form::Json => format!("{object:#}\n"),
        Form::Name => format!("{}\n", name(object)),
    };
    out.write_all(text.as_bytes()).map_err(PluginError::Output)
}

/// `pipelinerun.tekton.dev/NAME`, as kubectl has it.
pub fn name(object: &Value) -> String {
    let metadata = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
    let name = if metadata("name").is_empty() { metadata("generateName") } else { metadata("name") };
    format!("pipelinerun.tekton.dev/{}", Line(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages() {
        let now = "2026-03-04T12:00:00Z";
        for (then, shown) in [
            ("2026-03-04T11:59:30Z", "30s"),
            ("2026-03-04T11:55:00Z", "5m"),
            ("2026-03-04T09:00:00Z", "3h"),
            ("2026-02-01T12:00:00Z", "31d"),
            ("2026-03-04T12:00:09Z", "0s"),
            ("", "-"),
        ] {
            assert_eq!(age(then, now), shown, "{then}");
        }
    }

    #[test]
    fn tables() {
        let rows = [vec!["NAME".to_owned(), "AGE".to_owned()], vec!["a".to_owned(), "5m".to_owned()]];
        let mut out = Vec::new();
        table(&rows, &mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "NAME  AGE\na     5m\n");
        let rows = [vec!["\u{1b}[2J\n".to_owned(), "x".to_owned()], vec!["x".repeat(1000), "y".to_owned()]];
        let mut out = Vec::new();
        table(&rows, &mut out).unwrap();
        let expected = format!("{:120}  x\n{}  y\n", "\\033[2J\\n", "x".repeat(1000));
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
