//! What a key says of files: a hash over their paths and contents, as the tasks before left them.

use std::collections::HashMap;

use crate::{
    digest::{Digest, Hasher},
    globs::Globs,
    step::{CacheFiles, CacheStep, HASH, StepConfig},
    workspace::{
        entry::Node,
        error::Error,
        snapshot::{merge::kept, view::View},
    },
};

/// Hashes of the files that the caches of a step name, as far as their workspaces have been seen.
#[derive(Default)]
pub struct FileHashes {
    wanted: Vec<(CacheFiles, Globs)>,
    /// Those that match anything.
    found: HashMap<CacheFiles, Digest>,
}

impl FileHashes {
    /// For the caches of `step`.
    pub fn wanted_by(step: &StepConfig) -> Result<Self, Error> {
        let all = step.workspaces.iter().flat_map(|workspace| &workspace.caches).flat_map(|cache| &cache.files);
        let mut wanted: Vec<(CacheFiles, Globs)> = Vec::new();
        for files in all {
            if wanted.iter().all(|(known, _)| known != files) {
                wanted.push((files.clone(), Globs::new(&files.patterns).map_err(Error::CacheFiles)?));
            }
        }
        Ok(Self { wanted, found: HashMap::new() })
    }

    /// Takes the files of `workspace` from `view`: also those that the task itself does not restore.
    pub fn see(&mut self, workspace: &str, view: &View<'_>) -> Result<(), Error> {
        let wanted: Vec<_> = self.wanted.iter().filter(|(files, _)| files.workspace == workspace).collect();
        if wanted.is_empty() {
            return Ok(());
        }
        let mut hashers: Vec<Option<Hasher>> = vec![None; wanted.len()];
        view.for_each(&mut |group, outcome| {
            let Some(entry) = kept(group, &outcome) else { return Ok(()) };
            let (kind, content): (u8, &[u8]) = match &entry.node {
                Node::File(content) | Node::Link { content, .. } => (0, &content.hash),
                Node::Symlink(target) => (1, target),
                _ => return Ok(()),
            };
            let path = entry.path.as_bytes();
            for ((_, globs), hasher) in wanted.iter().zip(&mut hashers) {
                if globs.matches(path, false) {
                    let hasher = hasher.get_or_insert_default();
                    [&[kind][..], path, content].iter().for_each(|part| add(hasher, part));
                }
            }
            Ok(())
        })?;
        for ((files, _), hasher) in wanted.into_iter().zip(hashers) {
            self.found.extend(hasher.map(|hasher| (files.clone(), hasher.finish())));
        }
        Ok(())
    }

    /// The key of `cache`; none if it has a hash in it and no file matches.
    pub fn key(&self, cache: &CacheStep) -> Option<String> {
        if !cache.key.contains(HASH) {
            return Some(cache.key.clone());
        }
        let found: Vec<Option<&Digest>> = cache.files.iter().map(|files| self.found.get(files)).collect();
        if found.iter().all(Option::is_none) {
            return None;
        }
        let shown: Vec<String> = found.iter().map(|digest| digest.map(Digest::hex).unwrap_or_default()).collect();
        Some(cache.key.replace(HASH, &Digest::of(shown.join("\n").as_bytes()).hex()))
    }
}

/// Adds a string so that no two lists of strings look the same.
fn add(hasher: &mut Hasher, part: &[u8]) {
    hasher.update(&(part.len() as u64).to_le_bytes());
    hasher.update(part);
}
