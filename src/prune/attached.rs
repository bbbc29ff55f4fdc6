//! What is attached to images: signatures, attestations, bills of materials. It is found by its tag, `sha256-<hex>.sig` and the like
//! (cosign) or `sha256-<hex>` (OCI distribution-spec, "Referrers Tag Schema"), or as what a registry lists as referring to the image.

mod kind;

use std::collections::BTreeSet;

use self::kind::AttachedManifest;
use super::{Doomed, named::NamedImages};
use crate::{
    digest::Digest,
    quote::Line,
    store::{Store, StoreError},
    workspace::{Error, threads},
};

/// Ends of the tags that cosign gives (sigstore/cosign, "pkg/oci/remote"), and that of the Referrers Tag Schema.
const ENDS: [&str; 4] = ["", ".sig", ".att", ".sbom"];

/// So much may be attached to one image; each is looked up.
const ATTACHED: usize = 250;

/// A manifest that belongs to an image.
#[derive(Debug, PartialEq, Eq)]
pub struct Attachment {
    /// Without one it only refers to the image.
    pub tag: Option<String>,
    /// Digest of its manifest.
    pub digest: Digest,
}

/// What was found beside an image.
#[derive(Default)]
struct FoundBeside {
    attached: Vec<Attachment>,
    /// Tags of what may be attached, but is of a kind that is not known.
    unknown: Vec<String>,
    /// Whether there may be more of them.
    is_incomplete: bool,
}

/// Somebody has vouched for an image that something is attached to: without `all` it stays. With it what is attached goes first, so
/// that it is still found if the deletion is interrupted; what another tag names stays. `tags` are those of the repository, if they
/// are known.
pub fn settle(
    store: &dyn Store,
    tags: Option<&BTreeSet<String>>,
    doomed: Vec<Doomed>,
    all: bool,
) -> Result<Vec<Doomed>, Error> {
    let found = threads::for_each(&doomed, |_, image| FoundBeside::look(store, tags, &image.digest))?;
    let mut settled = Vec::with_capacity(doomed.len());
    for (mut image, found) in doomed.into_iter().zip(found) {
        if let Some(why) = found.why_the_image_stays(tags.is_some(), all) {
            let name = image.tag.as_ref().map_or_else(|| "a replaced image".to_owned(), |tag| Line(tag).to_string());
            tracing::warn!("{name} ({}) {why}", image.digest);
            continue;
        }
        for tag in &found.unknown {
            tracing::warn!(
                "{tag} is no signature, attestation or bill of materials of the image, as far as is known, and stays"
            );
        }
        image.attached = found.attached;
        settled.push(image);
    }
    spare_what_is_named(store, tags, &mut settled)?;
    Ok(settled)
}

/// The image that `tag` says it is attached to.
pub fn subject(tag: &str) -> Option<Digest> {
    let hex = tag.strip_prefix("sha256-")?;
    let hex = ENDS.iter().rev().find_map(|end| hex.strip_suffix(end))?;
    format!("sha256:{hex}").parse().ok()
}

/// The tag of the list of what is attached to an image (OCI distribution-spec, "Referrers Tag Schema").
fn list_of(image: &Digest) -> String {
    format!("sha256-{}", image.hex())
}

/// Registries delete a digest with all its tags: what has one that is not of an attachment that goes too is left, and what an
/// index consists of.
fn spare_what_is_named(
    store: &dyn Store,
    tags: Option<&BTreeSet<String>>,
    settled: &mut [Doomed],
) -> Result<(), Error> {
    if settled.iter().all(|image| image.attached.is_empty()) {
        return Ok(());
    }
    let own = settled.iter().flat_map(|image| &image.attached).filter_map(|a| a.tag.clone());
    // What the list of what belongs to such an image names goes with the image, if it says that it belongs to it.
    let own: BTreeSet<String> = own.chain(settled.iter().map(|image| list_of(&image.digest))).collect();
    let others: Vec<&String> = tags.into_iter().flatten().filter(|tag| !own.contains(*tag)).collect();
    let named = NamedImages::by(store, &others)?;
    for image in settled {
        image.attached.retain(|Attachment { tag, digest }| {
            let stays = named.contains(digest);
            if stays {
                let name = tag.as_deref().unwrap_or("what is attached");
                tracing::warn!("{name} ({digest}) has another tag and stays");
            }
            !stays
        });
    }
    Ok(())
}

impl FoundBeside {
    fn look(store: &dyn Store, tags: Option<&BTreeSet<String>>, image: &Digest) -> Result<Self, Error> {
        let listed = store.referrers(image)?;
        let mut found = Self { is_incomplete: listed.is_none(), ..Self::default() };
        let mut referrers: BTreeSet<Digest> = listed.into_iter().flatten().collect();
        for end in ENDS {
            let tag = format!("{}{end}", list_of(image));
            if tags.is_some_and(|tags| !tags.contains(&tag)) {
                continue;
            }
            let Some(manifest) = store.manifest(&tag)? else { continue };
            let parsed = AttachedManifest::parse(&manifest).unwrap_or_default();
            let is_attached = match parsed.members() {
                Some(members) if end.is_empty() => {
                    referrers.extend(members.iter().flatten());
                    found.is_incomplete |= members.len() > ATTACHED;
                    !found.is_incomplete && all_belong(store, &members, image)?
                }
                Some(_) => false,
                None => !end.is_empty() && parsed.is_of_a_known_kind() && !parsed.belongs_to_another(image),
            };
            if is_attached || parsed.belongs_to(image) {
                found.attached.push(Attachment { tag: Some(tag), digest: manifest.digest });
            } else {
                found.unknown.push(tag);
            }
        }
        found.is_incomplete |= referrers.len() > ATTACHED;
        if found.is_incomplete {
            return Ok(found);
        }
        for digest in referrers {
            // A list may name anything: only what says itself that it belongs to the image does.
            if belongs(store, &digest, image)? == Some(true) {
                found.attached.insert(0, Attachment { tag: None, digest });
            }
        }
        Ok(found)
    }

    /// A clause; none if it goes.
    fn why_the_image_stays(&self, are_tags_known: bool, all: bool) -> Option<String> {
        match (self.unknown.first(), self.attached.is_empty()) {
            _ if self.is_incomplete => Some("stays, as the list of what is attached to it is too long".to_owned()),
            (_, false) if !all => Some("has a signature or an attestation and stays; --all deletes both".to_owned()),
            (Some(tag), true) if !all => Some(format!("stays, as {tag} may vouch for it; --all deletes it")),
            (_, false) if !are_tags_known => {
                Some("stays, as it is not known whether what is attached to it has other tags".to_owned())
            }
            _ => None,
        }
    }
}

/// Whether all `members` of a list belong to the image, or do not exist any more. One with a digest of another kind is not known.
fn all_belong(store: &dyn Store, members: &[Option<Digest>], image: &Digest) -> Result<bool, StoreError> {
    for member in members {
        let Some(digest) = member else { return Ok(false) };
        if belongs(store, digest, image)? == Some(false) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether the manifest says that it belongs to the image; none if there is no such manifest.
fn belongs(store: &dyn Store, digest: &Digest, image: &Digest) -> Result<Option<bool>, StoreError> {
    let manifest = store.manifest(&digest.to_string())?;
    Ok(manifest.map(|manifest| AttachedManifest::parse(&manifest).is_some_and(|parsed| parsed.belongs_to(image))))
}
