//! Links and paths in the documentation lead somewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Folders without documentation of this repository.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];

/// What a path of this repository begins with, where it stands in backticks.
const ROOTS: [&str; 15] = [
    ".ci",
    ".github",
    "benches",
    "certs",
    "charts",
    "docs",
    "examples",
    "fuzz",
    "images",
    "release",
    "src",
    "tests",
    "webhook-config",
    "demo",
    "test",
];

/// Files that a test writes when it finds something.
const WRITTEN: [&str; 1] = ["tests/model/regressions.txt"];

#[test]
fn links_lead_somewhere() {
    let mut broken = BTreeSet::new();
    each_document(&mut |file, text| {
        let folder = file.parent().expect("a file is in a folder");
        for link in links(&prose(text)) {
            let (path, anchor) =
                link.split_once('#').map_or((link.as_str(), None), |(path, anchor)| (path, Some(anchor)));
            let target = if path.is_empty() { file.to_owned() } else { folder.join(path) };
            if path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let known = match anchor {
                Some(anchor) => fs::read_to_string(&target).is_ok_and(|text| anchors(&text).contains(anchor)),
                None => target.exists(),
            };
            if !known {
                broken.insert(format!("{}: {link}", file.display()));
            }
        }
    });
    assert!(broken.is_empty(), "{broken:#?}");
}

#[test]
fn paths_exist() {
    let mut missing = BTreeSet::new();
    each_document(&mut |file, text| {
        let folder = file.parent().expect("a file is in a folder");
        for path in paths(&prose(text)) {
            if !WRITTEN.contains(&path.as_str()) && !Path::new(&path).exists() && !folder.join(&path).exists() {
                missing.insert(format!("{}: {path}", file.display()));
            }
        }
    });
    assert!(missing.is_empty(), "{missing:#?}");
}

/// Each row of the threat model ends with a test: a file, or functions in it.
#[test]
fn every_threat_has_its_test() {
    let text = fs::read_to_string("docs/security.md").expect("the threat model");
    let rows =
        text.lines().filter(|line| line.starts_with('|') && !line.starts_with("| who |") && !line.starts_with("|---"));
    for row in rows {
        let test = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap_or_default();
        let (files, names): (Vec<&str>, Vec<&str>) =
            test.split('`').skip(1).step_by(2).partition(|name| name.contains('/'));
        let sources: String = files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
        assert!(!sources.is_empty(), "no test: {row}");
        for name in names {
            assert!(sources.contains(&format!("fn {name}(")), "there is no {name} in {files:?}");
        }
    }
}

#[test]
fn what_is_a_link_and_a_path() {
    let text = "[a](docs/x.md) `[b](c.md)` [d](https://e)\n```\n[f](g)\n```\n`src/a.rs` `src/{b,c}.rs` `a/b` `src/…` `tests/x.yaml`";
    assert_eq!(links(&prose(text)), ["docs/x.md", "https://e"]);
    assert_eq!(paths(&prose(text)), ["src/a.rs", "tests/x.yaml"]);
    assert!(anchors("# A b: `c`\n## On a cluster\n").contains("on-a-cluster"));
}

/// Calls `visit` with every Markdown file, its path relative to the root of the repository.
fn each_document(visit: &mut dyn FnMut(&Path, &str)) {
    let mut folders = vec![PathBuf::new()];
    let mut count = 0;
    while let Some(folder) = folders.pop() {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { &folder };
        for entry in fs::read_dir(here).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            let path = folder.join(&name);
            if path.is_dir() {
                if !SKIPPED.iter().any(|skipped| name == *skipped) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|end| end == "md") {
                visit(&path, &fs::read_to_string(&path).expect("a document"));
                count += 1;
            }
        }
    }
    assert!(count >= 5, "only {count} documents were found");
}

/// What a merge leaves where both sides changed a line.
#[test]
fn no_conflict_is_left_in_a_file() {
    if !Path::new(".git").exists() {
        eprintln!("skipped: the files are no clone of a repository");
        return;
    }
    let listed = Command::new("git").args(["ls-files", "-z"]).output().expect("git");
    let listed = String::from_utf8(listed.stdout).expect("names of files");
    let markers = ["<", ">", "|"].map(|sign| format!("{} ", sign.repeat(7)));
    let mut found = Vec::new();
    let mut count = 0;
    for name in listed.split_terminator('\0') {
        // Links, and what was deleted but not committed, have no text of their own; others are no text.
        let Ok(text) = fs::read_to_string(name) else { continue };
        let lines = text.lines().enumerate();
        let marked = lines.filter(|(_, line)| markers.iter().any(|marker| line.starts_with(marker)));
        found.extend(marked.map(|(number, _)| format!("{name}:{}", number + 1)));
        count += 1;
    }
    assert!(count > 100, "only {count} files were found");
    assert!(found.is_empty(), "{found:#?}");
}

/// A tag of an action can be moved by whoever gets hold of its repository: workflows name commits.
#[test]
fn actions_are_named_by_commit() {
    let mut count = 0;
    for file in fs::read_dir(".github/workflows").expect("the workflows") {
        let path = file.expect("a workflow").path();
        let text = fs::read_to_string(&path).expect("a workflow");
        for line in text.lines().filter_map(|line| line.split_once("uses: ")) {
            let commit = line.1.split_once('@').map_or("", |(_, rest)| rest.split(' ').next().unwrap_or_default());
            let is_commit = commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit());
            assert!(is_commit, "{}: {}", path.display(), line.1);
            count += 1;
        }
    }
    assert!(count > 5, "only {count} actions were found");
}

/// `text` without its code blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let mut prose = String::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            inside = !inside;
        } else if !inside {
            prose.push_str(line);
            prose.push('\n');
        }
    }
    prose
}

/// The targets of links outside of backticks.
fn links(prose: &str) -> Vec<String> {
    let plain: String = prose.split('`').step_by(2).collect();
    let targets = plain.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// What stands in backticks and looks like a path of this repository.
fn paths(prose: &str) -> Vec<String> {
    let quoted = prose.split('`').skip(1).step_by(2);
    let is_path = |text: &&str| {
        let first = text.split('/').next().unwrap_or_default();
        let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        plain && text.contains('/') && ROOTS.contains(&first) && !text.contains("NAME")
    };
    quoted.filter(is_path).map(str::to_owned).collect()
}

/// The anchors that GitHub makes of headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter_map(|line| line.strip_prefix('#'));
    let anchor = |heading: &str| {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        heading
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect()
    };
    headings.map(anchor).collect()
}
