//! The requests that uploads consist of.

use std::io;

use http::{Method, Response, StatusCode, Uri, header};
use ureq::Body;

use super::{Style, Trouble};
use crate::{
    digest::Digest,
    store::{
        Blob, StoreError,
        registry::{
            action::Action,
            blocks::BlockReader,
            drain,
            origin::with_query,
            retry::Failure,
            session::{Call, Payload, Session},
        },
    },
};

type Header<'a> = (http::HeaderName, &'a str);

const OCTETS: Header<'static> = (header::CONTENT_TYPE, "application/octet-stream");

/// An upload that was begun.
pub struct Start {
    /// Where the bytes go.
    pub location: Uri,
    /// The smallest piece, the last one aside, that the registry takes.
    pub least_chunk: Option<usize>,
}

impl Session {
    /// Whether the repository has the blob.
    pub fn has_blob(&self, digest: &Digest, scope: &str) -> Result<bool, Failure> {
        match self.look_for_blob(digest, scope, Method::HEAD)? {
            Some(found) => Ok(found),
            // Not every proxy before a registry lets HEAD through.
            None => Ok(self.look_for_blob(digest, scope, Method::GET)?.unwrap_or(false)),
        }
    }

    /// None: not by this method.
    fn look_for_blob(&self, digest: &Digest, scope: &str, method: Method) -> Result<Option<bool>, Failure> {
        let place = self.place(&digest.to_string());
        let first_byte = [(header::RANGE, "bytes=0-0")];
        let is_head = method == Method::HEAD;
        let answer = self.call(Call {
            action: Action::FindBlob,
            place: &place,
            method,
            url: self.url(&format!("blobs/{digest}"))?,
            headers: if is_head { &[] } else { &first_byte },
            body: Payload::None,
            scope,
        })?;
        match answer.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT | StatusCode::RANGE_NOT_SATISFIABLE => Ok(Some(true)),
            StatusCode::NOT_FOUND => Ok(Some(false)),
            StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED if is_head => Ok(None),
            _ => Err(self.refused_to(Action::FindBlob, &place, answer)),
        }
    }

    /// Makes the blob of another repository of the same registry available in this one; false where the registry does not
    /// do that, or not for us.
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<bool, StoreError> {
        let place = self.place(&digest.to_string());
        let scope = format!("{} repository:{from}:pull", self.push_scope());
        let mounted = self.backoff().run(|| {
            let answer = self.call(Call {
                action: Action::MountBlob,
                place: &place,
                method: Method::POST,
                url: self.url(&format!("blobs/uploads/?mount={digest}&from={from}"))?,
                headers: &[],
                body: Payload::Bytes(&[]),
                scope: &scope,
            })?;
            match answer.status().as_u16() {
                201 => {
                    drain(answer);
                    Ok(true)
                }
                202 => {
                    // The registry has begun an ordinary upload instead.
                    if let Ok(location) = self.location(&answer) {
                        self.cancel(&location);
                    }
                    Ok(false)
                }
                408 | 429 | 500.. => Err(self.refused_to(Action::MountBlob, &place, answer)),
                _ => Ok(false),
            }
        });
        match mounted {
            Err(StoreError::Denied { .. }) => Ok(false),
            mounted => mounted,
        }
    }

    /// Begins an upload.
    pub(super) fn start(&self) -> Result<Start, Failure> {
        let place = self.image.to_string();
        let answer = self.call(Call {
            action: Action::UploadBlob,
            place: &place,
            method: Method::POST,
            url: self.url("blobs/uploads/")?,
            headers: &[],
            body: Payload::Bytes(&[]),
            scope: &self.push_scope(),
        })?;
        if answer.status() != StatusCode::ACCEPTED {
            return Err(self.refused_to(Action::UploadBlob, &place, answer));
        }
        let least = answer.headers().get("oci-chunk-min-length").and_then(|value| value.to_str().ok()?.parse().ok());
        // More than that can't be held in memory.
        let start = Start { location: self.location(&answer)?, least_chunk: least.filter(|least| *least <= 16 << 20) };
        drain(answer);
        Ok(start)
    }

    /// All of `body` in one request of unknown length; where the upload goes on.
    pub(super) fn patch_stream(&self, location: &Uri, body: &mut BlockReader) -> Result<Uri, Trouble> {
        let answer = self.upload_call(Method::PATCH, location.clone(), &[OCTETS], Payload::Stream(body))?;
        let status = answer.status();
        match (status.is_success(), body.ended()) {
            (true, true) => Ok(self.next_location(location, answer)?),
            (true, false) => {
                let problem = format!("{} took only a part of a blob", self.image.registry);
                let place = self.image.to_string();
                Err(Failure::transient(StoreError::Registry { place, problem }).into())
            }
            _ => {
                let error = self.refused_to(Action::UploadBlob, &self.image.to_string(), answer);
                Err(match (status.as_u16(), error) {
                    (411 | 413 | 416, error) => Trouble::Style { error, next: Style::Chunks },
                    // An upload that was forgotten is tried again instead.
                    (404 | 405 | 501, error @ Failure::Final(_)) => Trouble::Style { error, next: Style::Single },
                    (501, error) => Trouble::Style { error, next: Style::Single },
                    (_, error) => Trouble::Failed(error),
                })
            }
        }
    }

    /// A piece of an upload, from `offset` where pieces are numbered; where the upload goes on.
    pub(super) fn patch_bytes(&self, location: &Uri, bytes: &[u8], offset: Option<u64>) -> Result<Uri, Trouble> {
        let range = offset.map(|offset| {
            let last = offset.saturating_add(bytes.len() as u64).saturating_sub(1);
            format!("{offset}-{last}")
        });
        let headers = [Some(OCTETS), range.as_deref().map(|range| (header::CONTENT_RANGE, range))];
        let headers: Vec<Header<'_>> = headers.into_iter().flatten().collect();
        let answer = self.upload_call(Method::PATCH, location.clone(), &headers, Payload::Bytes(bytes))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(self.next_location(location, answer)?);
        }
        let error = self.refused_to(Action::UploadBlob, &self.image.to_string(), answer);
        Err(match (status.as_u16(), error) {
            (405 | 501, error) => Trouble::Style { error, next: Style::Single },
            (_, error) => Trouble::Failed(error),
        })
    }

    /// All of `body`, which is `blob`, in the request that ends the upload.
    pub(super) fn put_sized(&self, location: &Uri, body: &mut BlockReader, blob: &Blob) -> Result<(), Trouble> {
        let place = self.place(&blob.digest.to_string());
        let url = self.with_digest(location, &blob.digest)?;
        let length = blob.size.to_string();
        let headers = [OCTETS, (header::CONTENT_LENGTH, length.as_str())];
        let answer = self.upload_call(Method::PUT, url, &headers, Payload::Stream(body))?;
        if !answer.status().is_success() {
            return Err(self.refused_to(Action::UploadBlob, &place, answer).into());
        }
        // The end of what was made is behind its last byte.
        body.read_up_to(1, &mut Vec::new()).map_err(|error| self.broken_source(error))?;
        drain(answer);
        Ok(())
    }

    /// Ends an upload, with the last of its bytes; false if the registry knows no such upload.
    pub(super) fn finish(&self, location: &Uri, digest: &Digest, bytes: &[u8]) -> Result<bool, Failure> {
        let answer = self.put(location, digest, bytes)?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => {
                drain(answer);
                Ok(true)
            }
            _ => Err(self.refused_to(Action::UploadBlob, &self.place(&digest.to_string()), answer)),
        }
    }

    /// The request that ends an upload.
    pub(super) fn put(&self, location: &Uri, digest: &Digest, bytes: &[u8]) -> Result<Response<Body>, Failure> {
        self.upload_call(Method::PUT, self.with_digest(location, digest)?, &[OCTETS], Payload::Bytes(bytes))
    }

    /// Tells the registry that an upload will not go on. It would find out by itself, later.
    pub(super) fn cancel(&self, location: &Uri) {
        let place = self.image.to_string();
        let answer = self.call(Call {
            action: Action::CancelUpload,
            place: &place,
            method: Method::DELETE,
            url: location.clone(),
            headers: &[],
            body: Payload::None,
            scope: &self.cancel_scope(),
        });
        if let Ok(answer) = answer {
            drain(answer);
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
        self.call(Call { action: Action::UploadBlob, place: &place, method, url, headers, body, scope: &scope })
    }

    fn next_location(&self, location: &Uri, answer: Response<Body>) -> Result<Uri, Failure> {
        let next = match answer.headers().contains_key(header::LOCATION) {
            true => self.location(&answer)?,
            false => location.clone(),
        };
        drain(answer);
        Ok(next)
    }

    fn location(&self, answer: &Response<Body>) -> Result<Uri, Failure> {
        let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
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
