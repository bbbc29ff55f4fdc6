//! The merge against a plain model: each task's whole tree before and after, in memory.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use proptest::prelude::*;

use crate::{
    digest::Digest,
    store::Blob,
    workspace::{
        entry::{Content, Entry, Node, Time},
        layer::{
            descriptor::{Descriptor, LAYER, LayerInfo},
            toc::{Toc, TocWriter},
        },
        path::TreePath,
        snapshot::{
            flatten,
            lineage::{Lineage, Writer},
            merge::Outcome,
            view::View,
        },
    },
};

/// A whole tree.
type Tree = BTreeMap<TreePath, Item>;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Item {
    /// What a file holds; a directory holds nothing.
    file: Option<u8>,
    mode: u32,
    mtime: i64,
}

/// What a task does. Numbers choose among what is there.
#[derive(Clone, Debug)]
enum Edit {
    File {
        dir: u8,
        name: u8,
        content: u8,
    },
    /// A file with two names.
    Link {
        dir: u8,
        other: u8,
        name: u8,
        content: u8,
    },
    Dir {
        dir: u8,
        name: u8,
    },
    Delete {
        path: u8,
    },
    Modify {
        path: u8,
        content: u8,
    },
    Chmod {
        path: u8,
        mode: u8,
    },
    Touch {
        path: u8,
        time: u8,
    },
    /// A directory becomes a file, or a file a directory.
    Replace {
        path: u8,
        content: u8,
    },
}

/// A task: which of the earlier ones are right before it, and what it does.
#[derive(Clone, Debug)]
struct Task {
    after: Vec<bool>,
    edits: Vec<Edit>,
}

/// A task that was played.
struct Played {
    ancestors: BTreeSet<usize>,
    input: Tree,
    output: Tree,
    /// Directories of the input that are there only because of what is in them: one of its ancestors removed them.
    revived: BTreeSet<TreePath>,
}

fn tasks() -> impl Strategy<Value = Vec<Task>> {
    let edit = prop_oneof![
        4 => (any::<u8>(), 0..4_u8, 0..3_u8).prop_map(|(dir, name, content)| Edit::File { dir, name, content }),
        1 => (any::<u8>(), any::<u8>(), 0..4_u8, 0..3_u8)
            .prop_map(|(dir, other, name, content)| Edit::Link { dir, other, name, content }),
        3 => (any::<u8>(), 0..4_u8).prop_map(|(dir, name)| Edit::Dir { dir, name }),
        3 => any::<u8>().prop_map(|path| Edit::Delete { path }),
        2 => (any::<u8>(), 0..3_u8).prop_map(|(path, content)| Edit::Modify { path, content }),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(path, mode)| Edit::Chmod { path, mode }),
        1 => (any::<u8>(), any::<u8>()).prop_map(|(path, time)| Edit::Touch { path, time }),
        1 => (any::<u8>(), 0..3_u8).prop_map(|(path, content)| Edit::Replace { path, content }),
    ];
    let task = (prop::collection::vec(prop::bool::weighted(0.4), 6), prop::collection::vec(edit, 0..8));
    prop::collection::vec(task.prop_map(|(after, edits)| Task { after, edits }), 1..6)
}

