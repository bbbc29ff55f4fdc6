//! Images as JSON: manifest, config and descriptor (OCI image-spec: manifest.md, config.md, descriptor.md), and what
//! this program keeps in them. docs/format.md describes it for readers with other tools.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{
    error::Error,
    lineage::{Base, Lineage, Writer},
    toc,
};
use crate::{digest::Digest, step::Compression, store::Blob};

/// Media type of an image manifest.
pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of an image config.
pub const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a layer without compression; the others add `+zstd` or `+gzip`.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

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

/// On a layer of ours that has no table of contents.
pub const ESCAPED: &str = "dev.tekton-wrap.escaped-names";

const TOC: &str = "dev.tekton-wrap.toc";
const TOC_OFFSET: &str = "dev.tekton-wrap.toc.offset";
const TOC_SIZE: &str = "dev.tekton-wrap.toc.size";
const TOC_DIGEST: &str = "dev.tekton-wrap.toc.digest";
const ENTRIES: &str = "dev.tekton-wrap.entries";
const UNCOMPRESSED: &str = "dev.tekton-wrap.uncompressed-size";
const DIFF_ID: &str = "dev.tekton-wrap.diff-id";
const HARDLINKS: &str = "dev.tekton-wrap.hardlinks";
const DELETIONS: &str = "dev.tekton-wrap.deletions";

/// Texts by name, sorted.
pub type Annotations = BTreeMap<String, String>;

/// Names a blob (OCI image-spec, descriptor.md).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What the blob is.
    pub media_type: String,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// The number of its bytes.
    pub size: u64,
    /// What else is to be known.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: Annotations,
}

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
    /// How to run it: only labels here.
    #[serde(default)]
    pub config: Run,
    /// Digests of the layers without compression.
    pub rootfs: RootFs,
    /// Where the layers are from.
    #[serde(default)]
    pub history: Vec<History>,
    /// What makes an image a snapshot of a task. Unknown fields are ignored by other tools (config.md, "Properties").
    #[serde(default, rename = "dev.tekton-wrap.snapshot", skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<Snapshot>,
    /// What the tasks of a run did to make this image, its layers among those of the manifest: for people who look at it.
    #[serde(default, rename = "dev.tekton-wrap.lineage", skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
}

/// `config` in an image config.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Run {
    /// Texts by name.
    #[serde(default, rename = "Labels", skip_serializing_if = "Option::is_none")]
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
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct History {
    /// When the layer was made.
    #[serde(default)]
    pub created: String,
    /// What made it.
    #[serde(default)]
    pub created_by: String,
}

/// What a snapshot is of, and all that is needed to restore it. The layers of the image are what the task itself changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    /// Version of this object: 1.
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

/// Where the table of contents of a layer is, and what the layer amounts to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerInfo {
    /// Offset of the table in the blob.
    pub toc_offset: u64,
    /// Its bytes there.
    pub toc_size: u64,
    /// SHA-256 of these bytes.
    pub toc_digest: Digest,
    /// The number of its entries.
    pub entries: u64,
    /// Bytes of the layer without compression.
    pub uncompressed: u64,
    /// SHA-256 of the layer without compression.
    pub diff_id: Digest,
    /// How many entries are further names of a file.
    pub hardlinks: u64,
    /// How many entries are whiteouts, or something else in place of a directory.
    pub deletions: u64,
}

