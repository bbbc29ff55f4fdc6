//! What a workspace is made of: a base image, and what tasks changed since.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    workspace::{error::Error, layer::descriptor::Descriptor},
};

/// Largest number of tasks: a merge takes memory for each pair of them.
const MAX_TASKS: usize = 8192;

/// Largest number of layers of all tasks together: each table of contents is held open, in tens of KiB. A task has more than one
/// layer only from 64 MiB on.
const MAX_LAYERS: usize = 2 * MAX_TASKS;

/// A base and the tasks that wrote on it, in pipeline order, with all their ancestors.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// What the workspace started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// By pipeline order, which is unique.
    pub writers: Vec<Writer>,
    /// The image that the layers of `writers` are in, if that is not the repository that they are used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// The image that a workspace starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// Where it is, as the user wrote it.
    pub image: String,
    /// Digest of its manifest: that of the platform, if it has several.
    pub manifest: Digest,
    /// Its layers, the lowest first.
    pub layers: Vec<Descriptor>,
    /// Digests of these layers without compression.
    pub diff_ids: Vec<Digest>,
}

/// A task that saved the workspace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Writer {
    /// Its name in the Pipeline.
    pub task: String,
    /// Its place in pipeline order.
    pub order: u32,
    /// UID of the run that it is of, where that is not the run that the image is of: one that a rerun went on from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
    /// Digest of the manifest of its snapshot; none for one that is about to be saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The order of all its ancestors, ascending.
    pub ancestors: Vec<u32>,
    /// What it changed: layers with disjoint paths. None if it changed nothing.
    pub layers: Vec<Descriptor>,
}

/// The input of a task: what its restore step read.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Input {
    /// What the workspace was restored from.
    #[serde(flatten)]
    pub lineage: Lineage,
    /// Orders of the writers whose snapshots were read by tag. The digests of their manifests are in `lineage`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub read: Vec<u32>,
    /// What became of each cache of the workspace, in the order of [`crate::step::WorkspaceStep::caches`]. What was restored of
    /// them is in `lineage`, as if further tasks had come before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub caches: Vec<CacheUse>,
}

/// What a restore step did with a cache, for the save step.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CacheUse {
    /// The key of what is to be saved; none: nothing is.
    pub key: Option<String>,
    /// Whether what is stored under this key is damaged and to be replaced.
    pub replaces: bool,
    /// How many of the cache's places in pipeline order have a layer.
    pub layers: u32,
    /// Whether it is to be stored as a whole: it has many layers, or much in them that later ones replaced.
    pub anew: bool,
}

