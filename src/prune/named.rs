//! What tags name: manifests, and all that an index (an image for several platforms) consists of. A registry deletes a member
//! of an index as readily as anything else.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;

use crate::{
    digest::Digest,
    store::{ManifestHead, Store},
    workspace::{Error, threads},
};

/// So many indexes that no tag names, but other indexes, are read.
const INNER: usize = 1000;

/// Digests that are in use.
#[derive(Debug, Default)]
pub struct NamedImages {
    /// By how many tags.
    tags: HashMap<Digest, usize>,
    members: HashSet<Digest>,
}

/// An index, as far as its members are named; those of anything else are none.
#[derive(Default, Deserialize)]
struct MemberList {
    #[serde(default)]
    manifests: Vec<IndexMember>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct IndexMember {
    digest: String,
    media_type: Option<String>,
}

impl NamedImages {
    /// What these tags name.
    pub fn by(store: &dyn Store, tags: &[&String]) -> Result<Self, Error> {
        let heads = threads::for_each(tags, |_, tag| Ok::<_, Error>(store.head(tag)?))?;
        Self::by_heads(store, heads.into_iter().flatten())
    }

    /// What tags name that have these manifests, each as often as it has tags.
    pub fn by_heads(store: &dyn Store, heads: impl IntoIterator<Item = ManifestHead>) -> Result<Self, Error> {
        let (mut named, mut indexes) = (Self::default(), Vec::new());
        for head in heads {
            let count = named.tags.entry(head.digest).or_default();
            if *count == 0 && head.may_be_index() {
                indexes.push(head.digest);
            }
            *count = count.saturating_add(1);
        }
        named.add_members(store, indexes)?;
        Ok(named)
    }

    fn add_members(&mut self, store: &dyn Store, mut indexes: Vec<Digest>) -> Result<(), Error> {
        let mut inner = 0_usize;
        while let Some(first) = indexes.first() {
            if inner > INNER {
                let problem = format!(
                    "indexes consist of more than {INNER} other indexes, so that it is not known what is in use; delete those that are of no use"
                );
                return Err(Error::damaged(first.to_string(), problem));
            }
            let members = threads::for_each(&indexes, |_, digest| members(store, digest))?;
            indexes.clear();
            for member in members.into_iter().flatten() {
                if self.members.insert(member.digest) && member.may_be_index() {
                    indexes.push(member.digest);
                }
            }
            inner = inner.saturating_add(indexes.len());
        }
        Ok(())
    }

    /// One more digest, under a tag.
    pub fn insert(&mut self, digest: Digest) {
        let count = self.tags.entry(digest).or_default();
        *count = count.saturating_add(1);
    }

    /// Whether it must not be deleted.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.tags.contains_key(digest) || self.members.contains(digest)
    }

    /// Whether it must not be deleted with one of its tags.
    pub fn has_another(&self, digest: &Digest) -> bool {
        self.tags.get(digest).is_some_and(|count| *count > 1) || self.members.contains(digest)
    }
}

/// What the index consists of; a digest of a kind that we don't know is none that we delete.
fn members(store: &dyn Store, index: &Digest) -> Result<Vec<ManifestHead>, Error> {
    let Some(found) = store.manifest(&index.to_string())? else { return Ok(Vec::new()) };
    let MemberList { manifests } = serde_json::from_slice(&found.bytes).unwrap_or_default();
    let head =
        |member: IndexMember| Some(ManifestHead { digest: member.digest.parse().ok()?, media_type: member.media_type });
    Ok(manifests.into_iter().filter_map(head).collect())
}
