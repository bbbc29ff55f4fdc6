//! Paths within a workspace, and the order in which everything here is sorted.

use std::{cmp::Ordering, fmt};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::quote::Quoted;

/// Longer paths, in bytes, are refused: hardly any program can use them, and each one is in tables and in memory.
pub const MAX_LEN: usize = 64 * 1024;

/// A path relative to the workspace, as bytes: names joined by `/`, none of them empty, `.` or `..`. The root is empty.
///
/// Its order is **tree order**: names are compared one by one as bytes, so that what a directory holds follows the
/// directory itself: `a`, `a/b`, `a-b`.
#[derive(Default, PartialEq, Eq, Hash)]
pub struct TreePath(Vec<u8>);

/// Bytes that are no path within a workspace.
#[derive(Debug, thiserror::Error)]
#[error("{path:?} is not a path within a workspace: {why}")]
pub struct InvalidPath {
    path: String,
    why: &'static str,
}

impl TreePath {
    /// The workspace itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Checks `bytes`. Nothing is normalised: `a//b`, `./a` and `a/` are refused.
    pub fn parse(bytes: &[u8]) -> Result<Self, InvalidPath> {
        let invalid = |why| Err(InvalidPath { path: lossy(bytes.get(..200).unwrap_or(bytes)), why });
        if bytes.is_empty() {
            return Ok(Self::root());
        }
        if bytes.len() > MAX_LEN {
            return invalid("it is too long");
        }
        if bytes.starts_with(b"/") {
            return invalid("it is absolute");
        }
        if bytes.contains(&0) {
            return invalid("it holds a zero byte");
        }
        for name in bytes.split(|&b| b == b'/') {
            match name {
                b"" => return invalid("it holds an empty name"),
                b"." => return invalid("it holds the name \".\""),
                b".." => return invalid("it holds the name \"..\""),
                _ => {}
            }
        }
        Ok(Self(bytes.to_owned()))
    }

    /// The path of `name` in this directory. `name` must be a single name, as a directory listing gives it.
    pub fn join(&self, name: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(self.0.len().saturating_add(name.len()).saturating_add(1));
        bytes.extend_from_slice(&self.0);
        if !self.is_root() {
            bytes.push(b'/');
        }
        bytes.extend_from_slice(name);
        Self(bytes)
    }

    /// The directory that holds it; none for the root.
    pub fn parent(&self) -> Option<Self> {
        match self.0.iter().rposition(|&b| b == b'/') {
            Some(slash) => Some(Self(self.0.get(..slash).unwrap_or_default().to_owned())),
            None if self.is_root() => None,
            None => Some(Self::root()),
        }
    }

    /// The first part of the path, which has `len` bytes and ends where a name ends, and the rest as a path of its own.
    pub fn split_at(&self, len: usize) -> (Self, Self) {
        let (first, rest) = self.0.split_at_checked(len).unwrap_or((&self.0, &[]));
        (Self(first.to_owned()), Self(rest.strip_prefix(b"/").unwrap_or(rest).to_owned()))
    }

    /// The last name; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|&b| b == b'/').next().unwrap_or_default()
    }

    /// The names from the root on.
    pub fn names(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|&b| b == b'/').filter(|name| !name.is_empty())
    }

    /// Whether it is the workspace itself.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `other` lies below this path (a path does not lie below itself).
    pub fn contains(&self, other: &Self) -> bool {
        if self.is_root() {
            return !other.is_root();
        }
        other.0.get(self.0.len()) == Some(&b'/') && other.0.starts_with(&self.0)
    }

    /// The bytes, names joined by `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl Clone for TreePath {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }

    /// Keeps what is allocated: tables of contents have millions of paths.
    fn clone_from(&mut self, other: &Self) {
        self.0.clone_from(&other.0);
    }
}

