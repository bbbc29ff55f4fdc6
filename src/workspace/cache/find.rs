//! Which caches a task starts from, checked before a file is written. None is never an error.

use std::{cmp::Reverse, iter};

use jiff::Timestamp;

use super::{
    found::{Caches, FoundCache},
    hash::FileHashes,
    place,
    site::Site,
};
use crate::{
    quote::Line,
    step::{CACHE_PLACES, CacheStep, StepConfig, WorkspaceStep, cache_prefix, cache_tag},
    store::{self, Store},
    target::Target,
    workspace::{
        error::Error,
        layer::descriptor::Descriptor,
        snapshot::{
            image::{self, Manifest},
            lineage::CacheUse,
            merge::kept,
            view::View,
        },
        threads,
    },
};

/// So many damaged ones are passed over, and so many are compared for a restore key.
const MOST_TRIED: usize = 3;
const MOST_COMPARED: usize = 256;

/// Looks for the caches of one workspace.
pub struct CacheFinder<'a> {
    /// Whose step it is.
    pub step: &'a StepConfig,
    /// The workspace.
    pub workspace: &'a WorkspaceStep,
    /// What is known of files in all workspaces of the step.
    pub hashes: &'a mut FileHashes,
}

/// A cache whose manifest has more bytes, which are held for all that are compared, is not restored; one of ours has some ten
/// thousand.
const MANIFEST_SIZE: usize = 256 << 10;

/// A stored cache.
struct Candidate {
    key: String,
    created: Option<Timestamp>,
    /// None if there are too many.
    layers: Option<Vec<Descriptor>>,
}

