//! Images that were replaced and have no tag any more. Each image says what it replaced, so that they form chains.

use std::collections::HashSet;

use super::{
    Doomed,
    image::{self, RunImage},
    named::NamedImages,
};
use crate::{digest::Digest, step::StepConfig, store::Store, workspace::Error};

/// So many images are looked up, whether they exist or not. Longer chains are followed by the next call.
const MAX_LOOKED_UP: usize = 100_000;

/// The images behind `heads`, without those that are `named` by a tag, that `is_selected`, the oldest first: if the deletion is interrupted, those that are left are
/// still found. For the same reason an image stays whose own predecessors stay.
pub fn behind(
    store: &dyn Store,
    heads: impl IntoIterator<Item = Digest>,
    named: &NamedImages,
    is_selected: impl Fn(&RunImage) -> bool,
) -> Result<Vec<Doomed>, Error> {
    let (mut chain, mut staying) = newest_first(store, heads, named)?;
    chain.reverse();
    let mut doomed = Vec::new();
    for image in chain {
        if is_selected(&image) && !image.replaces.iter().any(|digest| staying.contains(digest)) {
            doomed.push(Doomed::replaced(image.digest));
        } else {
            staying.insert(image.digest);
        }
    }
    Ok(doomed)
}

/// Follows the chains until images that do not exist any more, have a name, or are not ours; and what was not looked up.
fn newest_first(
    store: &dyn Store,
    heads: impl IntoIterator<Item = Digest>,
    named: &NamedImages,
) -> Result<(Vec<RunImage>, HashSet<Digest>), Error> {
    let mut pending: Vec<Digest> = heads.into_iter().collect();
    let (mut seen, mut images) = (HashSet::new(), Vec::new());
    while seen.len() < MAX_LOOKED_UP
        && let Some(digest) = pending.pop()
    {
        if named.contains(&digest) || !seen.insert(digest) {
            continue;
        }
        if let Some(image) = read(store, &digest)? {
            pending.extend(image.replaces.iter().copied());
            images.push(image);
        }
    }
    Ok((images, pending.into_iter().collect()))
}

/// The image with this digest, if it exists and says itself that it is a target, or a snapshot whose tag names another one.
fn read(store: &dyn Store, digest: &Digest) -> Result<Option<RunImage>, Error> {
    let reference = digest.to_string();
    let Some(manifest) = store.manifest(&reference)? else { return Ok(None) };
    let Some(image) = RunImage::parse(&manifest) else { return Ok(None) };
    let Some(config) = image::config(store, &reference)? else { return Ok(None) };
    let is_replaced = match (&config.lineage, &config.snapshot) {
        (Some(_), _) => true,
        (None, Some(snapshot)) => {
            let tag = StepConfig::tag(&snapshot.run, snapshot.order, &snapshot.workspace);
            store.digest(&tag)? != Some(*digest)
        }
        (None, None) => false,
    };
    Ok(is_replaced.then_some(image))
}
