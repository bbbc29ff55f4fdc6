//! Caches: a workspace, or a folder of it, that starts from what an earlier run left under the same key (docs/caches.md).
//!
//! What a task restores of a cache counts as what further tasks right before it changed, one for each layer: so its snapshot names
//! the layers that are stored already, and whoever comes after it, merges or writes the target needs to know nothing of caches.
//!
//! | module | its one concept |
//! |---|---|
//! | [`hash`] | what a key says of files |
//! | [`find`] | which cache a task starts from |
//! | [`site`] | the folder of a cache, checked before a file is written |
//! | [`found`] | the caches of a restore, as a part of what it is made of |
//! | [`put`] | stores what a task made of one |

pub mod find;
pub mod found;
pub mod hash;
pub mod put;
mod site;

use super::{
    entry::{CAPABILITY, Entry, Node},
    error::Error,
    path::TreePath,
};
use crate::step::{CacheStep, WorkspaceStep};

/// The folders of the caches of `workspace`.
pub fn places(workspace: &WorkspaceStep) -> Result<Vec<TreePath>, Error> {
    workspace.caches.iter().map(|cache| place(cache, workspace)).collect()
}

/// The folder of `cache`.
pub fn place(cache: &CacheStep, workspace: &WorkspaceStep) -> Result<TreePath, Error> {
    TreePath::parse(cache.path.as_bytes())
        .map_err(|error| Error::damaged(format!("cache {}", cache.shown(&workspace.name)), error.to_string()))
}

/// What is wrong with `entry` in a cache of the folder `place`; a clause. A cache is made by another run: nothing of it may be
/// outside, give privileges to a process, or be a device.
fn problem(entry: &Entry, place: &TreePath) -> Option<&'static str> {
    let is_inside = entry.path == *place || place.contains(&entry.path);
    let leads_to_it = entry.path.contains(place) && entry.is_touched();
    let is_file = matches!(entry.node, Node::File(_) | Node::Link { .. });
    match &entry.node {
        _ if !is_inside && !leads_to_it => Some("is outside of its folder"),
        Node::Link { to, .. } if !place.contains(to) => Some("is a link to what is outside of its folder"),
        _ if entry.path == *place && !entry.is_dir() => Some("is there in place of its folder"),
        _ if entry.is_device() => Some("is a device"),
        _ if is_file && entry.mode & 0o6000 != 0 => Some("has setuid or setgid"),
        _ if is_file && entry.xattrs.iter().any(|(name, _)| name == CAPABILITY) => Some("has capabilities"),
        _ => None,
    }
}
