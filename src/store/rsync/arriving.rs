//! An object that is read while the program still writes it.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use super::{
    run::{RunEnd, RunInProgress},
    spool::SpoolFile,
};

/// So long until it is looked again whether the file has grown.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// A run that has written everything gets so long to take its leave.
const LEAVE: Duration = Duration::from_secs(1);

/// See the module. Where it is dropped early the run ends too.
pub struct ArrivingFile {
    open: File,
    /// Number of bytes that were not read yet.
    left: u64,
    run: RunInProgress,
    /// It goes when nobody reads it any more.
    _file: SpoolFile,
}

/// Why the end of a file has not come, inside of an [`io::Error`].
#[derive(Debug)]
pub struct BrokenRun(pub Arc<RunEnd>);

impl ArrivingFile {
    /// The `size` bytes that `run` writes to `file`, from where `open` stands.
    pub fn new(file: SpoolFile, open: File, size: u64, run: RunInProgress) -> Self {
        Self { open, left: size, run, _file: file }
    }

    /// Number of bytes that were not read yet.
    pub fn left(&self) -> u64 {
        self.left
    }
}

impl Read for ArrivingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Before the file is read: what is not there after the end does not come any more.
            let ended = self.run.ended();
            let count = (&self.open).take(self.left).read(buffer)?;
            self.left = self.left.saturating_sub(count as u64);
            match ended {
                _ if count > 0 || self.left == 0 || buffer.is_empty() => return Ok(count),
                Some(ended) if ended.is_ok() => return Ok(0),
                Some(ended) => return Err(io::Error::other(BrokenRun(ended))),
                None => self.run.wait(LOOK_AGAIN),
            }
        }
    }
}

impl Drop for ArrivingFile {
    fn drop(&mut self) {
        // The server would complain of who goes before the end.
        if self.left == 0 {
            self.run.wait(LEAVE);
        }
    }
}

impl fmt::Display for BrokenRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rsync ended: {:?}", self.0.how)
    }
}

impl std::error::Error for BrokenRun {}
