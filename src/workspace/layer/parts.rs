//! Single files of a layer, without the rest of it: the table of contents says where they are in the archive, and the sizes of
//! the frames where that is in the blob.

use std::{
    collections::BTreeSet,
    io::{self, Read},
    rc::Rc,
};

use super::{
    archive,
    codec::{self, FRAME, SKIPPABLE_HEAD},
    descriptor::{Descriptor, LayerInfo},
    read::{self, VisitEntry},
    toc::Toc,
};
use crate::{
    step::Compression,
    store::Store,
    workspace::{
        entry::{Content, Entry, Node},
        error::Error,
    },
};

/// So many bytes of a blob are read at once, at the most, but for a frame that is larger.
const READ: u64 = 8 << 20;

/// Gives those entries of `layer` whose indexes in `toc` are `wanted` to `visit`, regular files with their content and hard
/// links with that of their file. What a file holds is checked against the table. Layers whose frames can't be found (gzip,
/// those of older versions) are read as a whole.
pub fn read_some(
    store: &dyn Store,
    layer: &Descriptor,
    toc: &Toc,
    wanted: &BTreeSet<u64>,
    visit: &mut VisitEntry<'_>,
) -> Result<(), Error> {
    let files = locate(layer, toc, wanted)?;
    let Some(mut source) = ArchiveReader::open(store, layer)? else {
        return read_through(store, layer, toc, &files, visit);
    };
    for File { index, entry, at } in &files {
        let mut content =
            CheckedContent { source: &mut source, at: *at, left: size(entry), hasher: blake3::Hasher::new() };
        visit(*index, entry, &mut content)?;
        let hash = content.finish();
        let hash = hash.map_err(|e| Error::damaged(layer.place(), format!("{} can't be read: {e}", entry.path)))?;
        if entry.content().is_some_and(|content| content.hash != hash) {
            let problem =
                format!("the content of {} does not have the hash that its table of contents says", entry.path);
            return Err(Error::damaged(layer.place(), problem));
        }
    }
    Ok(())
}

/// A file that is wanted, and where its content begins in the archive.
struct File {
    index: u64,
    entry: Entry,
    at: u64,
}

/// Where the wanted files are in the archive, in that order.
fn locate(layer: &Descriptor, toc: &Toc, wanted: &BTreeSet<u64>) -> Result<Vec<File>, Error> {
    let mut header = Vec::new();
    let mut head = |entry: &Entry| -> u64 {
        header.clear();
        archive::write_header(&mut header, entry);
        header.len() as u64
    };
    let mut at = 0_u64;
    for entry in toc.iter() {
        let entry = entry?;
        if entry.is_whiteout() {
            at = at.saturating_add(head(&entry));
        }
    }
    let (mut files, mut linked) = (Vec::new(), std::collections::HashMap::new());
    let has_links = layer.info()?.hardlinks > 0;
    for (index, entry) in (0..).zip(toc.iter()) {
        let entry = entry?;
        if entry.is_whiteout() {
            continue;
        }
        at = at.saturating_add(head(&entry));
        let content = at;
        if let Node::File(Content { size, .. }) = entry.node {
            at = at.saturating_add(size).saturating_add(archive::padding(size) as u64);
            if has_links {
                linked.insert(entry.path.clone(), content);
            }
        }
        if wanted.contains(&index) {
            let content = match &entry.node {
                Node::Link { to, .. } => linked.get(to).copied().ok_or_else(|| {
                    Error::damaged(layer.place(), format!("{} is a link to {to}, which it has not", entry.path))
                })?,
                _ => content,
            };
            files.push(File { index, entry, at: content });
        }
    }
    files.sort_by_key(|file| file.at);
    Ok(files)
}