/// Why what an image says about its tasks can't be true. A clause that fits after "its lineage is invalid:".
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidLineage {
    /// More tasks than a run can have.
    #[error("it names {0} tasks, more than {MAX_TASKS}")]
    TooManyTasks(usize),
    /// More layers than can be read at a time.
    #[error("its tasks have {0} layers, more than {MAX_LAYERS}")]
    TooManyLayers(usize),
    /// Tasks must be listed once each, by order.
    #[error("task {task:?} with order {order} is listed twice or out of order")]
    OutOfOrder {
        /// Name of the task.
        task: String,
        /// Its place in pipeline order.
        order: u32,
    },
    /// A task lists ancestors that it can't have.
    #[error("task {task:?} lists the order {ancestor} among its ancestors, {why}")]
    Ancestor {
        /// Name of the task.
        task: String,
        /// The order that is wrong.
        ancestor: u32,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A layer without a table of contents that this version reads.
    #[error("{layer} of task {task:?} has no table of contents that this version of tekton-wrap reads")]
    NoToc {
        /// Name of the task.
        task: String,
        /// How messages name the layer.
        layer: String,
    },
    /// Layers and diff IDs of the base don't match.
    #[error("its base has {layers} layers and {diff_ids} diff IDs")]
    DiffIds {
        /// The number of layers.
        layers: usize,
        /// The number of diff IDs.
        diff_ids: usize,
    },
}

impl Lineage {
    /// Checks a lineage that was read from an image: each task is listed once, in pipeline order; ancestors come before
    /// their descendants and are listed too, together with their own ancestors; layers can be read.
    pub fn check(&self) -> Result<(), InvalidLineage> {
        if let Some(Base { layers, diff_ids, .. }) = &self.base
            && layers.len() != diff_ids.len()
        {
            return Err(InvalidLineage::DiffIds { layers: layers.len(), diff_ids: diff_ids.len() });
        }
        if self.writers.len() > MAX_TASKS {
            return Err(InvalidLineage::TooManyTasks(self.writers.len()));
        }
        let layers = self.layers().count();
        if layers > MAX_LAYERS {
            return Err(InvalidLineage::TooManyLayers(layers));
        }
        let mut last = None;
        for writer in &self.writers {
            if last.is_some_and(|last| last >= writer.order) {
                return Err(InvalidLineage::OutOfOrder { task: writer.task.clone(), order: writer.order });
            }
            last = Some(writer.order);
            self.check_ancestors(writer)?;
            if let Some(layer) = writer.layers.iter().find(|layer| !layer.has_toc()) {
                return Err(InvalidLineage::NoToc { task: writer.task.clone(), layer: layer.place() });
            }
        }
        Ok(())
    }

    /// Checks the ancestors of `writer`; those of all earlier writers have been checked.
    fn check_ancestors(&self, writer: &Writer) -> Result<(), InvalidLineage> {
        let invalid = |ancestor: u32, why| InvalidLineage::Ancestor { task: writer.task.clone(), ancestor, why };
        let mut last = None;
        for &ancestor in &writer.ancestors {
            if last.is_some_and(|last| last >= ancestor) {
                return Err(invalid(ancestor, "which is there twice or out of order"));
            }
            if ancestor >= writer.order {
                return Err(invalid(ancestor, "which does not come before it"));
            }
            last = Some(ancestor);
        }
        // From the latest on: what is an ancestor of one that was checked need not be looked at again.
        let mut is_covered = vec![false; writer.ancestors.len()];
        for (place, ancestor) in writer.ancestors.iter().enumerate().rev() {
            if is_covered.get(place) == Some(&true) {
                continue;
            }
            let Some(found) = self.writer(*ancestor) else {
                return Err(invalid(*ancestor, "which is not listed"));
            };
            let mut own = writer.ancestors.iter().zip(&mut is_covered);
            for further in &found.ancestors {
                let Some((_, is_covered)) = own.find(|(own, _)| *own >= further).filter(|(own, _)| *own == further)
                else {
                    return Err(invalid(*ancestor, "but not all ancestors of that one"));
                };
                *is_covered = true;
            }
        }
        Ok(())
    }

    /// Adds what `other` is made of. Both are of one run, so that they must agree on what they both have.
    pub fn join(&mut self, other: Self) -> Result<(), Error> {
        match (&self.base, other.base) {
            (Some(ours), Some(theirs)) if *ours != theirs => {
                return Err(Error::BaseChanged { image: ours.image.clone(), from: ours.manifest, to: theirs.manifest });
            }
            (None, theirs) => self.base = theirs,
            _ => {}
        }
        for writer in other.writers {
            match self.writers.binary_search_by_key(&writer.order, |w| w.order) {
                Ok(known) if self.writers.get(known) == Some(&writer) => {}
                Ok(_) => {
                    return Err(Error::SavedTwice { task: writer.task });
                }
                Err(place) => self.writers.insert(place, writer),
            }
        }
        Ok(())
    }

    /// Whether each writer had seen all earlier ones, so that none are parallel.
    pub fn is_chain(&self) -> bool {
        self.writers.iter().enumerate().all(|(i, writer)| writer.ancestors.len() == i)
    }

    /// The order of all writers: they are the ancestors of the task that this is the input of.
    pub fn orders(&self) -> Vec<u32> {
        self.writers.iter().map(|writer| writer.order).collect()
    }

    /// The writer at this place in pipeline order.
    pub fn writer(&self, order: u32) -> Option<&Writer> {
        let found = self.writers.binary_search_by_key(&order, |writer| writer.order).ok()?;
        self.writers.get(found)
    }

    /// The writers right before `writer`: its ancestors that are no ancestors of another one of them, in pipeline order.
    pub fn parents(&self, writer: &Writer) -> Vec<&Writer> {
        let mut is_covered = vec![false; writer.ancestors.len()];
        let mut parents = Vec::new();
        for (place, ancestor) in writer.ancestors.iter().enumerate().rev() {
            if is_covered.get(place) == Some(&true) {
                continue;
            }
            let Some(parent) = self.writer(*ancestor) else { continue };
            // Both lists are sorted.
            let mut further = parent.ancestors.iter().peekable();
            for (own, is_covered) in writer.ancestors.iter().zip(&mut is_covered) {
                while further.next_if(|further| *further < own).is_some() {}
                *is_covered |= further.peek() == Some(&own);
            }
            parents.push(parent);
        }
        parents.reverse();
        parents
    }

    /// The layers of all writers, the lowest first, each with the index of its writer.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        self.writers.iter().enumerate().flat_map(|(i, writer)| writer.layers.iter().map(move |layer| (i, layer)))
    }
}

