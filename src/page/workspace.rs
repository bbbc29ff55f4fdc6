//! What the page says of one workspace: what its target holds, in which layers, and where parallel tasks disagreed.

use std::fmt::{self, Write};

use super::{
    html::{HtmlPath, HtmlText, cut},
    model::{Disagreement, ShownLayer, ShownRun, ShownWorkspace},
    task::amount,
};
use crate::units::{count, size};

/// Layers that are listed.
const LAYERS: usize = 200;

/// Writes all workspaces of a run; nothing if there are none.
pub fn write(out: &mut String, run: &ShownRun, id: &str) -> fmt::Result {
    if run.workspaces.is_empty() {
        return Ok(());
    }
    writeln!(out, "<section aria-labelledby=\"{id}spaces\"><h2 id=\"{id}spaces\">Workspaces</h2>")?;
    run.workspaces.iter().try_for_each(|workspace| one(out, workspace))?;
    writeln!(out, "</section>")
}

fn one(out: &mut String, workspace: &ShownWorkspace) -> fmt::Result {
    let ShownWorkspace { name, image, digest, holding, layers, conflicts, more_conflicts, note } = workspace;
    writeln!(out, "<article class=\"workspace\">\n<h3>{}</h3>", HtmlText(name))?;
    writeln!(out, "<p class=\"image\"><code>{}</code></p>", HtmlText(image))?;
    if let Some(digest) = digest {
        let stored = layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.stored));
        writeln!(out, "<ul class=\"numbers\"><li><b>holds</b> {}</li>", amount(holding.amount))?;
        writeln!(out, "<li><b>stored</b> {} in {}</li></ul>", size(stored), count(layers.len() as u64, "layer"))?;
        writeln!(out, "<p class=\"image\"><code>{digest}</code></p>")?;
    }
    if let Some(note) = note {
        writeln!(out, "<p class=\"hint\">{}</p>", HtmlText(note))?;
    }
    disagreements(out, conflicts, *more_conflicts)?;
    table(out, layers)?;
    writeln!(out, "</article>")
}

fn disagreements(out: &mut String, conflicts: &[Disagreement], more: usize) -> fmt::Result {
    if conflicts.is_empty() {
        return Ok(());
    }
    let paths = count(conflicts.len().saturating_add(more) as u64, "path");
    writeln!(
        out,
        "<div class=\"conflicts\"><p><strong>Parallel tasks left {paths} differently.</strong> What the later one left counts:</p>"
    )?;
    writeln!(out, "<ul>")?;
    for Disagreement { path, tasks: [(earlier, did), (later, also)] } in conflicts {
        let (earlier, later) = (HtmlText(earlier), HtmlText(later));
        writeln!(out, "<li><code>{}</code>: {earlier} {did} it, <b>{later}</b> {also} it</li>", HtmlPath(path))?;
    }
    if more > 0 {
        writeln!(out, "<li class=\"more\">and {}</li>", count(more as u64, "more path"))?;
    }
    writeln!(out, "</ul></div>")
}

fn table(out: &mut String, layers: &[ShownLayer]) -> fmt::Result {
    if layers.is_empty() {
        return Ok(());
    }
    writeln!(out, "<details class=\"layers\"><summary>{}</summary>", count(layers.len() as u64, "layer"))?;
    writeln!(
        out,
        "<div class=\"scroll\"><table><thead><tr><th scope=\"col\">Of</th><th scope=\"col\">Digest</th>\
         <th scope=\"col\" class=\"number\">Stored</th></tr></thead>\n<tbody>"
    )?;
    for ShownLayer { digest, of, stored } in layers.iter().take(LAYERS) {
        let digest = cut(&digest.to_string(), 20);
        writeln!(
            out,
            "<tr><th scope=\"row\">{}</th><td><code>{digest}</code></td><td class=\"number\">{}</td></tr>",
            HtmlText(of),
            size(*stored)
        )?;
    }
    writeln!(out, "</tbody></table></div>")?;
    match layers.len().saturating_sub(LAYERS) {
        0 => {}
        more => writeln!(out, "<p class=\"hint\">and {more} more</p>")?,
    }
    writeln!(out, "</details>")
}
