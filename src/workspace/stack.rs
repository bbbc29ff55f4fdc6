//! What a plain stack of layers shows, and what must lie on top of it so that it shows the merged view.
//!
//! Other tools apply the layers of an image one after the other (OCI image-spec, layer.md, "Applying Changesets"). With
//! parallel tasks that is not quite the merge: the header of a directory that a later task only touched undoes a chmod of
//! an earlier one, or brings back a directory that it deleted. A hard link to a path that another layer replaced is
//! nothing that tools which flatten images agree on, so such files are written anew as well.

use std::collections::{BTreeMap, HashSet};

use super::{
    entry::{Entry, Node},
    error::Error,
    merge::{Outcome, Write},
    path::TreePath,
    view::View,
};

/// What makes a stack of layers show the merged view.
#[derive(Debug, Default, PartialEq)]
pub struct Fixes {
    /// What the stack has and the merged view has not, in tree order.
    pub whiteouts: Vec<TreePath>,
    /// What the stack has not, or has differently, and has no content: in tree order.
    pub entries: Vec<Entry>,
    /// For each layer, counted from 0, and each path at which it has a file's content: the files that must have it,
    /// in tree order.
    pub files: BTreeMap<usize, BTreeMap<TreePath, Vec<Entry>>>,
}

/// Looks at a stack of layers from the top, one path after the other.
#[derive(Default)]
struct Stack {
    /// Paths that further ones may lie below, each with the highest layer that deleted what lower ones have there.
    cuts: Vec<(TreePath, Option<usize>)>,
}

/// Compares the stack of all layers of `view`, which must be without a base, with what it should show.
pub fn fixes(view: &View<'_>) -> Result<Fixes, Error> {
    let mut fixes = Fixes::default();
    let mut stack = Stack::default();
    // Files of a layer that the stack shows under their first name: what links of the same layer may point to.
    let mut shown: HashSet<(usize, TreePath)> = HashSet::new();
    view.for_each(&mut |group, outcome| {
        let top = stack.top(group);
        match outcome {
            Outcome::Gone { visible } => {
                if visible && top.is_some() {
                    fixes.whiteouts.push(group[0].entry.path.clone());
                }
            }
            Outcome::Keep { from, mtime, .. } => {
                let wanted = &group[from];
                let entry = Entry { mtime, ..wanted.entry.clone() };
                let same = top.is_some_and(|top| match &entry.node {
                    Node::Dir { .. } => same_dir(&top.entry, &entry),
                    Node::Link { to, .. } => top == wanted && shown.contains(&(wanted.layer, to.clone())),
                    _ => top == wanted,
                });
                if same && matches!(entry.node, Node::File(_)) && view.has_links(wanted.layer) {
                    shown.insert((wanted.layer, entry.path.clone()));
                }
                if !same {
                    fixes.add(wanted.layer, entry);
                }
            }
        }
        Ok(())
    })?;
    Ok(fixes)
}

impl Fixes {
    fn add(&mut self, layer: usize, entry: Entry) {
        let from = match &entry.node {
            Node::File(_) => entry.path.clone(),
            Node::Link { to, .. } => to.clone(),
            Node::Dir { .. } => return self.entries.push(Entry { node: Node::Dir { touched: false }, ..entry }),
            _ => return self.entries.push(entry),
        };
        // Layer 0 of a view is the base.
        self.files.entry(layer - 1).or_default().entry(from).or_default().push(entry);
    }
}

impl Stack {
    /// The entry that is seen at the path of `group`, whose entries are sorted by layer.
    fn top<'g>(&mut self, group: &'g [Write]) -> Option<&'g Write> {
        let path = &group.first()?.entry.path;
        while self.cuts.last().is_some_and(|(above, _)| !above.contains(path)) {
            self.cuts.pop();
        }
        let cut_above = self.cuts.last().and_then(|(_, cut)| *cut);
        let cut_here = group.iter().filter(|write| !write.entry.is_dir()).map(|write| write.layer).max();
        self.cuts.push((path.clone(), cut_above.max(cut_here)));
        let top = group.last().filter(|top| !top.entry.is_whiteout())?;
        cut_above.is_none_or(|cut| cut <= top.layer).then_some(top)
    }
}

fn same_dir(seen: &Entry, wanted: &Entry) -> bool {
    seen.is_dir() && seen.same_attributes(wanted) && seen.mtime == wanted.mtime
}
