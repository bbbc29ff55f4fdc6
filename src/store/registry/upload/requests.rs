//! The requests of uploads.

use std::io;

use http::{Method, Response, StatusCode, Uri, header};
use ureq::Body;

use super::{Style, UploadFailure};
use crate::{
    digest::Digest,
    store::{
        Blob, StoreError,
        net::{blocks::BlockReader, drain, origin::with_query, retry::Failure},
        registry::{
            operation::Operation,
            session::{Payload, RegistryRequest, Session},
        },
    },
};

type Header<'a> = (http::HeaderName, &'a str);

const OCTETS: Header<'static> = (header::CONTENT_TYPE, "application/octet-stream");

/// An upload session.
pub struct Start {
    /// The URL of the next request.
    pub location: Uri,
    /// `OCI-Chunk-Min-Length`: the smallest chunk, except for the last one.
    pub least_chunk: Option<usize>,
}

impl Session {
    /// Whether the repository has the blob.
    pub fn has_blob(&self, digest: &Digest, scope: &str) -> Result<bool, Failure> {
        match self.look_for_blob(digest, scope, Method::HEAD)? {
            Some(found) => Ok(found),
            // Some proxies in front of registries reject HEAD.
            None => Ok(self.look_for_blob(digest, scope, Method::GET)?.unwrap_or(false)),
        }
    }

