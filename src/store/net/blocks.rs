//! A bounded pipe between the thread that produces the bytes of a blob and the one that sends them.

use std::{
    io::{self, Read, Write},
    mem,
    sync::mpsc::{Receiver, SyncSender, sync_channel},
};

use crate::{
    digest::{Digest, Hasher},
    store::Blob,
};

/// Bytes of a block. Large enough that the channel costs nothing, and below the size from which malloc(3) calls mmap(2).
const BLOCK: usize = 120 << 10;

/// Capacity of the channel.
const WAITING: usize = 4;

/// The two ends of a pipe.
pub fn blocks() -> (BlockWriter, BlockReader) {
    let (sender, receiver) = sync_channel(WAITING);
    let writer = BlockWriter { sender, block: Vec::new(), cut: false };
    let reader =
        BlockReader { receiver, block: Vec::new(), position: 0, ended: false, hasher: Hasher::default(), size: 0 };
    (writer, reader)
}

/// The end to write to. Unless [`BlockWriter::end`] is called the reader sees an error at the end.
pub struct BlockWriter {
    sender: SyncSender<Vec<u8>>,
    block: Vec<u8>,
    cut: bool,
}

/// The end to read from; it computes the digest on the way.
pub struct BlockReader {
    receiver: Receiver<Vec<u8>>,
    block: Vec<u8>,
    position: usize,
    ended: bool,
    hasher: Hasher,
    size: u64,
}

impl BlockWriter {
    /// Marks the end of the content.
    pub fn end(&mut self) -> io::Result<()> {
        self.flush()?;
        // An empty block marks the end.
        self.send(Vec::new())
    }

    /// Whether the reader was dropped.
    pub fn is_cut(&self) -> bool {
        self.cut
    }

    fn send(&mut self, block: Vec<u8>) -> io::Result<()> {
        self.sender.send(block).map_err(|_| {
            self.cut = true;
            io::Error::new(io::ErrorKind::BrokenPipe, "the upload broke off")
        })
    }
}

impl Write for BlockWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.capacity() == 0 {
            self.block.reserve_exact(BLOCK);
        }
        let count = bytes.len().min(BLOCK.saturating_sub(self.block.len()));
        self.block.extend_from_slice(bytes.get(..count).unwrap_or(bytes));
        if self.block.len() == BLOCK {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        let block = mem::take(&mut self.block);
        self.send(block)
    }
}

impl BlockReader {
    /// Whether the end was reached.
    pub fn ended(&self) -> bool {
        self.ended
    }

    /// Appends up to `count` bytes to `to`; fewer only at the end.
    pub fn read_up_to(&mut self, count: usize, to: &mut Vec<u8>) -> io::Result<usize> {
        self.by_ref().take(count as u64).read_to_end(to)
    }

    /// Digest and size of what was read.
    pub fn into_blob(self) -> Blob {
        let digest: Digest = self.hasher.finish();
        Blob { digest, size: self.size }
    }
}

impl Read for BlockReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.position == self.block.len() && !self.ended {
            let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the content of the blob broke off");
            self.block = self.receiver.recv().map_err(gone)?;
            self.position = 0;
            self.ended = self.block.is_empty();
            self.hasher.update(&self.block);
            self.size = self.size.saturating_add(self.block.len() as u64);
        }
        let count = self.block.get(self.position..).unwrap_or_default().read(buffer)?;
        self.position = self.position.saturating_add(count);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn carries_everything() {
        let content: Vec<u8> = (0..1_000_003u32).map(|i| (i % 251) as u8).collect();
        let (mut writer, mut reader) = blocks();
        thread::scope(|scope| {
            scope.spawn(|| {
                content.chunks(7777).for_each(|part| writer.write_all(part).unwrap());
                writer.end().unwrap();
            });
            let mut read = Vec::new();
            reader.read_to_end(&mut read).unwrap();
            assert!(read == content && reader.ended());
            assert_eq!(reader.into_blob(), Blob { digest: Digest::of(&content), size: content.len() as u64 });
        });
    }

    #[test]
    fn an_end_that_is_not_one_is_an_error() {
        let (mut writer, mut reader) = blocks();
        writer.write_all(b"half").unwrap();
        writer.flush().unwrap();
        drop(writer);
        let mut read = Vec::new();
        assert!(reader.read_to_end(&mut read).is_err());
        assert!(!reader.ended());
    }

    #[test]
    fn the_writer_learns_that_the_reader_is_gone() {
        let (mut writer, reader) = blocks();
        drop(reader);
        assert!(!writer.is_cut());
        assert!(writer.write_all(b"x").and_then(|()| writer.end()).is_err());
        assert!(writer.is_cut());
    }
}
