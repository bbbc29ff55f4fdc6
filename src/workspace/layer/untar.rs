//! Reads tar archives that others made: ustar, GNU and pax headers (POSIX.1-2024, pax; GNU tar manual, "Basic Tar
//! Format"). Fields are parsed by the tar crate; what extended headers say is put together here, record by record as their
//! lengths say, since values may hold line breaks.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "fields of a block of 512 bytes, parts of a buffer at places that were found in it"
)]

use std::io::{self, Read};

use tar::{EntryType, Header};

use super::{archive, toc::NO_ID};
use crate::workspace::entry::{Time, keeps_xattr};

/// The extended headers of one entry may take this many bytes: they are held in memory.
const MAX_HEADERS: u64 = 1 << 20;

/// An archive that is read from its beginning.
pub struct Untar<R> {
    input: R,
    /// Bytes of the last entry's content that were not read, and the padding after it.
    content: u64,
    padding: usize,
}

/// What an archive says about an entry.
#[derive(Clone, Debug)]
pub struct Member {
    /// The path, as it stands there.
    pub path: Vec<u8>,
    /// What a link points to, as it stands there.
    pub link: Vec<u8>,
    /// The type.
    pub kind: EntryType,
    /// Bytes of its content.
    pub size: u64,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Extended attributes that travel, sorted.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// What extended headers said so far about the next entry.
#[derive(Default)]
struct Extended {
    long_path: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Untar<R> {
    /// An archive in `input`.
    pub fn new(input: R) -> Self {
        Self { input, content: 0, padding: 0 }
    }

    /// Skips what was not read of the last entry's content and goes to the next entry; none at the end.
    pub fn next(&mut self) -> io::Result<Option<Member>> {
        let mut extended = Extended::default();
        let mut left = MAX_HEADERS;
        loop {
            self.skip()?;
            let mut block = [0; archive::BLOCK as usize];
            if !self.read_block(&mut block)? || block.iter().all(|&byte| byte == 0) {
                return Ok(None);
            }
            let header = Header::from_byte_slice(&block);
            check_sum(header, &block)?;
            let kind = header.entry_type();
            let size = header.entry_size()?;
            let is_extension = kind.is_pax_local_extensions()
                || kind.is_pax_global_extensions()
                || kind.is_gnu_longname()
                || kind.is_gnu_longlink();
            if !is_extension {
                let member = extended.member(header, size)?;
                self.set_content(member.size);
                return Ok(Some(member));
            }
            left = left.checked_sub(size).ok_or_else(|| damaged("an entry has more than 1 MiB of headers"))?;
            self.set_content(size);
            let mut value = Vec::new();
            self.content().read_to_end(&mut value)?;
            if value.len() as u64 != size {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match kind {
                kind if kind.is_pax_local_extensions() => extended.records.extend(records(&value)?),
                kind if kind.is_gnu_longname() => extended.long_path = Some(until_zero(value)),
                kind if kind.is_gnu_longlink() => extended.long_link = Some(until_zero(value)),
                // Global headers say nothing about files here.
                _ => {}
            }
        }
    }

    /// The content of the last entry.
    pub fn content(&mut self) -> impl Read {
        MemberContent(self)
    }

    /// The input, to be read to its end.
    pub fn into_inner(self) -> R {
        self.input
    }

    fn set_content(&mut self, size: u64) {
        self.content = size;
        self.padding = archive::padding(size);
    }

    fn skip(&mut self) -> io::Result<()> {
        io::copy(&mut self.content(), &mut io::sink())?;
        let mut padding = [0; archive::BLOCK as usize];
        self.input.read_exact(&mut padding[..std::mem::take(&mut self.padding)])?;
        match self.content {
            0 => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// False if the input ends before the block.
    fn read_block(&mut self, block: &mut [u8]) -> io::Result<bool> {
        match self.input.read(&mut block[..1])? {
            0 => Ok(false),
            _ => self.input.read_exact(&mut block[1..]).map(|()| true),
        }
    }
}

struct MemberContent<'a, R>(&'a mut Untar<R>);

impl<R: Read> Read for MemberContent<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let room = usize::try_from(self.0.content).unwrap_or(usize::MAX).min(buffer.len());
        let len = if room == 0 { 0 } else { self.0.input.read(&mut buffer[..room])? };
        self.0.content -= len as u64;
        Ok(len)
    }
}

impl Extended {
    fn member(self, header: &Header, size: u64) -> io::Result<Member> {
        let path = self.long_path.unwrap_or_else(|| header.path_bytes().into_owned());
        let link = self.long_link.or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        let mut member = Member {
            path,
            link: link.unwrap_or_default(),
            kind: header.entry_type(),
            size,
            mode: header.mode()? & 0o7777,
            uid: id(header.uid()?),
            gid: id(header.gid()?),
            mtime: Time { sec: header.mtime()? as i64, nsec: 0 },
            xattrs: Vec::new(),
        };
        for (key, value) in self.records {
            let number = || number(&value).ok_or_else(|| damaged("an extended header has a number that is none"));
            match &key[..] {
                b"path" => member.path = value,
                b"linkpath" => member.link = value,
                b"size" => member.size = number()?,
                b"uid" => member.uid = id(number()?),
                b"gid" => member.gid = id(number()?),
                b"mtime" => {
                    member.mtime = time(&value).ok_or_else(|| damaged("an extended header has no valid mtime"))?
                }
                key if key.starts_with(b"GNU.sparse.") => return Err(damaged("sparse files are not supported")),
                key => {
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.").filter(|name| keeps_xattr(name)) {
                        member.xattrs.push((name.to_owned(), value));
                    }
                }
            }
        }
        if member.uid == NO_ID || member.gid == NO_ID {
            return Err(damaged("an entry has the owner 4294967295, which no user or group can have"));
        }
        member.xattrs.sort();
        if member.kind.is_file() && member.path.ends_with(b"/") {
            // As archives older than POSIX have directories.
            member.kind = EntryType::Directory;
        }
        if !member.kind.is_file() && !member.kind.is_contiguous() {
            // Whatever the header says, no content follows (Go: archive/tar, isHeaderOnlyType).
            member.size = 0;
        }
        Ok(member)
    }
}

/// `<length> <key>=<value>\n`, again and again.
fn records(mut bytes: &[u8]) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let invalid = || damaged("an extended header is damaged");
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|&byte| byte == b' ').ok_or_else(invalid)?;
        let len = number(&bytes[..space]).and_then(|len| usize::try_from(len).ok()).ok_or_else(invalid)?;
        let record = bytes.get(space + 1..len).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(invalid)?;
        let equals = record.iter().position(|&byte| byte == b'=').ok_or_else(invalid)?;
        records.push((record[..equals].to_owned(), record[equals + 1..].to_owned()));
        bytes = &bytes[len..];
    }
    Ok(records)
}

