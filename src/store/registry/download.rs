//! Blobs from a registry (OCI distribution-spec, "Pulling blobs").

use std::{
    io::{self, Read},
    sync::Arc,
};

use http::{Method, StatusCode, header};

use super::{
    mirror::Mirror,
    operation::Operation,
    session::{Payload, RegistryRequest, Session},
};
use crate::store::{
    Blob, StoreError,
    net::{
        content, length,
        resume::{ContentSource, Incoming, Resuming, ended},
        retry::Failure,
        starts_at,
    },
};

/// A blob of a registry.
pub struct RegistryBlob {
    session: Arc<Session>,
    blob: Blob,
    /// Where it comes from now, if not from the registry.
    mirror: Option<Arc<Mirror>>,
}

impl RegistryBlob {
    /// Asks for the blob, a mirror first.
    pub fn open(session: Arc<Session>, mirror: Option<Arc<Mirror>>, blob: Blob) -> Result<Resuming<Self>, StoreError> {
        let from_mirror = mirror.and_then(|mirror| Some((mirror.blob(&blob)?, mirror)));
        let backoff = session.backoff();
        let (incoming, mirror) = match from_mirror {
            Some((incoming, mirror)) => (incoming, Some(mirror)),
            None => (backoff.clone().run(|| session.blob_from(&blob, "", 0, None))?, None),
        };
        Ok(Resuming::new(Self { session, blob, mirror }, blob.size, incoming, backoff))
    }

    /// The mirror that it comes from.
    pub fn mirror(&self) -> Option<Arc<Mirror>> {
        self.mirror.clone()
    }
}

impl ContentSource for RegistryBlob {
    fn open(&mut self, offset: u64) -> Result<Incoming, Failure> {
        self.session.blob_from(&self.blob, "", offset, None)
    }

    fn broken(&mut self, error: io::Error) -> Option<Failure> {
        if let Some(mirror) = self.mirror.take() {
            mirror.failed(&error.to_string());
            return None;
        }
        Some(self.session.broken_reading(&self.session.place(&self.blob.digest.to_string()), error))
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
        let mut body = content(response.into_body());
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
