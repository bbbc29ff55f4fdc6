//! Images as JSON: manifest, config and descriptor (OCI image-spec: manifest.md, config.md, descriptor.md), and what
//! this program keeps in them. docs/format.md describes it for readers with other tools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::lineage::{Base, Lineage, Writer};
use crate::{
    digest::Digest,
    workspace::layer::descriptor::{Annotations, Descriptor},
};

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Annotation: when the image was made.
pub const CREATED: &str = "org.opencontainers.image.created";
/// Annotation and label: how long to keep the image (quay.io: "Setting tag expirations").
pub const EXPIRES: &str = "quay.expires-after";
/// Annotation: UID of the run.
pub const RUN: &str = "dev.tekton-wrap.run";
/// Annotation: the task that a snapshot or a layer is of.
pub const TASK: &str = "dev.tekton-wrap.task";
/// Annotation: the workspace in the Pipeline.
pub const WORKSPACE: &str = "dev.tekton-wrap.workspace";
/// Annotation: digests of the images that this one replaced under its tag, or that it lists, separated by commas.
pub const REPLACES: &str = "dev.tekton-wrap.replaces";
/// Annotation: what a run keeps, where it is more than its target: `all`.
pub const KEEP: &str = "dev.tekton-wrap.keep";
/// Annotation of a cache: what it is of, a workspace or a folder in it.
pub const CACHE: &str = "dev.tekton-wrap.cache";
/// Annotation of a cache: its key.
pub const CACHE_KEY: &str = "dev.tekton-wrap.cache.key";
/// Annotation of a cache: whose it is; absent where that is not said.
pub const CACHE_SCOPE: &str = "dev.tekton-wrap.cache.scope";

/// The version of [`Snapshot`] that this program writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// An image manifest, of either kind (`schemaVersion` 2).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`MANIFEST`]
    #[serde(default)]
    pub media_type: String,
    /// The image config.
    pub config: Descriptor,
    /// The lowest first.
    pub layers: Vec<Descriptor>,
    /// What else is to be known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

/// An image config: the part of it that is used here.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// When it was made (RFC 3339).
    #[serde(default)]
    pub created: String,
    /// As Go names it.
    #[serde(default)]
    pub architecture: String,
    /// As Go names it.
    #[serde(default)]
    pub os: String,
    /// How to run it: only labels here. Nobody here reads them, and they might be millions.
    #[serde(skip_deserializing)]
    pub config: RunConfig,
    /// Digests of the layers without compression.
    pub rootfs: RootFs,
    /// Where the layers are from; likewise.
    #[serde(skip_deserializing)]
    pub history: Vec<History>,
    /// What makes an image a snapshot of a task. Unknown fields are ignored by other tools (config.md, "Properties").
    #[serde(default, rename = "dev.tekton-wrap.snapshot", skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// What the tasks of a run did to make this image, its layers among those of the manifest: for people who look at it.
    #[serde(default, rename = "dev.tekton-wrap.lineage", skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// `config` in an image config.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RunConfig {
    /// Strings by name.
    #[serde(rename = "Labels", skip_serializing_if = "Option::is_none")]
    pub labels: Option<Annotations>,
}

/// `rootfs` in an image config.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One for each layer of the manifest.
    pub diff_ids: Vec<Digest>,
}

/// An element of `history` in an image config.
#[derive(Clone, Debug, Serialize)]
pub struct History {
    /// When the layer was made.
    pub created: String,
    /// What made it.
    pub created_by: String,
}

/// What a snapshot is of, and all that is needed to restore it. The layers of the image are what the task itself changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Version of this object: [`FORMAT`].
    pub format: u32,
    /// UID of the PipelineRun.
    pub run: String,
    /// Name of the workspace in the Pipeline.
    pub workspace: String,
    /// Name of the task in the Pipeline.
    pub task: String,
    /// The task's place in pipeline order.
    pub order: u32,
    /// What the workspace started with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<Base>,
    /// All tasks that its input is made of, by pipeline order.
    pub ancestors: Vec<Writer>,
}

/// This machine's architecture, as Go names it.
pub fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    /// Those for which Go has a port to Linux (its `go tool dist list`) and Rust a standard library.
    #[test]
    fn architectures_are_named_as_go_does() {
        let known = ["386", "amd64", "arm", "arm64", "loong64", "ppc64", "ppc64le", "riscv64", "s390x"];
        assert!(known.contains(&super::architecture()), "{}", super::architecture());
    }
}
