//! Writes a layer while it is uploaded.
//!
//! In the archive whiteouts come first, then all other entries in tree order. The table of contents has all entries in
//! tree order.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a part of a buffer that was just filled; counts of entries and of bytes that were written"
)]

use std::io::{self, Read, Write};

use super::{
    archive::{self, END},
    codec::{self, Encoder},
    descriptor::{self, Descriptor, LayerInfo},
    toc::TocWriter,
};
use crate::{
    digest::{Digest, Hasher},
    step::Compression,
    store::{Store, StoreError},
    workspace::{
        entry::{Content, Entry, Node},
        error::Error,
        path::TreePath,
    },
};

/// Writes a layer.
pub struct LayerWriter<'a> {
    out: Encoder<CountingWriter<'a>>,
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

struct CountingWriter<'a> {
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
        // An upload that breaks off makes `write` fail too; the store knows why.
        (
            Err(error @ (StoreError::Registry { .. } | StoreError::Denied { .. } | StoreError::GaveUp { .. })),
            Some(Err(_)),
        ) => Err(error.into()),
        (_, Some(Err(ours))) => Err(ours),
        (Ok(blob), Some(Ok(info))) => Ok(Descriptor::new(descriptor::media_type(compression), blob).with_info(&info)),
        (Ok(_), None) => Err(Error::damaged("a new layer", "the store took it without reading it")),
        (Err(e), _) => Err(e.into()),
    }
}

impl<'a> LayerWriter<'a> {
    fn new(out: &'a mut dyn Write, compression: Compression, whiteouts: &'a [TreePath]) -> io::Result<Self> {
        let mut layer = Self {
            out: Encoder::new(compression, CountingWriter { out, written: 0 })?,
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
        let (mut out, sizes) = self.out.finish()?;
        out.write_all(&head)?;
        let toc_offset = out.written;
        out.write_all(&stored)?;
        out.write_all(&sizes)?;
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
        archive::write_header(&mut header, entry);
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

impl Write for CountingWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = self.out.write(bytes)?;
        self.written += len as u64;
        Ok(len)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
