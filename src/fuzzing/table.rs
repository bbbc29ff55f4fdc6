//! The table of contents of a layer, and the headers that belong to its entries.

use tar::EntryType;

use crate::workspace::{
    base,
    entry::{Entry, Node, keeps_xattr},
    layer::{archive, toc::Toc, untar::Untar},
};

/// More of an extended header is not read.
const MAX_HEADER: usize = 1 << 20;

/// Takes `bytes` for the records of a table: whatever entry is accepted has a header that says the same. Gives whether there
/// is one.
pub fn table(bytes: &[u8]) -> bool {
    let payload = zstd::encode_all(bytes, 1).expect("it compresses");
    let mut last = None;
    for entry in Toc::new("the table", payload, u64::MAX).iter().map_while(Result::ok) {
        assert!(last.is_none_or(|last| last < entry.path), "{} is out of order", entry.path);
        header(&entry);
        last = Some(entry.path);
    }
    last.is_some()
}

fn header(entry: &Entry) {
    let mut bytes = Vec::new();
    archive::write_header(&mut bytes, entry);
    if bytes.len() > MAX_HEADER || entry.xattrs.iter().any(|(name, _)| !keeps_xattr(name) || name.contains(&b'=')) {
        return;
    }
    let member = match Untar::new(&bytes[..]).next() {
        Ok(Some(member)) => member,
        other => panic!("{entry:?} has the header {other:?}"),
    };
    let path = base::clean(&member.path);
    if entry.is_whiteout() || entry.path.as_bytes().len() > 4000 {
        return;
    }
    assert_eq!(archive::unescape(&path.expect("a path")), entry.path);
    let (kind, size, link) = match &entry.node {
        Node::Dir { .. } => (EntryType::Directory, 0, None),
        Node::File(content) => (EntryType::Regular, content.size, None),
        Node::Link { to, .. } => (EntryType::Link, 0, Some(to.as_bytes().to_vec())),
        Node::Symlink(target) => (EntryType::Symlink, 0, Some(target.clone())),
        Node::Fifo => (EntryType::Fifo, 0, None),
        Node::Char(_) => (EntryType::Char, 0, None),
        Node::Block(_) => (EntryType::Block, 0, None),
        Node::Whiteout => return,
    };
    assert_eq!((member.kind, member.size), (kind, size), "{entry:?}");
    assert_eq!((member.mode, member.mtime), (entry.mode, entry.mtime), "{entry:?}");
    assert_eq!((member.uid, member.gid), (entry.uid, entry.gid), "{entry:?}");
    if let (Some(link), Node::Symlink(_)) = (link, &entry.node) {
        assert_eq!(member.link, link, "{entry:?}");
    }
}
