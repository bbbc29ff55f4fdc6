//! Layers that others made, applied one after the other (OCI image-spec, layer.md): tar archives of any kind, with
//! whiteouts and opaque whiteouts, and no table of contents.

use std::{
    cell::Cell,
    collections::BTreeMap,
    io::{self, Read},
    path::Path,
    rc::Rc,
};

use tar::EntryType;

use super::{
    archive,
    archive::WHITEOUT,
    codec,
    entry::{Content, Entry, Node, Time},
    error::Error,
    extract::Extractor,
    image::Descriptor,
    path::TreePath,
    tree,
};
use crate::store::Store;

/// Headers of one entry, with all extended ones, may take this many bytes: they are held in memory.
const MAX_HEADERS: u64 = 1 << 20;

/// The whiteout of everything that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Applies layers to a workspace and knows what is in it then.
pub struct Base {
    extractor: Extractor,
    /// What is there, with the number of the layer that made it.
    entries: BTreeMap<TreePath, (usize, Entry)>,
}

/// Lets a limited number of bytes through, until the limit is set anew.
struct Limited<R> {
    inner: R,
    left: Rc<Cell<u64>>,
}

impl Base {
    /// For the workspace in the directory `root`, which is empty.
    pub fn new(root: &Path) -> Result<Self, Error> {
        Ok(Self { extractor: Extractor::new(root)?, entries: BTreeMap::new() })
    }

    /// Applies `layer`, the next higher one. Directories get no attributes yet.
    pub fn apply(&mut self, store: &dyn Store, number: usize, layer: &Descriptor) -> Result<(), Error> {
        let unreadable = |e: io::Error| Error::damaged(layer.place(), format!("it can't be read: {e}"));
        let left = Rc::new(Cell::new(0));
        let input = codec::decoder(layer.compression()?, store.blob(&layer.blob())?).map_err(unreadable)?;
        let mut archive = tar::Archive::new(Limited { inner: input, left: left.clone() });
        let mut entries = archive.entries().map_err(unreadable)?;
        loop {
            left.set(MAX_HEADERS);
            let Some(entry) = entries.next() else { break };
            let mut entry = entry.map_err(unreadable)?;
            left.set(u64::MAX);
            self.add(number, &mut entry, layer.escapes_names()).map_err(|e| match e {
                Error::Run(problem) => Error::damaged(layer.place(), problem),
                other => other,
            })?;
            // What was not read is content that is not wanted, not headers.
            io::copy(&mut entry, &mut io::sink()).map_err(unreadable)?;
        }
        left.set(u64::MAX);
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
        Ok(())
    }

    /// Everything that is there, in tree order.
    pub fn finish(self) -> Vec<Entry> {
        self.entries.into_values().map(|(_, entry)| entry).collect()
    }

    fn add(&mut self, number: usize, entry: &mut tar::Entry<'_, impl Read>, escaped: bool) -> Result<(), Error> {
        let plain = |path: TreePath| if escaped { archive::unescape(&path) } else { path };
        let bytes = entry.path_bytes().into_owned();
        let path = clean(&bytes)?;
        let parent = plain(path.parent().unwrap_or_default());
        if path.name() == OPAQUE {
            return self.clear(&parent, number);
        }
        if let Some(hidden) = path.name().strip_prefix(WHITEOUT) {
            let hidden = TreePath::parse(hidden).ok().filter(|path| path.names().count() == 1);
            let hidden = hidden.ok_or_else(|| refused(&bytes, "is a whiteout of nothing"))?;
            let path = parent.join(plain(hidden).name());
            self.clear(&path, number)?;
            if self.entries.get(&path).is_some_and(|(made, _)| *made < number) && !self.has_below(&path) {
                self.delete(&path)?;
            }
            return Ok(());
        }
        let path = plain(path);
        let Some(mut described) = describe(&path, &bytes, entry)? else { return Ok(()) };
        if let Node::Link { to, .. } = &mut described.node {
            *to = plain(std::mem::take(to));
        }
        if path.is_root() {
            self.entries.insert(path, (number, described));
            return Ok(());
        }
        self.make_parents(&path, number)?;
        let was_dir = self.entries.get(&path).is_some_and(|(_, old)| old.is_dir());
        if was_dir != described.is_dir() && self.entries.contains_key(&path) {
            self.clear(&path, usize::MAX)?;
            self.delete(&path)?;
        }
        let described = self.make(described, entry)?;
        self.entries.insert(path, (number, described));
        Ok(())
    }

    fn make(&mut self, mut described: Entry, content: &mut dyn Read) -> Result<Entry, Error> {
        match &mut described.node {
            Node::Dir { .. } => self.extractor.make_dir(&described.path)?,
            Node::Link { to, .. } => {
                let Some((_, Entry { node: Node::File(content), .. })) = self.entries.get(to) else {
                    return Err(refused(described.path.as_bytes(), "is a hard link to what is no file of the image"));
                };
                let (content, to) = (*content, to.clone());
                self.extractor.make_link(&described.path, &to)?;
                // A further name has the attributes of the first.
                let original = self.entries[&to].1.clone();
                described = Entry { path: described.path, node: Node::File(content), ..original };
            }
            Node::File(size) => {
                let size = size.size;
                let (mut hash, mut seen) = (blake3::Hasher::new(), 0);
                self.extractor.make_entry(&described, content, &mut |bytes| {
                    seen += bytes.len() as u64;
                    hash.update(bytes);
                })?;
                if seen != size {
                    return Err(refused(described.path.as_bytes(), "is cut off"));
                }
                described.node = Node::File(Content { size, hash: *hash.finalize().as_bytes() });
            }
            _ => self.extractor.make_entry(&described, &mut io::empty(), &mut |_| {})?,
        }
        Ok(described)
    }