impl Writer {
    /// A task on top of what it started from, whose snapshot has no manifest yet.
    pub fn unsaved(task: &str, order: u32, input: &Lineage, layers: Vec<Descriptor>) -> Self {
        Self { task: task.to_owned(), order, run: None, manifest: None, ancestors: input.orders(), layers }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{store::Blob, workspace::layer::descriptor::LAYER};

    fn writer(order: u32, ancestors: &[u32]) -> Writer {
        let (task, ancestors) = (format!("t{order}"), ancestors.to_vec());
        Writer { task, order, run: None, manifest: None, ancestors, layers: Vec::new() }
    }

    fn lineage(writers: &[(u32, &[u32])]) -> Lineage {
        let writers = writers.iter().map(|(order, ancestors)| writer(*order, ancestors)).collect();
        Lineage { writers, ..Lineage::default() }
    }

    #[test]
    fn lineages_that_can_be_true() {
        for good in [
            lineage(&[]),
            lineage(&[(0, &[]), (1, &[0]), (2, &[0, 1])]),
            lineage(&[(3, &[]), (5, &[]), (9, &[3, 5])]),
            lineage(&[(0, &[]), (1, &[0]), (2, &[0]), (3, &[0, 1, 2])]),
        ] {
            assert_eq!(good.check(), Ok(()));
        }
    }

    #[test]
    fn lineages_that_lie() {
        for (lie, says) in [
            (lineage(&[(0, &[]), (0, &[])]), "listed twice"),
            (lineage(&[(1, &[]), (0, &[])]), "out of order"),
            (lineage(&[(1, &[1])]), "does not come before it"),
            (lineage(&[(0, &[]), (1, &[0, 0])]), "is there twice"),
            (lineage(&[(0, &[]), (1, &[]), (2, &[1, 0])]), "out of order"),
            (lineage(&[(1, &[0])]), "is not listed"),
            (lineage(&[(0, &[2]), (2, &[])]), "does not come before it"),
            (lineage(&[(0, &[]), (1, &[0]), (2, &[1])]), "not all ancestors of that one"),
            (lineage(&vec![(0, &[][..]); MAX_TASKS + 1]), "more than 8192"),
        ] {
            let error = lie.check().unwrap_err().to_string();
            assert!(error.contains(says), "{says}: {error}");
        }
        let layer = Descriptor::new(LAYER, Blob { digest: Digest::of(b""), size: 0 });
        let mut heavy = lineage(&[(0, &[]), (1, &[0])]);
        heavy.writers.iter_mut().for_each(|writer| writer.layers = vec![layer.clone(); MAX_LAYERS / 2 + 1]);
        assert_eq!(heavy.check(), Err(InvalidLineage::TooManyLayers(MAX_LAYERS + 2)));
        let mut without = lineage(&[(0, &[])]);
        without.writers[0].layers.push(layer.clone());
        assert!(matches!(without.check(), Err(InvalidLineage::NoToc { .. })));
        let base = Base { image: "b".to_owned(), manifest: Digest::of(b""), layers: vec![layer], diff_ids: Vec::new() };
        let base = Lineage { base: Some(base), ..Lineage::default() };
        assert_eq!(base.check(), Err(InvalidLineage::DiffIds { layers: 1, diff_ids: 0 }));
    }

    #[test]
    fn as_many_as_may_be() {
        let tasks: Vec<(u32, &[u32])> = (0..MAX_TASKS as u32).map(|order| (order, &[][..])).collect();
        let mut most = lineage(&tasks);
        let layer = Descriptor::new(LAYER, Blob { digest: Digest::of(b""), size: 0 });
        most.writers.iter_mut().for_each(|writer| writer.layers = vec![layer.clone(); MAX_LAYERS / MAX_TASKS]);
        // The numbers are looked at first.
        assert!(matches!(most.check(), Err(InvalidLineage::NoToc { .. })));
    }

    #[test]
    fn inputs_of_one_run_are_joined() {
        let base = |manifest: &[u8]| {
            let manifest = Digest::of(manifest);
            Some(Base { image: "b".to_owned(), manifest, layers: Vec::new(), diff_ids: Vec::new() })
        };
        let mut joined = Lineage::default();
        assert!(joined.is_chain());
        for other in [&[(0, &[][..]), (3, &[0])][..], &[(0, &[]), (1, &[0])], &[(5, &[])]] {
            joined.join(Lineage { base: base(b"b"), ..lineage(other) }).unwrap();
        }
        assert_eq!((joined.base.clone(), joined.orders()), (base(b"b"), vec![0, 1, 3, 5]));
        assert!(!joined.is_chain() && lineage(&[(0, &[]), (1, &[0])]).is_chain());
        joined.join(lineage(&[])).unwrap();
        let changed = joined.join(Lineage { base: base(b"other"), ..Lineage::default() }).unwrap_err();
        assert!(matches!(changed, Error::BaseChanged { .. }), "{changed}");
        let twice = joined.join(lineage(&[(3, &[])])).unwrap_err();
        assert!(matches!(&twice, Error::SavedTwice { task } if task == "t3"), "{twice}");
    }

    #[test]
    fn who_comes_right_before() {
        let lineage = lineage(&[(0, &[]), (1, &[0]), (2, &[0]), (5, &[0, 2]), (7, &[0, 1, 2, 5]), (9, &[0, 1])]);
        for (order, expected) in [(0, vec![]), (1, vec![0]), (2, vec![0]), (5, vec![2]), (7, vec![1, 5]), (9, vec![1])]
        {
            let parents = lineage.parents(lineage.writer(order).unwrap());
            assert_eq!(parents.iter().map(|parent| parent.order).collect::<Vec<_>>(), expected, "{order}");
        }
    }

    #[test]
    fn a_long_chain_is_no_trouble() {
        let chain = (0..2000).map(|order| writer(order, &(0..order).collect::<Vec<_>>())).collect();
        let start = std::time::Instant::now();
        assert_eq!(Lineage { writers: chain, ..Lineage::default() }.check(), Ok(()));
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }
}