/// Does `edits` on `tree` as a file system would: what changes in a directory changes its mtime.
fn edit(tree: &mut Tree, edits: &[Edit], clock: &mut i64) {
    for edit in edits {
        *clock += 1;
        let now = *clock;
        let pick = |number: u8, wanted: fn(&Item) -> bool| {
            let paths: Vec<&TreePath> = tree.iter().filter(|(_, item)| wanted(item)).map(|(path, _)| path).collect();
            (!paths.is_empty()).then(|| paths[usize::from(number) % paths.len()].clone())
        };
        let dir = |number| pick(number, |item| item.file.is_none()).unwrap();
        let below = |number| pick(number, |_| true).filter(|path| !path.is_root());
        let item = |file, mode| Item { file, mode, mtime: now };
        let name = |name: u8| ["a", "b", "a-b", "c"][usize::from(name)].as_bytes();
        let mut changed = Vec::new();
        match *edit {
            Edit::File { dir: d, name: n, content } => {
                let path = dir(d).join(name(n));
                if tree.get(&path).is_none_or(|old| old.file.is_some()) {
                    changed.extend(path.parent());
                    tree.insert(path, item(Some(content), 0o644));
                }
            }
            Edit::Link { dir: d, other, name: n, content } => {
                for path in [dir(d).join(name(n)), dir(other).join(name((n + 1) % 4))] {
                    if tree.get(&path).is_none_or(|old| old.file.is_some()) {
                        changed.extend(path.parent());
                        tree.insert(path, item(Some(content), 0o644));
                    }
                }
            }
            Edit::Dir { dir: d, name: n } => {
                let path = dir(d).join(name(n));
                if !tree.contains_key(&path) && path.names().count() < 4 {
                    changed.extend(path.parent());
                    tree.insert(path, item(None, 0o755));
                }
            }
            Edit::Delete { path } => {
                if let Some(path) = below(path) {
                    tree.retain(|p, _| *p != path && !path.contains(p));
                    changed.extend(path.parent());
                }
            }
            Edit::Modify { path, content } => {
                if let Some(path) = pick(path, |item| item.file.is_some()) {
                    let mode = tree[&path].mode;
                    tree.insert(path, item(Some(content), mode));
                }
            }
            Edit::Chmod { path, mode } => {
                if let Some(path) = below(path) {
                    tree.get_mut(&path).unwrap().mode = [0o600, 0o700, 0o755][usize::from(mode)];
                }
            }
            Edit::Touch { path, time } => {
                if let Some(path) = below(path) {
                    tree.get_mut(&path).unwrap().mtime = i64::from(time) - 300;
                }
            }
            Edit::Replace { path, content } => {
                if let Some(path) = below(path) {
                    let was_dir = tree[&path].file.is_none();
                    tree.retain(|p, _| !path.contains(p));
                    tree.insert(path.clone(), item(was_dir.then_some(content), 0o755));
                    changed.extend(path.parent());
                }
            }
        }
        for dir in changed {
            tree.get_mut(&dir).unwrap().mtime = now;
        }
    }
}

/// What the rules of the design say about the tasks in `set`, from whole trees alone: the merged tree without mtimes of
/// directories, the paths in conflict, and the directories that are there only because of what is in them.
fn model(played: &[Played], set: &BTreeSet<usize>) -> (Tree, BTreeSet<TreePath>, BTreeSet<TreePath>) {
    let mut paths = BTreeSet::new();
    for &task in set {
        paths.extend(played[task].input.keys().chain(played[task].output.keys()).cloned());
    }
    let mut merged = Tree::new();
    let mut conflicts = BTreeSet::new();
    for path in paths {
        // Who changed it, and to what.
        let effects: BTreeMap<usize, Option<Item>> =
            set.iter().filter_map(|&task| Some((task, effect(&played[task], &path)?))).collect();
        let counts = |task: usize| !effects.keys().any(|&other| played[other].ancestors.contains(&task));
        let counting: Vec<Option<Item>> =
            effects.iter().filter(|(task, _)| counts(**task)).map(|(_, result)| *result).collect();
        let result = |item: &Option<Item>| item.map(|item| (item.file, item.mode));
        if counting.windows(2).any(|pair| result(&pair[0]) != result(&pair[1])) {
            conflicts.insert(path.clone());
        }
        if let Some(Some(item)) = counting.last() {
            merged.insert(path, *item);
        }
    }
    // What got its way needs its directories, whoever removed them.
    let mut revived = BTreeSet::new();
    let kept: Vec<TreePath> = merged.keys().cloned().collect();
    for path in kept {
        let mut above = path.parent();
        while let Some(dir) = above {
            if merged.get(&dir).is_none_or(|item| item.file.is_some()) {
                merged.insert(dir.clone(), Item { file: None, mode: 0, mtime: 0 });
                revived.insert(dir.clone());
            }
            above = dir.parent();
        }
    }
    (merged, conflicts, revived)
}

