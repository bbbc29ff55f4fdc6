//! The tar format of our layers: what stands in front of an entry's content, as a pure function of the entry.
//!
//! POSIX ustar headers, with an extended header (pax) in front if a value does not fit: POSIX.1-2024, pax, "pax
//! Interchange Format". Because the same entry always gives the same bytes, a reader that has the table of contents need
//! not parse an archive: it knows what must stand there.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "fields of a block of 512 bytes, lengths of what is in memory"
)]

use crate::workspace::{
    entry::{Entry, Node, Time},
    path::TreePath,
};

/// Archives are made of blocks of this size.
pub const BLOCK: u64 = 512;

/// What ends an archive.
pub const END: [u8; 2 * BLOCK as usize] = [0; 2 * BLOCK as usize];

/// A name that begins like this is a whiteout (OCI image-spec, layer.md, "Whiteouts").
pub const WHITEOUT: &[u8] = b".wh.";

/// Stands in front of a name that would be taken for a whiteout, or that begins with this itself.
const ESCAPE: &[u8] = b".tekton-wrap.";

/// Bytes that a name or a link target has room for in a ustar header.
const NAME_ROOM: usize = 100;

/// Writes what stands in front of the content of `entry`.
pub fn write_header(out: &mut Vec<u8>, entry: &Entry) {
    let name = archive_name(entry);
    let link = match &entry.node {
        Node::Link { to, .. } => plain_name(to),
        Node::Symlink(target) => target.clone(),
        _ => Vec::new(),
    };
    let size = match &entry.node {
        Node::File(content) => content.size,
        _ => 0,
    };
    let mut pax = Pax::default();
    if name.len() > NAME_ROOM {
        pax.add(b"path", &name);
    }
    if link.len() > NAME_ROOM {
        pax.add(b"linkpath", &link);
    }
    for (key, number, field) in [(&b"size"[..], size, 12), (b"uid", entry.uid.into(), 8), (b"gid", entry.gid.into(), 8)]
    {
        if octal_overflows(number, field) {
            pax.add(key, &decimal(number));
        }
    }
    let whole = entry.mtime.nsec == 0 && u64::try_from(entry.mtime.sec).is_ok_and(|sec| !octal_overflows(sec, 12));
    if !whole {
        pax.add(b"mtime", &pax_time(entry.mtime));
    }
    if !matches!(entry.node, Node::Link { .. }) {
        for (name, value) in &entry.xattrs {
            pax.add(&[b"SCHILY.xattr.", &name[..]].concat(), value);
        }
    }
    if !pax.0.is_empty() {
        header(out, b"PaxHeaders/x", b"", b'x', 0o644, [0, 0, pax.0.len() as u64, 0], [0, 0]);
        out.extend_from_slice(&pax.0);
        out.resize(out.len() + padding(pax.0.len() as u64), 0);
    }
    let (kind, device) = match &entry.node {
        Node::File(_) | Node::Whiteout => (b'0', [0, 0]),
        Node::Link { .. } => (b'1', [0, 0]),
        Node::Symlink(_) => (b'2', [0, 0]),
        Node::Char(device) => (b'3', [device.major, device.minor]),
        Node::Block(device) => (b'4', [device.major, device.minor]),
        Node::Dir { .. } => (b'5', [0, 0]),
        Node::Fifo => (b'6', [0, 0]),
    };
    let mtime = u64::try_from(entry.mtime.sec).unwrap_or(0);
    header(out, &name, &link, kind, entry.mode, [entry.uid.into(), entry.gid.into(), size, mtime], device);
}

/// Zero bytes that fill the last block after `size` bytes of content.
pub fn padding(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK) as usize
}

/// The path of `entry` in the archive: a whiteout is a file of its own name, a directory ends in a slash.
fn archive_name(entry: &Entry) -> Vec<u8> {
    match entry.node {
        Node::Whiteout => {
            let mut name = entry.path.parent().map(|parent| plain_name(&parent)).unwrap_or_default();
            if !name.is_empty() {
                name.push(b'/');
            }
            name.extend_from_slice(WHITEOUT);
            escape(entry.path.name(), &mut name);
            name
        }
        Node::Dir { .. } if entry.path.is_root() => b"./".to_vec(),
        Node::Dir { .. } => {
            let mut name = plain_name(&entry.path);
            name.push(b'/');
            name
        }
        _ => plain_name(&entry.path),
    }
}

fn plain_name(path: &TreePath) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.as_bytes().len() + 1);
    for (i, name) in path.names().enumerate() {
        if i > 0 {
            plain.push(b'/');
        }
        escape(name, &mut plain);
    }
    plain
}

