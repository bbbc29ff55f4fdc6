//! Caches beyond the newest ones of each path and scope.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::Timestamp;

use super::{Doomed, named::NamedImages};
use crate::{
    digest::Digest,
    step::is_cache_tag,
    store::{Store, StoredManifest},
    workspace::{
        Error,
        snapshot::image::{CACHE, CACHE_SCOPE, CREATED, Manifest},
        threads,
    },
};

/// What is read is held for all caches of a repository.
const NAME: usize = 4096;

/// One cache.
struct StoredCache {
    tag: String,
    digest: Digest,
    /// Whose it is: path and scope.
    whose: (String, String),
    created: Option<Timestamp>,
}

/// All but the newest `keep` caches of each path and scope. One that does not say when it was made counts as the oldest; one
/// that has another tag stays.
pub fn beyond(store: &dyn Store, tags: &BTreeSet<String>, keep: usize) -> Result<Vec<Doomed>, Error> {
    let (of_caches, others): (Vec<&String>, Vec<&String>) = tags.iter().partition(|tag| is_cache_tag(tag));
    let found = threads::for_each(&of_caches, |_, tag| {
        let manifest = store.manifest(tag)?;
        Ok::<_, Error>(manifest.and_then(|manifest| StoredCache::parse(tag, &manifest)))
    })?;
    let mut by_owner: BTreeMap<(String, String), Vec<StoredCache>> = BTreeMap::new();
    found.into_iter().flatten().for_each(|cache| by_owner.entry(cache.whose.clone()).or_default().push(cache));
    let (mut kept, mut beyond) = (Vec::new(), Vec::new());
    for mut caches in by_owner.into_values() {
        caches.sort_by_key(|cache| (Reverse(cache.created), cache.tag.clone()));
        let rest = caches.split_off(keep.min(caches.len()));
        kept.extend(caches.into_iter().map(|cache| cache.digest));
        beyond.extend(rest);
    }
    if beyond.is_empty() {
        return Ok(Vec::new());
    }
    let mut named = NamedImages::by(store, &others)?;
    kept.into_iter().for_each(|digest| named.insert(digest));
    let doomed = beyond.into_iter().filter(|cache| {
        let stays = named.contains(&cache.digest);
        if stays {
            tracing::warn!("{} ({}) has another tag and stays", cache.tag, cache.digest);
        }
        !stays
    });
    Ok(doomed.map(|cache| Doomed::tagged(cache.tag, cache.digest)).collect())
}

impl StoredCache {
    /// None if it is something else under such a tag, or is of a path and a scope that are longer than one writes.
    fn parse(tag: &str, manifest: &StoredManifest) -> Option<Self> {
        let Manifest { annotations, .. } = serde_json::from_slice(&manifest.bytes).ok()?;
        let says = |name: &str| annotations.get(name).cloned();
        let whose = (says(CACHE)?, says(CACHE_SCOPE).unwrap_or_default());
        if whose.0.len().max(whose.1.len()) > NAME {
            return None;
        }
        Some(Self {
            tag: tag.to_owned(),
            digest: manifest.digest,
            whose,
            created: says(CREATED).and_then(|text| text.parse().ok()),
        })
    }
}