/// What the task did to `path`: nothing, deleted it, or made it what it is.
fn effect(task: &Played, path: &TreePath) -> Option<Option<Item>> {
    let (before, after) = (task.input.get(path), task.output.get(path));
    let relevant = |item: Option<&Item>| item.map(|i| (i.file, i.mode, if i.file.is_some() { i.mtime } else { 0 }));
    if path.is_root() && before.is_none() {
        return None;
    }
    let changed_below = || {
        let paths = task.input.keys().chain(task.output.keys());
        let mut below = paths.filter(|other| *other == path || path.contains(other));
        below.any(|other| task.input.get(other) != task.output.get(other))
    };
    if relevant(before) != relevant(after) || task.revived.contains(path) && changed_below() {
        return Some(after.copied());
    }
    let mut above = path.parent();
    while let Some(dir) = above {
        let (before, after) = (task.input.get(&dir), task.output.get(&dir));
        let is_dir = after.is_some_and(|item| item.file.is_none());
        if before != after && !is_dir {
            // Nothing can be below what is not, or no longer, a directory.
            return Some(None);
        }
        above = dir.parent();
    }
    None
}

/// The entries of the layer that a task makes. What it left the same of several files is one file with several names.
fn layer(task: &Played) -> Vec<Entry> {
    let mut entries = BTreeMap::new();
    let mut gone: Option<&TreePath> = None;
    for path in task.input.keys() {
        let replaced = |above: &TreePath| task.output.get(above).is_some_and(|item| item.file.is_some());
        let mut above = path.parent();
        let mut below_file = false;
        while let Some(dir) = above {
            below_file |= replaced(&dir);
            above = dir.parent();
        }
        if !task.output.contains_key(path) && !below_file && !gone.is_some_and(|gone| gone.contains(path)) {
            gone = Some(path);
            entries.insert(path.clone(), Entry::whiteout(path.clone()));
        }
    }
    for (path, item) in &task.output {
        let before = task.input.get(path);
        let touched = path.is_root() && before.is_none()
            || before.is_some_and(|before| (before.file, before.mode) == (item.file, item.mode));
        if before != Some(item) {
            entries.insert(path.clone(), entry(path, item, touched));
        }
    }
    let changed: Vec<TreePath> = entries.keys().cloned().collect();
    for path in changed {
        let mut above = path.parent();
        while let Some(dir) = above {
            entries.entry(dir.clone()).or_insert_with(|| entry(&dir, &task.output[&dir], true));
            above = dir.parent();
        }
    }
    let mut first = BTreeMap::<_, TreePath>::new();
    for entry in entries.values_mut() {
        let Node::File(content) = entry.node else { continue };
        match first.entry((content.hash, entry.mode, entry.mtime)) {
            btree_map::Entry::Occupied(first) => entry.node = Node::Link { to: first.get().clone(), content },
            btree_map::Entry::Vacant(none) => drop(none.insert(entry.path.clone())),
        }
    }
    entries.into_values().collect()
}

