//! The listing beside a plain map.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::workspace::entry::{Content, Node, Time};

/// What an archive does to what is there, as the unpacker of bases does it.
#[derive(Clone, Debug)]
enum Step {
    /// Puts a directory there, or a file of so many bytes, and takes out what is in its way.
    Put(Vec<u8>, Option<u64>),
    /// Takes out what is there, if an earlier layer made it.
    Hide(Vec<u8>),
    /// Begins the next layer.
    NextLayer,
}

/// What is there: which layer made it, and the bytes of a file.
type Model = BTreeMap<Vec<u8>, (u32, Option<u64>)>;

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || prop::collection::vec(prop::sample::select(vec!["a", "b", "cc"]), 1..4);
    let path = move || path().prop_map(|names| names.join("/").into_bytes());
    let step = prop_oneof![
        5 => (path(), prop::option::of(0..9_u64)).prop_map(|(path, size)| Step::Put(path, size)),
        2 => path().prop_map(Step::Hide),
        1 => Just(Step::NextLayer),
    ];
    prop::collection::vec(step, 1..60)
}

fn entry(path: &TreePath, size: Option<u64>) -> Entry {
    let node = size.map_or(Node::Dir { touched: false }, |size| Node::File(Content { size, hash: [0; 32] }));
    Entry { path: path.clone(), node, mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), xattrs: Vec::new() }
}

fn bytes_of(entry: &Entry) -> u64 {
    entry.content().map_or(0, |content| content.size)
}

/// The paths of the model below `dir`.
fn below(model: &Model, dir: &TreePath) -> Vec<Vec<u8>> {
    model.keys().filter(|path| dir.contains(&TreePath::parse(path).unwrap())).cloned().collect()
}

/// Takes out `path` and all below it; the bytes that were in them.
fn remove(model: &mut Model, path: &TreePath) -> u64 {
    let all = below(model, path).into_iter().chain([path.as_bytes().to_vec()]);
    all.filter_map(|path| model.remove(&path)).filter_map(|(_, size)| size).sum()
}

/// Takes out what layers before `layer` made below `dir`, the deepest first, unless something later is in it.
fn clear(model: &mut Model, dir: &TreePath, layer: u32) -> u64 {
    let mut bytes = 0;
    for path in below(model, dir).into_iter().rev() {
        let parsed = TreePath::parse(&path).unwrap();
        if model[&path].0 < layer && below(model, &parsed).is_empty() {
            bytes += remove(model, &parsed);
        }
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_as_a_plain_map(steps in steps()) {
        let (mut listing, mut model, mut layer) = (Listing::new(), Model::new(), 1);
        let (mut bytes, mut expected) = (0, 0);
        for step in steps {
            match step {
                Step::NextLayer => layer += 1,
                Step::Hide(path) => {
                    let path = TreePath::parse(&path).unwrap();
                    let (gone, cleared) = listing.clear(&path, layer, bytes_of);
                    bytes -= cleared;
                    expected -= clear(&mut model, &path, layer);
                    prop_assert!(gone.iter().all(|gone| path.contains(gone) && !model.contains_key(gone.as_bytes())));
                    let there = model.get(path.as_bytes()).map(|(layer, _)| *layer);
                    prop_assert_eq!(listing.layer_of(&path), there);
                    prop_assert_eq!(listing.has_below(&path), !below(&model, &path).is_empty());
                    if there.is_some_and(|there| there < layer) && !listing.has_below(&path) {
                        bytes -= listing.remove(&path, bytes_of);
                        expected -= remove(&mut model, &path);
                    }
                }
                Step::Put(path, size) => {
                    let path = TreePath::parse(&path).unwrap();
                    let parent = path.parent().unwrap();
                    let (known, is_blocked) = listing.known_part(&parent);
                    // It ends with a name, neither within one nor behind the slash.
                    prop_assert!(known == 0 || matches!(parent.as_bytes().get(known), None | Some(b'/')));
                    prop_assert!(known <= parent.as_bytes().len());
                    let mut dir = TreePath::root();
                    let names: Vec<Vec<u8>> = path.names().map(<[u8]>::to_vec).collect();
                    for name in &names[..names.len() - 1] {
                        dir = dir.join(name);
                        let there = model.get(dir.as_bytes()).copied();
                        prop_assert_eq!(dir.as_bytes().len() <= known, matches!(there, Some((_, None))));
                        if let Some((_, Some(_))) = there {
                            prop_assert!(is_blocked);
                            break;
                        }
                        if there.is_none() {
                            listing.insert(layer, entry(&dir, None)).unwrap();
                            model.insert(dir.as_bytes().to_vec(), (layer, None));
                        }
                    }
                    if is_blocked {
                        continue;
                    }
                    let there = model.get(path.as_bytes()).map(|(_, size)| size.is_none());
                    prop_assert_eq!(listing.is_dir(&path), there);
                    if there.is_some_and(|was_dir| was_dir != size.is_none()) {
                        bytes -= listing.remove(&path, bytes_of);
                        expected -= remove(&mut model, &path);
                    }
                    let old = listing.insert(layer, entry(&path, size)).unwrap();
                    let was = model.insert(path.as_bytes().to_vec(), (layer, size));
                    prop_assert_eq!(old.as_ref().map(bytes_of), was.map(|(_, size)| size.unwrap_or_default()));
                    bytes = bytes + size.unwrap_or_default() - old.as_ref().map_or(0, bytes_of);
                    expected = expected + size.unwrap_or_default() - was.and_then(|(_, size)| size).unwrap_or_default();
                    prop_assert_eq!(listing.get(&path), Some(entry(&path, size)));
                }
            }
            prop_assert_eq!(bytes, expected);
        }
        let (table, files) = listing.finish().unwrap();
        prop_assert_eq!(files, model.values().filter(|(_, size)| size.is_some()).count() as u64);
        let mut paths: Vec<TreePath> = model.keys().map(|path| TreePath::parse(path).unwrap()).collect();
        paths.sort();
        let listed: Vec<TreePath> = table.iter().map(|entry| entry.unwrap().path).collect();
        prop_assert_eq!(listed, paths);
    }
}
