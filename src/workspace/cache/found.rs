//! The caches that a restore found, as a part of what it is made of.

use jiff::Timestamp;

use super::site::CheckedCache;
use crate::{
    quote::Line,
    step::{CacheStep, WorkspaceStep},
    store::Store,
    workspace::{
        error::Error,
        layer::toc::Toc,
        path::TreePath,
        snapshot::lineage::{CacheUse, Input, Writer},
    },
};

/// The most layers of a cache that is not stored anew as a whole. A task may add as many again.
const MOST_LAYERS: usize = 24;

/// A cache is stored anew if later layers replaced more of it than is left, and at least this much.
const WASTE: u64 = 64 << 20;

/// What became of the caches of a workspace.
#[derive(Default)]
pub struct Caches<'a> {
    workspace: Option<&'a WorkspaceStep>,
    /// By the workspace's caches.
    pub uses: Vec<CacheUse>,
    /// Those that are restored.
    found: Vec<FoundCache>,
}

/// A cache that is to be restored.
pub struct FoundCache {
    /// Index in [`WorkspaceStep::caches`].
    pub index: usize,
    /// Its key.
    pub key: String,
    /// When it was made, as it says itself.
    pub created: Option<Timestamp>,
    /// Whether that is the key that was looked for.
    pub is_exact: bool,
    /// Where its layers are.
    pub store: Box<dyn Store>,
    /// What it holds.
    pub content: CheckedCache,
}

impl<'a> Caches<'a> {
    /// Those of `workspace`: what became of each, and what was found.
    pub fn new(workspace: &'a WorkspaceStep, uses: Vec<CacheUse>, found: Vec<FoundCache>) -> Self {
        Self { workspace: Some(workspace), uses, found }
    }

    /// `input`, of which `tocs` are the tables of contents, with what the caches have. Each of their layers counts as what a
    /// task changed that came after all before it.
    pub fn on_top_of(&self, input: &Input, tocs: &[Toc]) -> (Input, Vec<Toc>) {
        let (mut input, mut tocs) = (input.clone(), tocs.to_vec());
        input.caches.clone_from(&self.uses);
        for found in &self.found {
            let Some((cache, name)) = self.named(found) else { continue };
            for (order, layer) in (cache.order..).zip(&found.content.layers) {
                let task = format!("cache {name}");
                input.lineage.writers.push(Writer::unsaved(&task, order, &input.lineage, vec![layer.clone()]));
            }
            tocs.extend(found.content.tocs.iter().cloned());
        }
        (input, tocs)
    }

    /// The cache that has the writer at `place` behind those of the input, and the store that has its layer.
    pub fn of_writer(&self, place: usize) -> Option<(usize, &dyn Store)> {
        let counted = self
            .found
            .iter()
            .enumerate()
            .flat_map(|(i, found)| found.content.layers.iter().map(move |_| (i, &*found.store)));
        counted.into_iter().nth(place)
    }

    /// The last one of those that are to be restored.
    pub fn last(&self) -> Option<usize> {
        self.found.len().checked_sub(1)
    }

    /// Leaves out one that can't be restored because of `error`. Returns what may be there of it.
    pub fn leave_out(&mut self, place: usize, error: &Error) -> Vec<TreePath> {
        let found = self.found.remove(place);
        let is_local = is_local(error);
        let (error, name) = (error.to_string(), self.named(&found).map(|(_, name)| name).unwrap_or_default());
        tracing::warn!(event = "cache", "cache {}: not restored: {}", Line(&name), Line(&error));
        if let Some(used) = self.uses.get_mut(found.index) {
            let (key, replaces) = match found.is_exact {
                true if is_local => (None, false),
                true => (Some(found.key), true),
                false => (used.key.take(), used.replaces),
            };
            *used = CacheUse { key, replaces, ..CacheUse::default() };
        }
        found.content.made
    }

    /// What became of the caches, with how many bytes of the layer at each place behind those of the input are in the workspace.
    pub fn with_live(&self, bytes: impl Fn(usize) -> u64) -> Vec<CacheUse> {
        let (mut uses, mut first) = (self.uses.clone(), 0_usize);
        for found in &self.found {
            let end = first.saturating_add(found.content.layers.len());
            let live = (first..end).map(&bytes).fold(0, u64::saturating_add);
            first = end;
            let dead = found.content.bytes.saturating_sub(live);
            if let Some(used) = uses.get_mut(found.index) {
                used.anew = found.content.layers.len() > MOST_LAYERS || dead > live.max(WASTE);
            }
        }
        uses
    }

    /// Says which caches were restored.
    pub fn report(&self) {
        for found in &self.found {
            let Some((_, name)) = self.named(found) else { continue };
            let (key, exact) = (&found.key, found.is_exact);
            let how = if exact { "" } else { ", the newest that a restore key allows," };
            let of = found.created.map(|created| format!(" of {created:.0}")).unwrap_or_default();
            let (name, shown) = (Line(&name), Line(key));
            tracing::info!(event = "cache", exact, key, "cache {name}: restored key {shown}{how}{of}");
        }
    }

    fn named(&self, found: &FoundCache) -> Option<(&CacheStep, String)> {
        let workspace = self.workspace?;
        let cache = workspace.caches.get(found.index)?;
        Some((cache, cache.shown(&workspace.name)))
    }
}

/// Whether this machine is why a cache can't be restored, and not what is stored.
fn is_local(error: &Error) -> bool {
    match error {
        Error::NoSpace { .. } => true,
        // An error of the store has none.
        Error::File { source, .. } => source.raw_os_error().is_some(),
        _ => false,
    }
}
