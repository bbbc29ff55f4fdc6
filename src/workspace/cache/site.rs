//! The folder of a cache before it is restored, and whether what a cache has may be restored there.

use std::collections::BTreeSet;

use super::problem;
use crate::{
    step::CACHE_PLACES,
    store::Store,
    workspace::{
        error::Error,
        layer::{descriptor::Descriptor, read::read_toc, toc::Toc},
        path::TreePath,
        snapshot::load::is_placeholder,
        threads,
    },
};

/// What there is at the folder of a cache before it is restored.
pub struct Site {
    place: TreePath,
    /// Something is in it, or in its place.
    pub is_occupied: bool,
    /// The directories that lead to it, and itself, as far as they are there.
    present: BTreeSet<TreePath>,
}

/// A cache that may be restored.
pub struct CheckedCache {
    /// The lowest first.
    pub layers: Vec<Descriptor>,
    /// Their tables of contents.
    pub tocs: Vec<Toc>,
    /// Bytes of all files in them.
    pub bytes: u64,
    /// The highest paths that will be there because of it.
    pub made: Vec<TreePath>,
}

impl Site {
    /// The folder `place`, in a workspace of which nothing has been seen.
    pub fn at(place: TreePath) -> Self {
        Self { place, is_occupied: false, present: BTreeSet::new() }
    }

    /// Notes what is in the workspace: a path of it.
    pub fn note(&mut self, path: &TreePath, is_dir: bool) {
        let is_at_or_above = *path == self.place || path.contains(&self.place);
        if self.place.contains(path) || is_at_or_above && !is_dir {
            self.is_occupied = true;
        } else if is_at_or_above {
            self.present.insert(path.clone());
        }
    }

    /// Reads the tables of contents of `layers` and checks that what they have may be restored here.
    pub fn check(&self, store: &dyn Store, layers: Vec<Descriptor>) -> Result<CheckedCache, Error> {
        let layers: Vec<Descriptor> = layers.into_iter().filter(|layer| !is_placeholder(layer)).collect();
        if let Some(layer) = layers.iter().find(|layer| !layer.has_toc()) {
            return Err(Error::damaged(layer.place(), "it has no table of contents"));
        }
        if layers.len() > CACHE_PLACES as usize {
            return Err(Error::damaged("the cache", format!("it has {} layers", layers.len())));
        }
        let tocs = threads::for_each(&layers, |_, layer| read_toc(store, layer))?;
        let mut bytes = 0_u64;
        for (layer, toc) in layers.iter().zip(&tocs) {
            for entry in toc.iter() {
                let entry = entry?;
                if let Some(problem) = problem(&entry, &self.place) {
                    return Err(Error::damaged(layer.place(), format!("its entry {} {problem}", entry.path)));
                }
                bytes = bytes.saturating_add(entry.own_size());
            }
        }
        let made = self.made_by(&tocs)?;
        Ok(CheckedCache { layers, tocs, bytes, made })
    }

    /// The highest paths that are there because of a cache with these tables of contents.
    fn made_by(&self, tocs: &[Toc]) -> Result<Vec<TreePath>, Error> {
        let mut above = TreePath::root();
        for name in self.place.names() {
            above = above.join(name);
            if !self.present.contains(&above) {
                return Ok(vec![above]);
            }
        }
        let mut names = BTreeSet::new();
        for entry in tocs.iter().flat_map(Toc::iter) {
            let path = entry?.path;
            if path.parent().is_some_and(|parent| parent == self.place) {
                names.insert(path);
            }
        }
        Ok(names.into_iter().collect())
    }
}