impl Ord for TreePath {
    fn cmp(&self, other: &Self) -> Ordering {
        // No name holds a zero byte, so a separator that counts as zero sorts names one by one.
        let rank = |b: u8| if b == b'/' { 0 } else { b };
        let shared = shared_prefix(&self.0, &other.0);
        match (self.0.get(shared), other.0.get(shared)) {
            (Some(&a), Some(&b)) => rank(a).cmp(&rank(b)),
            _ => self.0.len().cmp(&other.0.len()),
        }
    }
}

impl PartialOrd for TreePath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// As it is, or quoted if that would not be one line of printable characters.
impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_root() { f.write_str(".") } else { Quoted(&self.0).fmt(f) }
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", lossy(&self.0))
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for TreePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = TreePath;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the bytes of a path within a workspace")
            }

            fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<TreePath, E> {
                TreePath::parse(bytes).map_err(E::custom)
            }
        }
        deserializer.deserialize_bytes(Visitor)
    }
}

/// The number of bytes that `a` and `b` have in common at their beginning. As fast as memory: paths may be long.
pub fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    const BLOCK: usize = 64;
    let blocks = a.chunks_exact(BLOCK).zip(b.chunks_exact(BLOCK)).take_while(|(a, b)| a == b).count();
    let start = blocks.saturating_mul(BLOCK);
    let rest = a.iter().skip(start).zip(b.iter().skip(start)).take_while(|(a, b)| a == b).count();
    start.saturating_add(rest)
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn tree_order() {
        let sorted = ["", "a", "a/b", "a/b/c", "a/b-c", "a-b", "a.b", "ab"].map(path);
        for (i, a) in sorted.iter().enumerate() {
            for (j, b) in sorted.iter().enumerate() {
                assert_eq!(a.cmp(b), i.cmp(&j), "{a} {b}");
            }
        }
    }

    #[test]
    fn refuses() {
        for bad in [&b"/a"[..], b"a//b", b"a/", b".", b"./a", b"a/..", b"../a", b"a\0b", b"a/./b"] {
            assert!(TreePath::parse(bad).is_err(), "{bad:?}");
        }
        let long = |len: usize| TreePath::parse(&vec![b'a'; len]);
        assert!(long(MAX_LEN).is_ok() && long(MAX_LEN + 1).is_err() && long(2 * MAX_LEN).is_err());
        let shown = TreePath::parse(b"a//b").unwrap_err().to_string();
        assert_eq!(shown, r#""a//b" is not a path within a workspace: it holds an empty name"#);
    }

    #[test]
    fn parts() {
        assert_eq!(path("a/b").parent(), Some(path("a")));
        assert_eq!(path("a").parent(), Some(TreePath::root()));
        assert_eq!(TreePath::root().parent(), None);
        assert_eq!(path("a/b").name(), b"b");
        assert_eq!(TreePath::root().join(b"a").join(b"b"), path("a/b"));
        assert_eq!(path("a/b/c").split_at(3), (path("a/b"), path("c")));
        assert_eq!(path("a/b").split_at(0), (TreePath::root(), path("a/b")));
        assert_eq!(path("a/b").split_at(3), (path("a/b"), TreePath::root()));
        assert!(
            path("a").contains(&path("a/b")) && !path("a").contains(&path("ab")) && !path("a").contains(&path("a"))
        );
        assert!(TreePath::root().contains(&path("a")) && !TreePath::root().contains(&TreePath::root()));
    }

    #[test]
    fn prefixes_of_any_length() {
        let long = vec![7; 1000];
        for at in [0, 1, 63, 64, 65, 999] {
            let mut other = long.clone();
            other[at] = 8;
            assert_eq!(shared_prefix(&long, &other), at);
            assert_eq!(shared_prefix(&long[..at], &long), at);
        }
    }

    proptest! {
        #[test]
        fn order_is_by_names(a in "[a-c/.!]{0,8}", b in "[a-c/.!]{0,8}") {
            if let (Ok(a), Ok(b)) = (TreePath::parse(a.as_bytes()), TreePath::parse(b.as_bytes())) {
                prop_assert_eq!(a.cmp(&b), a.names().collect::<Vec<_>>().cmp(&b.names().collect::<Vec<_>>()));
            }
        }
    }
}
