//! Files are stored without holes (OCI image-spec, layer.md, "Sparse files"); where a file has long runs of zeros, it gets
//! holes again.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "parts of a buffer in memory, as long as the blocks that were counted in it"
)]

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

/// Zeros become a hole if a whole block of this size, at a multiple of it, holds nothing else.
const BLOCK: usize = 64 * 1024;

/// A new, empty file that is written from its beginning to its end.
pub struct SparseFile {
    file: File,
    at: u64,
    ends_with_hole: bool,
}

impl SparseFile {
    /// `file` is empty.
    pub fn new(file: File) -> Self {
        Self { file, at: 0, ends_with_hole: false }
    }

    /// Adds `bytes`: a multiple of [`BLOCK`], except for the last time.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let is_hole = |block: &[u8]| block.len() == BLOCK && is_zero(block);
        let mut rest = bytes;
        while !rest.is_empty() {
            let hole = rest.chunks(BLOCK).take_while(|block| is_hole(block)).count() * BLOCK;
            self.ends_with_hole = hole > 0;
            self.at += hole as u64;
            rest = &rest[hole..];
            let blocks = rest.chunks(BLOCK).take_while(|block| !is_hole(block));
            let data: usize = blocks.map(<[u8]>::len).sum();
            if data > 0 {
                self.file.write_all_at(&rest[..data], self.at)?;
                self.ends_with_hole = false;
            }
            self.at += data as u64;
            rest = &rest[data..];
        }
        Ok(())
    }

    /// The whole file.
    pub fn finish(self) -> io::Result<File> {
        if self.ends_with_hole {
            self.file.set_len(self.at)?;
        }
        Ok(self.file)
    }
}

/// Reads until `buffer` is full or `input` ends.
pub fn fill(input: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut len = 0;
    while len < buffer.len() {
        match input.read(&mut buffer[len..]) {
            Ok(0) => break,
            Ok(more) => len += more,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(len)
}

/// Compares the bytes with themselves, one further on: that is as fast as memory.
fn is_zero(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|&first| first == 0 && bytes[1..] == bytes[..bytes.len() - 1])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn content_is_kept_and_holes_are_made() {
        let zeros = |blocks: usize| vec![0; blocks * BLOCK];
        let data = |len: usize| vec![7; len];
        for (content, most) in [
            (vec![], 0),
            (data(5), 1),
            (zeros(1), 0),
            (zeros(40), 0),
            ([zeros(3), data(1)].concat(), 1),
            ([data(1), zeros(20)].concat(), 1),
            ([data(BLOCK), zeros(5), data(10), zeros(9), vec![0; 100]].concat(), 3),
            ([zeros(8), vec![0; 3]].concat(), 1),
        ] {
            let mut file = SparseFile::new(tempfile::tempfile().unwrap());
            for part in content.chunks(2 * BLOCK) {
                file.append(part).unwrap();
            }
            let file = file.finish().unwrap();
            let meta = file.metadata().unwrap();
            let mut read = vec![1; content.len()];
            file.read_exact_at(&mut read, 0).unwrap();
            assert!(read == content && meta.len() == content.len() as u64);
            assert!(meta.blocks() * 512 <= most * BLOCK as u64 + 4096, "{} {most}", meta.blocks());
        }
    }
}
