//! A download that goes on over a new connection where the old one broke.

use std::io::{self, Read};

use super::{
    pace::SLOWEST,
    retry::{Backoff, Failure},
};

/// Content as it comes in.
pub type Incoming = Box<dyn Read + Send>;

/// Where content comes from.
pub trait ContentSource: Send {
    /// The content from `offset` to its end, over a new connection.
    fn open(&mut self, offset: u64) -> Result<Incoming, Failure>;

    /// What a connection that broke means; none: it is no reason to wait.
    fn broken(&mut self, error: io::Error) -> Option<Failure>;
}

/// See the module.
pub struct Resuming<S> {
    /// None: to be opened again. It may need what the source has, so it goes first.
    incoming: Option<Incoming>,
    source: S,
    size: u64,
    position: u64,
    backoff: Backoff,
    /// Where this connection, or the last stretch that was good enough, began.
    begin: u64,
}

impl<S: ContentSource> Resuming<S> {
    /// `incoming` is the beginning of the content of `source`, which has `size` bytes.
    pub fn new(source: S, size: u64, incoming: Incoming, backoff: Backoff) -> Self {
        Self { incoming: Some(incoming), source, size, position: 0, backoff, begin: 0 }
    }

    /// Where it comes from.
    pub fn source(&self) -> &S {
        &self.source
    }

    fn open_again(&mut self) -> io::Result<()> {
        match self.source.open(self.position) {
            Ok(incoming) => {
                self.incoming = Some(incoming);
                self.begin = self.position;
                Ok(())
            }
            Err(failure) => self.backoff.wait(failure).map_err(io::Error::other),
        }
    }

    /// Takes in what a connection brought. A few bytes would be no sign that it is a good one.
    fn progress(&mut self, count: usize) {
        self.position = self.position.saturating_add(count as u64);
        if self.position.saturating_sub(self.begin) >= SLOWEST || self.position == self.size {
            self.begin = self.position;
            self.backoff.reset();
        }
    }
}

impl<S: ContentSource> Read for Resuming<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(incoming) = &mut self.incoming else {
                if self.position == self.size {
                    return Ok(0);
                }
                self.open_again()?;
                continue;
            };
            let error = match incoming.read(buffer) {
                Ok(0) if self.position < self.size => ended(),
                Ok(count) => {
                    self.progress(count);
                    return Ok(count);
                }
                Err(error) => error,
            };
            self.incoming = None;
            if let Some(failure) = self.source.broken(error) {
                self.backoff.wait(failure).map_err(io::Error::other)?;
            }
        }
    }
}

/// That content was longer.
pub fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended too early")
}
