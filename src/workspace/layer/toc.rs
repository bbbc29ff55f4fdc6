//! The table of contents of a layer: its entries in tree order, readable without the layer.
//!
//! A zstd stream of records, each a length (u32, little endian) and that many bytes of postcard: an [`Entry`].

use std::{
    io::{self, BufReader, Read, Write},
    sync::Arc,
};

use bytes::Bytes;

use crate::workspace::{
    entry::{Entry, Node},
    error::Error,
    path::TreePath,
};

/// Version of the records, in the annotation `dev.tekton-wrap.toc`.
pub const VERSION: &str = "1";

/// No record is longer: a path, a link target and extended attributes are each far below.
const MAX_RECORD: u32 = 4 << 20;

/// No user or group has this number: system calls take it for "unchanged" (chown(2)).
pub const NO_ID: u32 = u32::MAX;

/// Tables that need a larger window, 8 MiB, are refused: a decoder holds it in memory (RFC 8878, 3.1.1.1.2).
const MAX_WINDOW_LOG: u32 = 23;

/// Builds a table. Entries must come in tree order.
pub struct TocWriter {
    out: zstd::stream::write::Encoder<'static, Vec<u8>>,
    entries: u64,
    record: Vec<u8>,
}

/// A table as it is stored. Cheap to clone.
#[derive(Clone)]
pub struct Toc {
    /// What it is the table of, for errors.
    place: Arc<str>,
    payload: Bytes,
    entries: u64,
}

/// The entries of a [`Toc`], checked: valid paths, ascending, as many as announced.
pub struct Entries<'a> {
    toc: &'a Toc,
    decoder: Option<TocDecoder<'a>>,
    left: u64,
    /// The end of the table, or an error, has been told.
    is_over: bool,
    last: Option<TreePath>,
    record: Vec<u8>,
}

type TocDecoder<'a> = zstd::stream::read::Decoder<'static, BufReader<&'a [u8]>>;

impl TocWriter {
    /// An empty table.
    pub fn new() -> io::Result<Self> {
        Ok(Self { out: zstd::stream::write::Encoder::new(Vec::new(), 1)?, entries: 0, record: Vec::new() })
    }

    /// Adds the next entry.
    pub fn push(&mut self, entry: &Entry) -> io::Result<()> {
        self.record.clear();
        self.record = postcard::to_extend(entry, std::mem::take(&mut self.record)).map_err(io::Error::other)?;
        let len = u32::try_from(self.record.len()).map_err(io::Error::other)?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(&self.record)?;
        self.entries = self.entries.saturating_add(1);
        Ok(())
    }

    /// The stored form and the number of entries.
    pub fn finish(self) -> io::Result<(Vec<u8>, u64)> {
        Ok((self.out.finish()?, self.entries))
    }
}

impl Toc {
    /// The table with `entries` records that is stored as `payload`; `place` names its layer in errors.
    pub fn new(place: &str, payload: Vec<u8>, entries: u64) -> Self {
        Self { place: place.into(), payload: payload.into(), entries }
    }

    /// Its entries in tree order.
    pub fn iter(&self) -> Entries<'_> {
        Entries { toc: self, decoder: None, left: self.entries, is_over: false, last: None, record: Vec::new() }
    }
}

impl Entries<'_> {
    fn read(&mut self) -> io::Result<Entry> {
        let mut len = [0; 4];
        self.decoder()?.read_exact(&mut len)?;
        let len = u32::from_le_bytes(len);
        if len > MAX_RECORD {
            return Err(io::Error::other("a record is too long"));
        }
        let mut record = std::mem::take(&mut self.record);
        record.resize(len as usize, 0);
        let read = self.decoder()?.read_exact(&mut record);
        self.record = record;
        read?;
        let (entry, rest) = postcard::take_from_bytes::<Entry>(&self.record).map_err(io::Error::other)?;
        if !rest.is_empty() {
            return Err(io::Error::other("a record is longer than its entry"));
        }
        if entry.mode > 0o7777 || entry.mtime.nsec >= 1_000_000_000 {
            return Err(io::Error::other(format!("{} has an impossible mode or time", entry.path)));
        }
        if entry.uid == NO_ID || entry.gid == NO_ID {
            return Err(io::Error::other(format!("{} has an impossible owner", entry.path)));
        }
        if matches!(&entry.node, Node::Symlink(target) if target.contains(&0)) {
            return Err(io::Error::other(format!("{} is a link to what is no path", entry.path)));
        }
        if self.last.as_ref().is_some_and(|last| *last >= entry.path) {
            return Err(io::Error::other(format!("{} is out of order", entry.path)));
        }
        if entry.path.is_root() && !entry.is_dir() {
            return Err(io::Error::other("its root is not a directory"));
        }
        self.last.get_or_insert_default().clone_from(&entry.path);
        Ok(entry)
    }
}

