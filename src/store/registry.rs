//! A registry as a store (OCI distribution-spec 1.1).
//!
//! | module | what it is for |
//! |---|---|
//! | `session` | one request: authorization, redirects |
//! | `auth`, `challenge` | Basic and Bearer |
//! | `upload`, `download`, `blocks` | blobs, streaming |
//! | `retry`, `refusal` | what to try again; what to say |
//! | `http`, `early`, `origin` | connections and addresses |

mod auth;
mod blocks;
mod challenge;
mod download;
mod early;
mod http;
mod origin;
mod refusal;
mod retry;
mod session;
mod upload;

use std::{
    io::Read,
    sync::{Arc, LazyLock},
};

use ::http::{HeaderMap, Method, StatusCode, header};
use ureq::Agent;

use self::{
    auth::Auth,
    download::Download,
    retry::Failure,
    session::{Call, Payload, Session, drain},
};
pub use self::{http::HttpOptions, retry::RetryPolicy};
use super::{Blob, Manifest, Options, Produce, Store, StoreError, verify::VerifyReader};
use crate::{
    digest::Digest,
    target::{ImageReference, Target},
};

/// What a manifest may be: images and indexes of OCI and of Docker.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                              application/vnd.docker.distribution.manifest.v2+json, \
                              application/vnd.docker.distribution.manifest.list.v2+json";

/// Registries refuse manifests of more than 4 MiB (OCI distribution-spec, "Pushing manifests").
const MANIFEST_SIZE: u64 = 16 << 20;

/// One repository.
pub struct RegistryStore {
    session: Arc<Session>,
}

impl RegistryStore {
    /// The repository that `image` is in. Only files with credentials are read here.
    pub fn new(image: &ImageReference, options: &Options) -> Result<Self, StoreError> {
        // With the usual options all stores of a process share connections.
        static COMMON: LazyLock<Agent> = LazyLock::new(|| http::agent(&HttpOptions::default()));
        let found = options.credentials.find(&image.registry, &image.repository)?;
        let agent = options.http.as_ref().map_or_else(|| COMMON.clone(), http::agent);
        let session = Session::new(image.clone(), agent, Auth::new(found), options.retry.clone());
        Ok(Self { session: Arc::new(session) })
    }

    fn read_manifest(&self, reference: &str) -> Result<Option<Manifest>, Failure> {
        const ACTION: &str = "read the manifest";
        let place = self.session.place(reference);
        let answer = self.session.call(Call {
            action: ACTION,
            place: &place,
            method: Method::GET,
            url: self.session.url(&format!("manifests/{reference}"))?,
            headers: &[(header::ACCEPT, MANIFEST_TYPES)],
            body: Payload::None,
            scope: &self.session.pull_scope(),
        })?;
        match answer.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                drain(answer);
                return Ok(None);
            }
            _ => return Err(self.session.refused_to(ACTION, &place, answer)),
        }
        let (parts, body) = answer.into_parts();
        let mut bytes = Vec::new();
        let read = body.into_reader().take(MANIFEST_SIZE + 1).read_to_end(&mut bytes);
        read.map_err(|error| self.session.broken_reading(&place, error))?;
        let wrong = |problem: String| Failure::Final(StoreError::Content { place: place.clone(), problem });
        if bytes.len() as u64 > MANIFEST_SIZE {
            return Err(wrong(format!("its manifest is larger than {} MiB", MANIFEST_SIZE >> 20)));
        }
        let digest = Digest::of(&bytes);
        for expected in [reference.parse().ok(), told_digest(&parts.headers)].into_iter().flatten() {
            if digest != expected {
                return Err(wrong(format!(
                    "its manifest is damaged: the content has the digest {digest} instead of {expected}"
                )));
            }
        }
        let told = parts.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let told = told.map(|text| text.split(';').next().unwrap_or_default().trim());
        let media_type = match told {
            Some(told) if MANIFEST_TYPES.split(", ").any(|known| known == told) => told.to_owned(),
            _ => super::own_media_type(&bytes)
                .ok_or_else(|| wrong(format!("this is no image manifest but {}", told.unwrap_or("unknown data"))))?,
        };
        Ok(Some(Manifest { digest, media_type, bytes }))
    }

    fn write_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, Failure> {
        const ACTION: &str = "store the manifest";
        let place = self.session.place(tag);
        let answer = self.session.call(Call {
            action: ACTION,
            place: &place,
            method: Method::PUT,
            url: self.session.url(&format!("manifests/{tag}"))?,
            headers: &[(header::CONTENT_TYPE, media_type)],
            body: Payload::Bytes(bytes),
            scope: &self.session.push_scope(),
        })?;
        if !answer.status().is_success() {
            return Err(self.session.refused_to(ACTION, &place, answer));
        }
        let digest = Digest::of(bytes);
        match told_digest(answer.headers()) {
            Some(stored) if stored != digest => Err(Failure::Final(StoreError::Content {
                place,
                problem: format!("the registry stored the manifest as {stored} instead of {digest}"),
            })),
            _ => {
                drain(answer);
                Ok(digest)
            }
        }
    }

    fn delete(&self, digest: &Digest) -> Result<bool, Failure> {
        const ACTION: &str = "delete the image";
        let place = self.session.place(&digest.to_string());
        let answer = self.session.call(Call {
            action: ACTION,
            place: &place,
            method: Method::DELETE,
            url: self.session.url(&format!("manifests/{digest}"))?,
            headers: &[],
            body: Payload::None,
            scope: &self.session.delete_scope(),
        })?;
        match answer.status() {
            StatusCode::METHOD_NOT_ALLOWED => Err(Failure::Final(StoreError::Registry {
                place,
                problem: format!(
                    "{} deletes no images (405); its operator can allow it, or the param expires can limit how long images are kept",
                    self.session.image.registry
                ),
            })),
            StatusCode::NOT_FOUND => {
                drain(answer);
                Ok(false)
            }
            status if status.is_success() => {
                drain(answer);
                Ok(true)
            }
            _ => Err(self.session.refused_to(ACTION, &place, answer)),
        }
    }
}

impl Store for RegistryStore {
    fn manifest(&self, reference: &str) -> Result<Option<Manifest>, StoreError> {
        self.session.backoff().run(|| self.read_manifest(reference))
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.session.backoff().run(|| self.write_manifest(tag, media_type, bytes))
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.session.backoff().run(|| self.delete(digest))
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.session.backoff().run(|| self.session.has_blob(digest, &self.session.pull_scope()))
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        let download = Download::open(self.session.clone(), *blob)?;
        Ok(Box::new(VerifyReader::new(download, *blob, self.session.place(&blob.digest.to_string()))))
    }

    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let len = super::check_range(blob, offset, len, &self.session.place(&blob.digest.to_string()))?;
        self.session.blob_range(blob, offset, len)
    }

    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        self.session.put_blob(produce)
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        self.session.put_bytes(bytes)
    }

    /// Only within one registry.
    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        let image = &self.session.image;
        match from {
            Target::Registry(from) if from.registry == image.registry && from.repository == image.repository => {
                self.has_blob(digest)
            }
            Target::Registry(from) if from.registry == image.registry => self.session.mount(digest, &from.repository),
            _ => Ok(false),
        }
    }
}

/// The header `Docker-Content-Digest`, where it is a SHA-256.
fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}
