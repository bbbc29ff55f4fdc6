//! What a workspace was when it had just been restored: for save to compare with.
//!
//! One zstd stream: what was restored as JSON ([`Input`]), then one record for each path in tree order, each with its length in front
//! (u32, little endian). It belongs to one machine and one volume.

use std::{
    fs::File,
    io::{self, BufReader, Read, Write},
    path::Path,
};

use serde::{Deserialize, Serialize};

use super::{entry::Entry, error::Error, files::tree::FileIdentity, selection::Extent, snapshot::lineage::Input};

/// No record is longer.
const MAX_RECORD: u32 = 256 << 20;

/// A path as it was after the restore, or a directory that it left out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// What was restored, with the attributes that it got.
    pub entry: Entry,
    /// Which file that was; none if it has to be compared in any case.
    pub identity: Option<FileIdentity>,
    /// The number of its names.
    pub nlink: u64,
    /// How much of it was restored.
    pub extent: Extent,
}

/// Writes a baseline.
pub struct BaselineWriter {
    out: zstd::stream::write::Encoder<'static, File>,
    place: String,
}

/// Reads a baseline.
pub struct BaselineReader {
    input: Input,
    records: zstd::stream::read::Decoder<'static, BufReader<File>>,
    place: String,
}

/// What was restored when the baseline at `path` was written; nothing if the task started from nothing.
pub fn input(path: Option<&Path>) -> Result<Input, Error> {
    path.map_or_else(|| Ok(Input::default()), |path| Ok(BaselineReader::open(path)?.input))
}

impl BaselineWriter {
    /// Creates the file, and the folder that it is in.
    pub fn create(path: &Path, input: &Input) -> Result<Self, Error> {
        let place = path.display().to_string();
        let open = || -> io::Result<_> {
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            let mut out = zstd::stream::write::Encoder::new(File::create(path)?, 1)?;
            put(&mut out, &serde_json::to_vec(input)?)?;
            Ok(out)
        };
        let out = open().map_err(Error::file(&place, "the baseline can't be written"))?;
        Ok(Self { out, place })
    }

    /// Adds the next path in tree order.
    pub fn push(&mut self, known: &Known) -> Result<(), Error> {
        let record = postcard::to_stdvec(known).map_err(io::Error::other);
        record
            .and_then(|record| put(&mut self.out, &record))
            .map_err(Error::file(&self.place, "the baseline can't be written"))
    }

    /// Completes the file.
    pub fn finish(self) -> Result<(), Error> {
        self.out.finish().map(drop).map_err(Error::file(&self.place, "the baseline can't be written"))
    }
}

impl BaselineReader {
    /// Opens the file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let place = path.display().to_string();
        let open = || -> io::Result<_> {
            let mut records = zstd::stream::read::Decoder::new(File::open(path)?)?;
            let input = get(&mut records)?.ok_or(io::ErrorKind::UnexpectedEof)?;
            Ok((serde_json::from_slice(&input)?, records))
        };
        let (input, records) = open().map_err(Error::file(&place, "the baseline can't be read"))?;
        Ok(Self { input, records, place })
    }
}

impl Iterator for BaselineReader {
    type Item = Result<Known, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let known = match get(&mut self.records) {
            Ok(None) => return None,
            Ok(Some(record)) => postcard::from_bytes(&record).map_err(io::Error::other),
            Err(e) => Err(e),
        };
        Some(known.map_err(Error::file(&self.place, "the baseline can't be read")))
    }
}

fn put(out: &mut impl Write, record: &[u8]) -> io::Result<()> {
    let len = u32::try_from(record.len()).map_err(io::Error::other)?;
    out.write_all(&len.to_le_bytes())?;
    out.write_all(record)
}

fn get(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut len = [0; 4];
    match input.read(&mut len[..1])? {
        0 => return Ok(None),
        _ => input.read_exact(&mut len[1..])?,
    }
    let len = u32::from_le_bytes(len);
    if len > MAX_RECORD {
        return Err(io::Error::other("a record is too long"));
    }
    let mut record = vec![0; len as usize];
    input.read_exact(&mut record)?;
    Ok(Some(record))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that someone else wrote takes no memory.
    #[test]
    fn a_record_that_is_too_long() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline");
        std::fs::write(&path, zstd::encode_all(&u32::MAX.to_le_bytes()[..], 1).unwrap()).unwrap();
        let error = BaselineReader::open(&path).map(drop).unwrap_err().to_string();
        assert!(error.ends_with("a record is too long"), "{error}");
    }
}
