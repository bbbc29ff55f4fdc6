//! Dependencies point downward only, as src/lib.rs and the contents pages of the rooms say: reads the `use` lines of src/. And a
//! type's name is that of one type.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Each list from the top down: a module may use those behind it. `layers` of one floor don't use each other.
const FLOORS: [(&str, &[&[&str]]); 3] = [
    (
        "crate",
        &[
            &["fuzzing"],
            &["admission", "render", "plugin"],
            &["resolve"],
            &["wrap"],
            &["source"],
            &["page"],
            &["inspect", "prune", "rerun"],
            &["workspace"],
            &["step", "arguments", "annotations", "traces"],
            &["tekton", "store"],
            &["mirror"],
            &["metrics", "yaml", "target"],
            &["digest", "health", "limits", "log", "redact", "units"],
            &["quote", "globs", "unread"],
        ],
    ),
    (
        "crate::workspace",
        &[
            &["by_hand"],
            &["steps"],
            &["report", "failure"],
            &["publish"],
            &["restore", "save"],
            &["diff"],
            &["shard", "baseline", "base"],
            &["selection", "cache"],
            &["snapshot"],
            &["layer", "files"],
            &["threads"],
            &["error"],
            &["conflict", "entry"],
            &["path", "progress"],
        ],
    ),
    (
        "crate::wrap",
        &[
            &["rewrite"],
            &["embed", "patch", "steps"],
            &[
                "bindings",
                "explain",
                "inline",
                "aliases",
                "pod_template",
                "policy",
                "working_dir",
                "mounts",
                "paths",
                "volumes",
            ],
            &["failure"],
            &["values", "pipeline_name", "resources", "security", "place", "template"],
            &["plan"],
            &["caches"],
            &["request"],
            &["same_on_volume", "intact", "growth"],
            &["bounds", "refusal"],
            &["absence", "known", "script", "settings", "task_spec"],
        ],
    ),
];

