//! Blobs to a registry (OCI distribution-spec, "Pushing blobs").

mod requests;

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use http::StatusCode;

use super::{operation::Operation, session::Session};
use crate::{
    digest::Digest,
    store::{
        Blob, Produce, StoreError,
        net::{
            blocks::BlockReader,
            drain,
            pump::{measure, pump},
            retry::{Backoff, Failure},
        },
    },
};

/// Size of a chunk. GitHub's registry accepts no larger ones.
const CHUNK: usize = 4 << 20;

/// The most concurrent chunked uploads, each of which holds a chunk in memory.
const UPLOADS_IN_CHUNKS: usize = 3;

/// How a registry accepts uploads, as far as it is known.
#[derive(Debug, Default)]
pub struct Upload {
    style: AtomicU8,
    /// Whether the PUT request that ends an upload must not have a body.
    empty_put: AtomicBool,
}

/// How a blob is sent whose size is not known in advance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    /// In one PATCH request of unknown length. The specification does not describe a request without `Content-Range`, but
    /// nearly every registry accepts it, as docker, podman and crane send it, and several accept no chunks, or only chunks of
    /// certain sizes.
    Stream = 0,
    /// In PATCH requests of some MiB each.
    Chunks = 1,
    /// In one PUT request. The content is produced twice, as its digest is sent before it.
    Single = 2,
}

/// Why an upload failed.
enum UploadFailure {
    Failed(Failure),
    /// The registry, or a proxy before it, does not accept uploads of this style.
    Unsupported {
        error: Failure,
        next: Style,
    },
}

impl Upload {
    fn style(&self) -> Style {
        match self.style.load(Ordering::Relaxed) {
            1 => Style::Chunks,
            2 => Style::Single,
            _ => Style::Stream,
        }
    }

    fn learn(&self, style: Style) {
        self.style.store(style as u8, Ordering::Relaxed);
    }
}

