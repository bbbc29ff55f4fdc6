//! Places in a workspace at which other containers of the pod have something else mounted.
//!
//! The container runtime makes an empty file or a directory there as mount point, with the directories above it. If that is
//! removed or replaced, the kernel takes the mount away from the container that has it (Linux: fs/namei.c, `detach_mounts`).

use std::collections::BTreeSet;

use crate::workspace::path::TreePath;

/// Paths of mount points. Nothing at them, or on the way to them, may be removed or replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MountPoints(BTreeSet<TreePath>);

impl MountPoints {
    /// Those at `paths`. One that is no path within the workspace can't be in the way of anything in it.
    pub fn new(paths: &[String]) -> Self {
        let parsed = paths.iter().filter_map(|path| TreePath::parse(path.as_bytes()).ok());
        Self(parsed.filter(|path| !path.is_root()).collect())
    }

    /// Whether `path` is one of them.
    pub fn contains(&self, path: &TreePath) -> bool {
        self.0.contains(path)
    }

    /// Whether `path` is one of them or leads to one.
    pub fn needs(&self, path: &TreePath) -> bool {
        // What lies below a path follows it at once.
        self.0.range(path..).next().is_some_and(|first| first == path || path.contains(first))
    }

    /// Whether `path` lies below one of them.
    pub fn hides(&self, path: &TreePath) -> bool {
        !self.0.is_empty() && std::iter::successors(path.parent(), TreePath::parent).any(|above| self.contains(&above))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_and_what_is_hidden() {
        let mounts = MountPoints::new(&["etc/app/config.json", "cache", "", "/bad", "../out"].map(str::to_owned));
        let path = |text: &str| TreePath::parse(text.as_bytes()).unwrap();
        for (text, contains, needs, hides) in [
            ("", false, true, false),
            ("etc", false, true, false),
            ("etc/app", false, true, false),
            ("etc/app/config.json", true, true, false),
            ("etc/app/config", false, false, false),
            ("etc/app/config.json/x", false, false, true),
            ("cache", true, true, false),
            ("cache/a/b", false, false, true),
            ("cach", false, false, false),
            ("d", false, false, false),
        ] {
            let path = path(text);
            assert_eq!(
                (mounts.contains(&path), mounts.needs(&path), mounts.hides(&path)),
                (contains, needs, hides),
                "{text}"
            );
        }
        assert!(!MountPoints::default().needs(&TreePath::root()));
    }
}
