//! Stores what a task made of a cache.

use jiff::Timestamp;

use super::{place, problem};
use crate::{
    quote::Line,
    step::{CacheStep, StepConfig, WorkspaceStep, cache_tag},
    store::{self, Store},
    target::Target,
    workspace::{
        error::Error,
        layer::{descriptor::Descriptor, read::read_toc},
        snapshot::{
            assemble::{self, ImageLabels},
            image,
            lineage::{CacheUse, Lineage},
        },
    },
};

/// A cache that is to be stored: its layers are in the repository of the workspace's target.
pub struct PendingCache<'a> {
    /// The cache.
    pub cache: &'a CacheStep,
    /// Its key.
    pub key: String,
    /// Whether what is stored under this key is damaged.
    pub replaces: bool,
    /// The lowest first.
    pub layers: Vec<Descriptor>,
    /// How many of them are of the cache that the task started from.
    pub known: usize,
}

/// The layers of `cache` that the task started from, out of what was restored.
pub fn restored_layers(cache: &CacheStep, used: &CacheUse, lineage: &Lineage) -> Vec<Descriptor> {
    let places = cache.order..cache.order.saturating_add(used.layers);
    let writers = lineage.writers.iter().filter(|writer| places.contains(&writer.order));
    writers.flat_map(|writer| writer.layers.iter().cloned()).collect()
}

/// Makes the layers of a restored cache available in `store`, where the snapshot of the task will name them.
pub fn bring(
    store: &dyn Store,
    workspace: &WorkspaceStep,
    cache: &CacheStep,
    layers: &[Descriptor],
) -> Result<(), Error> {
    let (own, from) = (workspace.target.parse::<Target>()?, cache.target.parse::<Target>()?);
    if own.repository() == from.repository() || layers.is_empty() {
        return Ok(());
    }
    assemble::bring(store, layers.iter(), Some(&from), &|| Ok(store::open(&from)?))
}

impl PendingCache<'_> {
    /// Stores it, unless another run has by now. That it can't be stored is no error of the task.
    pub fn put(&self, own: &dyn Store, step: &StepConfig, workspace: &WorkspaceStep) {
        let name = self.cache.shown(&workspace.name);
        let (shown, key) = (Line(&name), Line(&self.key));
        match self.try_put(own, step, workspace, &name) {
            Ok(true) => {
                let sent = self.layers.iter().skip(self.known);
                let (layers, bytes) = (self.layers.len(), sent.map(|layer| layer.size).fold(0, u64::saturating_add));
                tracing::info!(
                    event = "cache",
                    key = self.key,
                    layers,
                    bytes,
                    "cache {shown}: saved as key {key}, {} of its own",
                    crate::units::size(bytes)
                );
            }
            Ok(false) => tracing::info!(event = "cache", "cache {shown}: another task saved key {key} meanwhile"),
            Err(error) => {
                let error = error.to_string();
                tracing::warn!(event = "cache", "cache {shown}: key {key} is not saved: {}", Line(&error));
            }
        }
    }

    /// Whether it was stored.
    fn try_put(
        &self,
        own: &dyn Store,
        step: &StepConfig,
        workspace: &WorkspaceStep,
        name: &str,
    ) -> Result<bool, Error> {
        let (target, of_workspace) = (self.cache.target.parse::<Target>()?, workspace.target.parse::<Target>()?);
        let other = if target.repository() == of_workspace.repository() { None } else { Some(store::open(&target)?) };
        let store = other.as_deref().unwrap_or(own);
        let tag = cache_tag(name, &self.cache.scope, &self.key);
        let before = store.digest(&tag)?;
        if before.is_some() && !self.replaces {
            return Ok(false);
        }
        self.check(own, workspace)?;
        if other.is_some() {
            assemble::bring(store, self.layers.iter(), Some(&of_workspace), &|| Ok(store::open(&of_workspace)?))?;
        }
        let mut labels = ImageLabels { expires: self.cache.expires.clone(), ..ImageLabels::of_step(step, workspace) };
        labels.replaces = before.into_iter().collect();
        // Finer than what other images say: the newest one counts.
        labels.annotations.insert(image::CREATED.to_owned(), Timestamp::now().to_string());
        let scope = Some((image::CACHE_SCOPE, &*self.cache.scope)).filter(|(_, scope)| !scope.is_empty());
        let says = [(image::CACHE, name), (image::CACHE_KEY, &*self.key)].into_iter().chain(scope);
        labels.annotations.extend(says.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assemble::put_cache(store, &tag, &self.layers, &labels)?;
        Ok(true)
    }

    /// Refuses what no task would restore.
    fn check(&self, own: &dyn Store, workspace: &WorkspaceStep) -> Result<(), Error> {
        let place = place(self.cache, workspace)?;
        for layer in self.layers.iter().skip(self.known) {
            for entry in read_toc(own, layer)?.iter() {
                let entry = entry?;
                if let Some(problem) = problem(&entry, &place) {
                    return Err(Error::damaged(entry.path.to_string(), problem));
                }
            }
        }
        Ok(())
    }
}
