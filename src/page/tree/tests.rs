//! What is kept of a tree.

use super::*;

fn tree(paths: &[(&str, ChangeKind)], rows: usize) -> ChangeTree {
    let mut builder = ChangeTreeBuilder::new(rows);
    for (path, change) in paths {
        let is_dir = path.ends_with('/');
        builder.push(path.trim_end_matches('/').as_bytes(), is_dir, *change, 10, || "d".to_owned());
    }
    builder.finish()
}

/// Names and numbers, folders with what is in them.
fn outline(folder: &ChangedFolder) -> String {
    let folders = folder
        .folders
        .iter()
        .map(|inner| format!("{}/ {} [{}]", String::from_utf8_lossy(&inner.name), inner.counts, outline(inner)));
    let files =
        folder.files.iter().map(|file| format!("{}{}", String::from_utf8_lossy(&file.name), file.change.letter()));
    let more = Some(folder.left_out()).filter(|more| *more > 0).map(|more| format!("+{more}"));
    folders.chain(files).chain(more).collect::<Vec<_>>().join(" ")
}

#[test]
fn folders_of_paths() {
    use ChangeKind::{Added, Attributes, Content, Deleted};
    let paths = [
        ("a", Added),
        ("b/", Added),
        ("b/c/d/e", Added),
        ("b/c/d/f", Content),
        ("b-c", Deleted),
        ("x/y", Attributes),
        ("z/", Deleted),
    ];
    let tree = tree(&paths, 100);
    assert_eq!(
        outline(&tree.root),
        "b/c/d/ 1 added, 1 changed, 20 B [eA fM] x/ 1 with other attributes [ym] z/  [] aA b-cD"
    );
    assert_eq!((tree.total(), tree.listed(), tree.is_empty()), (5, 5, false));
    assert!(ChangeTreeBuilder::new(1).finish().is_empty());
}

#[test]
fn a_large_folder_is_cut() {
    let mut builder = ChangeTreeBuilder::new(4000);
    for number in 0..100_000 {
        builder.push(format!("dir/{number:06}").as_bytes(), false, ChangeKind::Added, 1, String::new);
    }
    let tree = builder.finish();
    assert_eq!((tree.total(), tree.listed()), (100_000, 200));
    assert!(tree.to_string().contains("and 99800 more paths that are not listed on this page"));
}

#[test]
fn a_large_tree_is_cut_at_its_depths() {
    let mut builder = ChangeTreeBuilder::new(2500);
    for number in 0..100_000 {
        let path = format!("{:02}/{:02}/{:02}", number / 10_000, number / 100 % 100, number % 100);
        builder.push(path.as_bytes(), false, ChangeKind::Added, 1, String::new);
    }
    let tree = builder.finish();
    // All 10 folders and the 100 in each, and the files of 14 of these.
    assert_eq!((tree.total(), tree.listed()), (100_000, 1400));
    assert_eq!(tree.root.folders.iter().map(|folder| folder.folders.len()).sum::<usize>(), 1000);
}

#[test]
fn names_are_shown_as_they_are() {
    let mut builder = ChangeTreeBuilder::new(9);
    builder.push(b"<b>/x\n\xff", false, ChangeKind::Added, 0, || "<i>".to_owned());
    assert_eq!(
        builder.finish().to_string(),
        "<li class=\"dir \"><details open><summary><code>&lt;b&gt;/</code> <span>1 added</span></summary><ul>\n\
         <li class=\"added\"><code>&quot;x\\n\\377&quot;</code> <span>added, &lt;i&gt;</span></li>\n\
         </ul></details></li>\n"
    );
}
