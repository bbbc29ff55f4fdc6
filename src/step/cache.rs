//! Caches: what of a workspace starts from what an earlier run left of it.

use serde::{Deserialize, Serialize};

use super::is_default;

/// Each cache of a task has so many places in pipeline order, right before the task's own: one for each layer of its image.
pub const CACHE_PLACES: u32 = 64;

/// The placeholder in a key for the hash of files.
pub const HASH: &str = "{{hash}}";

/// A cache of one workspace, as a task restores and saves it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheStep {
    /// Which folder of the workspace; empty: all of it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub path: String,
    /// Where it is stored: a repository, as [`crate::target::Target`]; its tag means nothing.
    pub target: String,
    /// What names the content, with [`HASH`] for the hash of `files`.
    pub key: String,
    /// What the hash is of.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<CacheFiles>,
    /// Beginnings of keys: if no cache has the key, the newest one whose key begins so is taken, the first of these first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub restore_keys: Vec<String>,
    /// Whose cache it is, a branch for example. What is saved is of this scope.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// A scope whose caches are restored too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_scope: Option<String>,
    /// Whether a file with the same content and attributes as before counts as unchanged whatever its mtime is.
    #[serde(default, skip_serializing_if = "is_default")]
    pub ignore_mtimes: bool,
    /// How long it is to be kept, for `quay.expires-after`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// The first of its [`CACHE_PLACES`].
    pub order: u32,
}

/// Files of one workspace.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CacheFiles {
    /// Name of the workspace in the Pipeline.
    pub workspace: String,
    /// Which of its files: patterns as gitignore has them, see [`crate::globs::Globs`].
    pub patterns: Vec<String>,
}

impl CacheStep {
    /// How messages name it: the workspace, and the folder in it.
    pub fn shown(&self, workspace: &str) -> String {
        if self.path.is_empty() { workspace.to_owned() } else { format!("{workspace}/{}", self.path) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_workspace_and_the_folder() {
        for (path, shown) in [("", "source"), ("web/node_modules", "source/web/node_modules")] {
            let json = serde_json::json!({"path": path, "target": "quay.io/a/b", "key": "k", "order": 0});
            let cache: CacheStep = serde_json::from_value(json).unwrap();
            assert_eq!(cache.shown("source"), shown);
        }
    }
}
