//! The descriptor of a layer (OCI image-spec, descriptor.md), and the annotations in which this program says where its table
//! of contents is.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::toc;
use crate::{digest::Digest, step::Compression, store::Blob, workspace::error::Error};

/// Media type of a layer without compression; the others add `+zstd` or `+gzip`.
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

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

/// Strings by name, sorted.
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
    /// How many entries are hard links.
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
pub fn media_type(compression: Compression) -> &'static str {
    match compression {
        Compression::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        Compression::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        Compression::None => LAYER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
