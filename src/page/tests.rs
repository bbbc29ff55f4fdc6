//! Whole pages: a golden one, one of foreign names, a large one.

use super::{
    Document,
    document::{SCRIPT, STYLE},
    model::{
        Badge, Disagreement, ShownChanges, ShownLayer, ShownRun, ShownSave, ShownTask, ShownTaskRun, ShownWorkspace,
        TaskTimes, TimeSpan, Tone,
    },
    tree::ChangeTreeBuilder,
};
use crate::{
    digest::Digest,
    inspect::{
        changes::{Amount, ChangeKind, Summary},
        holding::Holding,
    },
};

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/report.html");

fn run(name: &str, state: Tone, word: &str, seconds: (i64, i64)) -> ShownTaskRun {
    let whole = TimeSpan { from: seconds.0 * 1000, to: seconds.1 * 1000 };
    let restore = TimeSpan { from: whole.from + 1000, to: whole.from + 3000 };
    let save = TimeSpan { from: whole.to - 1000, to: whole.to };
    ShownTaskRun {
        name: name.to_owned(),
        badge: Badge { tone: state, word: word.to_owned() },
        times: Some(TaskTimes { whole, restore: (seconds.0 > 0).then_some(restore), save: Some(save) }),
        failure: (state == Tone::Failed).then(|| "step \"s\" exited with code 3".to_owned()),
    }
}

fn changes(task: &str, restored: u64, paths: &[(&str, ChangeKind)]) -> ShownChanges {
    let (mut tree, mut summary) = (ChangeTreeBuilder::new(4000), Summary::default());
    for (path, change) in paths {
        tree.push(path.as_bytes(), path.ends_with('/'), *change, 1200, || "1.2 kB".to_owned());
        let amount = match change {
            ChangeKind::Added => &mut summary.added,
            ChangeKind::Deleted => &mut summary.deleted,
            _ => &mut summary.changed,
        };
        *amount = Amount { files: amount.files + 1, bytes: amount.bytes + 1200 };
    }
    ShownChanges {
        task: task.to_owned(),
        workspace: "src".to_owned(),
        restored: (restored > 0).then_some(Amount { files: restored, bytes: restored * 1000 }),
        saved: Some(ShownSave { layers: 1, stored: 700, summary, tree: tree.finish() }),
    }
}

/// A matrix that failed in part, a task that was skipped, a conflict.
fn page() -> Document {
    use ChangeKind::{Added, Content, Deleted};
    let ok = |name: &str, seconds| vec![run(name, Tone::Succeeded, "Succeeded", seconds)];
    let waiting = ShownTaskRun {
        name: "deploy".to_owned(),
        badge: Badge { tone: Tone::Waiting, word: "Not started".to_owned() },
        times: None,
        failure: None,
    };
    let task = |name: &str, after: &[usize], runs, changes| ShownTask {
        name: name.to_owned(),
        after: after.to_vec(),
        runs,
        changes,
        ..ShownTask::default()
    };
    let matrix =
        vec![run("test[0]", Tone::Succeeded, "Succeeded", (50, 90)), run("test[1]", Tone::Failed, "Failed", (50, 80))];
    let tasks = vec![
        task("clone", &[], ok("clone", (0, 10)), vec![changes("clone", 0, &[("main.rs", Added), ("old", Added)])]),
        task(
            "build",
            &[0],
            ok("build", (12, 48)),
            vec![changes("build", 2, &[("main.rs", Content), ("out/app", Added)])],
        ),
        task("lint", &[0], ok("lint", (12, 20)), vec![changes("lint", 2, &[("old", Deleted)])]),
        task("test", &[1, 2], matrix, vec![changes("test[0]", 2, &[])]),
        task("deploy", &[0, 3], vec![waiting], Vec::new()),
        ShownTask { finally: true, ..task("report", &[], ok("report", (92, 95)), Vec::new()) },
    ];
    let conflict = Disagreement {
        path: b"main.rs".to_vec(),
        tasks: [("build".to_owned(), "changed"), ("lint".to_owned(), "deleted")],
    };
    let workspace = ShownWorkspace {
        name: "src".to_owned(),
        image: "quay.io/me/ci:build-x7k2p".to_owned(),
        digest: Some(Digest::of(b"")),
        holding: Holding { amount: Amount { files: 2, bytes: 2400 }, directories: 1 },
        layers: vec![ShownLayer { digest: Digest::of(b"a"), of: "task clone".to_owned(), stored: 700 }],
        conflicts: vec![conflict],
        more_conflicts: 3,
        note: None,
    };
    let run = ShownRun {
        name: "build-x7k2p".to_owned(),
        badge: Some(Badge { tone: Tone::Failed, word: "Failed".to_owned() }),
        facts: vec![("namespace", "ci".to_owned()), ("took", "1 min 35 s".to_owned())],
        notes: Vec::new(),
        tasks,
        workspaces: vec![workspace],
    };
    Document { title: "build-x7k2p · tekton-wrap".to_owned(), runs: vec![run], made: "Made by a test.".to_owned() }
}

