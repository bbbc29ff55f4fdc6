//! Unpacks the layers of a base image, made by any program, one after the other (OCI image-spec, layer.md): tar archives of any kind, with
//! whiteouts and opaque whiteouts, and no table of contents.

mod listing;

use std::io::{self, Read};

use tar::EntryType;

use self::listing::Listing;
use super::{
    entry::{Content, Entry, Node, Time},
    error::Error,
    files::extract::Extractor,
    layer::{
        archive::{self, WHITEOUT},
        codec,
        descriptor::Descriptor,
        toc::Toc,
        untar::{Member, Untar},
    },
    path::TreePath,
    progress::Progress,
};
use crate::{store::Store, units::size};

/// Longer paths are refused: no system call takes them (Linux: limits.h, PATH_MAX).
const MAX_PATH: usize = 4096;

/// The whiteout of everything that lower layers have in a directory.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Applies layers to a workspace and knows what is in it then.
pub struct BaseUnpacker {
    extractor: Extractor,
    /// Whether the current layer is one of ours: then names that begin like whiteouts are escaped in it.
    ours: bool,
    entries: Listing,
    /// Bytes of these files, each hard link counted as a file, and how many there may be.
    bytes: u64,
    room: u64,
}

/// Files that were made.
#[derive(Clone, Copy, Debug, Default)]
pub struct Made {
    /// Everything that is no directory, by name.
    pub files: u64,
    /// Bytes of regular files, of hard links once.
    pub bytes: u64,
    /// How many of them lost setuid, setgid or capabilities.
    pub stripped: u64,
}

/// Why an archive can't be applied.
#[derive(Debug)]
pub enum UnpackError {
    /// Something in it: a clause that fits after the name of the layer.
    Archive(String),
    /// Anything else.
    Other(Error),
}

impl UnpackError {
    /// The same with the name of the layer, `place`.
    pub fn within(self, place: &str) -> Error {
        match self {
            Self::Archive(problem) => Error::damaged(place, problem),
            Self::Other(error) => error,
        }
    }
}

impl From<Error> for UnpackError {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl BaseUnpacker {
    /// For the empty workspace of `extractor`, which has room for files of `room` bytes.
    pub fn new(extractor: Extractor, room: u64) -> Self {
        Self { extractor, ours: false, entries: Listing::new(), bytes: 0, room }
    }

    /// Applies `layer`, the next higher one. Directories get no attributes yet.
    pub fn apply(
        &mut self,
        store: &dyn Store,
        number: u32,
        layer: &Descriptor,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.ours = layer.escapes_names();
        let unreadable = |e: io::Error| Error::damaged(layer.place(), format!("it can't be read: {e}"));
        let input = codec::decoder(layer.compression()?, store.blob(&layer.blob())?).map_err(unreadable)?;
        self.unpack(number, input, progress).map_err(|e| e.within(&layer.place()))
    }

    /// Applies an archive.
    pub fn unpack(&mut self, number: u32, input: impl Read, progress: &Progress) -> Result<(), UnpackError> {
        let unreadable = |e: io::Error| UnpackError::Archive(format!("it can't be read: {e}"));
        let mut archive = Untar::new(input);
        let progress = progress.of_layer();
        while let Some(member) = archive.next().map_err(unreadable)? {
            progress.file();
            self.add(number, &member, &mut progress.counting(&mut archive.content()))?;
        }
        // Whatever follows: the digest of the whole layer is checked at its end.
        io::copy(&mut archive.into_inner(), &mut io::sink()).map_err(unreadable)?;
        Ok(())
    }

    /// Everything that is there, and what was made.
    pub fn finish(self) -> Result<(Toc, Made), Error> {
        let (listed, files) = self.entries.finish().map_err(unlisted())?;
        Ok((listed, Made { files, bytes: self.bytes, stripped: self.extractor.stripped() }))
    }

    fn add(&mut self, number: u32, member: &Member, content: &mut dyn Read) -> Result<(), UnpackError> {
        let path = clean(&member.path)?;
        if path.name() == OPAQUE {
            return self.clear(&path.parent().unwrap_or_default(), number);
        }
        if let Some(hidden) = path.name().strip_prefix(WHITEOUT) {
            let hidden = TreePath::parse(hidden).ok().filter(|path| path.names().count() == 1);
            let hidden = hidden.ok_or_else(|| refused(&member.path, "is a whiteout of nothing"))?;
            let path = self.unescaped(path.parent().unwrap_or_default().join(hidden.name()));
            self.clear(&path, number)?;
            if self.entries.layer_of(&path).is_some_and(|layer| layer < number) && !self.entries.has_below(&path) {
                self.delete(&path)?;
            }
            return Ok(());
        }
        let path = self.unescaped(path);
        let mut described = describe(path.clone(), member)?;
        if let Node::Link { to, .. } = &mut described.node {
            *to = self.unescaped(std::mem::take(to));
        }
        if path.is_root() {
            self.entries.insert(number, described).map_err(unlisted())?;
            return Ok(());
        }
        self.reserve(&described)?;
        self.make_parents(&path, number)?;
        if self.entries.is_dir(&path).is_some_and(|was_dir| was_dir != described.is_dir()) {
            self.delete(&path)?;
        }
        let described = self.make(described, content)?;
        self.bytes = self.bytes.saturating_add(bytes_of(&described));
        if let Some(old) = self.entries.insert(number, described).map_err(unlisted())? {
            self.bytes = self.bytes.saturating_sub(bytes_of(&old));
        }
        Ok(())
    }

