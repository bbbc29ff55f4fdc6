//! Blobs to a registry (OCI distribution-spec, "Pushing blobs").

use std::thread;

use http::{Method, Response, StatusCode, Uri, header};
use ureq::Body;

use super::{
    blocks::{BlockReader, BlockWriter, blocks},
    origin::{resolve, with_query},
    retry::Failure,
    session::{Call, Payload, Session, drain},
};
use crate::{
    digest::Digest,
    store::{Blob, Produce, StoreError},
};

const OCTETS: &[(http::HeaderName, &str)] = &[(header::CONTENT_TYPE, "application/octet-stream")];

impl Session {
    /// Whether the repository has the blob.
    pub fn has_blob(&self, digest: &Digest, scope: &str) -> Result<bool, Failure> {
        let place = self.place(&digest.to_string());
        let call = Call {
            action: "look for a blob",
            place: &place,
            method: Method::HEAD,
            url: self.url(&format!("blobs/{digest}"))?,
            headers: &[],
            body: Payload::None,
            scope,
        };
        let answer = self.call(call)?;
        match answer.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.refused_to("look for a blob", &place, answer)),
        }
    }

    /// Stores `bytes`, which fit in memory, unless the repository has them.
    pub fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        self.backoff().run(|| {
            if !self.has_blob(&blob.digest, &self.push_scope())? {
                let location = self.start()?;
                if !self.finish(&location, &blob.digest, bytes)? {
                    return Err(self.forgotten(&blob.digest));
                }
            }
            Ok(blob)
        })
    }

    /// Stores what `produce` writes. The bytes go out in one PATCH request while they are made: a request without
    /// `Content-Range` is not in the specification, but every registry takes it, as docker, podman and crane send it,
    /// and several can't do better (no chunks at all, or chunks of certain sizes only).
    pub fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        let mut known: Option<Blob> = None;
        self.backoff().run(|| {
            if let Some(blob) = known
                && self.has_blob(&blob.digest, &self.push_scope())?
            {
                return Ok(blob);
            }
            let location = self.start()?;
            let (blob, location) = match self.stream(&location, produce) {
                Ok(sent) => sent,
                Err(failure) => {
                    self.cancel(&location);
                    return Err(failure);
                }
            };
            known = Some(blob);
            // The answer to a PUT that was lost may have been a good one: then the next PUT finds no such upload, but the
            // blob is there. Looking spares sending everything again.
            let finished = self.backoff().run(|| self.finish(&location, &blob.digest, &[])).map_err(Failure::Final)?;
            match finished || self.has_blob(&blob.digest, &self.push_scope())? {
                true => Ok(blob),
                false => Err(self.forgotten(&blob.digest)),
            }
        })
    }

    /// Makes the blob of another repository of the same registry available in this one; false where the registry does not
    /// do that, or not for us.
    pub fn mount(&self, digest: &Digest, from: &str) -> Result<bool, StoreError> {
        let place = self.place(&digest.to_string());
        let scope = format!("{} repository:{from}:pull", self.push_scope());
        let mounted = self.backoff().run(|| {
            let answer = self.call(Call {
                action: "mount a blob",
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
                408 | 429 | 500.. => Err(self.refused_to("mount a blob", &place, answer)),
                _ => Ok(false),
            }
        });
        match mounted {
            Err(StoreError::Denied { .. }) => Ok(false),
            mounted => mounted,
        }
    }

    /// Begins an upload: the address to send the bytes to.
    fn start(&self) -> Result<Uri, Failure> {
        let place = self.image.to_string();
        let answer = self.call(Call {
            action: "upload a blob",
            place: &place,
            method: Method::POST,
            url: self.url("blobs/uploads/")?,
            headers: &[],
            body: Payload::Bytes(&[]),
            scope: &self.push_scope(),
        })?;
        match answer.status() {
            StatusCode::ACCEPTED => {
                let location = self.location(&answer);
                drain(answer);
                location
            }
            _ => Err(self.refused_to("upload a blob", &place, answer)),
        }
    }

    /// `produce` runs on this thread, the network on another one; what lies between them is bounded.
    fn stream(&self, location: &Uri, produce: &mut Produce<'_>) -> Result<(Blob, Uri), Failure> {
        let (writer, reader) = blocks();
        thread::scope(|scope| {
            let network = scope.spawn(move || self.send_stream(location, reader));
            let produced = write(writer, produce);
            let sent = network.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            match produced {
                Produced::Failed(error) => Err(Failure::Final(StoreError::Source(error))),
                Produced::All | Produced::Cut => sent,
            }
        })
    }

    fn send_stream(&self, location: &Uri, mut body: BlockReader) -> Result<(Blob, Uri), Failure> {
        let place = self.image.to_string();
        let answer = self.call(Call {
            action: "upload a blob",
            place: &place,
            method: Method::PATCH,
            url: location.clone(),
            headers: OCTETS,
            body: Payload::Stream(&mut body),
            scope: &self.push_scope(),
        })?;
        match (answer.status().as_u16(), body.ended()) {
            (200..=299, true) => {
                let next = match answer.headers().contains_key(header::LOCATION) {
                    true => self.location(&answer)?,
                    false => location.clone(),
                };
                drain(answer);
                Ok((body.into_blob(), next))
            }
            (200..=299, false) => {
                let problem = format!("{} took only a part of a blob", self.image.registry);
                Err(Failure::Transient { error: StoreError::Registry { place, problem }, after: None })
            }
            _ => Err(self.refused_to("upload a blob", &place, answer)),
        }
    }

    /// Ends an upload, with the last of its bytes; false if the registry knows no such upload.
    fn finish(&self, location: &Uri, digest: &Digest, bytes: &[u8]) -> Result<bool, Failure> {
        let place = self.place(&digest.to_string());
        let url = with_query(location, "digest", &digest.to_string()).ok_or_else(|| self.no_location(&place))?;
        let answer = self.call(Call {
            action: "upload a blob",
            place: &place,
            method: Method::PUT,
            url,
            headers: OCTETS,
            body: Payload::Bytes(bytes),
            scope: &self.push_scope(),
        })?;
        match answer.status() {
            StatusCode::NOT_FOUND => Ok(false),
            status if status.is_success() => {
                drain(answer);
                Ok(true)
            }
            _ => Err(self.refused_to("upload a blob", &place, answer)),
        }
    }

    /// Tells the registry that an upload will not go on. It would find out by itself, later.
    fn cancel(&self, location: &Uri) {
        let place = self.image.to_string();
        let answer = self.call(Call {
            action: "cancel an upload",
            place: &place,
            method: Method::DELETE,
            url: location.clone(),
            headers: &[],
            body: Payload::None,
            scope: &self.push_scope(),
        });
        if let Ok(answer) = answer {
            drain(answer);
        }
    }

    fn location(&self, answer: &Response<Body>) -> Result<Uri, Failure> {
        let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let base = self.url("")?;
        location.and_then(|location| resolve(&base, location)).ok_or_else(|| self.no_location(&self.image.to_string()))
    }

    fn forgotten(&self, digest: &Digest) -> Failure {
        let problem = format!("{} forgot an upload that was under way; look at its log", self.image.registry);
        let error = StoreError::Registry { place: self.place(&digest.to_string()), problem };
        Failure::Transient { error, after: None }
    }

    fn no_location(&self, place: &str) -> Failure {
        Failure::Final(StoreError::Registry {
            place: place.to_owned(),
            problem: format!("{} did not say where to upload to; is it a registry?", self.image.registry),
        })
    }
}

/// How far `produce` came.
enum Produced {
    All,
    /// The network went away, and `produce` has seen the consequence.
    Cut,
    Failed(std::io::Error),
}

fn write(mut writer: BlockWriter, produce: &mut Produce<'_>) -> Produced {
    match produce(&mut writer).and_then(|()| writer.end()) {
        Ok(()) => Produced::All,
        Err(_) if writer.is_cut() => Produced::Cut,
        Err(error) => Produced::Failed(error),
    }
}