/// The same by reading the whole layer.
fn read_through(
    store: &dyn Store,
    layer: &Descriptor,
    toc: &Toc,
    files: &[File],
    visit: &mut VisitEntry<'_>,
) -> Result<(), Error> {
    // Links have the content of a file that comes before them: it is held for them.
    let mut names: std::collections::HashMap<&[u8], Vec<&File>> = std::collections::HashMap::new();
    for file in files {
        let path = if let Node::Link { to, .. } = &file.entry.node { to } else { &file.entry.path };
        names.entry(path.as_bytes()).or_default().push(file);
    }
    read::read(store, layer, toc, &mut |_, entry, content| {
        let Some(users) = names.get(entry.path.as_bytes()).filter(|_| !entry.is_link()) else { return Ok(()) };
        if let [File { index, entry, .. }] = users[..] {
            return visit(*index, entry, content);
        }
        let mut bytes = Vec::new();
        content.read_to_end(&mut bytes).map_err(Error::file(&entry.path, "can't be read"))?;
        users.iter().try_for_each(|File { index, entry, .. }| visit(*index, entry, &mut &bytes[..]))
    })
}

/// The archive of a layer, read at any place.
struct ArchiveReader<'a> {
    store: &'a dyn Store,
    layer: &'a Descriptor,
    /// Where each frame begins in the blob, and the last one ends; none where the blob is the archive.
    frames: Option<Vec<u64>>,
    /// Compressed frames from this one on.
    fetched: (usize, Rc<Vec<u8>>),
    /// A part of the archive, and where it begins.
    plain: (u64, Vec<u8>),
}

impl<'a> ArchiveReader<'a> {
    /// None if single places of the archive can't be found in the blob.
    fn open(store: &'a dyn Store, layer: &'a Descriptor) -> Result<Option<Self>, Error> {
        let frames = match layer.compression()? {
            Compression::None => None,
            Compression::Gzip => return Ok(None),
            Compression::Zstd => match frames(store, layer, &layer.info()?)? {
                Some(frames) => Some(frames),
                None => return Ok(None),
            },
        };
        Ok(Some(Self { store, layer, frames, fetched: (0, Rc::default()), plain: (0, Vec::new()) }))
    }

