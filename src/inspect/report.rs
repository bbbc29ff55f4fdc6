//! What `inspect IMAGE` says, as JSON says it: the names of the fields are stable. [`text`] is the same for people.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "indexes that groups gave out themselves; counts of paths and layers"
)]

mod text;

use serde::Serialize;

use super::{
    changes::{self, Summary},
    holding::Holding,
    source::{ImageKind, InspectedImage},
};
use crate::{
    digest::Digest,
    workspace::{Error, layer::descriptor::Descriptor, snapshot::lineage::Writer},
};

/// An image and what is behind it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    image: String,
    digest: Digest,
    kind: ImageKind,
    #[serde(skip_serializing_if = "Option::is_none")]
    run: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    workspace: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    base: Option<BaseReport>,
    /// In pipeline order.
    tasks: Vec<TaskReport>,
    /// Layers of no task.
    other: Layers,
    total: Total,
    /// How many paths parallel tasks left differently; the image has what the later one left.
    #[serde(skip_serializing_if = "is_zero")]
    conflicts: usize,
    /// What the numbers do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct BaseReport {
    image: String,
    digest: Digest,
    #[serde(flatten)]
    layers: Layers,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct TaskReport {
    task: String,
    order: u32,
    /// The tasks right before it, of those that saved the workspace.
    after: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    snapshot: Option<Digest>,
    #[serde(flatten)]
    layers: Layers,
    #[serde(flatten)]
    changes: Summary,
}

/// Layers in numbers.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Layers {
    layers: usize,
    /// Bytes as they are stored, compressed.
    stored_bytes: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Total {
    #[serde(flatten)]
    layers: Layers,
    #[serde(flatten)]
    holds: Holding,
}

impl Report {
    /// Of `source`.
    pub fn new(source: &InspectedImage) -> Result<Self, Error> {
        let lineage = &source.lineage;
        let view = source.view()?;
        let changes = changes::of_tasks(&view)?;
        let base = lineage.base.as_ref().map(|base| BaseReport {
            image: base.image.clone(),
            digest: base.manifest,
            layers: Layers::of(&base.layers),
        });
        let task = |(writer, changes): (&Writer, Summary)| TaskReport {
            task: writer.task.clone(),
            order: writer.order,
            after: lineage.parents(writer).into_iter().map(|parent| parent.task.clone()).collect(),
            snapshot: writer.manifest,
            layers: Layers::of(&writer.layers),
            changes,
        };
        let tasks = lineage.writers.iter().zip(changes).map(task).collect();
        let base_layers = lineage.base.iter().flat_map(|base| &base.layers);
        let all = base_layers.chain(lineage.layers().map(|(_, layer)| layer)).chain(&source.other);
        let total = Total { layers: Layers::of(all), holds: Holding::of(&view, &mut |_| true)? };
        Ok(Self {
            image: source.image.clone(),
            digest: source.digest,
            kind: source.kind,
            run: source.run.clone(),
            workspace: source.workspace.clone(),
            base,
            tasks,
            other: Layers::of(&source.other),
            conflicts: view.conflicts.count,
            total,
            note: source.unlisted.clone(),
        })
    }
}

impl Layers {
    fn of<'a>(layers: impl IntoIterator<Item = &'a Descriptor>) -> Self {
        layers.into_iter().fold(Self::default(), |sum, layer| Self {
            layers: sum.layers + 1,
            stored_bytes: sum.stored_bytes.saturating_add(layer.size),
        })
    }
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}
