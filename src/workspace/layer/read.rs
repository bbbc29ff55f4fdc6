//! Reads a layer while it is downloaded: the whole of it, or its table of contents alone.

use std::io::{self, Read};

use super::{
    archive::{self, END},
    codec,
    descriptor::Descriptor,
    toc::Toc,
};
use crate::{
    digest::Digest,
    step::Compression,
    store::{Store, StoreError},
    workspace::{
        entry::{Entry, Node},
        error::Error,
    },
};

/// A larger table of contents is refused rather than held in memory.
const MAX_TOC: u64 = 1 << 30;

/// Gets an entry: its index in the table of contents, itself, and its content.
pub type VisitEntry<'a> = dyn FnMut(u64, &Entry, &mut dyn Read) -> Result<(), Error> + 'a;

/// Reads the table of contents of `layer` and checks its digest.
pub fn read_toc(store: &dyn Store, layer: &Descriptor) -> Result<Toc, Error> {
    let info = layer.info()?;
    if info.toc_size > MAX_TOC || info.toc_offset.checked_add(info.toc_size).is_none_or(|end| end > layer.size) {
        return Err(Error::damaged(layer.place(), "its table of contents is not within it"));
    }
    let fetch = || store.blob_range(&layer.blob(), info.toc_offset, info.toc_size);
    let mut stored = fetch()?;
    if Digest::of(&stored) != info.toc_digest {
        // Damaged in transit, perhaps.
        stored = fetch()?;
    }
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
pub fn read(store: &dyn Store, layer: &Descriptor, toc: &Toc, visit: &mut VisitEntry<'_>) -> Result<(), Error> {
    let unreadable = |e: io::Error| unreadable(layer, e);
    let compression = layer.compression()?;
    let mut input = codec::decoder(compression, true, store.blob(&layer.blob())?).map_err(unreadable)?;
    let mut expected = Vec::new();
    let mut header = |input: &mut dyn Read, entry: &Entry| -> Result<(), Error> {
        expected.clear();
        archive::write_header(&mut expected, entry);
        let len = expected.len();
        expected.resize(len.saturating_mul(2), 0);
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
        let mut filler = [0; END.len()];
        let filler = filler.get_mut(..archive::padding(size)).unwrap_or_default();
        input.read_exact(filler).map_err(unreadable)?;
    }
    // Only the end and, if a decoder sees it, the table may follow.
    let mut end = [0; END.len()];
    input.read_exact(&mut end).map_err(unreadable)?;
    let table = if compression == Compression::Zstd { 0 } else { layer.info()?.toc_size };
    io::copy(&mut (&mut input).take(table), &mut io::sink()).map_err(unreadable)?;
    if end != END || input.read(&mut [0]).map_err(unreadable)? > 0 {
        return Err(Error::damaged(layer.place(), "it does not end where its table of contents says"));
    }
    Ok(())
}

/// A layer is damaged, unless it is the store that failed, which has tried again by itself.
fn unreadable(layer: &Descriptor, error: io::Error) -> Error {
    let damaged = |error: &dyn std::fmt::Display| Error::damaged(layer.place(), format!("it can't be read: {error}"));
    match error.downcast::<StoreError>() {
        Ok(error @ StoreError::Content { .. }) => damaged(&error),
        Ok(error) => error.into(),
        Err(error) => damaged(&error),
    }
}

fn differs(layer: &Descriptor, entry: &Entry) -> Error {
    Error::damaged(layer.place(), format!("at {} it is not what its table of contents says", entry.path))
}
