//! The graph of the tasks, drawn as SVG: each task is a link to what the page says of it. There are two drawings, of which the style
//! sheet shows one: from left to right where there is room for it, else from the top down.

use std::fmt::{self, Write};

use super::{
    html::{HtmlText, cut},
    layout::{GraphLayout, GraphNode, Spacing, depth, layout},
    model::{ShownRun, ShownTask},
    timeline::took,
};
use crate::units::{count, size};

/// Around the whole.
const MARGIN: f64 = 8.0;

/// The height of a task.
const HEIGHT: f64 = 78.0;

/// More ranks than these don't fit beside each other on a usual screen.
const BESIDE: usize = 6;

/// One of the drawings.
struct SvgDrawing<'a> {
    run: &'a ShownRun,
    layout: GraphLayout,
    is_across: bool,
    /// Of a task.
    width: f64,
    /// In front of all identifiers.
    id: &'a str,
}

/// Writes the section.
pub fn write(out: &mut String, run: &ShownRun, id: &str) -> fmt::Result {
    let nodes: Vec<GraphNode> =
        run.tasks.iter().map(|task| GraphNode { after: task.after.clone(), last: task.finally }).collect();
    writeln!(out, "<section aria-labelledby=\"{id}graph\"><h2 id=\"{id}graph\">Tasks</h2>")?;
    let is_across = depth(&nodes) <= BESIDE;
    for (class, is_across, width) in [("wide", is_across, 184.0), ("narrow", false, 158.0)] {
        let spacing = if is_across {
            Spacing { along: width, across: HEIGHT, gap_along: 34.0, gap_across: 16.0 }
        } else {
            Spacing { along: HEIGHT, across: width, gap_along: 34.0, gap_across: 14.0 }
        };
        let drawing = SvgDrawing { run, layout: layout(&nodes, spacing), is_across, width, id };
        writeln!(
            out,
            "<div class=\"scroll {class}\" tabindex=\"0\" role=\"group\" aria-label=\"Graph of the tasks\">"
        )?;
        drawing.write(out)?;
        writeln!(out, "</div>")?;
    }
    writeln!(out, "</section>")
}

impl SvgDrawing<'_> {
    fn write(&self, out: &mut String) -> fmt::Result {
        let (width, height) = self.turned(self.layout.size);
        let (width, height) = (width + 2.0 * MARGIN, height + 2.0 * MARGIN);
        writeln!(out, "<svg class=\"graph\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\">")?;
        if let Some(last) = self.layout.last {
            let (x, y) = self.turned((last, 0.0));
            let (x, y) = (x + MARGIN, y + MARGIN);
            let end = if self.is_across { format!("V {}", height - MARGIN) } else { format!("H {}", width - MARGIN) };
            writeln!(out, "<path class=\"finally\" aria-hidden=\"true\" d=\"M {x} {y} {end}\"/>")?;
            let (x, y) = (x + 8.0, y + if self.is_across { 10.0 } else { -5.0 });
            writeln!(out, "<text class=\"last-word\" aria-hidden=\"true\" x=\"{x}\" y=\"{y}\">finally</text>")?;
        }
        for edge in &self.layout.edges {
            writeln!(out, "<path class=\"edge\" aria-hidden=\"true\" d=\"{}\"/>", self.curve(edge))?;
        }
        for (index, (task, place)) in self.run.tasks.iter().zip(&self.layout.nodes).enumerate() {
            let (x, y) = self.turned(*place);
            self.task(out, index, task, (x + MARGIN, y + MARGIN))?;
        }
        writeln!(out, "</svg>")
    }

    /// Along and across as x and y.
    fn turned(&self, (along, across): (f64, f64)) -> (f64, f64) {
        if self.is_across { (along, across) } else { (across, along) }
    }

    /// A smooth line over points, of which each second stretch passes a rank and is straight.
    fn curve(&self, points: &[(f64, f64)]) -> String {
        let at = |point: (f64, f64)| {
            let (x, y) = self.turned(point);
            format!("{:.0} {:.0}", x + MARGIN, y + MARGIN)
        };
        let mut path = String::new();
        for &[from, to] in points.as_chunks::<2>().0 {
            let middle = (from.0 + to.0) / 2.0;
            let start = if path.is_empty() { "M" } else { " L" };
            path += &format!("{start} {} C {}, {}, {}", at(from), at((middle, from.1)), at((middle, to.1)), at(to));
        }
        path
    }

    #[allow(clippy::cast_possible_truncation, reason = "letters that fit into a box, no more than some hundreds")]
    fn task(&self, out: &mut String, index: usize, task: &ShownTask, (x, y): (f64, f64)) -> fmt::Result {
        let class = task.badge().map_or("planned", |badge| badge.tone.class());
        let finally = if task.finally { " last" } else { "" };
        let lines = lines(task);
        write!(out, "<a class=\"node {class}{finally}\" href=\"#{}t{index}\">", self.id)?;
        write!(out, "<title>{}</title>", HtmlText(&spoken(task, &lines)))?;
        write!(out, "<rect x=\"{x}\" y=\"{y}\" width=\"{}\" height=\"{HEIGHT}\" rx=\"9\"/>", self.width)?;
        write!(
            out,
            "<rect class=\"mark\" x=\"{x}\" y=\"{}\" width=\"4\" height=\"{}\" rx=\"2\"/>",
            y + 10.0,
            HEIGHT - 20.0
        )?;
        // So many letters fit.
        let (large, small) = ((self.width - 24.0) / 8.0, (self.width - 21.0) / 6.2);
        write!(
            out,
            "<text class=\"name\" x=\"{}\" y=\"{}\">{}</text>",
            x + 15.0,
            y + 23.0,
            HtmlText(&cut(&task.name, large as usize))
        )?;
        for (line, text) in lines.iter().enumerate() {
            let y = y + 39.0 + 15.0 * line as f64;
            write!(out, "<text x=\"{}\" y=\"{y}\">{}</text>", x + 15.0, HtmlText(&cut(text, small as usize)))?;
        }
        writeln!(out, "</a>")
    }
}

/// What stands below the name of a task.
fn lines(task: &ShownTask) -> Vec<String> {
    let Some(badge) = task.badge() else {
        return task.planned.iter().map(|(what, sentence)| format!("{what}: {sentence}")).collect();
    };
    let mut first = badge.word.clone();
    if task.runs.len() > 1 {
        first = format!("{} × {first}", task.runs.len());
    }
    if let Some(duration) = task.duration() {
        first = format!("{first} · {}", took(duration));
    }
    let restored = task.restored().map(|amount| format!("↓ {} · {}", count(amount.files, "file"), size(amount.bytes)));
    let saved = task.saved().map(|(kept, deleted, _)| {
        let deleted = if deleted > 0 { format!(" · −{deleted}") } else { String::new() };
        format!("↑ {} · {}{deleted}", count(kept.files, "file"), size(kept.bytes))
    });
    [Some(first), restored, saved].into_iter().flatten().collect()
}

/// The same for who can't see it.
fn spoken(task: &ShownTask, lines: &[String]) -> String {
    let lines = lines.iter().map(|line| line.replace('↓', "restored").replace('↑', "saved").replace('−', "deleted "));
    let finally = if task.finally { " (finally)" } else { "" };
    format!("{}{finally}: {}", task.name, lines.collect::<Vec<_>>().join("; "))
}