impl Descriptor {
    /// Names a stored blob.
    pub fn new(media_type: &str, blob: Blob) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest: blob.digest, size: blob.size, annotations: Annotations::new() }
    }

    /// The blob.
    pub fn blob(&self) -> Blob {
        Blob { digest: self.digest, size: self.size }
    }

    /// Adds `info`.
    pub fn with_info(mut self, info: &LayerInfo) -> Self {
        let mut set = |name: &str, value: String| self.annotations.insert(name.to_owned(), value);
        set(TOC, toc::VERSION.to_owned());
        set(TOC_OFFSET, info.toc_offset.to_string());
        set(TOC_SIZE, info.toc_size.to_string());
        set(TOC_DIGEST, info.toc_digest.to_string());
        set(ENTRIES, info.entries.to_string());
        set(UNCOMPRESSED, info.uncompressed.to_string());
        set(DIFF_ID, info.diff_id.to_string());
        for (name, count) in [(HARDLINKS, info.hardlinks), (DELETIONS, info.deletions)] {
            if count > 0 {
                set(name, count.to_string());
            }
        }
        self
    }

    /// Whether the layer is one of ours, in which names that an image can't hold carry a prefix.
    pub fn escapes_names(&self) -> bool {
        self.has_toc() || self.annotations.contains_key(ESCAPED)
    }

    /// Whether the layer has a table of contents that this version reads. Any other layer is applied as it is.
    pub fn has_toc(&self) -> bool {
        self.annotations.get(TOC).is_some_and(|version| version == toc::VERSION)
    }

    /// What [`Descriptor::with_info`] added.
    pub fn info(&self) -> Result<LayerInfo, Error> {
        let count = |name| if self.annotations.contains_key(name) { self.annotation(name) } else { Ok(0) };
        Ok(LayerInfo {
            toc_offset: self.annotation(TOC_OFFSET)?,
            toc_size: self.annotation(TOC_SIZE)?,
            toc_digest: self.annotation(TOC_DIGEST)?,
            entries: self.annotation(ENTRIES)?,
            uncompressed: self.annotation(UNCOMPRESSED)?,
            diff_id: self.annotation(DIFF_ID)?,
            hardlinks: count(HARDLINKS)?,
            deletions: count(DELETIONS)?,
        })
    }

    /// How the layer is compressed (also Docker's names: docker image manifest v2 schema 2, "Media Types").
    pub fn compression(&self) -> Result<Compression, Error> {
        match self.media_type.as_str() {
            "application/vnd.oci.image.layer.v1.tar+zstd" => Ok(Compression::Zstd),
            "application/vnd.oci.image.layer.v1.tar+gzip" | "application/vnd.docker.image.rootfs.diff.tar.gzip" => {
                Ok(Compression::Gzip)
            }
            LAYER | "application/vnd.docker.image.rootfs.diff.tar" => Ok(Compression::None),
            other => Err(Error::damaged(self.place(), format!("its media type {other:?} is not that of a layer"))),
        }
    }

    /// How errors name the layer.
    pub fn place(&self) -> String {
        format!("layer {}", self.digest)
    }

    fn annotation<T: std::str::FromStr>(&self, name: &str) -> Result<T, Error> {
        let value = self.annotations.get(name).and_then(|text| text.parse().ok());
        value.ok_or_else(|| Error::damaged(self.place(), format!("its annotation {name} is missing or damaged")))
    }
}

/// The media type of a layer.
pub fn layer_media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::None => LAYER,
    }
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

/// The time now in RFC 3339, to the second.
pub fn now() -> String {
    let since_1970 = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    rfc3339(since_1970.map_or(0, |time| time.as_secs()))
}

/// Seconds since 1970 in RFC 3339 (days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms").
pub fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400 + 719_468, seconds % 86_400);
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", rest / 3600, rest / 60 % 60, rest % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn layer_info_round_trip() {
        let digest = Digest::of(b"");
        let info = LayerInfo {
            toc_offset: 1,
            toc_size: 2,
            toc_digest: digest,
            entries: 3,
            uncompressed: 4,
            diff_id: digest,
            hardlinks: 5,
            deletions: 6,
        };
        let mut layer = Descriptor::new(LAYER, Blob { digest, size: 9 }).with_info(&info);
        assert!(layer.has_toc());
        assert_eq!(layer.info().unwrap(), info);
        layer.annotations.remove(TOC_DIGEST);
        assert!(layer.info().unwrap_err().to_string().contains(TOC_DIGEST));
    }
}
