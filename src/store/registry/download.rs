//! Blobs from a registry (OCI distribution-spec, "Pulling blobs").

use std::{
    io::{self, Read},
    sync::Arc,
    time::{Duration, Instant},
};

use http::{Method, Response, StatusCode, header};
use ureq::Body;

use super::{
    mirror::Mirror,
    operation::Operation,
    retry::{Backoff, Failure},
    session::{Payload, RegistryRequest, Session},
};
use crate::store::{Blob, StoreError};

/// A connection with less than [`MIN_BYTES`] in this time counts as broken: a slow one is never idle, so no idle timeout
/// ends it.
const WINDOW: Duration = Duration::from_secs(60);
const MIN_BYTES: u64 = 64 << 10;

/// A blob while it is downloaded. If the connection breaks, the download continues from there over a new one.
pub struct Download {
    session: Arc<Session>,
    mirror: Option<Arc<Mirror>>,
    blob: Blob,
    position: u64,
    source: BlobSource,
    backoff: Backoff,
    window: Window,
}

/// The period over which the rate of a connection is measured.
struct Window {
    start: Instant,
    /// The position at its start.
    position: u64,
}

enum BlobSource {
    Mirror(Incoming),
    Registry(Incoming),
    /// To be requested again.
    Closed,
}

/// The content of a blob.
pub type Incoming = Box<dyn Read + Send>;

impl Download {
    /// Requests the blob, from the mirror first.
    pub fn open(session: Arc<Session>, mirror: Option<Arc<Mirror>>, blob: Blob) -> Result<Self, StoreError> {
        let source = match mirror.as_ref().and_then(|mirror| mirror.blob(&blob)) {
            Some(body) => BlobSource::Mirror(body),
            None => BlobSource::Registry(session.backoff().run(|| session.blob_from(&blob, "", 0, None))?),
        };
        let backoff = session.backoff();
        Ok(Self { session, mirror, blob, position: 0, source, backoff, window: Window::new(0) })
    }

    /// The mirror that it is read from, if any.
    pub fn mirror(&self) -> Option<Arc<Mirror>> {
        match &self.source {
            BlobSource::Mirror(_) => self.mirror.clone(),
            _ => None,
        }
    }

    fn open_again(&mut self) -> io::Result<()> {
        match self.session.blob_from(&self.blob, "", self.position, None) {
            Ok(body) => {
                self.source = BlobSource::Registry(body);
                self.window = Window::new(self.position);
                Ok(())
            }
            Err(failure) => self.backoff.wait(failure).map_err(io::Error::other),
        }
    }

    /// Records received bytes; false if the connection is too slow.
    fn progress(&mut self, count: usize) -> bool {
        self.position = self.position.saturating_add(count as u64);
        let received = self.position.saturating_sub(self.window.position);
        let enough = received >= MIN_BYTES || self.position == self.blob.size;
        if enough {
            // Fewer bytes don't prove that the connection works.
            self.backoff.reset();
        }
        if self.window.start.elapsed() < WINDOW {
            return true;
        }
        self.window = Window::new(self.position);
        enough
    }
}

impl Window {
    fn new(position: u64) -> Self {
        Self { start: Instant::now(), position }
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let (read, from_mirror) = match &mut self.source {
                BlobSource::Closed if self.position == self.blob.size => return Ok(0),
                BlobSource::Closed => {
                    self.open_again()?;
                    continue;
                }
                BlobSource::Mirror(body) => (body.read(buffer), true),
                BlobSource::Registry(body) => (body.read(buffer), false),
            };
            let error = match read {
                Ok(0) if self.position < self.blob.size => ended(),
                Ok(count) => {
                    if !self.progress(count) {
                        // The rest is requested over a new connection.
                        self.source = BlobSource::Closed;
                    }
                    return Ok(count);
                }
                Err(error) => error,
            };
            self.source = BlobSource::Closed;
            if from_mirror {
                self.mirror.iter().for_each(|mirror| mirror.failed(&error.to_string()));
                continue;
            }
            let failure = self.session.broken_reading(&self.session.place(&self.blob.digest.to_string()), error);
            self.backoff.wait(failure).map_err(io::Error::other)?;
        }
    }
}

impl Session {
    /// `len` bytes of a blob from `offset`.
    pub fn blob_range(&self, blob: &Blob, offset: u64, len: usize) -> Result<Vec<u8>, StoreError> {
        if len == 0 {
            return Ok(Vec::new());
        }
        let place = self.place(&blob.digest.to_string());
        self.backoff().run(|| {
            let mut bytes = vec![0; len];
            let mut body = self.blob_from(blob, "", offset, Some(len as u64))?;
            body.read_exact(&mut bytes).map_err(|error| self.broken_reading(&place, error))?;
            Ok(bytes)
        })
    }

    /// The blob from `offset` on, at most `len` bytes of it if that is given. `query` is added to its URL.
    pub fn blob_from(&self, blob: &Blob, query: &str, offset: u64, len: Option<u64>) -> Result<Incoming, Failure> {
        let place = self.place(&blob.digest.to_string());
        let end = len.map_or(blob.size, |len| offset.saturating_add(len));
        let range = format!("bytes={offset}-{}", end.saturating_sub(1));
        let whole = offset == 0 && end == blob.size;
        let headers = [(header::RANGE, range.as_str())];
        let response = self.call(RegistryRequest {
            operation: Operation::ReadBlob,
            place: &place,
            method: Method::GET,
            url: self.url(&format!("blobs/{}{query}", blob.digest))?,
            headers: if whole { &[] } else { &headers },
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        let (first, last) = match response.status() {
            StatusCode::OK => (0, blob.size),
            StatusCode::PARTIAL_CONTENT if !whole && starts_at(&response, offset) => (offset, end),
            StatusCode::PARTIAL_CONTENT => {
                let problem =
                    format!("unexpected response from {}: another part than was asked for", self.image.registry);
                return Err(Failure::transient(StoreError::Content { place, problem }));
            }
            _ => return Err(self.refused_to(Operation::ReadBlob, &place, response)),
        };
        let expected = last.saturating_sub(first);
        if let Some(length) = length(&response)
            && length != expected
        {
            return Err(self.unexpected(&place, &format!("{length} bytes where {expected} were expected")));
        }
        let mut body = response.into_body().into_reader();
        // Ranges are optional: without them the bytes before `offset` are read and dropped.
        let before = offset.saturating_sub(first);
        let skipped = io::copy(&mut body.by_ref().take(before), &mut io::sink());
        match skipped {
            Ok(count) if count == before => Ok(Box::new(body)),
            Ok(_) => Err(self.broken_reading(&place, ended())),
            Err(error) => Err(self.broken_reading(&place, error)),
        }
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended too early")
}

/// `Content-Range: bytes <first>-…`
fn starts_at(response: &Response<Body>, offset: u64) -> bool {
    let range = response.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok());
    first == Some(offset)
}

fn length(response: &Response<Body>) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
