//! What a workspace is made of: a base image, and what tasks changed since.

use serde::{Deserialize, Serialize};

use super::{
    error::Error,
    image::{Config, Descriptor, Manifest, Snapshot},
};
use crate::digest::Digest;

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
    /// Base and writers of a snapshot, the task itself the last writer.
    pub fn of_snapshot(digest: Digest, manifest: Manifest, snapshot: Snapshot) -> Self {
        let own = Writer {
            task: snapshot.task,
            order: snapshot.order,
            manifest: Some(digest),
            ancestors: snapshot.ancestors.iter().map(|writer| writer.order).collect(),
            layers: manifest.layers.into_iter().filter(Descriptor::has_toc).collect(),
        };
        let mut lineage = Self { base: snapshot.base, writers: snapshot.ancestors, origin: None };
        lineage.writers.push(own);
        lineage.writers.sort_by_key(|writer| writer.order);
        lineage
    }

    /// What the ordinary image `image` is made of: the layers that have a table of contents on top of those that don't,
    /// each written after the ones below it.
    pub fn of_image(image: &str, digest: Digest, manifest: Manifest, config: &Config) -> Self {
        let (mut layers, mut diff_ids) = (manifest.layers, config.rootfs.diff_ids.clone());
        let foreign = layers.iter().rposition(|layer| !layer.has_toc()).map_or(0, |last| last + 1);
        let own = layers.split_off(foreign);
        diff_ids.truncate(foreign);
        let writer = |(order, layer): (u32, Descriptor)| Writer {
            task: layer.annotations.get(super::image::TASK).cloned().unwrap_or_else(|| format!("layer {}", order + 1)),
            order,
            manifest: None,
            ancestors: (0..order).collect(),
            layers: vec![layer],
        };
        let base = Base { image: image.to_owned(), manifest: digest, layers, diff_ids };
        Self {
            base: (foreign > 0).then_some(base),
            writers: (0..).zip(own).map(writer).collect(),
            origin: Some(image.to_owned()),
        }
    }

    /// Adds what `other` is made of. Both are of one run, so that they must agree where they overlap.
    pub fn join(&mut self, other: Self) -> Result<(), Error> {
        match (&self.base, other.base) {
            (Some(ours), Some(theirs)) if *ours != theirs => {
                return Err(Error::Run(format!(
                    "the base image {} changed during the run, from {} to {}; name it by its digest",
                    ours.image, ours.manifest, theirs.manifest
                )));
            }
            (None, theirs) => self.base = theirs,
            _ => {}
        }
        for writer in other.writers {
            match self.writers.binary_search_by_key(&writer.order, |w| w.order) {
                Ok(known) if self.writers[known] == writer => {}
                Ok(_) => {
                    return Err(Error::Run(format!(
                        "two different snapshots of task {:?} are in use in one run; it must have been saved twice",
                        writer.task
                    )));
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