    /// Archives may unpack to any size: what the volume can't hold is refused before it is full.
    fn reserve(&self, entry: &Entry) -> Result<(), UnpackError> {
        if self.bytes.saturating_add(bytes_of(entry)) <= self.room {
            return Ok(());
        }
        let problem = format!("would make it larger than the {} that the volume has free", size(self.room));
        Err(refused(entry.path.as_bytes(), &problem))
    }

    fn unescaped(&self, path: TreePath) -> TreePath {
        if self.ours { archive::unescape(&path) } else { path }
    }

    fn make(&mut self, mut described: Entry, content: &mut dyn Read) -> Result<Entry, UnpackError> {
        match &mut described.node {
            Node::Dir { .. } => self.extractor.make_dir(&described.path)?,
            Node::Link { to, .. } => {
                let Some(original @ Entry { node: Node::File(_), .. }) = self.entries.get(to) else {
                    return Err(refused(described.path.as_bytes(), "is a hard link to what is no file of the image"));
                };
                self.extractor.make_link(&described.path, to)?;
                // A hard link has the attributes of the file.
                described = Entry { path: described.path, ..original };
            }
            Node::File(size) => {
                let size = size.size;
                let (mut hash, mut seen) = (blake3::Hasher::new(), 0);
                self.extractor.make_entry(&described, content, &mut |bytes| {
                    seen = u64::saturating_add(seen, bytes.len() as u64);
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
    fn make_parents(&mut self, path: &TreePath, number: u32) -> Result<(), UnpackError> {
        let Some(parent) = path.parent() else { return Ok(()) };
        let (known, is_blocked) = self.entries.known_part(&parent);
        if is_blocked {
            return Err(refused(path.as_bytes(), "lies below what is not a directory"));
        }
        let (mut dir, absent) = parent.split_at(known);
        for name in absent.names() {
            dir = dir.join(name);
            self.extractor.make_dir(&dir)?;
            let node = Node::Dir { touched: false };
            let (mtime, xattrs) = (Time::default(), Vec::new());
            let implied = Entry { path: dir.clone(), node, mode: 0o755, uid: 0, gid: 0, mtime, xattrs };
            self.entries.insert(number, implied).map_err(unlisted())?;
        }
        Ok(())
    }

    /// Deletes what layers before `number` made below `dir`, except directories that later things are in.
    fn clear(&mut self, dir: &TreePath, number: u32) -> Result<(), UnpackError> {
        let (gone, bytes) = self.entries.clear(dir, number, bytes_of);
        self.bytes = self.bytes.saturating_sub(bytes);
        gone.iter().try_for_each(|path| Ok(self.extractor.remove(path)?))
    }

    /// Deletes what is at `path`, and all below it.
    fn delete(&mut self, path: &TreePath) -> Result<(), UnpackError> {
        let bytes = self.entries.remove(path, bytes_of);
        self.bytes = self.bytes.saturating_sub(bytes);
        Ok(self.extractor.remove(path)?)
    }
}

fn unlisted() -> impl FnOnce(io::Error) -> Error {
    Error::file("the files of the base", "can't be listed")
}

fn bytes_of(entry: &Entry) -> u64 {
    entry.content().map_or(0, |content| content.size)
}

fn describe(path: TreePath, member: &Member) -> Result<Entry, UnpackError> {
    let node = match member.kind {
        EntryType::Regular | EntryType::Continuous => Node::File(Content { size: member.size, hash: [0; 32] }),
        EntryType::Directory => Node::Dir { touched: false },
        EntryType::Symlink => Node::Symlink(member.link.clone()),
        EntryType::Link => Node::Link { to: clean(&member.link)?, content: Content::default() },
        EntryType::Fifo => Node::Fifo,
        EntryType::Char | EntryType::Block => return Err(refused(&member.path, "is a device")),
        EntryType::GNUSparse => return Err(refused(&member.path, "is a sparse file, which is not supported")),
        other => {
            let kind = char::from(other.as_byte());
            return Err(refused(&member.path, &format!("has the unknown type {kind:?}")));
        }
    };
    if path.is_root() && !matches!(node, Node::Dir { .. }) {
        return Err(refused(&member.path, "stands in for the whole workspace"));
    }
    let Member { mode, uid, gid, mtime, .. } = *member;
    Ok(Entry { path, node, mode, uid, gid, mtime, xattrs: member.xattrs.clone() })
}

/// `./a/b/` and the like as a path; what leads elsewhere is refused.
pub fn clean(bytes: &[u8]) -> Result<TreePath, UnpackError> {
    if bytes.len() > MAX_PATH {
        return Err(refused(bytes, "has a path that is too long"));
    }
    if bytes.first() == Some(&b'/') {
        return Err(refused(bytes, "is absolute"));
    }
    let names: Vec<&[u8]> = bytes.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".").collect();
    TreePath::parse(&names.join(&b'/')).map_err(|e| UnpackError::Archive(format!("an entry is refused: {e}")))
}

/// The caller adds which layer it is.
fn refused(path: &[u8], why: &str) -> UnpackError {
    UnpackError::Archive(format!("its entry {:?} {why}", String::from_utf8_lossy(path.get(..200).unwrap_or(path))))
}