impl<'a> Entries<'a> {
    fn decoder(&mut self) -> io::Result<&mut TocDecoder<'a>> {
        if self.decoder.is_none() {
            let mut decoder = zstd::stream::read::Decoder::new(&self.toc.payload[..])?;
            decoder.window_log_max(MAX_WINDOW_LOG)?;
            self.decoder = Some(decoder);
        }
        // It is there by now.
        self.decoder.as_mut().ok_or_else(|| io::ErrorKind::Other.into())
    }

    /// An entry that nobody announced would be lost without a word.
    fn end(&mut self) -> io::Result<()> {
        match self.decoder()?.read(&mut [0])? {
            0 => Ok(()),
            _ => Err(io::Error::other("it has more entries than it should have")),
        }
    }
}

impl Iterator for Entries<'_> {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let entry = match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                self.read()
            }
            None => {
                self.is_over = true;
                Err(self.end().err()?)
            }
        };
        self.is_over |= entry.is_err();
        Some(entry.map_err(|e| Error::damaged(&*self.toc.place, format!("its table of contents is damaged: {e}"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::entry::Time;

    fn entry(path: &str) -> Entry {
        let path = TreePath::parse(path.as_bytes()).unwrap();
        let mtime = Time { sec: -1, nsec: 5 };
        Entry {
            path,
            node: Node::Symlink(b"\xff".to_vec()),
            mode: 0o777,
            uid: 7,
            gid: u32::MAX - 1,
            mtime,
            xattrs: vec![],
        }
    }

    fn table(entries: &[Entry]) -> Toc {
        let mut writer = TocWriter::new().unwrap();
        entries.iter().for_each(|e| writer.push(e).unwrap());
        let (payload, count) = writer.finish().unwrap();
        Toc::new("layer", payload, count)
    }

    #[test]
    fn round_trip() {
        let entries = [entry("a"), entry("a/b"), entry("a-b")];
        assert_eq!(table(&entries).iter().collect::<Result<Vec<_>, _>>().unwrap(), entries);
    }

    #[test]
    fn the_extremes_of_an_entry() {
        let root = Entry { node: Node::Dir { touched: false }, mode: 0o7777, ..entry("") };
        let last = Entry { mtime: Time { sec: i64::MAX, nsec: 999_999_999 }, uid: u32::MAX - 1, ..entry("z") };
        let entries = [root, last];
        assert_eq!(table(&entries).iter().collect::<Result<Vec<_>, _>>().unwrap(), entries);
        assert_eq!(table(&[]).iter().count(), 0);
    }

    /// A table of one record with these bytes.
    fn raw(len: u32, record: &[u8]) -> Toc {
        let stored = [&len.to_le_bytes(), record].concat();
        Toc::new("layer", zstd::stream::encode_all(&stored[..], 1).unwrap(), 1)
    }

    #[test]
    fn refuses_what_is_damaged() {
        let good = table(&[entry("a")]);
        let mut more = good.clone();
        more.entries = 2;
        let mut none = good.clone();
        none.entries = 0;
        let mut fewer = table(&[entry("a"), entry("b")]);
        fewer.entries = 1;
        let mut cut = good.clone();
        cut.payload.truncate(good.payload.len() - 3);
        let mut record = postcard::to_stdvec(&entry("a")).unwrap();
        record.push(0);
        let long = u32::try_from(record.len()).unwrap();
        let with = |change: fn(&mut Entry)| {
            let mut entry = entry("a");
            change(&mut entry);
            table(&[entry])
        };
        for (bad, says) in [
            (table(&[entry("b"), entry("a")]), "a is out of order"),
            (table(&[entry("a"), entry("a")]), "a is out of order"),
            (more, "failed to fill whole buffer"),
            (none, "it has more entries than it should have"),
            (fewer, "it has more entries than it should have"),
            (cut, ""),
            (with(|entry| entry.mode = 0o10000), "a has an impossible mode or time"),
            (with(|entry| entry.mtime.nsec = 1_000_000_000), "a has an impossible mode or time"),
            (with(|entry| entry.uid = NO_ID), "a has an impossible owner"),
            (with(|entry| entry.gid = NO_ID), "a has an impossible owner"),
            (with(|entry| entry.node = Node::Symlink(b"b\0c".to_vec())), "a is a link to what is no path"),
            (with(|entry| entry.path = TreePath::root()), "its root is not a directory"),
            (raw(long, &record), "a record is longer than its entry"),
            (raw(MAX_RECORD + 1, &vec![0; MAX_RECORD as usize + 1]), "a record is too long"),
        ] {
            let mut entries = bad.iter();
            let error = entries.find_map(Result::err).unwrap().to_string();
            assert!(error.contains("table of contents is damaged") && error.ends_with(says), "{says}: {error}");
            assert!(entries.next().is_none(), "{says}");
        }
    }
}