#[test]
fn golden() {
    // Style sheet and script have files of their own; their hashes are in the page.
    let page = page().to_string().replacen(STYLE, "(style.css)", 1).replacen(SCRIPT, "(script.js)", 1);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(GOLDEN, &page).unwrap();
    }
    let golden = std::fs::read_to_string(GOLDEN).unwrap_or_default();
    let differs = page.lines().zip(golden.lines()).find(|(page, golden)| page != golden);
    assert!(
        page == golden,
        "tests/golden/report.html is another page (UPDATE_GOLDEN=1 cargo test --lib page writes it anew): {differs:?}"
    );
}

/// Nothing that a run, a task or a file is called is more than text.
#[test]
fn hostile_names() {
    let evil = "</script></style>\"'><img src=x onerror=alert(1)><!--\u{202e}\n";
    let mut page = page();
    page.title = evil.to_owned();
    page.made = evil.to_owned();
    for run in &mut page.runs {
        run.name = evil.to_owned();
        run.facts.push(("namespace", evil.to_owned()));
        run.notes.push(evil.to_owned());
        for task in &mut run.tasks {
            task.name = evil.to_owned();
            task.planned.push(("restores", evil.to_owned()));
            task.changes
                .iter_mut()
                .for_each(|changes| (changes.task, changes.workspace) = (evil.to_owned(), evil.to_owned()));
            for run in &mut task.runs {
                (run.name, run.badge.word, run.failure) = (evil.to_owned(), evil.to_owned(), Some(evil.to_owned()));
            }
        }
        for workspace in &mut run.workspaces {
            (workspace.name, workspace.image, workspace.note) =
                (evil.to_owned(), evil.to_owned(), Some(evil.to_owned()));
            workspace.layers[0].of = evil.to_owned();
            workspace.conflicts[0] = Disagreement {
                path: evil.as_bytes().to_vec(),
                tasks: [(evil.to_owned(), "changed"), (evil.to_owned(), "changed")],
            };
        }
        let mut tree = ChangeTreeBuilder::new(4000);
        let path = evil.replace('/', "|");
        tree.push(path.as_bytes(), true, ChangeKind::Added, 0, String::new);
        tree.push(format!("{path}/{path}").as_bytes(), false, ChangeKind::Added, 1, || evil.to_owned());
        run.tasks[0].changes[0].saved.as_mut().unwrap().tree = tree.finish();
    }
    let (text, plain) = (page.to_string(), self::page().to_string());
    assert!(text.contains("&lt;/script&gt;"));
    // The only markup is our own: as much of it as in a page with ordinary names, but for what stands in several places now.
    for tag in ["<script", "</script", "<style", "</style", "<!--", "<img", "\u{202e}"] {
        assert_eq!(text.matches(tag).count(), plain.matches(tag).count(), "{tag}");
    }
    for line in text.lines().filter(|line| line.contains("onerror")) {
        assert!(!line.contains("<img") && !line.contains("'><"), "{line}");
    }
}

#[test]
fn a_task_of_many_files() {
    let mut tree = ChangeTreeBuilder::new(4000);
    for number in 0..100_000 {
        let path = format!("node_modules/{:03}/lib/{number}.js", number / 200);
        tree.push(path.as_bytes(), false, ChangeKind::Added, 1000, || "1.0 kB".to_owned());
    }
    let mut page = page();
    let saved = page.runs[0].tasks[0].changes[0].saved.as_mut().unwrap();
    saved.tree = tree.finish();
    let text = page.to_string();
    assert!(text.len() < 1_000_000, "{} bytes", text.len());
    assert!(text.contains("lists all that the task left"), "{text}");
}

#[test]
fn a_long_pipeline() {
    let mut page = page();
    page.runs[0].tasks = (0..400)
        .map(|index: usize| ShownTask {
            name: format!("t{index}"),
            after: index.checked_sub(7).into_iter().chain(index.checked_sub(3)).collect(),
            ..ShownTask::default()
        })
        .collect();
    assert!(page.to_string().len() < 1_000_000);
}