fn check_sum(header: &Header, block: &[u8]) -> io::Result<()> {
    if cfg!(fuzzing) {
        return Ok(()); // Hardly any input would get beyond it.
    }
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    let field: u32 = block[148..156].iter().map(|&byte| u32::from(byte)).sum();
    match header.cksum() {
        Ok(expected) if expected == sum - field + 8 * u32::from(b' ') => Ok(()),
        _ => Err(damaged("it is not a tar archive, or a damaged one")),
    }
}

/// Decimal seconds, cut off (not rounded) after nine decimals.
fn time(value: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(value).ok()?;
    let (negative, digits) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let whole: i64 = number(whole.as_bytes()).and_then(|whole| whole.try_into().ok())?;
    let decimals: String = fraction.chars().chain(std::iter::repeat('0')).take(9).collect();
    let nsec = u32::try_from(number(decimals.as_bytes())?).ok()?;
    Some(match (negative, nsec) {
        (false, nsec) => Time { sec: whole, nsec },
        (true, 0) => Time { sec: -whole, nsec: 0 },
        (true, nsec) => Time { sec: -whole - 1, nsec: 1_000_000_000 - nsec },
    })
}

fn number(digits: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(digits).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
    text.parse().ok()
}

/// One that no system has stays one that no system has.
fn id(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX - 1)
}

fn until_zero(mut value: Vec<u8>) -> Vec<u8> {
    value.truncate(value.iter().position(|&byte| byte == 0).unwrap_or(value.len()));
    value
}

fn damaged(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_may_hold_line_breaks_and_records() {
        let value = b"16 path=smuggle\n\n".to_vec();
        let mut bytes = format!("{} k=", value.len() + 6).into_bytes();
        bytes.extend_from_slice(&value);
        bytes.push(b'\n');
        assert_eq!(records(&bytes).unwrap(), [(b"k".to_vec(), value)]);
        for bad in [&b"5 a=b"[..], b"x a=b\n", b"99 a=b\n", b"0 a=b\n", b"2 ", b"+6 a=b\n", b"6 abc\n", b"3 \n"] {
            assert!(records(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn times() {
        for (text, sec, nsec) in [
            ("0", 0, 0),
            ("1.5", 1, 500_000_000),
            ("1.9999999999", 1, 999_999_999),
            ("-1.5", -2, 500_000_000),
            ("-0.000000001", -1, 999_999_999),
            ("-3", -3, 0),
            ("12.", 12, 0),
        ] {
            assert_eq!(time(text.as_bytes()), Some(Time { sec, nsec }), "{text}");
        }
        for bad in ["", "x", "1.x", "1e3", "--1", "99999999999999999999"] {
            assert_eq!(time(bad.as_bytes()), None, "{bad}");
        }
    }
}
