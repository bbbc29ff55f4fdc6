//! A connection that trickles counts as broken: it is never idle, and would hold its reader for ever.

use std::{
    io::{self, Read},
    time::{Duration, Instant},
};

/// Less than [`SLOWEST`] bytes in this time are too few. Only the time that is spent waiting for them counts, not what their
/// reader does in between.
const WINDOW: Duration = Duration::from_secs(60);
pub const SLOWEST: u64 = 64 << 10;

/// The body of an answer.
pub struct Paced<R> {
    body: R,
    /// Since the window began.
    waited: Duration,
    count: u64,
}

impl<R: Read> Paced<R> {
    pub fn new(body: R) -> Self {
        Self { body, waited: Duration::ZERO, count: 0 }
    }
}

impl<R: Read> Read for Paced<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let begin = Instant::now();
        let count = self.body.read(buffer)?;
        self.waited = self.waited.saturating_add(begin.elapsed());
        self.count = self.count.saturating_add(count as u64);
        if count == 0 || self.waited < WINDOW {
            return Ok(count);
        }
        if self.count < SLOWEST {
            let problem = format!("only {} bytes came in {} s", self.count, self.waited.as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, problem));
        }
        (self.waited, self.count) = (Duration::ZERO, 0);
        Ok(count)
    }
}
