//! Compression of layers, and where each kind keeps the table of contents.
//!
//! | kind | the layer | the table of contents |
//! |---|---|---|
//! | zstd | independent frames of 1 MiB | a skippable frame (RFC 8878, 3.1.2); the offset is that of its payload |
//! | | | behind it, where there are several frames, another skippable one with their sizes |
//! | gzip | one member (RFC 1952) | a member of its own, after the end of the archive; the offset is that of the member |
//! | none | as it is | after the end of the archive |

use std::io::{self, Read, Write};

use flate2::{read::MultiGzDecoder, write::GzEncoder};

use crate::step::Compression;

/// Bytes of a zstd frame without compression.
pub const FRAME: usize = 1 << 20;

/// The first of the magic numbers of skippable frames.
const SKIPPABLE: u32 = 0x184D_2A50;

/// That of the sizes of frames.
const SIZES: u32 = SKIPPABLE + 1;

/// Bytes in front of the content of a skippable frame.
pub const SKIPPABLE_HEAD: u64 = 8;

/// Compresses what is written to it.
pub enum Encoder<W: Write> {
    /// zstd
    Zstd(Frames<W>),
    /// gzip
    Gzip(GzEncoder<W>),
    /// Nothing.
    None(W),
}

/// Independent zstd frames.
pub struct Frames<W> {
    out: W,
    context: zstd::bulk::Compressor<'static>,
    plain: Vec<u8>,
    packed: Vec<u8>,
    sizes: Vec<u32>,
}

impl<W: Write> Encoder<W> {
    /// Compresses into `out`.
    pub fn new(compression: Compression, out: W) -> io::Result<Self> {
        Ok(match compression {
            Compression::Zstd => Self::Zstd(Frames {
                out,
                context: zstd::bulk::Compressor::new(1)?,
                plain: Vec::with_capacity(FRAME),
                packed: Vec::with_capacity(zstd::zstd_safe::compress_bound(FRAME)),
                sizes: Vec::new(),
            }),
            Compression::Gzip => Self::Gzip(GzEncoder::new(out, flate2::Compression::fast())),
            Compression::None => Self::None(out),
        })
    }