    /// What is at `at` of the archive, as far as it is at hand; until `end` is of interest.
    fn bytes(&mut self, at: u64, end: u64) -> io::Result<&[u8]> {
        let (start, plain) = &self.plain;
        let is_there = |start: u64, len: usize| (start..start.saturating_add(len as u64)).contains(&at);
        if !is_there(*start, plain.len()) {
            self.plain = self.fetch(at, end)?;
        }
        let (start, plain) = &self.plain;
        let skipped = usize::try_from(at.saturating_sub(*start)).map_err(io::Error::other)?;
        plain.get(skipped..).filter(|rest| !rest.is_empty()).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    fn fetch(&mut self, at: u64, end: u64) -> io::Result<(u64, Vec<u8>)> {
        let Some(frames) = &self.frames else {
            let len = end.saturating_sub(at).min(READ).min(self.layer.size.saturating_sub(at));
            return Ok((at, self.range(at, len)?));
        };
        let number = |at: u64| usize::try_from(at >> FRAME.trailing_zeros()).unwrap_or(usize::MAX);
        let frame = number(at);
        let bounds = |frame: usize| Some((*frames.get(frame)?, *frames.get(frame.checked_add(1)?)?));
        let (start, mut stop) = bounds(frame).ok_or(io::ErrorKind::UnexpectedEof)?;
        let (first, packed) = &self.fetched;
        let begin = frames.get(*first).copied().unwrap_or_default();
        if start < begin || stop > begin.saturating_add(packed.len() as u64) {
            // As many frames as are of interest, and no more than fit.
            for next in frame.saturating_add(1)..=number(end.saturating_sub(1)) {
                match bounds(next) {
                    Some((_, further)) if further.saturating_sub(start) <= READ => stop = further,
                    _ => break,
                }
            }
            self.fetched = (frame, Rc::new(self.range(start, stop.saturating_sub(start))?));
        }
        let (first, packed) = (self.fetched.0, Rc::clone(&self.fetched.1));
        let frames = self.frames.as_deref().unwrap_or_default();
        let offset = |frame: usize| {
            let begin = frames.get(first).copied().unwrap_or_default();
            frames.get(frame).map_or(usize::MAX, |at| usize::try_from(at.saturating_sub(begin)).unwrap_or(usize::MAX))
        };
        let packed = packed.get(offset(frame)..offset(frame.saturating_add(1))).ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(((frame as u64).saturating_mul(FRAME as u64), codec::unpack_frame(packed)?))
    }

    fn range(&self, at: u64, len: u64) -> io::Result<Vec<u8>> {
        self.store.blob_range(&self.layer.blob(), at, len).map_err(io::Error::other)
    }
}

/// Where the frames of a zstd layer begin, if it says so.
fn frames(store: &dyn Store, layer: &Descriptor, info: &LayerInfo) -> Result<Option<Vec<u64>>, Error> {
    let count = usize::try_from(info.uncompressed.div_ceil(FRAME as u64)).unwrap_or(usize::MAX);
    let end = info.toc_offset.saturating_add(info.toc_size);
    let len = layer.size.saturating_sub(end);
    let stored = match count {
        0 | 1 => Vec::new(),
        _ if len != codec::sizes_len(count) => return Ok(None),
        _ => store.blob_range(&layer.blob(), end, len)?,
    };
    Ok(codec::unwrap_sizes(&stored, count, info.toc_offset.saturating_sub(SKIPPABLE_HEAD)))
}

/// The content of a file, checked when it was read to its end.
struct CheckedContent<'a, 'b> {
    source: &'a mut ArchiveReader<'b>,
    at: u64,
    left: u64,
    hasher: blake3::Hasher,
}

impl CheckedContent<'_, '_> {
    /// Reads what was not read; the hash of all of it.
    fn finish(mut self) -> io::Result<[u8; 32]> {
        io::copy(&mut self, &mut io::sink())?;
        Ok(*self.hasher.finalize().as_bytes())
    }
}

impl Read for CheckedContent<'_, '_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.left == 0 || buffer.is_empty() {
            return Ok(0);
        }
        let bytes = self.source.bytes(self.at, self.at.saturating_add(self.left))?;
        let len = bytes.len().min(buffer.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let (Some(from), Some(to)) = (bytes.get(..len), buffer.get_mut(..len)) else { return Ok(0) };
        to.copy_from_slice(from);
        self.hasher.update(from);
        self.at = self.at.saturating_add(len as u64);
        self.left = self.left.saturating_sub(len as u64);
        Ok(len)
    }
}

