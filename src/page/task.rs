//! What the page says of one task: how it ended, and what it did with each workspace.

use std::fmt::{self, Write};

use super::{
    html::HtmlText,
    model::{Badge, ShownChanges, ShownRun, ShownSave, ShownTask, ShownTaskRun},
    timeline::took,
};
use crate::{
    inspect::changes::{Amount, Summary},
    units::{count, size},
};

/// Writes all tasks of a run.
pub fn write(out: &mut String, run: &ShownRun, id: &str) -> fmt::Result {
    let what = if run.badge.is_some() { "What each task did" } else { "What each task will do" };
    writeln!(out, "<section aria-labelledby=\"{id}tasks\"><h2 id=\"{id}tasks\">{what}</h2>")?;
    for (index, task) in run.tasks.iter().enumerate() {
        one(out, run, task, &format!("{id}t{index}"))?;
    }
    writeln!(out, "</section>")
}

/// A condition as a coloured word.
impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "<span class=\"badge {}\">{}</span>", self.tone.class(), HtmlText(&self.word))
    }
}

fn one(out: &mut String, run: &ShownRun, task: &ShownTask, id: &str) -> fmt::Result {
    let class = task.badge().map_or("planned", |badge| badge.tone.class());
    writeln!(out, "<article class=\"task {class}\" id=\"{id}\" tabindex=\"-1\" aria-labelledby=\"{id}h\">")?;
    write!(out, "<h3 id=\"{id}h\">{}", HtmlText(&task.name))?;
    write!(out, "{}", task.badge().map(|badge| format!(" {badge}")).unwrap_or_default())?;
    if let Some(duration) = task.duration() {
        write!(out, " <span class=\"took\">{}</span>", took(duration))?;
    }
    writeln!(out, "</h3>")?;
    let names =
        task.after.iter().filter_map(|&before| run.tasks.get(before)).map(|before| HtmlText(&before.name).to_string());
    let names: Vec<String> = names.collect();
    match (task.finally, names.is_empty()) {
        (true, _) => writeln!(out, "<p class=\"after\">in <code>finally</code>, after all other tasks</p>")?,
        (false, false) => writeln!(out, "<p class=\"after\">after {}</p>", names.join(", "))?,
        (false, true) => {}
    }
    if !task.planned.is_empty() {
        writeln!(out, "<dl>")?;
        for (what, sentence) in &task.planned {
            writeln!(out, "<div><dt>{what}</dt><dd>{}</dd></div>", HtmlText(sentence))?;
        }
        writeln!(out, "</dl>")?;
    }
    combinations(out, task)?;
    for changes in &task.changes {
        workspace(out, run, task, changes)?;
    }
    writeln!(out, "</article>")
}

/// Why TaskRuns failed, and how those of a matrix are.
fn combinations(out: &mut String, task: &ShownTask) -> fmt::Result {
    if task.runs.len() > 1 {
        writeln!(out, "<ul class=\"runs\">")?;
        for ShownTaskRun { name, badge, times, .. } in &task.runs {
            let took = times.map(|times| format!(" <span class=\"took\">{}</span>", took(times.whole.length())));
            writeln!(out, "<li>{} {badge}{}</li>", HtmlText(name), took.unwrap_or_default())?;
        }
        writeln!(out, "</ul>")?;
    }
    for run in &task.runs {
        let Some(failure) = &run.failure else { continue };
        let which = if task.runs.len() > 1 { format!("{}: ", HtmlText(&run.name)) } else { String::new() };
        writeln!(out, "<p class=\"failure\"><strong>Failed:</strong> {which}{}</p>", HtmlText(failure))?;
    }
    Ok(())
}

fn workspace(out: &mut String, run: &ShownRun, task: &ShownTask, changes: &ShownChanges) -> fmt::Result {
    let ShownChanges { workspace, restored, saved, task: of, .. } = changes;
    writeln!(out, "<div class=\"changes\">")?;
    let combination = if task.runs.len() > 1 { format!("{} · ", HtmlText(of)) } else { String::new() };
    writeln!(out, "<h4>{combination}workspace <code>{}</code></h4>", HtmlText(workspace))?;
    writeln!(out, "<ul class=\"numbers\">")?;
    if let Some(restored) = restored {
        writeln!(out, "<li><b>restored</b> {}</li>", amount(*restored))?;
    }
    let Some(ShownSave { layers, stored, summary, tree }) = saved else {
        return writeln!(out, "<li><b>saved</b> nothing</li></ul></div>");
    };
    let Summary { added, changed, deleted, attributes, .. } = summary;
    for (what, class, number) in
        [("added", "added", added), ("changed", "changed", changed), ("deleted", "deleted", deleted)]
    {
        if number.files > 0 {
            writeln!(out, "<li class=\"{class}\"><b>{what}</b> {}</li>", amount(*number))?;
        }
    }
    if *attributes > 0 {
        writeln!(out, "<li class=\"changed\"><b>other attributes</b> {}</li>", count(*attributes, "path"))?;
    }
    match layers {
        0 => writeln!(out, "<li><b>stored</b> nothing: no change</li>")?,
        _ => writeln!(out, "<li><b>stored</b> {} in {}</li>", size(*stored), count(*layers as u64, "layer"))?,
    }
    writeln!(out, "</ul>")?;
    if tree.is_empty() {
        return writeln!(out, "</div>");
    }
    let (total, listed) = (tree.total(), tree.listed());
    let open = if total <= 12 { " open" } else { "" };
    writeln!(out, "<details class=\"paths\"{open}><summary>{}</summary>", count(total, "path"))?;
    if listed < total {
        writeln!(
            out,
            "<p class=\"hint\">{listed} of them are listed here. <code>tkn wrap ls -R {}/{}:{}</code> lists all that the task left.</p>",
            HtmlText(&run.name),
            HtmlText(of),
            HtmlText(workspace)
        )?;
    }
    writeln!(
        out,
        "<ul class=\"tree\" data-of=\"{}\">\n{tree}</ul></details></div>",
        HtmlText(&format!("{of}:{workspace}"))
    )
}

/// `3 files, 4.5 MB`
pub fn amount(Amount { files, bytes }: Amount) -> String {
    if bytes == 0 { count(files, "file") } else { format!("{}, {}", count(files, "file"), size(bytes)) }
}