/// The path that is stored as `stored` in a layer of ours, without the prefix that names carry which an image can't hold.
/// Only in front of such names is it a prefix: whoever made the layer may have written anything behind it, `..` too.
pub fn unescape(stored: &TreePath) -> TreePath {
    let plain = |name: &[u8]| name.strip_prefix(ESCAPE).filter(|rest| needs_escape(rest)).unwrap_or(name).to_vec();
    stored.names().fold(TreePath::default(), |path, name| path.join(&plain(name)))
}

fn escape(name: &[u8], out: &mut Vec<u8>) {
    if needs_escape(name) {
        out.extend_from_slice(ESCAPE);
    }
    out.extend_from_slice(name);
}

fn needs_escape(name: &[u8]) -> bool {
    name.starts_with(WHITEOUT) || name.starts_with(ESCAPE)
}

/// Seconds with as many decimals as are needed: exact, never rounded.
fn pax_time(Time { sec, nsec }: Time) -> Vec<u8> {
    // Before 1970 the fraction counts towards it.
    let (sec, nsec, is_negative) = match (sec < 0, nsec) {
        (true, 1..) => ((sec + 1).unsigned_abs(), 1_000_000_000 - nsec, true),
        (is_negative, nsec) => (sec.unsigned_abs(), nsec, is_negative),
    };
    let mut text = if is_negative { b"-".to_vec() } else { Vec::new() };
    text.extend(decimal(sec));
    if nsec > 0 {
        text.push(b'.');
        // A digit more in front keeps zeros.
        text.extend_from_slice(&decimal(1_000_000_000 + u64::from(nsec))[1..]);
        text.truncate(text.iter().rposition(|&digit| digit != b'0').map_or(0, |last| last + 1));
    }
    text
}

/// Without the machinery of formatting: there are several for each file.
fn decimal(mut value: u64) -> Vec<u8> {
    let (mut digits, mut at) = ([0; 20], 20);
    loop {
        at -= 1;
        digits[at] = b'0' + (value % 10) as u8;
        value /= 10;
        if value == 0 {
            return digits[at..].to_vec();
        }
    }
}

fn octal_overflows(value: u64, field: usize) -> bool {
    value >> (3 * (field - 1)) != 0
}

/// A ustar header. Of `numbers` (uid, gid, size, mtime) those that don't fit are zero: they are in the extended header.
fn header(out: &mut Vec<u8>, name: &[u8], link: &[u8], kind: u8, mode: u32, numbers: [u64; 4], device: [u32; 2]) {
    let mut block = [0; BLOCK as usize];
    let text = |block: &mut [u8; BLOCK as usize], at: usize, room: usize, bytes: &[u8]| {
        let len = bytes.len().min(room);
        block[at..at + len].copy_from_slice(&bytes[..len]);
    };
    let octal = |block: &mut [u8; BLOCK as usize], at: usize, field: usize, value: u64| {
        let mut value = if octal_overflows(value, field) { 0 } else { value };
        for digit in block[at..at + field - 1].iter_mut().rev() {
            *digit = b'0' + (value & 7) as u8;
            value >>= 3;
        }
    };
    let [uid, gid, size, mtime] = numbers;
    text(&mut block, 0, NAME_ROOM, name);
    octal(&mut block, 100, 8, mode.into());
    octal(&mut block, 108, 8, uid);
    octal(&mut block, 116, 8, gid);
    octal(&mut block, 124, 12, size);
    octal(&mut block, 136, 12, mtime);
    text(&mut block, 148, 8, b"        ");
    block[156] = kind;
    text(&mut block, 157, NAME_ROOM, link);
    text(&mut block, 257, 8, b"ustar\x0000");
    octal(&mut block, 329, 8, device[0].into());
    octal(&mut block, 337, 8, device[1].into());
    let sum: u64 = block.iter().map(|&b| u64::from(b)).sum();
    octal(&mut block, 148, 7, sum);
    block[154] = 0;
    out.extend_from_slice(&block);
}

/// Records of an extended header: `<length> <name>=<value>\n`.
#[derive(Default)]
struct Pax(Vec<u8>);

