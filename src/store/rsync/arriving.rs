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

/// See the module. Where it is dropped early the run ends too.
pub struct ArrivingFile {
    open: File,
    run: RunInProgress,
    /// It goes when nobody reads it any more.
    _file: SpoolFile,
}

/// Why the end of a file has not come, inside of an [`io::Error`].
#[derive(Debug)]
pub struct BrokenRun(pub Arc<RunEnd>);

impl ArrivingFile {
    /// What `run` writes to `file`, from where `open` stands.
    pub fn new(file: SpoolFile, open: File, run: RunInProgress) -> Self {
        Self { open, run, _file: file }
    }
}

impl Read for ArrivingFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            // Before the file is read: what is not there after the end does not come any more.
            let ended = self.run.ended();
            let count = self.open.read(buffer)?;
            match ended {
                _ if count > 0 || buffer.is_empty() => return Ok(count),
                Some(ended) if ended.is_ok() => return Ok(0),
                Some(ended) => return Err(io::Error::other(BrokenRun(ended))),
                None => self.run.wait(LOOK_AGAIN),
            }
        }
    }
}

impl fmt::Display for BrokenRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rsync ended: {:?}", self.0.how)
    }
}

impl std::error::Error for BrokenRun {}