    /// Ends the compressed stream; gives what is to be written behind the table of contents too.
    pub fn finish(self) -> io::Result<(W, Vec<u8>)> {
        match self {
            Self::Zstd(mut frames) => {
                frames.frame()?;
                Ok((frames.out, wrap_sizes(&frames.sizes)?))
            }
            Self::Gzip(encoder) => Ok((encoder.finish()?, Vec::new())),
            Self::None(out) => Ok((out, Vec::new())),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Zstd(frames) => frames.write(bytes),
            Self::Gzip(encoder) => encoder.write(bytes),
            Self::None(out) => out.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<W: Write> Frames<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let len = bytes.len().min(FRAME.saturating_sub(self.plain.len()));
        self.plain.extend_from_slice(bytes.get(..len).unwrap_or_default());
        if self.plain.len() == FRAME {
            self.frame()?;
        }
        Ok(len)
    }

    fn frame(&mut self) -> io::Result<()> {
        if self.plain.is_empty() {
            return Ok(());
        }
        self.packed.clear();
        self.context.compress_to_buffer(&self.plain, &mut self.packed)?;
        self.out.write_all(&self.packed)?;
        self.sizes.push(u32::try_from(self.packed.len()).map_err(io::Error::other)?);
        self.plain.clear();
        Ok(())
    }
}

/// What is appended to a compressed layer so that it holds the table `toc`: bytes in front, and those that [`unwrap_toc`]
/// reads.
pub fn wrap_toc(compression: Compression, toc: Vec<u8>) -> io::Result<(Vec<u8>, Vec<u8>)> {
    match compression {
        Compression::Zstd => {
            let len = u32::try_from(toc.len()).map_err(io::Error::other)?;
            Ok(([SKIPPABLE.to_le_bytes(), len.to_le_bytes()].concat(), toc))
        }
        Compression::Gzip => {
            let mut member = GzEncoder::new(Vec::new(), flate2::Compression::none());
            member.write_all(&toc)?;
            Ok((Vec::new(), member.finish()?))
        }
        Compression::None => Ok((Vec::new(), toc)),
    }
}

/// The table in the part of a layer that [`wrap_toc`] made. It is not longer than that part.
pub fn unwrap_toc(compression: Compression, stored: Vec<u8>) -> io::Result<Vec<u8>> {
    match compression {
        Compression::Zstd | Compression::None => Ok(stored),
        Compression::Gzip => {
            let mut toc = Vec::new();
            MultiGzDecoder::new(&stored[..]).take(stored.len() as u64).read_to_end(&mut toc)?;
            Ok(toc)
        }
    }
}

/// The sizes of the frames of a zstd layer, as a skippable frame of little-endian numbers of 32 bits; nothing for a single one.
fn wrap_sizes(sizes: &[u32]) -> io::Result<Vec<u8>> {
    if sizes.len() < 2 {
        return Ok(Vec::new());
    }
    let len = u32::try_from(size_of_val(sizes)).map_err(io::Error::other)?;
    let numbers = [SIZES, len].into_iter().chain(sizes.iter().copied());
    Ok(numbers.flat_map(u32::to_le_bytes).collect())
}

/// Where each of the `count` frames begins that take `len` bytes of the layer together, and where the last one ends. `stored` is
/// what is behind the table of contents. None if that does not say so, as in layers of older versions.
pub fn unwrap_sizes(stored: &[u8], count: usize, len: u64) -> Option<Vec<u64>> {
    if count < 2 {
        return Some(vec![0, len]);
    }
    let mut numbers = stored.chunks_exact(4).map(|bytes| bytes.try_into().map(u32::from_le_bytes).unwrap_or_default());
    if numbers.next() != Some(SIZES) || numbers.next().map(u64::from) != sizes_len(count).checked_sub(SKIPPABLE_HEAD) {
        return None;
    }
    let mut starts = vec![0_u64];
    for size in numbers.take(count) {
        starts.push(starts.last()?.checked_add(size.into())?);
    }
    (starts.len() == count.checked_add(1)? && starts.last() == Some(&len)).then_some(starts)
}

/// The content of one frame of [`FRAME`] bytes at most.
pub fn unpack_frame(packed: &[u8]) -> io::Result<Vec<u8>> {
    zstd::bulk::decompress(packed, FRAME)
}

/// How many bytes of a layer behind its table of contents may be the sizes of `count` frames.
pub fn sizes_len(count: usize) -> u64 {
    (count as u64).saturating_mul(4).saturating_add(SKIPPABLE_HEAD)
}

/// The window of zstd, as a power of two, that layers with a table of contents take at the most: each of its frames has 1 MiB.
/// Several of them are read at a time, and each reader holds its window in memory (RFC 8878, 3.1.1.1.2).
const OWN_WINDOW_LOG: u32 = 23;

/// Decompresses a layer: all frames or members, to the end of `blob`. `ours`: it has a table of contents.
pub fn decoder<'a>(
    compression: Compression,
    ours: bool,
    blob: impl Read + Send + 'a,
) -> io::Result<Box<dyn Read + Send + 'a>> {
    Ok(match compression {
        Compression::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(blob)?;
            if ours {
                decoder.window_log_max(OWN_WINDOW_LOG)?;
            }
            Box::new(decoder)
        }
        Compression::Gzip => Box::new(MultiGzDecoder::new(io::BufReader::with_capacity(64 * 1024, blob))),
        Compression::None => Box::new(blob),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_decoder_reads_the_layer_and_the_table_is_where_it_is_said_to_be() {
        let plain: Vec<u8> = (0..3 * FRAME as u32 / 4).flat_map(|i| i.to_le_bytes()).collect();
        for compression in [Compression::Zstd, Compression::Gzip, Compression::None] {
            let mut encoder = Encoder::new(compression, Vec::new()).unwrap();
            encoder.write_all(&plain).unwrap();
            let (mut blob, sizes) = encoder.finish().unwrap();
            let frames = blob.len() as u64;
            let (head, table) = wrap_toc(compression, b"table".to_vec()).unwrap();
            blob.extend_from_slice(&head);
            let offset = blob.len();
            blob.extend_from_slice(&table);
            blob.extend_from_slice(&sizes);
            let end = offset + table.len();
            assert_eq!(unwrap_toc(compression, blob[offset..end].to_vec()).unwrap(), b"table");
            if compression == Compression::Zstd {
                let starts = unwrap_sizes(&blob[end..], 3, frames).unwrap();
                let frame = |n: usize| unpack_frame(&blob[starts[n] as usize..starts[n + 1] as usize]).unwrap();
                assert_eq!((0..3).flat_map(frame).collect::<Vec<u8>>(), plain);
                for (stored, count, len) in [
                    (&blob[end..end + 8], 3, frames),
                    (&blob[end..], 2, frames),
                    (&blob[end..], 3, 1),
                    (&[][..], 3, frames),
                ] {
                    assert_eq!(unwrap_sizes(stored, count, len), None);
                }
                assert_eq!(unwrap_sizes(&[], 1, 7), Some(vec![0, 7]));
            }
            let mut read = Vec::new();
            decoder(compression, true, &blob[..]).unwrap().read_to_end(&mut read).unwrap();
            assert!(read.starts_with(&plain), "{compression:?}");
            assert_eq!(read.len() == plain.len(), compression == Compression::Zstd);
        }
    }
}