fn size(entry: &Entry) -> u64 {
    entry.content().map_or(0, |content| content.size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        store,
        workspace::{
            entry::Time,
            layer::{read::read_toc, write},
            path::TreePath,
        },
    };

    fn path(text: &str) -> TreePath {
        TreePath::parse(text.as_bytes()).unwrap()
    }

    fn entry(text: &str, node: Node) -> Entry {
        // With nanoseconds the header has a PAX record.
        let mtime = Time { sec: 1, nsec: u32::try_from(text.len()).unwrap() - 1 };
        Entry { path: path(text), node, mode: 0o644, uid: 1, gid: 1, mtime, xattrs: Vec::new() }
    }

    /// Files of these sizes, whose content does not compress well.
    const FILES: [(&str, usize); 5] = [("a", 0), ("b", 5), ("c", 3 * FRAME + 17), ("d/e", 1), ("d/f", FRAME)];

    fn content(name: &str, len: usize) -> Vec<u8> {
        blake3::Hasher::new().update(name.as_bytes()).finalize_xof().fill_to(len)
    }

    trait FillTo {
        fn fill_to(self, len: usize) -> Vec<u8>;
    }

    impl FillTo for blake3::OutputReader {
        fn fill_to(mut self, len: usize) -> Vec<u8> {
            let mut bytes = vec![0; len];
            self.fill(&mut bytes);
            bytes
        }
    }

    fn layer(store: &dyn Store, compression: Compression) -> Descriptor {
        let whiteouts = [path("a-gone"), path("z-gone")];
        write::store(store, compression, &whiteouts, &mut |out| {
            let unwritable = || Error::file("layer", "can't be written");
            for (name, len) in FILES {
                if name == "d/e" {
                    out.push(&entry("d", Node::Dir { touched: false })).map_err(unwritable())?;
                }
                let node = Node::File(Content { size: len as u64, ..Content::default() });
                let stored = out.push_file(entry(name, node), &mut &content(name, len)[..]).map_err(unwritable())?;
                if name == "c" {
                    let link = Node::Link { to: path("c"), content: stored };
                    out.push(&entry("c-link", link)).map_err(unwritable())?;
                }
            }
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn files_of_every_kind_of_layer() {
        let folder = tempfile::tempdir().unwrap();
        let target = format!("dir://{}/store:x", folder.path().display()).parse().unwrap();
        let store = store::open(&target).unwrap();
        for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
            let new = layer(&*store, compression);
            // As older versions wrote it, without the sizes of the frames.
            let info = new.info().unwrap();
            let end = info.toc_offset + info.toc_size;
            let old = store.put_bytes(&store.blob_range(&new.blob(), 0, end).unwrap()).unwrap();
            let old = Descriptor::new(&new.media_type, old).with_info(&info);
            assert_eq!(new.size == old.size, compression != Compression::Zstd);
            for layer in [&new, &old] {
                // Where the frames of a whole layer are is known to those that say so: then a part is read alone.
                let known = frames(&*store, layer, &layer.info().unwrap()).unwrap();
                let count = usize::try_from(info.uncompressed.div_ceil(FRAME as u64)).unwrap();
                let has_sizes = compression == Compression::Zstd && layer.size == new.size;
                assert_eq!(known.map(|known| known.len()), has_sizes.then_some(count + 1), "{compression:?}");
                let toc = read_toc(&*store, layer).unwrap();
                let entries: Vec<Entry> = toc.iter().collect::<Result<_, _>>().unwrap();
                let files: Vec<u64> =
                    (0..).zip(&entries).filter(|(_, e)| e.content().is_some()).map(|(n, _)| n).collect();
                assert_eq!(files.len(), FILES.len() + 1);
                let sets = files.iter().map(|file| BTreeSet::from([*file])).chain([files.iter().copied().collect()]);
                for wanted in sets {
                    let mut found = BTreeSet::new();
                    read_some(&*store, layer, &toc, &wanted, &mut |index, entry, input| {
                        let name = String::from_utf8(entry.path.as_bytes().to_vec()).unwrap();
                        let name = if name == "c-link" { "c".to_owned() } else { name };
                        let len = FILES.iter().find(|file| file.0 == name).unwrap().1;
                        let mut bytes = Vec::new();
                        input.read_to_end(&mut bytes).unwrap();
                        assert!(bytes == content(&name, len), "{compression:?} {name}");
                        found.insert(index);
                        Ok(())
                    })
                    .unwrap();
                    assert_eq!(found, wanted, "{compression:?}");
                }
            }
        }
    }

    #[test]
    fn other_content_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let target = format!("dir://{}/store:x", folder.path().display()).parse().unwrap();
        let store = store::open(&target).unwrap();
        let good = layer(&*store, Compression::None);
        let mut bytes = store.blob_range(&good.blob(), 0, good.size).unwrap();
        let at = bytes.windows(5).position(|window| window == content("b", 5)).unwrap();
        bytes[at] ^= 1;
        let bad = store.put_bytes(&bytes).unwrap();
        let bad = Descriptor::new(&good.media_type, bad).with_info(&good.info().unwrap());
        let toc = read_toc(&*store, &bad).unwrap();
        let index = toc.iter().position(|entry| entry.unwrap().path == path("b")).unwrap() as u64;
        let error = read_some(&*store, &bad, &toc, &BTreeSet::from([index]), &mut |_, _, _| Ok(())).unwrap_err();
        assert!(error.to_string().contains("the content of b does not have the hash"), "{error}");
    }
}
