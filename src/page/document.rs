//! The whole page. What a browser may do with it stands in it: run this script, use this style sheet, and nothing else; no request
//! to anywhere (W3C, Content Security Policy Level 3).

use std::fmt::{self, Write};

use base64::{Engine, prelude::BASE64_STANDARD};

use super::{
    graph,
    html::HtmlText,
    model::{ShownRun, ShownTask},
    task, timeline, workspace,
};
use crate::units::size;

pub(super) const STYLE: &str = include_str!("assets/style.css");
pub(super) const SCRIPT: &str = include_str!("assets/script.js");

/// A page about runs.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// What the window is called.
    pub title: String,
    /// The runs, one after the other.
    pub runs: Vec<ShownRun>,
    /// What made the page, and when.
    pub made: String,
}

impl fmt::Display for Document {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [style, script] = [STYLE, SCRIPT].map(|text| {
            let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
            format!("'sha256-{}'", BASE64_STANDARD.encode(hash))
        });
        let policy =
            format!("default-src 'none'; style-src {style}; script-src {script}; base-uri 'none'; form-action 'none'");
        writeln!(f, "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">")?;
        writeln!(f, "<meta http-equiv=\"Content-Security-Policy\" content=\"{policy}\">")?;
        writeln!(f, "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">")?;
        writeln!(
            f,
            "<meta name=\"color-scheme\" content=\"light dark\">\n<meta name=\"referrer\" content=\"no-referrer\">"
        )?;
        writeln!(f, "<title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>", HtmlText(&self.title))?;
        let mut body = String::new();
        self.body(&mut body)?;
        f.write_str(&body)?;
        writeln!(f, "<script>{SCRIPT}</script>\n</body>\n</html>")
    }
}

impl Document {
    fn body(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "<a class=\"skip\" href=\"#main\">Skip to the content</a>\n<main id=\"main\">")?;
        for (index, run) in self.runs.iter().enumerate() {
            let id = if self.runs.len() == 1 { String::new() } else { format!("r{index}") };
            head(out, run)?;
            graph::write(out, run, &id)?;
            let has_trees = run.tasks.iter().flat_map(|task| &task.changes).any(|changes| changes.saved.is_some());
            if has_trees && index == 0 {
                search(out)?;
            }
            timeline::write(out, run, &id)?;
            task::write(out, run, &id)?;
            workspace::write(out, run, &id)?;
        }
        writeln!(out, "</main>\n<footer>{}</footer>", HtmlText(&self.made))
    }
}

fn head(out: &mut String, run: &ShownRun) -> fmt::Result {
    let badge = run.badge.as_ref().map(ToString::to_string).unwrap_or_default();
    writeln!(out, "<header>\n<h1>{} {badge}</h1>", HtmlText(&run.name))?;
    writeln!(out, "<dl class=\"facts\">")?;
    let facts = run.facts.iter().map(|(name, value)| (*name, value.clone())).chain(totals(run));
    for (name, value) in facts {
        writeln!(out, "<div><dt>{name}</dt><dd>{}</dd></div>", HtmlText(&value))?;
    }
    writeln!(out, "</dl>")?;
    run.notes.iter().try_for_each(|note| writeln!(out, "<p class=\"hint\">{}</p>", HtmlText(note)))?;
    let failures = run.tasks.iter().flat_map(|task| &task.runs);
    for failed in failures.filter(|run| run.failure.is_some()).take(5) {
        let failure = failed.failure.as_deref().unwrap_or_default();
        writeln!(
            out,
            "<p class=\"failure\"><strong>{} failed:</strong> {}</p>",
            HtmlText(&failed.name),
            HtmlText(failure)
        )?;
    }
    writeln!(out, "</header>")
}

/// All tasks together.
fn totals(run: &ShownRun) -> Vec<(&'static str, String)> {
    let mut totals = Vec::new();
    let runs = || run.tasks.iter().flat_map(|task| &task.runs);
    let stored =
        run.tasks.iter().filter_map(ShownTask::saved).fold(0, |sum: u64, (_, _, stored)| sum.saturating_add(stored));
    if stored > 0 {
        totals.push(("stored by tasks", size(stored)));
    }
    let sum = |lengths: Vec<u64>| lengths.into_iter().fold(0, u64::saturating_add);
    let times = || runs().filter_map(|run| run.times);
    let whole = sum(times().map(|times| times.whole.length()).collect());
    let ours = sum(times().flat_map(|times| [times.restore, times.save]).flatten().map(|span| span.length()).collect());
    if let Some(share) = ours.saturating_mul(100).checked_div(whole).filter(|_| ours > 0) {
        totals.push(("restore and save", format!("{}, {share} % of the tasks' time", timeline::took(ours))));
    }
    totals
}

fn search(out: &mut String) -> fmt::Result {
    // Without JavaScript it could do nothing: the script shows it.
    writeln!(
        out,
        "<section id=\"search\" hidden aria-label=\"Search\"><label for=\"query\">Find a path</label>\n\
         <input id=\"query\" type=\"search\" autocomplete=\"off\" spellcheck=\"false\" placeholder=\"for example main.rs\">\n\
         <p id=\"found\" role=\"status\"></p>\n<ol id=\"results\"></ol></section>"
    )
}