    /// None: the method is not supported.
    fn look_for_blob(&self, digest: &Digest, scope: &str, method: Method) -> Result<Option<bool>, Failure> {
        let place = self.place(&digest.to_string());
        let first_byte = [(header::RANGE, "bytes=0-0")];
        let is_head = method == Method::HEAD;
        let response = self.call(RegistryRequest {
            operation: Operation::FindBlob,
            place: &place,
            method,
            url: self.url(&format!("blobs/{digest}"))?,
            headers: if is_head { &[] } else { &first_byte },
            body: Payload::None,
            scope,
        })?;
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some(true)),
            StatusCode::NOT_FOUND => Ok(Some(false)),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if is_head => Ok(None),
            _ => Err(self.refused_to(Operation::FindBlob, &place, response)),
        }
    }

    /// Mounts the blob of another repository of the same registry; false if the registry does not, or if the right is
    /// lacking.
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<bool, StoreError> {
        let place = self.place(&digest.to_string());
        let scope = format!("{} repository:{from}:pull", self.push_scope());
        let mounted = self.backoff().run(|| {
            let response = self.call(RegistryRequest {
                operation: Operation::MountBlob,
                place: &place,
                method: Method::POST,
                url: self.url(&format!("blobs/uploads/?mount={digest}&from={from}"))?,
                headers: &[],
                body: Payload::Bytes(&[]),
                scope: &scope,
            })?;
            match response.status().as_u16() {
                201 => {
                    drain(response);
                    Ok(true)
                }
                202 => {
                    // The registry started an ordinary upload instead.
                    if let Ok(location) = self.location(&response) {
                        self.cancel(&location);
                    }
                    Ok(false)
                }
                408 | 429 | 500.. => Err(self.refused_to(Operation::MountBlob, &place, response)),
                _ => Ok(false),
            }
        });
        match mounted {
            Err(StoreError::Denied { .. }) => Ok(false),
            mounted => mounted,
        }
    }

    /// Starts an upload session.
    pub(super) fn start(&self) -> Result<Start, Failure> {
        let place = self.image.to_string();
        let response = self.call(RegistryRequest {
            operation: Operation::UploadBlob,
            place: &place,
            method: Method::POST,
            url: self.url("blobs/uploads/")?,
            headers: &[],
            body: Payload::Bytes(&[]),
            scope: &self.push_scope(),
        })?;
        if response.status() != StatusCode::ACCEPTED {
            return Err(self.refused_to(Operation::UploadBlob, &place, response));
        }
        let least = response.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        // Larger chunks don't fit in memory.
        let start =
            Start { location: self.location(&response)?, least_chunk: least.filter(|least| *least <= 16 << 20) };
        drain(response);
        Ok(start)
    }

    /// Sends `body` in one request of unknown length; the URL of the next request.
    pub(super) fn patch_stream(&self, location: &Uri, body: &mut BlockReader) -> Result<Uri, UploadFailure> {
        let response = self.upload_call(Method::PATCH, location.clone(), &[OCTETS], Payload::Stream(body))?;
        let status = response.status();
        match (status.is_success(), body.ended()) {
            (true, true) => Ok(self.next_location(location, response)?),
            (true, false) => {
                let problem = format!("{} took only a part of a blob", self.image.registry);
                let place = self.image.to_string();
                Err(Failure::transient(StoreError::Registry { place, problem }).into())
            }
            _ => {
                let error = self.refused_to(Operation::UploadBlob, &self.image.to_string(), response);
                Err(match (status.as_u16(), error) {
                    (411 | 413 | 416, error) => UploadFailure::Unsupported { error, next: Style::Chunks },
                    // An upload session that was lost is a transient failure instead.
                    (404 | 405 | 501, error @ Failure::Final(_)) => {
                        UploadFailure::Unsupported { error, next: Style::Single }
                    }
                    (501, error) => UploadFailure::Unsupported { error, next: Style::Single },
                    (_, error) => UploadFailure::Failed(error),
                })
            }
        }
    }

    /// Sends a chunk, with `Content-Range` if `offset` is given; the URL of the next request.
    pub(super) fn patch_bytes(&self, location: &Uri, bytes: &[u8], offset: Option<u64>) -> Result<Uri, UploadFailure> {
        let range = offset.map(|offset| {
            let last = offset.saturating_add(bytes.len() as u64).saturating_sub(1);
            format!("{offset}-{last}")
        });
        let headers = [Some(OCTETS), range.as_deref().map(|range| (header::CONTENT_RANGE, range))];
        let headers: Vec<Header<'_>> = headers.into_iter().flatten().collect();
        let response = self.upload_call(Method::PATCH, location.clone(), &headers, Payload::Bytes(bytes))?;
        let status = response.status();
        if status.is_success() {
            return Ok(self.next_location(location, response)?);
        }
        let error = self.refused_to(Operation::UploadBlob, &self.image.to_string(), response);
        Err(match (status.as_u16(), error) {
            (405 | 501, error) => UploadFailure::Unsupported { error, next: Style::Single },
            (_, error) => UploadFailure::Failed(error),
        })
    }

    /// Sends `body`, whose digest and size are those of `blob`, in the request that ends the upload.
    pub(super) fn put_sized(&self, location: &Uri, body: &mut BlockReader, blob: &Blob) -> Result<(), UploadFailure> {
        let place = self.place(&blob.digest.to_string());
        let url = self.with_digest(location, &blob.digest)?;
        let length = blob.size.to_string();
        let headers = [OCTETS, (header::CONTENT_LENGTH, length.as_str())];
        let response = self.upload_call(Method::PUT, url, &headers, Payload::Stream(body))?;
        if !response.status().is_success() {
            return Err(self.refused_to(Operation::UploadBlob, &place, response).into());
        }
        // Reads the mark of the end, behind the last byte.
        body.read_up_to(1, &mut Vec::new()).map_err(|error| self.broken_source(error))?;
        drain(response);
        Ok(())
    }

    /// Ends an upload session with the last bytes; false if it does not exist.
    pub(super) fn finish(&self, location: &Uri, digest: &Digest, bytes: &[u8]) -> Result<bool, Failure> {
        let response = self.put(location, digest, bytes)?;
        match response.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => {
                drain(response);
                Ok(true)
            }
            _ => Err(self.refused_to(Operation::UploadBlob, &self.place(&digest.to_string()), response)),
        }
    }

    /// The request that ends an upload.
    pub(super) fn put(&self, location: &Uri, digest: &Digest, bytes: &[u8]) -> Result<Response<Body>, Failure> {
        self.upload_call(Method::PUT, self.with_digest(location, digest)?, &[OCTETS], Payload::Bytes(bytes))
    }

    /// Cancels an upload session, which the registry would otherwise do after some time.
    pub(super) fn cancel(&self, location: &Uri) {
        let place = self.image.to_string();
        let response = self.call(RegistryRequest {
            operation: Operation::CancelUpload,
            place: &place,
            method: Method::DELETE,
            url: location.clone(),
            headers: &[],
            body: Payload::None,
            scope: &self.cancel_scope(),
        });
        if let Ok(response) = response {
            drain(response);
        }
    }

    pub(super) fn broken_source(&self, error: io::Error) -> Failure {
        let place = self.image.to_string();
        Failure::transient(StoreError::Io { place, source: error })
    }

    fn upload_call(
        &self,
        method: Method,
        url: Uri,
        headers: &[Header<'_>],
        body: Payload<'_>,
    ) -> Result<Response<Body>, Failure> {
        let place = self.image.to_string();
        let scope = self.push_scope();
        self.call(RegistryRequest {
            operation: Operation::UploadBlob,
            place: &place,
            method,
            url,
            headers,
            body,
            scope: &scope,
        })
    }

    fn next_location(&self, location: &Uri, response: Response<Body>) -> Result<Uri, Failure> {
        let has_location = response.headers().contains_key(header::LOCATION);
        let next = if has_location { self.location(&response)? } else { location.clone() };
        drain(response);
        Ok(next)
    }

    fn location(&self, response: &Response<Body>) -> Result<Uri, Failure> {
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let base = self.url("")?;
        location.and_then(|location| self.resolve(&base, location)).ok_or_else(|| self.no_location())
    }

    fn with_digest(&self, location: &Uri, digest: &Digest) -> Result<Uri, Failure> {
        with_query(location, "digest", &digest.to_string()).ok_or_else(|| self.no_location())
    }

    fn no_location(&self) -> Failure {
        self.unexpected(&self.image.to_string(), "it did not say where to upload to; is it a registry?")
    }
}
