//! A download that goes on over a new connection where the old one broke.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

use super::retry::{Backoff, Failure};

/// A connection that brings less than [`SLOWEST`] bytes in this time counts as broken: one that trickles is never idle.
const WINDOW: Duration = Duration::from_secs(60);
const SLOWEST: u64 = 64 << 10;

/// Content as it comes in.
pub type Incoming = Box<dyn Read + Send>;

/// Where content comes from.
pub trait Source: Send {
    /// The content from `offset` to its end, over a new connection.
    fn open(&mut self, offset: u64) -> Result<Incoming, Failure>;

    /// What a connection that broke means; none: it is no reason to wait.
    fn broken(&mut self, error: io::Error) -> Option<Failure>;
}

/// See the module.
pub struct Resuming<S> {
    source: S,
    size: u64,
    position: u64,
    /// None: to be opened again.
    incoming: Option<Incoming>,
    backoff: Backoff,
    /// Begin of the time that is looked at, and the position then.
    window: (Instant, u64),
}

impl<S: Source> Resuming<S> {
    /// `incoming` is the beginning of the content of `source`, which has `size` bytes.
    pub fn new(source: S, size: u64, incoming: Incoming, backoff: Backoff) -> Self {
        Self { source, size, position: 0, incoming: Some(incoming), backoff, window: (Instant::now(), 0) }
    }

    /// Where it comes from.
    pub fn source(&self) -> &S {
        &self.source
    }

    fn open_again(&mut self) -> io::Result<()> {
        match self.source.open(self.position) {
            Ok(incoming) => {
                self.incoming = Some(incoming);
                self.window = (Instant::now(), self.position);
                Ok(())
            }
            Err(failure) => self.backoff.wait(failure).map_err(io::Error::other),
        }
    }

    /// Takes in what a connection brought; false if that is too little.
    fn progress(&mut self, count: usize) -> bool {
        self.position = self.position.saturating_add(count as u64);
        let (since, from) = self.window;
        let enough = self.position.saturating_sub(from) >= SLOWEST || self.position == self.size;
        if enough {
            // A few bytes would be no sign that the connection is a good one.
            self.backoff.reset();
        }
        if since.elapsed() < WINDOW {
            return true;
        }
        self.window = (Instant::now(), self.position);
        enough
    }
}

impl<S: Source> Read for Resuming<S> {
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
                    if !self.progress(count) {
                        // The rest comes over a new connection.
                        self.incoming = None;
                    }
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
