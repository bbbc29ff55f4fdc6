//! The content of a blob, from its producer to the request that sends it.

use std::{
    io::{self, Write},
    thread,
};

use super::{
    blocks::{BlockReader, BlockWriter, blocks},
    retry::Failure,
};
use crate::{
    digest::Hasher,
    store::{Blob, Produce, StoreError},
};

/// How `produce` ended.
enum Produced {
    All,
    /// The request failed, so that `produce` could write no more.
    Cut,
    Failed(io::Error),
}

/// A writer that counts and hashes.
#[derive(Default)]
struct Meter {
    hasher: Hasher,
    size: u64,
}

/// Runs `produce` on this thread and `send` on another one, with a bounded pipe between them. Returns the result of `send`,
/// and what it has read.
pub fn pump<T: Send, E: From<Failure> + Send>(
    produce: &mut Produce<'_>,
    send: impl FnOnce(&mut BlockReader) -> Result<T, E> + Send,
) -> Result<(T, Blob), E> {
    let (writer, mut reader) = blocks();
    thread::scope(|scope| {
        let network = scope.spawn(move || send(&mut reader).map(|sent| (sent, reader.into_blob())));
        let produced = write(writer, produce);
        let sent = network.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match produced {
            Produced::Failed(error) => Err(Failure::Final(StoreError::Source(error)).into()),
            Produced::All | Produced::Cut => sent,
        }
    })
}

/// Digest and size of what `produce` writes.
pub fn measure(produce: &mut Produce<'_>) -> Result<Blob, Failure> {
    let mut meter = Meter::default();
    produce(&mut meter).map_err(|error| Failure::Final(StoreError::Source(error)))?;
    Ok(Blob { digest: meter.hasher.finish(), size: meter.size })
}

fn write(mut writer: BlockWriter, produce: &mut Produce<'_>) -> Produced {
    match produce(&mut writer).and_then(|()| writer.end()) {
        Ok(()) => Produced::All,
        Err(_) if writer.is_cut() => Produced::Cut,
        Err(error) => Produced::Failed(error),
    }
}

impl Write for Meter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.size = self.size.saturating_add(bytes.len() as u64);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
