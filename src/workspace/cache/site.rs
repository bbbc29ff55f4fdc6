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

/// The tables of contents of a cache are held in memory; this many bytes, compressed, are those of some million files.
const TABLES: u64 = 256 << 20;

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

/// The same of one layer.
struct CheckedLayer {
    toc: Toc,
    bytes: u64,
    /// What it has directly in the folder.
    inside: Vec<TreePath>,
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
        let tables =
            layers.iter().try_fold(0_u64, |sum, layer| Ok::<_, Error>(sum.saturating_add(layer.info()?.toc_size)))?;
        if tables > TABLES {
            return Err(Error::damaged(
                "the cache",
                format!("its tables of contents are larger than {} MiB", TABLES >> 20),
            ));
        }
        let checked = threads::ask_for_each(&layers, |_, layer| self.check_layer(store, layer))?;
        let mut whole = CheckedCache { layers, tocs: Vec::new(), bytes: 0, made: Vec::new() };
        let mut inside = BTreeSet::new();
        for CheckedLayer { toc, bytes, inside: more } in checked {
            whole.tocs.push(toc);
            whole.bytes = whole.bytes.saturating_add(bytes);
            inside.extend(more);
        }
        whole.made = self.absent().map_or_else(|| inside.into_iter().collect(), |above| vec![above]);
        Ok(whole)
    }

    fn check_layer(&self, store: &dyn Store, layer: &Descriptor) -> Result<CheckedLayer, Error> {
        let mut checked = CheckedLayer { toc: read_toc(store, layer)?, bytes: 0, inside: Vec::new() };
        for entry in checked.toc.iter() {
            let entry = entry?;
            if let Some(problem) = problem(&entry, &self.place) {
                return Err(Error::damaged(layer.place(), format!("its entry {} {problem}", entry.path)));
            }
            checked.bytes = checked.bytes.saturating_add(entry.own_size());
            if entry.path.parent().as_ref() == Some(&self.place) {
                checked.inside.push(entry.path);
            }
        }
        Ok(checked)
    }

    /// The highest directory on the way to the folder, or the folder itself, that is not there.
    fn absent(&self) -> Option<TreePath> {
        let mut above = TreePath::root();
        for name in self.place.names() {
            above = above.join(name);
            if !self.present.contains(&above) {
                return Some(above);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::tests::{Run, task};

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_in_the_way() {
        for (there, is_dir, is_occupied) in [
            ("", true, false),
            ("a", true, false),
            ("a", false, true),
            ("a/b", true, false),
            ("a/b", false, true),
            ("a/b/c", true, true),
            ("a/b/c", false, true),
            ("a/bc", true, false),
            ("a/bc", false, false),
            ("b", false, false),
        ] {
            let mut site = Site::at(path("a/b"));
            site.note(&path(there), is_dir);
            assert_eq!(site.is_occupied, is_occupied, "{there}");
        }
    }

    /// What is taken out again if it can't be restored as a whole.
    #[test]
    fn what_it_makes() {
        let run = Run::new();
        run.play(&task(0, &[]), |dir| std::fs::create_dir_all(dir.join("a/b")).unwrap());
        run.play(&task(1, &[0]), |dir| {
            for file in ["a/b/c/d/e", "a/b/f", "a/b/g/h"] {
                std::fs::create_dir_all(dir.join(file).parent().unwrap()).unwrap();
                std::fs::write(dir.join(file), "").unwrap();
            }
        });
        let layer = run.layers(1).remove(0);
        let check = |there: &[&str], layers: usize| {
            let mut site = Site::at(path("a/b"));
            there.iter().for_each(|there| site.note(&path(there), true));
            site.check(&*run.store(), vec![layer.clone(); layers])
        };
        assert_eq!(check(&[""], 1).unwrap().made, [path("a")]);
        assert_eq!(check(&["", "a"], 1).unwrap().made, [path("a/b")]);
        assert_eq!(check(&["", "a", "a/b"], 1).unwrap().made, ["a/b/c", "a/b/f", "a/b/g"].map(path));
        assert_eq!(check(&[""], CACHE_PLACES as usize).unwrap().tocs.len(), CACHE_PLACES as usize);
        let error = check(&[""], CACHE_PLACES as usize + 1).map(drop).unwrap_err().to_string();
        assert!(error.contains("it has 65 layers"), "{error}");
    }
}
