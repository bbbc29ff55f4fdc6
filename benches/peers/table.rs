//! The results as a table.

use std::fmt::Write;

use super::measure::Sample;

/// One line for each row and tool: medians, and how much faster this program is.
pub fn table(samples: &[Sample]) -> String {
    let mut text = String::from(
        "| | tool | median s | least | most | CPU s | peak MiB | MB sent | times ours |\n|---|---|---|---|---|---|---|---|---|\n",
    );
    let mut done: Vec<(&str, &str)> = Vec::new();
    let mut rows: Vec<&str> = Vec::new();
    for sample in samples {
        if !rows.contains(&&*sample.row) {
            rows.push(&sample.row);
        }
    }
    for row in rows {
        let ours = median(samples, row, "tekton-wrap", |sample| sample.seconds);
        for tool in samples.iter().filter(|sample| sample.row == row).map(|sample| &*sample.tool) {
            if done.contains(&(row, tool)) {
                continue;
            }
            done.push((row, tool));
            let of = |value: fn(&Sample) -> f64| median(samples, row, tool, value);
            let seconds = of(|sample| sample.seconds);
            let all = || of_pair(samples, row, tool).map(|sample| sample.seconds);
            let _ = writeln!(
                text,
                "| {row} | {tool} | {seconds:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.1} | {:.1} |",
                all().fold(f64::INFINITY, f64::min),
                all().fold(0.0, f64::max),
                of(|sample| sample.cpu_seconds),
                of(|sample| sample.peak_kib as f64 / 1024.0),
                of(|sample| sample.sent as f64 / 1e6),
                seconds / ours,
            );
        }
    }
    text
}

fn of_pair<'a>(samples: &'a [Sample], row: &str, tool: &str) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(move |sample| sample.row == row && sample.tool == tool)
}

fn median(samples: &[Sample], row: &str, tool: &str, value: fn(&Sample) -> f64) -> f64 {
    let mut values: Vec<f64> = of_pair(samples, row, tool).map(value).collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
