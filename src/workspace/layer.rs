//! One layer: written while it is uploaded, read while it is downloaded.
//!
//! In the archive whiteouts come first, then all other entries in tree order. The table of contents has all entries in
//! tree order.

use std::io::{self, Read, Write};

use super::{
    archive::{self, END},
    codec::{self, Encoder},
    entry::{Content, Entry, Node},
    error::Error,
    image::{self, Descriptor, LayerInfo},
    path::TreePath,
    toc::{Toc, TocWriter},
};
use crate::{
    digest::{Digest, Hasher},
    step::Compression,
    store::Store,
};

/// A larger table of contents is refused rather than held in memory.
const MAX_TOC: u64 = 1 << 30;

/// Writes a layer.
pub struct LayerWriter<'a> {
    out: Encoder<Counter<'a>>,
    compression: Compression,
    diff_id: Hasher,
    uncompressed: u64,
    toc: TocWriter,
    /// Whiteouts that are in the archive, but not yet in the table.
    whiteouts: &'a [TreePath],
    hardlinks: u64,
    deletions: u64,
    header: Vec<u8>,
    buffer: Vec<u8>,
}

/// Gets an entry: its index in the table of contents, itself, and its content.
pub type Visit<'a> = dyn FnMut(u64, &Entry, &mut dyn Read) -> Result<(), Error> + 'a;

struct Counter<'a> {
    out: &'a mut dyn Write,
    written: u64,
}