impl From<Failure> for UploadFailure {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl Session {
    /// Stores `bytes`, which fit in memory, unless the repository has them.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        self.backoff().run(|| {
            if self.has_blob(&blob.digest, &self.push_scope())? {
                return Ok(blob);
            }
            if !self.upload.empty_put.load(Ordering::Relaxed) {
                let location = self.start()?.location;
                let response = self.put(&location, &blob.digest, bytes)?;
                match response.status() {
                    status if status.is_success() => {
                        drain(response);
                        return Ok(blob);
                    }
                    StatusCode::NOT_FOUND => return Err(self.forgotten(&blob.digest)),
                    // It may not accept a body (container-registry 0.3 responds with 500).
                    status if status.is_server_error() || matches!(status.as_u16(), 400 | 405 | 411 | 415) => {
                        let error =
                            self.refused_to(Operation::UploadBlob, &self.place(&blob.digest.to_string()), response);
                        return match self.put_after_patch(&blob, bytes) {
                            Ok(()) => {
                                self.upload.empty_put.store(true, Ordering::Relaxed);
                                Ok(blob)
                            }
                            Err(_) => Err(error),
                        };
                    }
                    _ => {
                        return Err(self.refused_to(
                            Operation::UploadBlob,
                            &self.place(&blob.digest.to_string()),
                            response,
                        ));
                    }
                }
            }
            self.put_after_patch(&blob, bytes).map(|()| blob)
        })
    }

    /// Stores what `produce` writes, in a style that the registry accepts.
    pub fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        let mut known: Option<Blob> = None;
        let mut backoff = self.backoff();
        loop {
            match self.try_to_put(produce, &mut known, &backoff) {
                Ok(blob) => return Ok(blob),
                Err(failure) => backoff.wait(failure)?,
            }
        }
    }

    fn try_to_put(
        &self,
        produce: &mut Produce<'_>,
        known: &mut Option<Blob>,
        backoff: &Backoff,
    ) -> Result<Blob, Failure> {
        let _permit = self.pressure.upload();
        if let Some(blob) = *known
            && self.has_blob(&blob.digest, &self.push_scope())?
        {
            return Ok(blob);
        }
        let mut style = self.upload.style();
        loop {
            let sent = match style {
                Style::Stream => self.put_stream(produce, known, backoff),
                Style::Chunks => self.put_chunks(produce, known, backoff),
                Style::Single => self.put_single(produce, known),
            };
            match sent {
                Ok(blob) => {
                    self.upload.learn(style);
                    return Ok(blob);
                }
                Err(UploadFailure::Failed(failure)) => return Err(failure),
                Err(UploadFailure::Unsupported { error, next }) if next == style => return Err(error),
                Err(UploadFailure::Unsupported { next, .. }) => style = next,
            }
        }
    }

    fn put_stream(
        &self,
        produce: &mut Produce<'_>,
        known: &mut Option<Blob>,
        backoff: &Backoff,
    ) -> Result<Blob, UploadFailure> {
        let start = self.start()?.location;
        let sent = pump(produce, |body| self.patch_stream(&start, body));
        let (location, blob) = sent.inspect_err(|_| self.cancel(&start))?;
        *known = Some(blob);
        Ok(self.end(&location, blob, backoff)?)
    }

    fn put_chunks(
        &self,
        produce: &mut Produce<'_>,
        known: &mut Option<Blob>,
        backoff: &Backoff,
    ) -> Result<Blob, UploadFailure> {
        self.pressure.limit_uploads(UPLOADS_IN_CHUNKS);
        let start = self.start()?;
        let size = start.least_chunk.unwrap_or_default().max(CHUNK);
        let sent = pump(produce, |body| self.patch_chunks(&start.location, body, size));
        let (location, blob) = sent.inspect_err(|_| self.cancel(&start.location))?;
        *known = Some(blob);
        Ok(self.end(&location, blob, backoff)?)
    }

    fn put_single(&self, produce: &mut Produce<'_>, known: &mut Option<Blob>) -> Result<Blob, UploadFailure> {
        let blob = match *known {
            Some(blob) => blob,
            None => *known.insert(measure(produce)?),
        };
        if self.has_blob(&blob.digest, &self.push_scope())? {
            return Ok(blob);
        }
        let start = self.start()?.location;
        let sent = pump(produce, |body| self.put_sized(&start, body, &blob));
        let ((), sent) = sent.inspect_err(|_| self.cancel(&start))?;
        if sent == blob {
            return Ok(blob);
        }
        let place = self.place(&blob.digest.to_string());
        Err(UploadFailure::Failed(self.unexpected(&place, "it took a blob that is not the one that was to be sent")))
    }

    /// Ends an upload. If the response to a PUT is lost, the next PUT finds no such upload although the blob may be stored:
    /// checking avoids sending it again.
    fn end(&self, location: &http::Uri, blob: Blob, backoff: &Backoff) -> Result<Blob, Failure> {
        let finished = backoff.clone().run(|| self.finish(location, &blob.digest, &[])).map_err(Failure::Final)?;
        if finished || self.has_blob(&blob.digest, &self.push_scope())? {
            return Ok(blob);
        }
        Err(self.forgotten(&blob.digest))
    }

    fn put_after_patch(&self, blob: &Blob, bytes: &[u8]) -> Result<(), Failure> {
        let start = self.start()?.location;
        let location = self.patch_bytes(&start, bytes, None).map_err(|failure| match failure {
            UploadFailure::Failed(error) | UploadFailure::Unsupported { error, .. } => error,
        })?;
        if self.finish(&location, &blob.digest, &[])? { Ok(()) } else { Err(self.forgotten(&blob.digest)) }
    }

    fn forgotten(&self, digest: &Digest) -> Failure {
        let problem = format!("{} forgot an upload that was under way; look at its log", self.image.registry);
        Failure::transient(StoreError::Registry { place: self.place(&digest.to_string()), problem })
    }

    /// Sends `body` in chunks of `size` bytes, the last one smaller.
    fn patch_chunks(&self, start: &http::Uri, body: &mut BlockReader, size: usize) -> Result<http::Uri, UploadFailure> {
        let (mut location, mut offset, mut chunk) = (start.clone(), 0_u64, Vec::new());
        loop {
            chunk.clear();
            body.read_up_to(size, &mut chunk).map_err(|error| self.broken_source(error))?;
            if chunk.is_empty() {
                return Ok(location);
            }
            location = self.patch_bytes(&location, &chunk, Some(offset))?;
            offset = offset.saturating_add(chunk.len() as u64);
        }
    }
}
