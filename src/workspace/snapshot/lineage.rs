//! What a workspace is made of: a base image, and what tasks changed since.

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    workspace::{error::Error, layer::descriptor::Descriptor},
};

/// A base and the tasks that wrote on it, by pipeline order; whoever is an ancestor of one of them is one of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lineage {
    /// What the workspace started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// By pipeline order, which is unique.
    pub writers: Vec<Writer>,
    /// The image that the layers of `writers` are in, where that is not the repository that they are used for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
}

/// The image that a workspace starts with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Base {
    /// Where it is, as the user wrote it.
    pub image: String,
    /// Digest of its manifest: that of the platform, where it has several.
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
    /// Digest of the manifest of its snapshot; none for one that is about to be saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// The order of all its ancestors, ascending.
    pub ancestors: Vec<u32>,
    /// What it changed: layers with disjoint paths. None where it changed nothing.
    pub layers: Vec<Descriptor>,
}

impl Lineage {
    /// Adds what `other` is made of. Both are of one run, so that they must agree where they overlap.
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
                Ok(known) if self.writers[known] == writer => {}
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

    /// The layers of all writers, the lowest first, each with the index of its writer.
    pub fn layers(&self) -> impl Iterator<Item = (usize, &Descriptor)> {
        self.writers.iter().enumerate().flat_map(|(i, writer)| writer.layers.iter().map(move |layer| (i, layer)))
    }
}

impl Writer {
    /// A task on top of what it started from, whose snapshot has no manifest yet.
    pub fn unsaved(task: &str, order: u32, input: &Lineage, layers: Vec<Descriptor>) -> Self {
        Self { task: task.to_owned(), order, manifest: None, ancestors: input.orders(), layers }
    }
}