fn entry(path: &TreePath, item: &Item, touched: bool) -> Entry {
    let node = match item.file {
        Some(content) => Node::File(Content { size: 1, hash: [content; 32] }),
        None => Node::Dir { touched },
    };
    let mtime = Time { sec: item.mtime, nsec: 0 };
    Entry { path: path.clone(), node, mode: item.mode, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
}

fn item(entry: &Entry, mtime: Time) -> Item {
    Item { file: entry.content().map(|content| content.hash[0]), mode: entry.mode, mtime: mtime.sec }
}

/// A layer of these entries, and its table of contents.
fn table(entries: &[Entry]) -> (Descriptor, Toc) {
    let mut toc = TocWriter::new().unwrap();
    entries.iter().for_each(|entry| toc.push(entry).unwrap());
    let (payload, count) = toc.finish().unwrap();
    let digest = Digest::of(&payload);
    let info = LayerInfo {
        toc_offset: 0,
        toc_size: 0,
        toc_digest: digest,
        entries: count,
        uncompressed: 0,
        diff_id: digest,
        hardlinks: entries.iter().filter(|entry| entry.is_link()).count() as u64,
        deletions: 0,
    };
    let layer = Descriptor::new(LAYER, Blob { digest, size: 0 }).with_info(&info);
    (layer, Toc::new("layer", payload, count))
}

/// What this program restores from layers one on top of the other.
fn restored(layers: &[Vec<Entry>]) -> Tree {
    let (mut lineage, mut tocs) = (Lineage::default(), Vec::new());
    for (order, layer) in (0..).zip(layers) {
        let mut entries = layer.clone();
        entries.sort_by(|a, b| a.path.cmp(&b.path));
        let (layer, toc) = table(&entries);
        lineage.writers.push(Writer::unsaved("t", order, &lineage, vec![layer]));
        tocs.push(toc);
    }
    shown(&View::new(&lineage, None, &tocs).unwrap())
}

/// The lineage of the tasks in `set`, with their tables of contents.
fn lineage(played: &[Played], set: &BTreeSet<usize>) -> (Lineage, Vec<Toc>) {
    let (mut lineage, mut tocs) = (Lineage::default(), Vec::new());
    for &task in set {
        let entries = layer(&played[task]);
        let mut writer = Writer {
            task: format!("t{task}"),
            order: task as u32,
            run: None,
            manifest: None,
            ancestors: played[task].ancestors.iter().map(|&task| task as u32).collect(),
            layers: Vec::new(),
        };
        if !entries.is_empty() {
            let (layer, toc) = table(&entries);
            writer.layers.push(layer);
            tocs.push(toc);
        }
        lineage.writers.push(writer);
    }
    (lineage, tocs)
}

/// The tree that a view shows.
fn shown(view: &View<'_>) -> Tree {
    let mut tree = Tree::new();
    view.for_each(&mut |group, outcome| {
        if let Outcome::Keep { from, mtime, .. } = outcome {
            tree.insert(group[from].entry.path.clone(), item(&group[from].entry, mtime));
        }
        Ok(())
    })
    .unwrap();
    tree
}

/// What is at the path of an entry of an archive, of which `tree` has what was there before it.
fn unpacked(tree: &Tree, entry: &Entry) -> Item {
    match &entry.node {
        // Nothing that any test wants.
        Node::Link { to, .. } => tree.get(to).copied().unwrap_or(Item { file: Some(u8::MAX), mode: 0, mtime: 0 }),
        _ => item(entry, entry.mtime),
    }
}

/// Applies one layer as OCI image-spec, layer.md, says.
fn apply_layer(tree: &mut Tree, entries: &[Entry]) {
    for entry in entries.iter().filter(|entry| entry.is_whiteout()) {
        tree.retain(|path, _| *path != entry.path && !entry.path.contains(path));
    }
    for entry in entries.iter().filter(|entry| !entry.is_whiteout()) {
        if !entry.is_dir() {
            tree.retain(|path, _| !entry.path.contains(path));
        }
        let mut above = entry.path.parent();
        while let Some(dir) = above {
            let implied = Item { file: None, mode: 0o755, mtime: 0 };
            let there = tree.entry(dir.clone()).or_insert(implied);
            assert!(there.file.is_none(), "{} is below a file", entry.path);
            above = dir.parent();
        }
        tree.insert(entry.path.clone(), unpacked(tree, entry));
    }
}

/// Layers as `crane export` writes them, from the top (go-containerregistry, mutate.Extract).
fn flattened(layers: &[Vec<Entry>]) -> Tree {
    let (mut tree, mut hides) = (Tree::new(), BTreeMap::<&TreePath, bool>::new());
    for entry in layers.iter().rev().flatten() {
        let mut above = std::iter::successors(entry.path.parent(), TreePath::parent);
        if hides.contains_key(&entry.path) || above.any(|path| hides.get(&path) == Some(&true)) {
            continue;
        }
        hides.insert(&entry.path, !entry.is_dir());
        if !entry.is_whiteout() {
            tree.insert(entry.path.clone(), unpacked(&tree, entry));
        }
    }
    tree
}

/// The files of a layer that lies on top, as they are written.
fn written_anew(files: BTreeMap<usize, BTreeMap<TreePath, Vec<Entry>>>) -> Vec<Entry> {
    let mut written = Vec::new();
    for names in files.into_values().flat_map(BTreeMap::into_values) {
        let to = names[0].path.clone();
        for (number, name) in names.into_iter().enumerate() {
            let content = *name.content().unwrap();
            let node = if number == 0 { Node::File(content) } else { Node::Link { to: to.clone(), content } };
            written.push(Entry { node, ..name });
        }
    }
    written
}

/// Plays the tasks; each starts from what the product's merge says.
fn play(tasks: &[Task]) -> Vec<Played> {
    let mut played: Vec<Played> = Vec::new();
    let mut clock = 1_000_000;
    for task in tasks {
        let mut ancestors = BTreeSet::new();
        for before in (0..played.len()).filter(|&before| task.after[before]) {
            ancestors.insert(before);
            ancestors.extend(&played[before].ancestors);
        }
        let (lineage, tocs) = lineage(&played, &ancestors);
        let input = shown(&View::new(&lineage, None, &tocs).unwrap());
        let mut output = input.clone();
        output.entry(TreePath::root()).or_insert(Item { file: None, mode: 0o777, mtime: clock });
        edit(&mut output, &task.edits, &mut clock);
        if input.is_empty() && output.len() == 1 {
            // A workspace that is empty is not stored.
            output.clear();
        }
        let (.., revived) = model(&played, &ancestors);
        played.push(Played { ancestors, input, output, revived });
    }
    played
}

/// Without the root, which belongs to the volume, without the mtimes of directories, and without the modes of those that
/// are `vague`: which of several they have is not the model's business.
fn comparable(tree: &Tree, vague: impl Fn(&TreePath) -> bool) -> Tree {
    let strip = |(path, item): (&TreePath, &Item)| match item.file {
        Some(_) => (path.clone(), *item),
        None => (path.clone(), Item { file: None, mode: if vague(path) { 0 } else { item.mode }, mtime: 0 }),
    };
    tree.iter().filter(|(path, _)| !path.is_root()).map(strip).collect()
}

/// Two files that were taken for directories, or the other way round, by a task that started from their conflict.
#[test]
fn a_directory_is_brought_back_only_from_a_conflict_that_went_against_it() {
    let task = |after: &[usize], edits: &[Edit]| Task {
        after: (0..6).map(|index| after.contains(&index)).collect(),
        edits: edits.to_vec(),
    };
    let (file, dir) = (|dir, name| Edit::File { dir, name, content: 0 }, |dir, name| Edit::Dir { dir, name });
    agrees_with_the_model(&[
        task(&[], &[dir(0, 2), file(65, 1)]),
        task(&[], &[file(0, 2)]),
        task(&[], &[dir(0, 2)]),
        task(&[0], &[dir(13, 0)]),
        task(&[1, 3], &[dir(7, 1)]),
    ]);
    agrees_with_the_model(&[
        task(&[], &[file(0, 0)]),
        task(&[0], &[]),
        task(&[], &[]),
        task(&[], &[file(0, 0), Edit::Replace { path: 103, content: 0 }]),
        task(&[1, 3], &[file(49, 0)]),
    ]);
}

fn agrees_with_the_model(tasks: &[Task]) {
    let played = play(tasks);
    let all: BTreeSet<usize> = (0..played.len()).collect();
    let (lineage, tocs) = lineage(&played, &all);
    let view = View::new(&lineage, None, &tocs).unwrap();
    let (merged, conflicts, revived) = model(&played, &all);
    assert_eq!(view.conflicts.count, conflicts.len(), "{:?} {conflicts:?}", view.conflicts);
    for conflict in &view.conflicts.listed {
        assert!(conflicts.contains(&conflict.path));
    }
    let vague = |path: &TreePath| revived.contains(path);
    assert_eq!(comparable(&shown(&view), vague), comparable(&merged, vague));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: super::cases(300), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn as_the_model_says(tasks in tasks()) {
        agrees_with_the_model(&tasks);
    }

    #[test]
    fn one_after_the_other(tasks in tasks()) {
        let mut tasks = tasks;
        tasks.iter_mut().for_each(|task| task.after.fill(true));
        let played = play(&tasks);
        let all: BTreeSet<usize> = (0..played.len()).collect();
        let (lineage, tocs) = lineage(&played, &all);
        let view = View::new(&lineage, None, &tocs).unwrap();
        prop_assert_eq!(view.conflicts.count, 0);
        prop_assert_eq!(&shown(&view), &played.last().unwrap().output);
        for (layer, toc) in (1..).zip(&tocs) {
            let has_links = toc.iter().any(|entry| entry.unwrap().is_link());
            prop_assert_eq!(view.has_links(layer), has_links, "layer {}", layer);
        }
        let mut kept = BTreeSet::new();
        view.for_each(&mut |group, outcome| {
            if let Outcome::Keep { from, .. } = outcome {
                kept.insert((group[from].layer - 1, group[from].entry.path.clone()));
            }
            Ok(())
        }).unwrap();
        let fixes = flatten::fixes(&view, &[]).unwrap();
        // Further names of a file that is not there under its first one any more.
        for (layer, files) in &fixes.files {
            prop_assert!(files.keys().all(|first| !kept.contains(&(*layer, first.clone()))), "{:?}", fixes.files);
        }
        // Beside these, only `crane export` may need some whiteouts.
        let fixes = flatten::Fixes { whiteouts: Vec::new(), files: BTreeMap::new(), ..fixes };
        prop_assert_eq!(fixes, flatten::Fixes::default());
    }

    #[test]
    fn whoever_comes_after_all_others_has_the_last_word(tasks in tasks()) {
        let mut tasks = tasks;
        tasks.last_mut().unwrap().after.fill(true);
        let played = play(&tasks);
        let all: BTreeSet<usize> = (0..played.len()).collect();
        let (lineage, tocs) = lineage(&played, &all);
        let view = View::new(&lineage, None, &tocs).unwrap();
        prop_assert_eq!(&shown(&view), &played.last().unwrap().output);
    }

    #[test]
    fn the_stack_with_its_fixes_shows_the_merged_view(
        mut tasks in tasks(),
        has_base: bool,
        left_out in prop::collection::vec(prop::bool::weighted(0.3), 6),
    ) {
        // The first task may stand for a base, of whose entries the fixes know nothing.
        tasks.iter_mut().skip(usize::from(has_base)).for_each(|task| task.after[0] |= has_base);
        let played = play(&tasks);
        let all: BTreeSet<usize> = (0..played.len()).collect();
        let wanted = lineage(&played, &all);
        let wanted = shown(&View::new(&wanted.0, None, &wanted.1).unwrap());
        let (base, above) = all.iter().partition(|task| has_base && **task == 0);
        let (_, base) = lineage(&played, &base);
        let (lineage, tocs) = lineage(&played, &above);
        let view = View::new(&lineage, None, &tocs).unwrap();
        let fixes = flatten::fixes(&view, &left_out).unwrap();
        let entries = |toc: &Toc| toc.iter().collect::<Result<Vec<_>, _>>().unwrap();
        // Nothing is hidden that need not be, or where an archive has no place for a whiteout.
        let deletes = |toc: &Toc, path: &TreePath| entries(toc).iter().any(|e| e.path == *path && !e.is_dir());
        for path in &fixes.base_whiteouts {
            prop_assert!(tocs.iter().zip(&left_out).any(|(toc, left_out)| *left_out && deletes(toc, path)), "{path}");
        }
        for path in fixes.base_whiteouts.iter().chain(&fixes.whiteouts) {
            let above = wanted.get(&path.parent().unwrap());
            prop_assert!(above.is_some_and(|above| above.file.is_none()), "{path}");
        }
        let mut layers: Vec<Vec<Entry>> = base.iter().map(entries).collect();
        if has_base {
            layers.push(fixes.base_whiteouts.into_iter().map(Entry::whiteout).collect());
        }
        prop_assert!(fixes.entries.iter().all(|entry| !entry.is_touched()), "{:?}", fixes.entries);
        layers.extend(tocs.iter().zip(&left_out).filter(|(_, left_out)| !**left_out).map(|(toc, _)| entries(toc)));
        // One with files has no table of contents.
        let has_table = fixes.files.is_empty();
        let whiteouts = fixes.whiteouts.into_iter().map(Entry::whiteout);
        layers.push(whiteouts.chain(fixes.entries).chain(written_anew(fixes.files)).collect());
        let mut stacked = Tree::new();
        layers.iter().for_each(|layer| apply_layer(&mut stacked, layer));
        prop_assert_eq!(&stacked, &wanted);
        if has_table {
            prop_assert_eq!(&restored(&layers), &wanted);
        }
        if !has_base {
            prop_assert_eq!(comparable(&flattened(&layers), |_| false), comparable(&wanted, |_| false));
        }
    }
}
