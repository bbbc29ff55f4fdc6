//! How much a tree holds.

use std::collections::HashSet;

use serde::Serialize;

use super::{
    changes::Amount,
    source::{InspectedImage, merged},
};
use crate::workspace::{
    Error,
    entry::{Entry, Node},
    path::TreePath,
    selection::{Choice, Extent, Selection},
    snapshot::{lineage::Lineage, merge::Outcome, view::View},
};

/// Files, bytes and directories; the bytes of a file with several hard links count once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Holding {
    /// Everything that is no directory.
    #[serde(flatten)]
    pub amount: Amount,
    /// Directories, but for the root.
    pub directories: u64,
}

impl Holding {
    /// Of those entries of `view` that are `wanted`.
    pub fn of(view: &View<'_>, wanted: &mut dyn FnMut(&Entry) -> bool) -> Result<Self, Error> {
        let mut holding = Self::default();
        // Files with hard links, by their first path.
        let mut linked: HashSet<(usize, TreePath)> = HashSet::new();
        view.for_each(&mut |group, outcome| {
            let Some(entry) = merged(group, &outcome).filter(&mut *wanted) else { return Ok(()) };
            let layer = match outcome {
                Outcome::Keep { from, .. } => group.get(from).map_or(0, |change| change.layer),
                Outcome::Gone { .. } => 0,
            };
            holding.add(entry, layer, view.has_links(layer), &mut linked);
            Ok(())
        })?;
        Ok(holding)
    }

    /// What the tasks of `image` at these places in pipeline order (ascending, with all their ancestors) left together, on top of
    /// the base as far as that is listed, and of it what `selection` takes: what a task after them restores.
    pub fn left_by(image: &InspectedImage, orders: &[u32], selection: &Selection) -> Result<Self, Error> {
        let is_meant = |order: u32| orders.binary_search(&order).is_ok();
        let all = &image.lineage.writers;
        let tocs: Vec<_> = image
            .lineage
            .layers()
            .enumerate()
            .filter(|(_, (writer, _))| all.get(*writer).is_some_and(|writer| is_meant(writer.order)))
            .filter_map(|(layer, _)| image.toc(layer).cloned())
            .collect();
        let writers = all.iter().filter(|writer| is_meant(writer.order)).cloned().collect();
        let lineage = Lineage { writers, ..Lineage::default() };
        let view = View::new(&lineage, image.base(), &tocs)?;
        let choice = Choice::new(selection, &view)?;
        let mut extents = choice.extents();
        Self::of(&view, &mut |entry| extents.next(entry) != Extent::Nothing)
    }

    fn add(&mut self, entry: Entry, layer: usize, has_links: bool, linked: &mut HashSet<(usize, TreePath)>) {
        let Entry { path, node, .. } = entry;
        let Amount { files, bytes } = &mut self.amount;
        match &node {
            Node::Dir { .. } if path.is_root() => return,
            Node::Dir { .. } => self.directories = self.directories.saturating_add(1),
            _ => *files = files.saturating_add(1),
        }
        let first = match &node {
            Node::File(content) if !has_links => {
                *bytes = bytes.saturating_add(content.size);
                None
            }
            Node::File(content) => Some((path, content.size)),
            Node::Link { to, content } => Some((to.clone(), content.size)),
            _ => None,
        };
        if let Some((_, size)) = first.filter(|(path, _)| linked.insert((layer, path.clone()))) {
            *bytes = bytes.saturating_add(size);
        }
    }
}
