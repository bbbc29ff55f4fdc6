//! The tasks of a run as graphs: `render -o mermaid`, `-o dot` and `-o html`.

use crate::{
    page::{
        Document,
        model::{ShownRun, ShownTask},
    },
    quote::Line,
    wrap::explain::TaskNote,
};

/// The graph as Mermaid draws it (mermaid.js.org, "Flowcharts").
pub fn mermaid(notes: &[TaskNote]) -> String {
    let quoted = |text: &str| {
        let line = Line(text).to_string().replace('&', "&amp;").replace('"', "&quot;");
        line.replace('<', "&lt;").replace('>', "&gt;")
    };
    let mut text = "flowchart TD\n".to_owned();
    let node = |index: usize, note: &TaskNote| {
        let lines = [format!("<b>{}</b>", quoted(&note.task)), quoted(&note.restores), quoted(&note.saves)];
        let [name, restores, saves] = lines;
        format!("t{index}[\"{name}<br/>restores {restores}<br/>saves {saves}\"]\n")
    };
    for (index, note) in notes.iter().enumerate().filter(|(_, note)| !note.finally) {
        text += &format!("    {}", node(index, note));
    }
    if notes.iter().any(|note| note.finally) {
        text += "    subgraph finally\n";
        for (index, note) in notes.iter().enumerate().filter(|(_, note)| note.finally) {
            text += &format!("        {}", node(index, note));
        }
        text += "    end\n";
    }
    edges(notes).for_each(|(from, to)| text += &format!("    t{from} --> t{to}\n"));
    text
}

/// The graph as Graphviz draws it (graphviz.org, "DOT Language").
pub fn dot(notes: &[TaskNote]) -> String {
    let quoted = |text: &str| Line(text).to_string().replace('\\', "\\\\").replace('"', "\\\"");
    let mut text = "digraph run {\n  node [shape=box]\n".to_owned();
    for (index, TaskNote { task, restores, saves, finally, .. }) in notes.iter().enumerate() {
        let style = if *finally { ", style=dashed" } else { "" };
        let [task, restores, saves] = [task, restores, saves].map(|text| quoted(text));
        text += &format!("  t{index} [label=\"{task}\\nrestores {restores}\\nsaves {saves}\"{style}]\n");
    }
    edges(notes).for_each(|(from, to)| text += &format!("  t{from} -> t{to}\n"));
    text + "}\n"
}

/// One page about all of `runs`; nothing without any.
pub fn page(runs: Vec<ShownRun>) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = runs.iter().map(|run| &*run.name).collect();
    let title = format!("{} · tekton-wrap", names.join(", "));
    let made = format!("Made by tekton-wrap {} from files: nothing has run.", env!("CARGO_PKG_VERSION"));
    Document { title, runs, made }.to_string()
}

/// What a page shows of a run that was not created.
pub fn drawn(name: String, namespace: &str, notes: &[TaskNote]) -> ShownRun {
    let mut tasks: Vec<ShownTask> = notes
        .iter()
        .map(|note| ShownTask {
            name: note.task.clone(),
            finally: note.finally,
            planned: vec![("restores", note.restores.clone()), ("saves", note.saves.clone())],
            ..ShownTask::default()
        })
        .collect();
    for (from, to) in edges(notes) {
        if let Some(task) = tasks.get_mut(to) {
            task.after.push(from);
        }
    }
    let facts = vec![("namespace", namespace.to_owned()), ("tasks", notes.len().to_string())];
    ShownRun { name, facts, tasks, ..ShownRun::default() }
}

/// The edges between tasks, by their places in `notes`.
fn edges(notes: &[TaskNote]) -> impl Iterator<Item = (usize, usize)> {
    let place = |name: &String| notes.iter().position(|note| note.task == *name);
    notes.iter().enumerate().flat_map(move |(to, note)| {
        note.dependencies.iter().filter_map(place).map(move |from| (from, to)).collect::<Vec<_>>()
    })
}
