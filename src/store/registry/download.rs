//! Blobs from a registry (OCI distribution-spec, "Pulling blobs").

use std::{
    io::{self, Read},
    sync::Arc,
};

use http::{Method, Response, StatusCode, header};
use ureq::Body;

use super::{
    retry::{Backoff, Failure},
    session::{Call, Payload, Session},
};
use crate::store::{Blob, StoreError};

const ACTION: &str = "read a blob";

/// A blob as it comes in. Where the connection breaks it goes on from there over a new one.
pub struct Download {
    session: Arc<Session>,
    blob: Blob,
    position: u64,
    /// None: to be opened again.
    body: Option<Incoming>,
    backoff: Backoff,
}

type Incoming = Box<dyn Read + Send>;

impl Download {
    /// Asks for the blob.
    pub fn open(session: Arc<Session>, blob: Blob) -> Result<Self, StoreError> {
        let body = session.backoff().run(|| session.blob_from(&blob, 0, None))?;
        let backoff = session.backoff();
        Ok(Self { session, blob, position: 0, body: Some(body), backoff })
    }

    fn wait(&mut self, failure: Failure) -> io::Result<()> {
        self.body = None;
        self.backoff.wait(failure).map_err(io::Error::other)
    }
}

impl Read for Download {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let Some(body) = &mut self.body else {
                if self.position == self.blob.size {
                    return Ok(0);
                }
                match self.session.blob_from(&self.blob, self.position, None) {
                    Ok(body) => self.body = Some(body),
                    Err(failure) => self.wait(failure)?,
                }
                continue;
            };
            let read = body.read(buffer);
            let place = || self.session.place(&self.blob.digest.to_string());
            let failure = match read {
                Ok(0) if self.position < self.blob.size => self.session.broken_reading(&place(), ended()),
                Ok(count) => {
                    self.position += count as u64;
                    self.backoff.reset();
                    return Ok(count);
                }
                Err(error) => self.session.broken_reading(&place(), error),
            };
            self.wait(failure)?;
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
            let mut body = self.blob_from(blob, offset, Some(len as u64))?;
            body.read_exact(&mut bytes).map_err(|error| self.broken_reading(&place, error))?;
            Ok(bytes)
        })
    }

    /// The blob from `offset` on, at most `len` bytes of it where that is given.
    fn blob_from(&self, blob: &Blob, offset: u64, len: Option<u64>) -> Result<Incoming, Failure> {
        let place = self.place(&blob.digest.to_string());
        let end = len.map_or(blob.size, |len| offset + len);
        let range = format!("bytes={offset}-{}", end.saturating_sub(1));
        let whole = offset == 0 && end == blob.size;
        let headers = [(header::RANGE, range.as_str())];
        let answer = self.call(Call {
            action: ACTION,
            place: &place,
            method: Method::GET,
            url: self.url(&format!("blobs/{}", blob.digest))?,
            headers: if whole { &[] } else { &headers },
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        let (first, last) = match answer.status() {
            StatusCode::OK => (0, blob.size),
            StatusCode::PARTIAL_CONTENT if !whole && starts_at(&answer, offset) => (offset, end),
            StatusCode::PARTIAL_CONTENT => return Err(self.unasked(&place, "another part of it than was asked for")),
            _ => return Err(self.refused_to(ACTION, &place, answer)),
        };
        if let Some(length) = length(&answer)
            && length != last - first
        {
            return Err(self.unasked(&place, &format!("{length} bytes where {} were expected", last - first)));
        }
        let mut body = answer.into_body().into_reader();
        // A registry need not know ranges: then what lies before is read and dropped.
        let skipped = io::copy(&mut body.by_ref().take(offset - first), &mut io::sink());
        match skipped {
            Ok(count) if count == offset - first => Ok(Box::new(body)),
            Ok(_) => Err(self.broken_reading(&place, ended())),
            Err(error) => Err(self.broken_reading(&place, error)),
        }
    }

    fn unasked(&self, place: &str, what: &str) -> Failure {
        let problem = format!("{} sent {what}", self.image.registry);
        Failure::Final(StoreError::Content { place: place.to_owned(), problem })
    }
}

fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "it ended too early")
}

/// `Content-Range: bytes <first>-…`
fn starts_at(answer: &Response<Body>, offset: u64) -> bool {
    let range = answer.headers().get(header::CONTENT_RANGE).and_then(|value| value.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.trim().parse().ok());
    first == Some(offset)
}

fn length(answer: &Response<Body>) -> Option<u64> {
    answer.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
