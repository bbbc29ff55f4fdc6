//! What a plain stack of layers shows, and what must lie on top of it so that it shows the merged view.
//!
//! Other tools apply the layers of an image one after the other (OCI image-spec, layer.md, "Applying Changesets"). With
//! parallel tasks that is not quite the merge: the header of a directory that a later task only touched undoes a chmod of
//! an earlier one, or brings back a directory that it deleted. A hard link to a path that another layer replaced is
//! nothing that tools which flatten images agree on, so such files are written anew as well, under all of their names.
//!
//! `crane export` does not apply layers but goes through them from the top (go-containerregistry, mutate.Extract), and overlooks
//! a whiteout of a directory that a higher layer has again: what was in it is deleted once more, path by path.
//!
//! Layers can be left out of the stack, if an image would have too many: the correction then has what they alone had.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes of layers and groups that were given out by the view; a group is never empty"
)]

use std::collections::{BTreeMap, HashSet};

use super::{
    merge::{Change, Outcome},
    view::View,
};
use crate::workspace::{
    entry::{Entry, Node},
    error::Error,
    path::TreePath,
};

/// No image has more layers if that can be helped. Docker fails at about 125 (moby#26380); others build on ours.
const MOST_LAYERS: usize = 64;

/// What makes a stack of layers show the merged view.
#[derive(Debug, Default, PartialEq)]
pub struct Fixes {
    /// What the base may have and the merged view has not, because of a layer that was left out: whiteouts right above the
    /// base, below all layers, in tree order. All other fixes are one layer on top.
    pub base_whiteouts: Vec<TreePath>,
    /// What the stack has and the merged view has not, in tree order.
    pub whiteouts: Vec<TreePath>,
    /// What the stack has not, or has differently, and has no content: in tree order.
    pub entries: Vec<Entry>,
    /// For each layer, counted from 0, and each path at which it has a file's content: the files that must have it,
    /// in tree order.
    pub files: BTreeMap<usize, BTreeMap<TreePath, Vec<Entry>>>,
}

/// Looks at a stack of layers from the top, one path after the other.
struct Stack<'a> {
    left_out: &'a [bool],
    /// Paths that further ones may lie below.
    cuts: Vec<Cut>,
}

/// Below a path, what hides the content of lower layers.
struct Cut {
    path: TreePath,
    /// The highest layer that deleted it.
    applied: Option<usize>,
    /// The same for those who go through layers from the top.
    flattened: Option<usize>,
}

/// What is seen at a path.
#[derive(Clone, Copy, Default)]
struct Top<'g> {
    applied: Option<&'g Change>,
    flattened: Option<&'g Change>,
}

/// Which of the layers with these `sizes`, on top of a base of so many layers, are left out of an image: the smallest ones,
/// whose files cost least to write anew.
pub fn left_out(base: usize, sizes: &[u64]) -> Vec<bool> {
    let mut left_out = vec![false; sizes.len()];
    // A correction may come on top.
    if base + sizes.len() < MOST_LAYERS {
        return left_out;
    }
    let room = MOST_LAYERS.saturating_sub(base + 2);
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&layer| (sizes[layer], layer));
    by_size.iter().rev().skip(room).for_each(|&layer| left_out[layer] = true);
    left_out
}

/// Compares the stack of the layers of `view`, which must be without a base, with what it should show. Those that are
/// `left_out` of it, counted from 0, are not in the stack.
pub fn fixes(view: &View<'_>, left_out: &[bool]) -> Result<Fixes, Error> {
    let compared = compare(view, left_out, &HashSet::new())?;
    if compared.torn.is_empty() {
        return Ok(compared.fixes);
    }
    compare(view, left_out, &compared.torn).map(|compared| compared.fixes)
}

/// A regular file of a layer, by its first path there.
type LayerFile = (usize, TreePath);

struct Compared {
    fixes: Fixes,
    /// Files of which the stack shows some names and not the others: all of them are to be written anew together.
    torn: HashSet<LayerFile>,
}

/// Compares them once. Of the files `anew`, all names are to be written anew.
fn compare(view: &View<'_>, left_out: &[bool], anew: &HashSet<LayerFile>) -> Result<Compared, Error> {
    let mut compared = Compared { fixes: Fixes::default(), torn: HashSet::new() };
    let Compared { fixes, torn } = &mut compared;
    let mut stack = Stack { left_out, cuts: Vec::new() };
    // Files that the stack shows under their first name: what links of the same layer may point to.
    let mut shown: HashSet<LayerFile> = HashSet::new();
    view.for_each(&mut |group, outcome| {
        let Top { applied: top, flattened } = stack.top(group);
        let path = &group[0].entry.path;
        let cut = || group.iter().any(|write| stack.lacks(write) && !write.entry.is_dir());
        match outcome {
            Outcome::Gone { visible } => {
                if visible && (top.is_some() || flattened.is_some()) {
                    fixes.whiteouts.push(path.clone());
                }
                if visible && cut() {
                    fixes.hide_in_base(path);
                }
            }
            Outcome::Keep { from, mtime, .. } => {
                let wanted = &group[from];
                let entry = Entry { mtime, ..wanted.entry.clone() };
                let file = first_path(&entry).filter(|_| view.has_links(wanted.layer));
                let file = file.map(|first| (wanted.layer, first.clone()));
                let is_shown = file.as_ref().is_some_and(|file| shown.contains(file));
                let same = top.is_some_and(|top| match &entry.node {
                    // Where it is only touched, a restore of the stack by this program takes what a lower layer says.
                    Node::Dir { .. } => {
                        same_dir(&top.entry, &entry) && !(top.entry.is_touched() && stack.lacks(wanted))
                    }
                    Node::Link { .. } => top == wanted && is_shown,
                    _ => top == wanted,
                });
                let same = same && file.as_ref().is_none_or(|file| !anew.contains(file));
                match file {
                    Some(file) if same => drop(shown.insert(file)),
                    Some(file) if is_shown => drop(torn.insert(file)),
                    _ => {}
                }
                if entry.is_dir() && cut() {
                    fixes.hide_in_base(path);
                }
                if !same {
                    stack.fixed(&entry);
                    fixes.add(wanted.layer, entry);
                }
            }
        }
        Ok(())
    })?;
    Ok(compared)
}

