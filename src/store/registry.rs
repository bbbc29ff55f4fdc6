//! A registry as a store (OCI distribution-spec 1.1).
//!
//! | module | contents |
//! |---|---|
//! | `session`, `operation` | requests: authorization, redirects |
//! | `ambient` | the identity that a cloud gives |
//! | `auth`, `candidates`, `challenge`, `token`, `realm` | Basic and Bearer authentication, and where credentials may be sent |
//! | `manifests`, `tags`, `referrers`, `deletion` | images |
//! | `upload`, `download`, `mirror` | blobs, streaming |
//! | `error_response` | messages |
//!
//! Connections and retries are in [`super::net`].

mod ambient;
#[cfg(any(test, fuzzing))]
pub mod any_answer;
mod auth;
mod candidates;
mod challenge;
mod deletion;
mod download;
mod error_response;
mod manifests;
mod mirror;
mod operation;
mod realm;
mod referrers;
mod session;
mod tags;
mod token;
mod upload;

use std::{
    io::{self, Read},
    sync::Arc,
};

use self::{
    ambient::Ambient,
    auth::Auth,
    candidates::Candidates,
    download::RegistryBlob,
    mirror::Mirror,
    session::{Session, SessionOptions},
};
use super::{
    Blob, ManifestHead, Produce, Store, StoreError, StoreOptions, StoredManifest,
    net::{http::HttpClient, origin::PlainHosts, resume::Resuming},
    verify::VerifyReader,
};
use crate::{
    digest::Digest,
    target::{ImageReference, Target},
};

/// One repository.
pub struct RegistryStore {
    session: Arc<Session>,
    mirror: Option<Arc<Mirror>>,
}

impl RegistryStore {
    /// The repository of `image`. Reads files with credentials and certificates, or asks a cloud for credentials; nothing is
    /// sent to the registry yet.
    pub fn new(image: &ImageReference, options: &StoreOptions) -> Result<Self, StoreError> {
        let ambient = Some(Ambient::new(options)?);
        let candidates = Candidates::find(&options.credentials, ambient, &image.registry, &image.repository)?;
        let session = SessionOptions {
            client: HttpClient::new(&options.http.clone().unwrap_or_default())?,
            auth: Auth::new(candidates),
            retry: options.retry.clone(),
            plain: PlainHosts::new(&options.insecure),
            token_hosts: options.token_hosts.clone(),
        };
        let mirror = options.mirror.as_ref().map(|address| Mirror::new(address, image, options)).transpose()?;
        Ok(Self { session: Arc::new(Session::new(image.clone(), session)), mirror: mirror.map(Arc::new) })
    }
}

impl Store for RegistryStore {
    fn manifest(&self, reference: &str) -> Result<Option<StoredManifest>, StoreError> {
        self.session.manifest(reference)
    }

    fn head(&self, reference: &str) -> Result<Option<ManifestHead>, StoreError> {
        self.session.manifest_head(reference)
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        self.session.put_manifest(tag, media_type, bytes)
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.session.delete_image(None, digest)
    }

    fn delete_image(&self, tag: &str, digest: &Digest) -> Result<bool, StoreError> {
        self.session.delete_image(Some(tag), digest)
    }

    fn tags(&self) -> Result<Vec<String>, StoreError> {
        self.session.tags()
    }

    fn referrers(&self, digest: &Digest) -> Result<Option<Vec<Digest>>, StoreError> {
        self.session.referrers(digest)
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.session.backoff().run(|| self.session.has_blob(digest, &self.session.pull_scope()))
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        let download = RegistryBlob::open(self.session.clone(), self.mirror.clone(), *blob)?;
        let (mirror, place) = (download.source().mirror(), self.session.place(&blob.digest.to_string()));
        let reader = VerifyReader::new(download, *blob, place.clone());
        Ok(match mirror {
            Some(mirror) => Box::new(FromMirror { reader, mirror, place }),
            None => Box::new(reader),
        })
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

/// A large blob from a mirror. If its digest is wrong, its first bytes have been used already: the error names the mirror,
/// which is not used for a while.
struct FromMirror {
    reader: VerifyReader<Resuming<RegistryBlob>>,
    mirror: Arc<Mirror>,
    place: String,
}

impl Read for FromMirror {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.reader.read(buffer).map_err(|error| {
            if error.kind() != io::ErrorKind::InvalidData {
                return error;
            }
            self.mirror.failed(&error.to_string());
            let problem = format!(
                "the mirror {} sent content with another digest; run the task again, and check the mirror",
                self.mirror.name()
            );
            io::Error::new(io::ErrorKind::InvalidData, StoreError::Content { place: self.place.clone(), problem })
        })
    }
}
