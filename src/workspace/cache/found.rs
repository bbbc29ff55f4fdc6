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

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::{digest::Digest, store, workspace::layer::descriptor::Descriptor};

    fn step() -> WorkspaceStep {
        serde_json::from_value(serde_json::json!({"name": "w", "path": "/w", "target": "dir:///x"})).unwrap()
    }

    /// A cache with so many layers, whose files have so many bytes.
    fn found(index: usize, is_exact: bool, layers: usize, bytes: u64) -> FoundCache {
        let layer = Descriptor {
            media_type: String::new(),
            digest: Digest::of(b""),
            size: 0,
            annotations: std::collections::BTreeMap::default(),
        };
        let content = CheckedCache { layers: vec![layer; layers], tocs: Vec::new(), bytes, made: Vec::new() };
        let store = store::open(&"dir:///nowhere".parse().unwrap()).unwrap();
        FoundCache { index, key: "k".to_owned(), created: None, is_exact, store, content }
    }

    fn no_space() -> Error {
        let (need, free) = ("2 B".to_owned(), "1 B".to_owned());
        Error::NoSpace { workspace: "w".to_owned(), files: 1, need, free_files: 1, free }
    }

    #[test]
    fn the_last_one_is_left_out_first() {
        let step = step();
        let used = || CacheUse { key: Some("next".to_owned()), layers: 1, ..CacheUse::default() };
        let all = vec![found(0, false, 1, 0), found(1, true, 1, 0)];
        let mut caches = Caches::new(&step, vec![used(), used()], all);
        assert_eq!(caches.last(), Some(1));
        caches.leave_out(1, &Error::damaged("a layer", "it is damaged"));
        // What is stored under this key is damaged.
        let replaced = CacheUse { key: Some("k".to_owned()), replaces: true, ..CacheUse::default() };
        assert_eq!(caches.uses, [used(), replaced.clone()]);
        assert_eq!(caches.last(), Some(0));
        caches.leave_out(0, &no_space());
        // That of another key is not: the task saves its own.
        let own = CacheUse { key: Some("next".to_owned()), ..CacheUse::default() };
        assert_eq!(caches.uses, [own, replaced]);
        assert_eq!(caches.last(), None);
    }

    /// What has the right key and only does not fit here is not stored again.
    #[test]
    fn this_machine_may_be_why() {
        let file = |error: io::Error| Error::file("/x", "can't be written")(error);
        for (error, is_saved) in [
            (no_space(), false),
            (file(io::Error::from_raw_os_error(28)), false),
            (file(io::Error::other("the registry hung up")), true),
            (Error::damaged("a layer", "it is damaged"), true),
        ] {
            let step = step();
            let mut caches = Caches::new(&step, vec![CacheUse::default()], vec![found(0, true, 1, 0)]);
            caches.leave_out(0, &error);
            assert_eq!(caches.uses[0].key.is_some(), is_saved, "{error}");
        }
    }

    #[test]
    fn what_is_stored_anew() {
        let step = step();
        for (layers, bytes, live, anew) in [
            (1, WASTE, 0, false),
            (1, WASTE + 1, 0, true),
            (1, 3 * WASTE, 2 * WASTE, false),
            (1, 4 * WASTE, 2 * WASTE, false),
            (1, 4 * WASTE + 1, 2 * WASTE, true),
            (MOST_LAYERS, 1, 1, false),
            (MOST_LAYERS + 1, 1, 1, true),
        ] {
            // The other one in front of it has all that it had, in its one layer.
            let all = vec![found(0, true, 1, WASTE), found(1, true, layers, bytes)];
            let caches = Caches::new(&step, vec![CacheUse::default(); 2], all);
            let of_layer = |place: usize| [WASTE, live].get(place).copied().unwrap_or_default();
            let uses = caches.with_live(of_layer);
            assert_eq!((uses[0].anew, uses[1].anew), (false, anew), "{layers} layers, {live} of {bytes} bytes");
        }
    }
}