#[test]
fn dependencies_point_downward() {
    let mut wrong = BTreeSet::new();
    each_file(Path::new("src"), &mut |file, text| wrong.extend(upward(&module_of(file), &text)));
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn an_upward_import_is_found() {
    for (module, text, found) in [
        ("crate::tekton::graph", "use crate::wrap::Refusal;", true),
        (
            "crate::workspace::layer::toc",
            "use crate::{\n    digest::Digest,\n    workspace::snapshot::view::View,\n};",
            true,
        ),
        ("crate::workspace::layer::toc", "use super::super::restore::Restored;", true),
        ("crate::wrap::plan", "use crate::wrap::Refusal;", true),
        ("crate::wrap::plan", "use super::Request;", true),
        ("crate::wrap::plan", "use super::absence::Absence;\nuse crate::tekton::graph::Graph;", false),
        ("crate::workspace::restore", "use super::{error::Error, snapshot::{load, view::View}};", false),
    ] {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        assert_eq!(!upward(&module, text).is_empty(), found, "{module:?}: {text}");
    }
}

/// One meaning, one name: `Cache` is not three things. `Args` of a command are named by its module, as clap's users do.
#[test]
fn a_name_is_that_of_one_type() {
    let mut defined: BTreeMap<String, Vec<String>> = BTreeMap::new();
    each_file(Path::new("src"), &mut |file, text| {
        let module = module_of(file).join("::");
        if !module.contains("::tests") {
            types(&text).for_each(|name| defined.entry(name.to_owned()).or_default().push(module.clone()));
        }
    });
    assert!(defined.len() > 300, "only {} types were found", defined.len());
    defined.retain(|name, modules| modules.len() > 1 && name != "Args");
    assert!(defined.is_empty(), "{defined:#?}");
}

/// The types that `text` defines outside of functions and tests.
fn types(text: &str) -> impl Iterator<Item = &str> {
    let text = text.split("\n#[cfg(test)]\nmod ").next().unwrap_or_default();
    text.lines().filter_map(|line| {
        let line = line.strip_prefix("pub(crate) ").or_else(|| line.strip_prefix("pub(super) ")).unwrap_or(line);
        let words = line.strip_prefix("pub ").unwrap_or(line);
        let name = ["struct ", "enum ", "trait ", "type "].iter().find_map(|kind| words.strip_prefix(kind))?;
        Some(name.split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or_default())
    })
}

/// What `text`, the source of `module`, imports against the direction.
fn upward(module: &[String], text: &str) -> Vec<String> {
    // Tests look at everything.
    let text = text.split("\n#[cfg(test)]").next().unwrap_or_default();
    let mut wrong = Vec::new();
    for import in imports(module, text) {
        for (room, floors) in FLOORS {
            let depth = room.split("::").count();
            let in_room = |path: &[String]| path.len() > depth && path[..depth].join("::") == room;
            if !in_room(module) || !in_room(&import) || module[depth] == import[depth] {
                continue;
            }
            let floor = |name: &str| floors.iter().position(|floor| floor.contains(&name));
            match (floor(&module[depth]), floor(&import[depth])) {
                (Some(own), Some(other)) if own < other => {}
                (None, _) => wrong.push(format!("{} is on no floor of {room}", module[depth])),
                // The parent's own items, which are for others, or another room above or beside.
                _ => wrong.push(format!("{} uses {}", module.join("::"), import.join("::"))),
            }
        }
    }
    wrong
}

/// The whole paths that `text` imports from this crate.
fn imports(module: &[String], text: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for statement in text.split('\n').collect::<Vec<_>>().join(" ").split(';') {
        let Some((_, tree)) = statement.rsplit_once("use ") else { continue };
        let mut leaves = Vec::new();
        flatten(tree.trim(), &mut Vec::new(), &mut leaves);
        for leaf in leaves {
            let mut path = match leaf.first().map(String::as_str) {
                Some("crate") => leaf,
                Some("super") => {
                    let up = leaf.iter().take_while(|name| *name == "super").count();
                    [&module[..module.len() - up], &leaf[up..]].concat()
                }
                _ => continue,
            };
            path.retain(|name| name != "self");
            found.push(path);
        }
    }
    found
}

/// `a::{b, c::d}` as `a::b` and `a::c::d`.
fn flatten(tree: &str, before: &mut Vec<String>, leaves: &mut Vec<Vec<String>>) {
    let (head, group) = tree.split_once('{').map_or((tree, None), |(head, rest)| (head, rest.rsplit_once('}')));
    let names: Vec<String> =
        head.split("::").map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect();
    before.extend(names.iter().cloned());
    match group {
        None => leaves.push(before.clone()),
        Some((inner, _)) => {
            let (mut depth, mut start) = (0, 0);
            for (at, c) in inner.char_indices().chain([(inner.len(), ',')]) {
                depth += i32::from(c == '{') - i32::from(c == '}');
                if c == ',' && depth == 0 {
                    let item = inner[start..at].trim();
                    if !item.is_empty() {
                        flatten(item, before, leaves);
                    }
                    start = (at + 1).min(inner.len());
                }
            }
        }
    }
    before.truncate(before.len() - names.len());
}

/// `src/wrap/plan.rs` as `crate`, `wrap`, `plan`.
fn module_of(file: &Path) -> Vec<String> {
    let path = file.with_extension("");
    let names = path.iter().skip(1).map(|name| name.to_string_lossy().into_owned());
    std::iter::once("crate".to_owned()).chain(names.filter(|name| name != "lib")).collect()
}

fn each_file(folder: &Path, visit: &mut dyn FnMut(&Path, String)) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && path.file_name().is_none_or(|name| name != "tests") {
            each_file(&path, visit);
        } else if path.extension().is_some_and(|end| end == "rs")
            && !path.ends_with("main.rs")
            && !path.ends_with("tests.rs")
        {
            visit(&path, fs::read_to_string(&path).expect("a source file"));
        }
    }
}