impl Pax {
    fn add(&mut self, name: &[u8], value: &[u8]) {
        let rest = name.len() + value.len() + 3;
        // The length counts its own digits.
        let mut len = decimal(rest as u64 + 1);
        loop {
            let longer = decimal((rest + len.len()) as u64);
            if longer == len {
                break;
            }
            len = longer;
        }
        self.0.extend_from_slice(&len);
        self.0.push(b' ');
        self.0.extend_from_slice(name);
        self.0.push(b'=');
        self.0.extend_from_slice(value);
        self.0.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::entry::Content;

    fn entry(path: &str, node: Node) -> Entry {
        let path = TreePath::parse(path.as_bytes()).unwrap();
        Entry { path, node, mode: 0o644, uid: 1, gid: 2, mtime: Time { sec: 3, nsec: 0 }, xattrs: Vec::new() }
    }

    /// What the tar crate reads back from the header: path, link, uid, size, mtime text.
    fn parsed(entry: &Entry) -> (String, String, u64, u64, String) {
        let mut bytes = Vec::new();
        write_header(&mut bytes, entry);
        bytes.extend_from_slice(&END);
        let mut archive = tar::Archive::new(&bytes[..]);
        let mut found = archive.entries().unwrap().next().unwrap().unwrap();
        let mut mtime = found.header().mtime().unwrap().to_string();
        for extension in found.pax_extensions().unwrap().into_iter().flatten() {
            let extension = extension.unwrap();
            if extension.key_bytes() == b"mtime" {
                mtime = extension.value().unwrap().to_owned();
            }
        }
        let link = found.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned());
        let path = String::from_utf8_lossy(&found.path_bytes()).into_owned();
        let uid = found.header().uid().unwrap();
        (path, link.unwrap_or_default(), uid, found.size(), mtime)
    }

    #[test]
    fn names() {
        let file = || Node::File(Content::default());
        let long = "d/".repeat(70) + "f";
        for (path, node, name) in [
            ("a/b", file(), "a/b"),
            ("", Node::Dir { touched: false }, "./"),
            ("a", Node::Dir { touched: true }, "a/"),
            ("a/b", Node::Whiteout, "a/.wh.b"),
            ("b", Node::Whiteout, ".wh.b"),
            (".wh.a/x", file(), ".tekton-wrap..wh.a/x"),
            (".wh.b", Node::Whiteout, ".wh..tekton-wrap..wh.b"),
            (".tekton-wrap.x", file(), ".tekton-wrap..tekton-wrap.x"),
            (&long, file(), &long),
        ] {
            assert_eq!(parsed(&entry(path, node)).0, name);
        }
    }

    #[test]
    fn values_that_need_an_extended_header() {
        let mut big = entry("f", Node::File(Content { size: 0, hash: [0; 32] }));
        big.uid = 1_000_650_000;
        big.mtime = Time { sec: -2, nsec: 500_000_000 };
        let (.., uid, size, mtime) = parsed(&big);
        assert_eq!((uid, size, mtime.as_str()), (1_000_650_000, 0, "-1.5"));
        let link = entry("l", Node::Symlink("t".repeat(101).into()));
        assert_eq!(parsed(&link).1, "t".repeat(101));
        assert_eq!(parsed(&entry("l", Node::Symlink(b"t".to_vec()))).1, "t");
    }

    #[test]
    fn times() {
        for (sec, nsec, text) in [
            (0, 0, "0"),
            (1, 1, "1.000000001"),
            (10, 100_000_000, "10.1"),
            (-1, 999_999_999, "-0.000000001"),
            (-2, 500_000_000, "-1.5"),
            (-2, 0, "-2"),
            (i64::MIN, 1, "-9223372036854775807.999999999"),
            (100, 0, "100"),
        ] {
            assert_eq!(String::from_utf8(pax_time(Time { sec, nsec })).unwrap(), text);
        }
    }

    #[test]
    fn numbers() {
        for value in [0, 1, 7, 8, 9, 10, 99, 100, 1_000_000_000, u64::MAX] {
            assert_eq!(decimal(value), value.to_string().into_bytes());
        }
        let mut out = Vec::new();
        header(&mut out, b"n", b"", b'3', 0o7654, [0, 8, 0o77_777_777_777, 1 << 33], [0o7_777_777, 1 << 21]);
        for (at, says) in [
            (100, "0007654\0"),
            (108, "0000000\0"),
            (116, "0000010\0"),
            (124, "77777777777\0"),
            (136, "00000000000\0"),
            (329, "7777777\0"),
            // One that does not fit.
            (337, "0000000\0"),
        ] {
            assert_eq!(std::str::from_utf8(&out[at..at + says.len()]).unwrap(), says, "{at}");
        }
    }

    #[test]
    fn record_lengths_count_themselves() {
        for len in 0..200 {
            let mut pax = Pax::default();
            pax.add(b"path", &vec![b'x'; len]);
            let space = pax.0.iter().position(|&b| b == b' ').unwrap();
            assert_eq!(std::str::from_utf8(&pax.0[..space]).unwrap(), pax.0.len().to_string());
        }
    }
}