    /// Directories that an archive leaves out.
    fn make_parents(&mut self, path: &TreePath, number: usize) -> Result<(), Error> {
        let Some(parent) = path.parent().filter(|parent| !parent.is_root()) else { return Ok(()) };
        match self.entries.get(&parent) {
            Some((_, there)) if there.is_dir() => return Ok(()),
            Some(_) => return Err(refused(path.as_bytes(), "lies below what is not a directory")),
            None => {}
        }
        self.make_parents(&parent, number)?;
        self.extractor.make_dir(&parent)?;
        let node = Node::Dir { touched: false };
        let (mtime, xattrs) = (Time::default(), Vec::new());
        let implied = Entry { path: parent.clone(), node, mode: 0o755, uid: 0, gid: 0, mtime, xattrs };
        self.entries.insert(parent, (number, implied));
        Ok(())
    }

    /// Deletes what layers before `number` made below `dir`, except directories that later things are in.
    fn clear(&mut self, dir: &TreePath, number: usize) -> Result<(), Error> {
        let below = self.entries.range(dir.clone()..).skip_while(|(path, _)| *path == dir);
        let below = below.take_while(|(path, _)| dir.contains(path));
        let old: Vec<_> = below.filter(|(_, (made, _))| *made < number).map(|(path, _)| path.clone()).collect();
        for path in old.iter().rev() {
            if !self.has_below(path) {
                self.delete(path)?;
            }
        }
        Ok(())
    }

    fn has_below(&self, dir: &TreePath) -> bool {
        self.entries.range(dir.clone()..).find(|(path, _)| *path != dir).is_some_and(|(path, _)| dir.contains(path))
    }

    fn delete(&mut self, path: &TreePath) -> Result<(), Error> {
        self.entries.remove(path);
        self.extractor.remove(path)
    }
}

/// What an archive says about an entry; none for what is not a file of the image.
fn describe(path: &TreePath, bytes: &[u8], entry: &mut tar::Entry<'_, impl Read>) -> Result<Option<Entry>, Error> {
    let unreadable = |e: io::Error| refused(bytes, &format!("has a damaged header: {e}"));
    let header = entry.header();
    let mut described = Entry {
        path: path.clone(),
        node: Node::Dir { touched: false },
        mode: header.mode().map_err(unreadable)? & 0o7777,
        uid: u32::try_from(header.uid().map_err(unreadable)?).unwrap_or(u32::MAX - 1),
        gid: u32::try_from(header.gid().map_err(unreadable)?).unwrap_or(u32::MAX - 1),
        mtime: Time { sec: header.mtime().map_err(unreadable)? as i64, nsec: 0 },
        xattrs: Vec::new(),
    };
    described.node = match header.entry_type() {
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            Node::File(Content { size: entry.size(), hash: [0; 32] })
        }
        EntryType::Directory => Node::Dir { touched: false },
        EntryType::Symlink => Node::Symlink(entry.link_name_bytes().unwrap_or_default().into_owned()),
        EntryType::Link => {
            let to = clean(&entry.link_name_bytes().unwrap_or_default())?;
            Node::Link { to, content: Content::default() }
        }
        EntryType::Fifo => Node::Fifo,
        EntryType::Char | EntryType::Block => return Err(refused(bytes, "is a device")),
        EntryType::XGlobalHeader => return Ok(None),
        other => return Err(refused(bytes, &format!("has the unknown type {:?}", other.as_byte() as char))),
    };
    if path.is_root() && !described.is_dir() {
        return Err(refused(bytes, "stands in for the whole workspace"));
    }
    for extension in entry.pax_extensions().map_err(unreadable)?.into_iter().flatten() {
        let extension = extension.map_err(unreadable)?;
        let value = extension.value_bytes();
        let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        match extension.key_bytes() {
            b"uid" => described.uid = number().unwrap_or(described.uid),
            b"gid" => described.gid = number().unwrap_or(described.gid),
            b"mtime" => described.mtime = pax_time(value).unwrap_or(described.mtime),
            key => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| tree::keeps_xattr(name)) {
                    described.xattrs.push((name.to_owned(), value.to_owned()));
                }
            }
        }
    }
    described.xattrs.sort();
    Ok(Some(described))
}

/// `./a/b/` and the like as a path; what leads elsewhere is refused.
fn clean(bytes: &[u8]) -> Result<TreePath, Error> {
    if bytes.first() == Some(&b'/') {
        return Err(refused(bytes, "is absolute"));
    }
    let names: Vec<&[u8]> = bytes.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    TreePath::parse(&names.join(&b'/')).map_err(|e| Error::Run(format!("an entry is refused: {e}")))
}

/// Decimal seconds, cut off (not rounded) after nine decimals.
fn pax_time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i64 = whole.parse().ok()?;
    let nsec: u32 = format!("{fraction:0<9}").get(..9)?.parse().ok()?;
    Some(match (negative, nsec) {
        (false, nsec) => Time { sec: whole, nsec },
        (true, 0) => Time { sec: -whole, nsec: 0 },
        (true, nsec) => Time { sec: -whole - 1, nsec: 1_000_000_000 - nsec },
    })
}

/// The caller adds which layer it is.
fn refused(path: &[u8], why: &str) -> Error {
    Error::Run(format!("its entry {:?} {why}", String::from_utf8_lossy(&path[..path.len().min(200)])))
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.left.get();
        if left == 0 {
            return Err(io::Error::other("an entry has more than 1 MiB of headers"));
        }
        let room = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let len = self.inner.read(&mut buffer[..room])?;
        self.left.set(left - len as u64);
        Ok(len)
    }
}
