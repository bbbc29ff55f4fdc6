//! What a manifest says that it is, and what it belongs to.

use serde::Deserialize;

use crate::{digest::Digest, store::StoredManifest};

/// How media types of signatures, attestations and bills of materials begin (sigstore/cosign, "pkg/types" and `attach sbom`;
/// in-toto; sigstore's bundles).
const KINDS: [&str; 9] = [
    "application/vnd.dev.cosign.simplesigning.",
    "application/vnd.dev.cosign.artifact.",
    "application/vnd.dev.sigstore.bundle",
    "application/vnd.dsse.envelope.",
    "application/vnd.in-toto",
    "application/vnd.cyclonedx",
    "application/vnd.syft+json",
    "application/spdx",
    "text/spdx",
];

/// In place of a layer where an artifact type says what it is (OCI image-spec, "Guidance for an Empty Descriptor").
const EMPTY: &str = "application/vnd.oci.empty.";

/// The fields of an image manifest or an index that say so.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AttachedManifest {
    artifact_type: Option<String>,
    subject: Option<Named>,
    layers: Option<Vec<Named>>,
    manifests: Option<Vec<Named>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    digest: String,
    #[serde(default)]
    media_type: String,
}

impl AttachedManifest {
    /// None if it is no manifest.
    pub fn parse(manifest: &StoredManifest) -> Option<Self> {
        serde_json::from_slice(&manifest.bytes).ok()
    }

    /// Whether it says itself that it belongs to the image.
    pub fn belongs_to(&self, image: &Digest) -> bool {
        self.subject.as_ref().is_some_and(|subject| subject.digest == image.to_string())
    }

    /// Whether it says that it belongs to something else.
    pub fn belongs_to_another(&self, image: &Digest) -> bool {
        self.subject.is_some() && !self.belongs_to(image)
    }

    /// The members of an index, none for each digest that is not SHA-256; none if it is no index.
    pub fn members(&self) -> Option<Vec<Option<Digest>>> {
        let members = self.manifests.as_ref()?.iter();
        Some(members.map(|named| named.digest.parse().ok()).collect())
    }

    /// Whether all that it consists of is a signature, an attestation or a bill of materials. Anything else may be of use without the
    /// image: another image, a chart.
    pub fn is_of_a_known_kind(&self) -> bool {
        let layers = self.layers.iter().flatten().map(|named| named.media_type.as_str());
        let kinds = self.artifact_type.as_deref().into_iter().chain(layers);
        let mut kinds = kinds.filter(|kind| !kind.starts_with(EMPTY)).peekable();
        kinds.peek().is_some() && kinds.all(|kind| KINDS.iter().any(|known| kind.starts_with(known)))
    }
}