/// Stores a layer with these `whiteouts` (in tree order) and what `write` adds. `write` may be called more than once.
pub fn store(
    store: &dyn Store,
    compression: Compression,
    whiteouts: &[TreePath],
    write: &mut (dyn FnMut(&mut LayerWriter<'_>) -> Result<(), Error> + Send),
) -> Result<Descriptor, Error> {
    let mut result = None;
    let blob = store.put_blob(&mut |out| {
        result = None;
        let mut layer = LayerWriter::new(out, compression, whiteouts)?;
        match write(&mut layer) {
            Ok(()) => result = Some(Ok(layer.finish()?)),
            Err(e) => {
                result = Some(Err(e));
                return Err(io::Error::other("the layer can't be made"));
            }
        }
        Ok(())
    });
    match (blob, result) {
        (_, Some(Err(ours))) => Err(ours),
        (Ok(blob), Some(Ok(info))) => Ok(Descriptor::new(image::layer_media_type(compression), blob).with_info(&info)),
        (Ok(_), None) => Err(Error::damaged("a new layer", "the store took it without reading it")),
        (Err(e), _) => Err(e.into()),
    }
}

impl<'a> LayerWriter<'a> {
    fn new(out: &'a mut dyn Write, compression: Compression, whiteouts: &'a [TreePath]) -> io::Result<Self> {
        let mut layer = Self {
            out: Encoder::new(compression, Counter { out, written: 0 })?,
            compression,
            diff_id: Hasher::default(),
            uncompressed: 0,
            toc: TocWriter::new()?,
            whiteouts,
            hardlinks: 0,
            deletions: whiteouts.len() as u64,
            header: Vec::new(),
            buffer: vec![0; 256 * 1024],
        };
        for path in whiteouts {
            layer.header(&Entry::whiteout(path.clone()))?;
        }
        Ok(layer)
    }

    /// Says that `count` entries are in place of directories.
    pub fn replaces_directories(&mut self, count: u64) {
        self.deletions += count;
    }

    /// Adds an entry without content of its own. Entries come in tree order.
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.header(entry)?;
        self.hardlinks += u64::from(matches!(entry.node, Node::Link { .. }));
        self.list(entry)
    }

    /// Adds a regular file: `entry` has its size, `input` at least that many bytes. Returns what it holds.
    pub fn push_file(&mut self, mut entry: Entry, input: &mut dyn Read) -> io::Result<Content> {
        let Some(&Content { size, .. }) = entry.content() else {
            return Err(io::Error::other("not a regular file"));
        };
        self.header(&entry)?;
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut hash = blake3::Hasher::new();
        let mut left = size;
        while left > 0 {
            let room = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let len = match input.read(&mut buffer[..room]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(len) => len,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            };
            hash.update(&buffer[..len]);
            self.plain(&buffer[..len])?;
            left -= len as u64;
        }
        self.buffer = buffer;
        self.plain(&END[..archive::padding(size)])?;
        let content = Content { size, hash: *hash.finalize().as_bytes() };
        entry.node = Node::File(content);
        self.list(&entry)?;
        Ok(content)
    }

    fn finish(mut self) -> io::Result<LayerInfo> {
        self.plain(&END)?;
        for path in self.whiteouts {
            self.toc.push(&Entry::whiteout(path.clone()))?;
        }
        let (toc, entries) = self.toc.finish()?;
        if self.compression != Compression::Zstd {
            // A decoder meets it after the end of the archive, so that it is a part of the uncompressed layer.
            self.diff_id.update(&toc);
            self.uncompressed += toc.len() as u64;
        }
        let (head, stored) = codec::wrap_toc(self.compression, toc)?;
        let mut out = self.out.finish()?;
        out.write_all(&head)?;
        let toc_offset = out.written;
        out.write_all(&stored)?;
        Ok(LayerInfo {
            toc_offset,
            toc_size: stored.len() as u64,
            toc_digest: Digest::of(&stored),
            entries,
            uncompressed: self.uncompressed,
            diff_id: self.diff_id.finish(),
            hardlinks: self.hardlinks,
            deletions: self.deletions,
        })
    }

    fn list(&mut self, entry: &Entry) -> io::Result<()> {
        while let [path, later @ ..] = self.whiteouts
            && *path < entry.path
        {
            self.toc.push(&Entry::whiteout(path.clone()))?;
            self.whiteouts = later;
        }
        self.toc.push(entry)
    }

    fn header(&mut self, entry: &Entry) -> io::Result<()> {
        let mut header = std::mem::take(&mut self.header);
        header.clear();
        archive::write_header(&mut header, entry)?;
        self.plain(&header)?;
        self.header = header;
        Ok(())
    }

    fn plain(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.diff_id.update(bytes);
        self.uncompressed += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Reads the table of contents of `layer` and checks its digest.
pub fn read_toc(store: &dyn Store, layer: &Descriptor) -> Result<Toc, Error> {
    let info = layer.info()?;
    if info.toc_size > MAX_TOC || info.toc_offset.checked_add(info.toc_size).is_none_or(|end| end > layer.size) {
        return Err(Error::damaged(layer.place(), "its table of contents is not within it"));
    }
    let stored = store.blob_range(&layer.blob(), info.toc_offset, info.toc_size)?;
    if Digest::of(&stored) != info.toc_digest {
        return Err(Error::damaged(
            layer.place(),
            "its table of contents does not have the digest that it should have",
        ));
    }
    let payload = codec::unwrap_toc(layer.compression()?, stored)
        .map_err(|e| Error::damaged(layer.place(), format!("its table of contents is damaged: {e}")))?;
    Ok(Toc::new(&layer.place(), payload, info.entries))
}

/// Reads `layer` through and gives each entry that is no whiteout to `visit`.
///
/// The archive is not parsed: it must hold, byte for byte, the headers that belong to the entries of `toc`. At the end
/// the whole blob was read, so that its digest is checked.
pub fn read(store: &dyn Store, layer: &Descriptor, toc: &Toc, visit: &mut Visit<'_>) -> Result<(), Error> {
    let unreadable = |e: io::Error| Error::damaged(layer.place(), format!("it can't be read: {e}"));
    let compression = layer.compression()?;
    let mut input = codec::decoder(compression, store.blob(&layer.blob())?).map_err(unreadable)?;
    let mut expected = Vec::new();
    let mut header = |input: &mut dyn Read, entry: &Entry| -> Result<(), Error> {
        expected.clear();
        archive::write_header(&mut expected, entry).map_err(unreadable)?;
        let len = expected.len();
        expected.resize(2 * len, 0);
        let (expected, found) = expected.split_at_mut(len);
        input.read_exact(found).map_err(unreadable)?;
        if expected != found {
            return Err(differs(layer, entry));
        }
        Ok(())
    };
    // If this were a lie, the first header would not be the expected one.
    let whiteouts = if layer.info()?.deletions > 0 { Some(toc.iter()) } else { None };
    for entry in whiteouts.into_iter().flatten() {
        let entry = entry?;
        if entry.is_whiteout() {
            header(&mut input, &entry)?;
        }
    }
    for (index, entry) in (0..).zip(toc.iter()) {
        let entry = entry?;
        if entry.is_whiteout() {
            continue;
        }
        header(&mut input, &entry)?;
        let size = if let Node::File(content) = &entry.node { content.size } else { 0 };
        let mut content = (&mut input).take(size);
        visit(index, &entry, &mut content)?;
        io::copy(&mut content, &mut io::sink()).map_err(unreadable)?;
        if content.limit() > 0 {
            return Err(differs(layer, &entry));
        }
        let mut filler = [0; archive::BLOCK as usize];
        input.read_exact(&mut filler[..archive::padding(size)]).map_err(unreadable)?;
    }
    // Only the end and, where a decoder sees it, the table may follow.
    let mut end = [0; END.len()];
    input.read_exact(&mut end).map_err(unreadable)?;
    let table = if compression == Compression::Zstd { 0 } else { layer.info()?.toc_size };
    io::copy(&mut (&mut input).take(table), &mut io::sink()).map_err(unreadable)?;
    if end != END || input.read(&mut [0]).map_err(unreadable)? > 0 {
        return Err(Error::damaged(layer.place(), "it does not end where its table of contents says"));
    }
    Ok(())
}

fn differs(layer: &Descriptor, entry: &Entry) -> Error {
    Error::damaged(layer.place(), format!("at {} it is not what its table of contents says", entry.path))
}

impl Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