/// Where the content of a regular file is in its layer.
fn first_path(entry: &Entry) -> Option<&TreePath> {
    match &entry.node {
        Node::File(_) => Some(&entry.path),
        Node::Link { to, .. } => Some(to),
        _ => None,
    }
}

impl Fixes {
    fn hide_in_base(&mut self, path: &TreePath) {
        if self.base_whiteouts.last().is_none_or(|above| !above.contains(path)) {
            self.base_whiteouts.push(path.clone());
        }
    }

    fn add(&mut self, layer: usize, entry: Entry) {
        match first_path(&entry).cloned() {
            // Layer 0 of a view is the base.
            Some(from) => self.files.entry(layer - 1).or_default().entry(from).or_default().push(entry),
            None => {
                let node = match entry.node {
                    Node::Dir { .. } => Node::Dir { touched: false },
                    node => node,
                };
                self.entries.push(Entry { node, ..entry });
            }
        }
    }
}

impl Stack<'_> {
    /// Whether an entry is of a layer that is left out. Layer 0 of a view is the base.
    fn lacks(&self, write: &Change) -> bool {
        self.left_out.get(write.layer.wrapping_sub(1)).copied().unwrap_or(false)
    }

    /// The entry that is seen at the path of `group`, whose entries are sorted by layer.
    fn top<'g>(&mut self, group: &'g [Change]) -> Top<'g> {
        let Some(path) = group.first().map(|write| &write.entry.path) else { return Top::default() };
        while self.cuts.last().is_some_and(|above| !above.path.contains(path)) {
            self.cuts.pop();
        }
        let above = self.cuts.last().map_or((None, None), |above| (above.applied, above.flattened));
        let there = || group.iter().filter(|write| !self.lacks(write));
        let cuts = |write: &&Change| !write.entry.is_dir();
        let (top, cut) = (there().next_back(), there().rfind(cuts));
        let layer = |write: &Change| write.layer;
        let seen = |cut: Option<usize>| {
            top.filter(|top| !top.entry.is_whiteout()).filter(|top| cut.is_none_or(|cut| cut <= top.layer))
        };
        let shown = Top { applied: seen(above.0), flattened: seen(above.1) };
        let (applied, flattened) = (above.0.max(cut.map(layer)), above.1.max(top.filter(cuts).map(layer)));
        self.cuts.push(Cut { path: path.clone(), applied, flattened });
        shown
    }

    /// The path that was looked at last is this on top of the stack: a directory lets through what is below its own cut.
    fn fixed(&mut self, entry: &Entry) {
        if let [.., above, here] = &mut self.cuts[..]
            && entry.is_dir()
        {
            here.flattened = above.flattened;
        }
    }
}

fn same_dir(seen: &Entry, wanted: &Entry) -> bool {
    seen.is_dir() && seen.same_attributes(wanted) && seen.mtime == wanted.mtime
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At most two layers come on top of those that stay: whiteouts right above the base, and the correction.
    #[test]
    fn the_smallest_layers_are_left_out_and_no_more_than_must_be() {
        for (base, layers, stay) in [
            (0, 0, 0),
            (0, 63, 63),
            (63, 0, 0),
            (60, 3, 3),
            (0, 64, 62),
            (0, 300, 62),
            (60, 4, 2),
            (61, 4, 1),
            (62, 4, 0),
            (63, 1, 0),
            (64, 1, 0),
            (500, 7, 0),
        ] {
            // The largest are in the middle; of those of one size the later ones are.
            let sizes: Vec<u64> = (0..layers).map(|layer: u64| layer.min(layers - layer) / 2).collect();
            let left_out = left_out(base, &sizes);
            let of = |wanted| sizes.iter().zip(&left_out).enumerate().filter(move |(_, (_, is))| **is == wanted);
            assert_eq!(left_out.len(), sizes.len());
            assert_eq!(of(false).count(), stay, "{base} {layers}");
            let largest = of(true).map(|(layer, (size, _))| (size, layer)).max();
            let smallest = of(false).map(|(layer, (size, _))| (size, layer)).min();
            assert!(largest.is_none() || smallest.is_none() || largest < smallest, "{base} {layers}");
        }
    }
}
