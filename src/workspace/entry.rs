//! One path of a workspace or of a layer, with everything that is kept of it.

use serde::{Deserialize, Serialize};

use super::path::TreePath;

/// What is known of one path. This is also the record of a table of contents, see [`super::layer::toc`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Where it is.
    pub path: TreePath,
    /// What it is.
    pub node: Node,
    /// Permission bits with setuid, setgid and sticky: at most 0o7777.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Extended attributes, sorted by name: `user.*` and `security.capability` only.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The type of an entry with what belongs to it alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Node {
    /// A directory.
    Dir {
        /// Nothing but its mtime differs from the input of the task: it is here because something below it changed.
        touched: bool,
    },
    /// A regular file.
    File(Content),
    /// A hard link to the regular file at `to`, an earlier entry of the same layer.
    Link {
        /// Where the file is.
        to: TreePath,
        /// What the file holds.
        content: Content,
    },
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// A character device.
    Char(Device),
    /// A block device.
    Block(Device),
    /// The path and everything below it is gone (OCI image-spec, layer.md, "Whiteouts").
    Whiteout,
}

/// The bytes of a regular file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Their number.
    pub size: u64,
    /// Their BLAKE3 hash.
    pub hash: [u8; 32],
}

/// Numbers of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// A point in time since 1970, as the kernel has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Time {
    /// Seconds, negative before 1970.
    pub sec: i64,
    /// Nanoseconds after `sec`: below 1,000,000,000.
    pub nsec: u32,
}

impl Entry {
    /// The whiteout of `path`.
    pub fn whiteout(path: TreePath) -> Self {
        let mtime = Time::default();
        Self { path, node: Node::Whiteout, mode: 0, uid: 0, gid: 0, mtime, xattrs: Vec::new() }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.node, Node::Dir { .. })
    }

    /// Whether it is a directory of which only the mtime changed.
    pub fn is_touched(&self) -> bool {
        self.node == Node::Dir { touched: true }
    }

    /// Whether it is a device.
    pub fn is_device(&self) -> bool {
        matches!(self.node, Node::Char(_) | Node::Block(_))
    }

    /// Whether it is a hard link to an earlier entry.
    pub fn is_link(&self) -> bool {
        matches!(self.node, Node::Link { .. })
    }

    /// Whether it is a whiteout.
    pub fn is_whiteout(&self) -> bool {
        self.node == Node::Whiteout
    }

    /// What a regular file holds, also under the path of a hard link.
    pub fn content(&self) -> Option<&Content> {
        match &self.node {
            Node::File(content) | Node::Link { content, .. } => Some(content),
            _ => None,
        }
    }

    /// Bytes of a regular file; if it has hard links, only under its first path.
    pub fn own_size(&self) -> u64 {
        if let Node::File(content) = &self.node { content.size } else { 0 }
    }

    /// Whether two tasks that left this and `other` at one path left the same: everything but the mtime counts.
    pub fn same_result(&self, other: &Self) -> bool {
        let same_node = match (&self.node, &other.node) {
            (Node::Dir { .. }, Node::Dir { .. }) => true,
            (a, b) => match (self.content(), other.content()) {
                (Some(a), Some(b)) => a == b,
                _ => a == b,
            },
        };
        same_node && self.same_attributes(other)
    }

    /// Whether mode, owner and extended attributes are equal. The mode of a symbolic link means nothing.
    pub fn same_attributes(&self, other: &Self) -> bool {
        let symlinks = matches!((&self.node, &other.node), (Node::Symlink(_), Node::Symlink(_)));
        (symlinks || self.mode == other.mode)
            && (self.uid, self.gid) == (other.uid, other.gid)
            && self.xattrs == other.xattrs
    }
}

/// The extended attribute with the capabilities of a program (capabilities(7), "File capabilities").
pub const CAPABILITY: &[u8] = b"security.capability";

/// Whether the extended attribute is one that travels. Others belong to the machine (labels, overlays).
pub fn keeps_xattr(name: &[u8]) -> bool {
    name.starts_with(b"user.") || name == CAPABILITY
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(node: Node) -> Entry {
        Entry { node, ..Entry::whiteout(TreePath::parse(b"a").unwrap()) }
    }

    fn content(bytes: &[u8]) -> Content {
        Content { size: bytes.len() as u64, hash: *blake3::hash(bytes).as_bytes() }
    }

    #[test]
    fn each_kind_is_what_it_is() {
        let device = || Device { major: 1, minor: 3 };
        let link = Node::Link { to: TreePath::root(), content: content(b"abc") };
        // Directory, touched, device, hard link, whiteout; content and size.
        for (node, kinds, has_content, size) in [
            (Node::Dir { touched: false }, [true, false, false, false, false], false, 0),
            (Node::Dir { touched: true }, [true, true, false, false, false], false, 0),
            (Node::File(content(b"abc")), [false; 5], true, 3),
            (link, [false, false, false, true, false], true, 0),
            (Node::Symlink(b"b".to_vec()), [false; 5], false, 0),
            (Node::Fifo, [false; 5], false, 0),
            (Node::Char(device()), [false, false, true, false, false], false, 0),
            (Node::Block(device()), [false, false, true, false, false], false, 0),
            (Node::Whiteout, [false, false, false, false, true], false, 0),
        ] {
            let entry = entry(node);
            let is = [entry.is_dir(), entry.is_touched(), entry.is_device(), entry.is_link(), entry.is_whiteout()];
            assert_eq!((is, entry.content().is_some(), entry.own_size()), (kinds, has_content, size), "{entry:?}");
        }
    }

    #[test]
    fn what_two_tasks_left_alike() {
        let file = entry(Node::File(content(b"abc")));
        let link = entry(Node::Link { to: TreePath::root(), content: content(b"abc") });
        let (dir, touched) = (entry(Node::Dir { touched: false }), entry(Node::Dir { touched: true }));
        let symlink = entry(Node::Symlink(b"b".to_vec()));
        let later = Time { sec: 1, nsec: 0 };
        for (a, b, same) in [
            (&file, &file.clone(), true),
            (&file, &link, true),
            (&file, &entry(Node::File(content(b"abd"))), false),
            (&file, &Entry { mtime: later, ..file.clone() }, true),
            (&file, &Entry { mode: 0o755, ..file.clone() }, false),
            (&file, &Entry { uid: 1, ..file.clone() }, false),
            (&file, &Entry { gid: 1, ..file.clone() }, false),
            (&file, &Entry { xattrs: vec![(b"user.a".to_vec(), b"b".to_vec())], ..file.clone() }, false),
            (&file, &dir, false),
            (&file, &symlink, false),
            (&dir, &touched, true),
            (&dir, &Entry { mode: 0o755, ..touched.clone() }, false),
            (&symlink, &Entry { mode: 0o777, ..symlink.clone() }, true),
            (&symlink, &entry(Node::Symlink(b"c".to_vec())), false),
            (&symlink, &entry(Node::Fifo), false),
        ] {
            assert_eq!((a.same_result(b), b.same_result(a)), (same, same), "{a:?} {b:?}");
        }
    }

    #[test]
    fn attributes_that_travel() {
        for (name, travels) in [
            ("user.note", true),
            ("security.capability", true),
            ("security.selinux", false),
            ("trusted.overlay.opaque", false),
            ("users.x", false),
        ] {
            assert_eq!(keeps_xattr(name.as_bytes()), travels, "{name}");
        }
    }
}