impl<'a> CacheFinder<'a> {
    /// The caches that fill folders of a workspace in which `view` is.
    pub fn find(&mut self, view: &View<'_>) -> Result<Caches<'a>, Error> {
        self.hashes.see(&self.workspace.name, view)?;
        if self.workspace.caches.is_empty() {
            return Ok(Caches::default());
        }
        let sites = self.survey(view)?;
        let (mut uses, mut all) = (Vec::new(), Vec::new());
        for (index, (cache, site)) in self.workspace.caches.iter().zip(&sites).enumerate() {
            let name = cache.shown(&self.workspace.name);
            if site.is_occupied {
                tracing::info!(event = "cache", "cache {}: not restored, as the folder is not empty", Line(&name));
                uses.push(CacheUse::default());
                continue;
            }
            let key = self.hashes.key(cache);
            if key.is_none() {
                tracing::warn!(
                    event = "cache",
                    "cache {}: none of its files is there, so that it is not saved",
                    Line(&name)
                );
            }
            let mut used = CacheUse { key: key.clone(), ..CacheUse::default() };
            match self.look(cache, index, key.as_deref(), site, &mut used) {
                Ok(Some(found)) => {
                    used.layers = u32::try_from(found.content.layers.len()).unwrap_or(CACHE_PLACES);
                    if found.is_exact {
                        used.key = None;
                    }
                    all.push(found);
                }
                Ok(None) => {
                    let key = key.as_deref().unwrap_or("without a hash");
                    tracing::info!(event = "cache", key, "cache {}: none for key {}", Line(&name), Line(key));
                }
                Err(error) => {
                    let error = error.to_string();
                    tracing::warn!(event = "cache", "cache {}: can't be looked for: {}", Line(&name), Line(&error));
                }
            }
            uses.push(used);
        }
        Ok(Caches::new(self.workspace, uses, all))
    }

    fn survey(&self, view: &View<'_>) -> Result<Vec<Site>, Error> {
        let sites = self.workspace.caches.iter().map(|cache| Ok(Site::at(place(cache, self.workspace)?)));
        let mut sites = sites.collect::<Result<Vec<_>, Error>>()?;
        view.for_each(&mut |group, outcome| {
            let Some(entry) = kept(group, &outcome) else { return Ok(()) };
            sites.iter_mut().for_each(|site| site.note(&entry.path, entry.is_dir()));
            Ok(())
        })?;
        Ok(sites)
    }

    /// The first cache that can be restored, of those that may be. A damaged one is reported and passed over.
    fn look(
        &self,
        cache: &CacheStep,
        index: usize,
        key: Option<&str>,
        site: &Site,
        used: &mut CacheUse,
    ) -> Result<Option<FoundCache>, Error> {
        let store = store::open(&cache.target.parse::<Target>()?)?;
        let mut tried = 0_usize;
        for is_exact in [true, false] {
            let candidates = match key {
                Some(key) if is_exact => self.with_key(&*store, cache, key)?,
                None if is_exact => Vec::new(),
                _ => self.with_beginning(&*store, cache)?,
            };
            for Candidate { key, created, layers } in candidates {
                if tried >= MOST_TRIED {
                    return Ok(None);
                }
                tried = tried.saturating_add(1);
                let too_large =
                    || Error::damaged("the cache", format!("its manifest is larger than {} KiB", MANIFEST_SIZE >> 10));
                match layers.ok_or_else(too_large).and_then(|layers| site.check(&*store, layers)) {
                    Ok(content) => {
                        return Ok(Some(FoundCache { index, key, created, is_exact, store, content }));
                    }
                    Err(error) => {
                        let (name, error) = (cache.shown(&self.workspace.name), error.to_string());
                        let (name, key, error) = (Line(&name), Line(&key), Line(&error));
                        tracing::warn!(event = "cache", "cache {name}: key {key} is not restored: {error}");
                        used.replaces |= is_exact;
                    }
                }
            }
        }
        Ok(None)
    }

    /// Caches with exactly this key, those of the task's own scope first.
    fn with_key(&self, store: &dyn Store, cache: &CacheStep, key: &str) -> Result<Vec<Candidate>, Error> {
        let found = self.scopes(cache).into_iter().map(|scope| {
            let tag = cache_tag(&cache.shown(&self.workspace.name), scope, key);
            Ok(self.candidate(store, cache, &tag, scope)?.filter(|found| found.key == key))
        });
        Ok(found.collect::<Result<Vec<_>, Error>>()?.into_iter().flatten().collect())
    }

    /// Caches whose keys begin as one of the restore keys: by scope, then by restore key, then the newest first.
    fn with_beginning(&self, store: &dyn Store, cache: &CacheStep) -> Result<Vec<Candidate>, Error> {
        if cache.restore_keys.is_empty() {
            return Ok(Vec::new());
        }
        let (tags, name) = (store.tags()?, cache.shown(&self.workspace.name));
        let mut found = Vec::new();
        for scope in self.scopes(cache) {
            for beginning in &cache.restore_keys {
                let prefix = cache_prefix(&name, scope, beginning);
                let mut tags: Vec<&String> = tags.iter().filter(|tag| tag.starts_with(&prefix)).collect();
                if tags.len() > MOST_COMPARED {
                    let count = tags.len();
                    tracing::warn!(
                        event = "cache",
                        "cache {}: {count} of them begin so, of which {MOST_COMPARED} are compared: tekton-wrap prune --caches deletes old ones",
                        Line(&name)
                    );
                    tags.truncate(MOST_COMPARED);
                }
                let candidates = threads::ask_for_each(&tags, |_, tag| self.candidate(store, cache, tag, scope))?;
                let mut fitting: Vec<Candidate> =
                    candidates.into_iter().flatten().filter(|found| found.key.starts_with(beginning)).collect();
                fitting.sort_by_key(|found| Reverse(found.created));
                found.extend(fitting);
            }
        }
        Ok(found)
    }

    /// The cache under `tag`, if it is one of `cache` in `scope`. What this run itself saved does not count, so that all its tasks
    /// and their retries start from the same.
    fn candidate(
        &self,
        store: &dyn Store,
        cache: &CacheStep,
        tag: &str,
        scope: &str,
    ) -> Result<Option<Candidate>, Error> {
        let Some(found) = store.manifest(tag)? else { return Ok(None) };
        let Ok(Manifest { layers, annotations, .. }) = serde_json::from_slice::<Manifest>(&found.bytes) else {
            return Ok(None);
        };
        let says = |name: &str| annotations.get(name).map(String::as_str);
        let is_of_it = says(image::CACHE) == Some(&cache.shown(&self.workspace.name))
            && says(image::CACHE_SCOPE).unwrap_or_default() == scope
            && says(image::RUN) != Some(&self.step.run);
        let is_small = found.bytes.len() <= MANIFEST_SIZE;
        let key = says(image::CACHE_KEY).filter(|key| is_of_it && key.len() <= MANIFEST_SIZE);
        let created = says(image::CREATED).and_then(|text| text.parse().ok());
        Ok(key.map(|key| Candidate { key: key.to_owned(), created, layers: is_small.then_some(layers) }))
    }

    /// Whose caches are restored.
    fn scopes<'c>(&self, cache: &'c CacheStep) -> Vec<&'c str> {
        let default = cache.default_scope.as_deref().filter(|default| *default != cache.scope);
        iter::once(&*cache.scope).chain(default).collect()
    }
}
