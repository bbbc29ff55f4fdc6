//! What is attached to images: signatures, attestations, bills of materials. It is found by its tag, `sha256-<hex>.sig` and the like
//! (cosign) or `sha256-<hex>` (OCI distribution-spec, "Referrers Tag Schema"), or as what a registry lists as referring to the image.

use std::collections::BTreeSet;

use serde::Deserialize;

use super::Doomed;
use crate::{
    digest::Digest,
    quote::Line,
    store::{Store, StoredManifest},
    workspace::{Error, threads},
};

/// Ends of the tags that cosign gives (sigstore/cosign, "pkg/oci/remote"), and that of the Referrers Tag Schema.
const ENDS: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// A manifest that belongs to an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Without one it only refers to the image.
    pub tag: Option<String>,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// The fields of an image manifest or an index that say what it belongs to.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct AttachedManifest {
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

/// Somebody has vouched for an image that something is attached to: without `all` it stays. With it what is attached goes first, so
/// that it is still found if the deletion is interrupted. `tags` are those of the repository, if they are known.
pub fn settle(
    store: &dyn Store,
    tags: Option<&BTreeSet<String>>,
    doomed: Vec<Doomed>,
    all: bool,
) -> Result<Vec<Doomed>, Error> {
    let found = threads::for_each(&doomed, |_, image| attached_to(store, tags, &image.digest))?;
    let mut settled = Vec::with_capacity(doomed.len());
    for (mut image, found) in doomed.into_iter().zip(found) {
        if !all && !found.is_empty() {
            let name = image.tag.as_ref().map_or_else(|| "a replaced image".to_owned(), |tag| Line(tag).to_string());
            tracing::warn!("{name} ({}) has a signature or an attestation and stays; --all deletes both", image.digest);
            continue;
        }
        image.attached = found;
        settled.push(image);
    }
    Ok(settled)
}

/// The image that `tag` says it is attached to.
pub fn subject(tag: &str) -> Option<Digest> {
    let hex = tag.strip_prefix("sha256-")?;
    let hex = ENDS.iter().rev().find_map(|end| hex.strip_suffix(end))?;
    format!("sha256:{hex}").parse().ok()
}

fn attached_to(store: &dyn Store, tags: Option<&BTreeSet<String>>, image: &Digest) -> Result<Vec<Attachment>, Error> {
    let (mut found, mut referrers) = (Vec::new(), store.referrers(image)?);
    for tag in ENDS.map(|end| format!("sha256-{}{end}", image.hex())) {
        if tags.is_some_and(|tags| !tags.contains(&tag)) {
            continue;
        }
        let Some(manifest) = store.manifest(&tag)? else { continue };
        let Some(parsed) = AttachedManifest::parse(&manifest) else { continue };
        referrers.extend(parsed.manifests.iter().flatten().filter_map(|named| named.digest.parse::<Digest>().ok()));
        if parsed.is_image(image) {
            tracing::warn!("{tag} is an image, no signature, and stays");
            continue;
        }
        found.push(Attachment { tag: Some(tag), digest: manifest.digest });
    }
    for digest in referrers.into_iter().collect::<BTreeSet<_>>() {
        let Some(manifest) = store.manifest(&digest.to_string())? else { continue };
        // A list may name anything: only what says itself that it belongs to the image does.
        if AttachedManifest::parse(&manifest).is_some_and(|parsed| parsed.belongs_to(image)) {
            found.insert(0, Attachment { tag: None, digest });
        }
    }
    Ok(found)
}

impl AttachedManifest {
    fn parse(manifest: &StoredManifest) -> Option<Self> {
        serde_json::from_slice(&manifest.bytes).ok()
    }

    fn belongs_to(&self, image: &Digest) -> bool {
        self.subject.as_ref().is_some_and(|subject| subject.digest == image.to_string())
    }

    /// Whether it is one that can be run or restored, under a tag that says otherwise.
    fn is_image(&self, of: &Digest) -> bool {
        let is_layer = |named: &Named| {
            ["application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs."]
                .iter()
                .any(|start| named.media_type.starts_with(start))
        };
        !self.belongs_to(of) && self.layers.iter().flatten().any(is_layer)
    }
}
