//! A reader that verifies size and digest of a blob.

use std::io::{self, Read};

use super::{Blob, StoreError};
use crate::digest::Hasher;

/// Reads a blob and compares its size and digest with the expected ones. It returns the last bytes only if both are right, so
/// that a caller who counts bytes instead of reading to the end is safe too.
pub struct VerifyReader<R> {
    inner: R,
    place: String,
    expected: Blob,
    seen: u64,
    hasher: Option<Hasher>,
}

impl<R: Read> VerifyReader<R> {
    /// `place` names the blob in errors.
    pub fn new(inner: R, expected: Blob, place: String) -> Self {
        Self { inner, place, expected, seen: 0, hasher: Some(Hasher::default()) }
    }

    fn wrong(&self, problem: String) -> io::Error {
        let place = self.place.clone();
        io::Error::new(io::ErrorKind::InvalidData, StoreError::Content { place, problem })
    }

    fn verify(&mut self) -> io::Result<()> {
        match self.hasher.take().map(Hasher::finish) {
            Some(found) if found != self.expected.digest => Err(self.wrong(format!(
                "the blob is damaged: its content has the digest {found} instead of {}; store the image again",
                self.expected.digest
            ))),
            _ => Ok(()),
        }
    }
}

impl<R: Read> Read for VerifyReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let left = self.expected.size.saturating_sub(self.seen);
        if left == 0 {
            self.verify()?;
            return match self.inner.read(&mut [0])? {
                0 => Ok(0),
                _ => Err(self.wrong(format!("the blob is longer than its {} bytes", self.expected.size))),
            };
        }
        let room = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        let count = self.inner.read(buffer.get_mut(..room).unwrap_or_default())?;
        if count == 0 {
            return Err(self.wrong(format!("the blob ends after {} of its {} bytes", self.seen, self.expected.size)));
        }
        self.seen = self.seen.saturating_add(count as u64);
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer.get(..count).unwrap_or_default());
        }
        if self.seen == self.expected.size {
            self.verify()?;
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;

    fn read(stored: &[u8], digest_of: &[u8], size: u64) -> Result<Vec<u8>, String> {
        let expected = Blob { digest: Digest::of(digest_of), size };
        let mut read = Vec::new();
        VerifyReader::new(stored, expected, "here".to_owned()).read_to_end(&mut read).map_err(|e| e.to_string())?;
        Ok(read)
    }

    #[test]
    fn accepts() {
        for content in [&b""[..], b"x", &[7; 100_000]] {
            assert_eq!(read(content, content, content.len() as u64).unwrap(), content);
        }
    }

    #[test]
    fn rejects() {
        for (stored, digest_of, size, says) in [
            (&b"abc"[..], &b"abd"[..], 3, "damaged"),
            (b"ab", b"abc", 3, "ends after 2 of its 3"),
            (b"abcd", b"abc", 3, "longer than its 3"),
            (b"", b"a", 0, "damaged"),
            (b"a", b"", 0, "longer"),
        ] {
            let error = read(stored, digest_of, size).unwrap_err();
            assert!(error.starts_with("here: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn withholds_the_last_bytes_of_a_damaged_blob() {
        let expected = Blob { digest: Digest::of(b"abd"), size: 3 };
        let mut reader = VerifyReader::new(&b"abc"[..], expected, String::new());
        assert!(reader.read_exact(&mut [0; 3]).is_err());
    }
}
