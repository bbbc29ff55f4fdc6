//! When each task ran, and how much of that its injected steps took: a bar for each TaskRun.

use std::fmt::{self, Write};

use super::{
    html::HtmlText,
    model::{ShownRun, ShownTaskRun, TaskTimes, TimeSpan},
};
use crate::units;

/// The width of all bars together, in units of their own.
const WIDTH: f64 = 1000.0;

/// Writes the section; nothing if no task was started.
pub fn write(out: &mut String, run: &ShownRun, id: &str) -> fmt::Result {
    let ran = || run.tasks.iter().enumerate().flat_map(|(task, found)| found.runs.iter().map(move |run| (task, run)));
    let times = || ran().filter_map(|(_, run)| run.times);
    let from = times().map(|times| times.whole.from).min();
    let (Some(from), Some(to)) = (from, times().map(|times| times.whole.to).max()) else { return Ok(()) };
    let whole = TimeSpan { from, to };
    writeln!(
        out,
        "<section aria-labelledby=\"{id}time\"><h2 id=\"{id}time\">Time</h2>\n<div class=\"scroll\"><table class=\"time\">"
    )?;
    writeln!(
        out,
        "<thead><tr><th scope=\"col\">Task</th><th scope=\"col\" class=\"bars\"><span class=\"key restore\">restore</span> \
         <span class=\"key own\">own steps</span> <span class=\"key save\">save</span></th><th scope=\"col\" class=\"number\">Took</th>\
         <th scope=\"col\" class=\"number\">Restore</th><th scope=\"col\" class=\"number\">Save</th></tr></thead>\n<tbody>"
    )?;
    for (task, run) in ran() {
        let Some(times) = run.times else { continue };
        row(out, &format!("{id}t{task}"), run, times, whole)?;
    }
    writeln!(out, "</tbody></table></div></section>")
}

fn row(out: &mut String, task: &str, run: &ShownTaskRun, times: TaskTimes, whole: TimeSpan) -> fmt::Result {
    let bar = |span: TimeSpan, class: &str| {
        let scale = WIDTH / (whole.length().max(1) as f64);
        let x = TimeSpan { from: whole.from, to: span.from }.length() as f64 * scale;
        // Something can always be seen.
        let width = (span.length() as f64 * scale).max(2.0);
        format!("<rect class=\"{class}\" x=\"{:.1}\" width=\"{width:.1}\" y=\"0\" height=\"1\"/>", x.min(WIDTH - width))
    };
    write!(out, "<tr><th scope=\"row\"><a href=\"#{task}\">{}</a></th><td class=\"bars\">", HtmlText(&run.name))?;
    write!(out, "<svg viewBox=\"0 0 {WIDTH} 1\" preserveAspectRatio=\"none\" aria-hidden=\"true\">")?;
    out.write_str(&bar(times.whole, run.badge.tone.class()))?;
    for (span, class) in [(times.restore, "restore"), (times.save, "save")] {
        out.write_str(&span.map_or(String::new(), |span| bar(span, class)))?;
    }
    write!(out, "</svg></td><td class=\"number\">{}</td>", length(Some(times.whole)))?;
    writeln!(
        out,
        "<td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
        length(times.restore),
        length(times.save)
    )
}

/// A span as people read it.
fn length(span: Option<TimeSpan>) -> String {
    span.map_or("–".to_owned(), |span| took(span.length()))
}

/// Milliseconds as people read them; Kubernetes has whole seconds.
pub fn took(millis: u64) -> String {
    match millis {
        0..1000 => "< 1 s".to_owned(),
        _ => units::duration(std::time::Duration::from_millis(millis)),
    }
}
