//! Where snapshots are kept. One trait, [`Store`], and one module for each kind of place.
//!
//! A store holds blobs and manifests by digest and gives manifests tags, as a registry does (OCI distribution-spec) and
//! as an OCI image layout does in a folder (OCI image-spec, image-layout.md). It knows nothing of workspaces.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)]
#![cfg_attr(
    test,
    allow(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        reason = "a test that panics has failed, which is what it is for"
    )
)]

mod credentials;
mod dir;
mod registry;
mod settings;
mod verify;

use std::{
    io::{self, Read, Write},
    time::Duration,
};

#[cfg(any(test, fuzzing))]
pub use self::registry::any_answer::check as check_answer;
pub use self::{
    credentials::{Credentials, TEKTON_CREDENTIALS},
    registry::{HttpOptions, RetryPolicy},
    settings::{MirrorAddress, Settings},
};
use crate::{digest::Digest, target::Target, units};

/// How stores are reached.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Who we are.
    pub credentials: Credentials,
    /// Limits and trust of connections; none: the usual ones, and connections that the whole process shares.
    pub http: Option<HttpOptions>,
    /// When to try again.
    pub retry: RetryPolicy,
    /// Registries, `host[:port]`, that may be asked over plain HTTP although they are not near.
    pub insecure: Vec<String>,
    /// Token servers that may get credentials although they are not on the registry's site.
    pub token_hosts: Vec<String>,
    /// Where blobs are read first.
    pub mirror: Option<MirrorAddress>,
}

/// Opens the store that `target` lies in, with the credentials and [`Settings`] of this process. Nothing is sent yet.
pub fn open(target: &Target) -> Result<Box<dyn Store>, StoreError> {
    match target {
        Target::Dir { .. } => open_with(target, &Options::default()),
        Target::Registry(_) => open_with(target, &Options::new(&Settings::of_process()?)),
    }
}

/// The same without credentials: for what an image names, and not the user.
pub fn open_anonymous(target: &Target) -> Result<Box<dyn Store>, StoreError> {
    let options = Options::new(&Settings::of_process()?);
    open_with(target, &Options { credentials: Credentials::default(), ..options })
}

/// The same with options of one's own.
pub fn open_with(target: &Target, options: &Options) -> Result<Box<dyn Store>, StoreError> {
    Ok(match target {
        Target::Dir { path, .. } => Box::new(dir::DirStore::new(path)),
        Target::Registry(image) => Box::new(registry::RegistryStore::new(image, options)?),
    })
}

impl Options {
    /// Those of this process's environment, with `settings`.
    pub fn new(settings: &Settings) -> Self {
        let http = (!settings.ca.is_empty())
            .then(|| HttpOptions { authorities: settings.ca.clone(), ..HttpOptions::default() });
        Self {
            credentials: Credentials::from_env(settings.registry_secret.as_deref()),
            http,
            retry: RetryPolicy { deadline: settings.retry_for, ..RetryPolicy::default() },
            insecure: settings.insecure.clone(),
            token_hosts: settings.token_hosts.clone(),
            mirror: settings.mirror.clone(),
        }
    }
}

/// A blob as it is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Number of its bytes.
    pub size: u64,
}

/// A manifest as it is stored.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// SHA-256 of `bytes`, checked.
    pub digest: Digest,
    /// For example `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// The JSON text, exactly as stored.
    pub bytes: Vec<u8>,
}

/// Writes the whole content of a blob from its beginning. It may be called more than once (an upload that broke is
/// started again) and must write the same bytes each time.
pub type Produce<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + Send + 'a;

/// One repository of a registry, or one folder. Every method may be called from several threads at once.
pub trait Store: Send + Sync {
    /// The manifest under `reference`, a tag or a `sha256:` digest; none where there is none.
    fn manifest(&self, reference: &str) -> Result<Option<Manifest>, StoreError>;

    /// Stores `bytes` as a manifest under `tag`, in place of what was there. All blobs that it names must be stored.
    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError>;

    /// Deletes the manifest and with it all its tags; false where it is not there. Blobs that nothing else needs go with it
    /// at once or when the registry collects them.
    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Deletes the image that was found under `tag` and has this digest, with the tag; false where it is not there. Not
    /// every registry deletes by digest, and not every one while a tag points to it. Afterwards it is looked for: where it
    /// is still there, that is an error.
    fn delete_image(&self, tag: &str, digest: &Digest) -> Result<bool, StoreError> {
        let _ = tag;
        self.delete_manifest(digest)
    }

    /// All tags, in order.
    fn tags(&self) -> Result<Vec<String>, StoreError> {
        Err(StoreError::Registry { place: "this store".to_owned(), problem: "its tags can't be listed".to_owned() })
    }

    /// Whether the blob is stored.
    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Reads a whole blob. At its end the reader fails unless size and digest were as asked.
    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Reads `len` bytes from `offset` of a blob: unverified, the caller knows a digest of the part.
    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError>;

    /// Stores what `produce` writes, streaming: it is never held in memory or in a file as a whole.
    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError>;

    /// Stores `bytes` unless the store has them.
    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError>;

    /// Makes a blob of `from` available here without sending it through this machine; false where that can't be done,
    /// then the caller copies it.
    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError>;
}

/// What went wrong with a store: one sentence that names the place and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The content of the store is not what it has to be.
    #[error("{place}: {problem}")]
    Content {
        /// The image or blob.
        place: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Reading or writing failed.
    #[error("{place}: {source}")]
    Io {
        /// The image, blob or file.
        place: String,
        /// What the system said.
        source: io::Error,
    },
    /// A registry can't be reached, or does not do what it was asked for.
    #[error("{place}: {problem}")]
    Registry {
        /// The image or blob.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A manifest names a blob that the registry does not have (any more): it has to be stored again.
    #[error("{place}: {problem}")]
    MissingBlob {
        /// The image.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A setting that can't be used: a flag or an environment variable.
    #[error("{problem}")]
    Settings {
        /// Which one, and what is wrong with it.
        problem: String,
    },
    /// A registry does not let us.
    #[error("{place}: {problem}")]
    Denied {
        /// The image or blob.
        place: String,
        /// What it denied, and where credentials were looked for.
        problem: String,
    },
    /// A file with credentials is unusable.
    #[error("{file}: the credentials for registries can't be used: {problem}")]
    Credentials {
        /// The file.
        file: String,
        /// What is wrong with it; no part of its content.
        problem: String,
    },
    /// A fault that was expected to pass did not.
    #[error("{error} (tried {attempts} times in {})", units::duration(*elapsed))]
    GaveUp {
        /// How often.
        attempts: u32,
        /// How long.
        elapsed: Duration,
        /// The last fault.
        error: Box<StoreError>,
    },
    /// What was to be stored could not be read or made.
    #[error("{0}")]
    Source(io::Error),
}

/// The media type that a manifest states in itself (OCI image-spec, manifest.md: `mediaType` should be used).
fn own_media_type(manifest: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Typed {
        media_type: Option<String>,
        manifests: Option<serde::de::IgnoredAny>,
        config: Option<serde::de::IgnoredAny>,
    }
    let typed: Typed = serde_json::from_slice(manifest).ok()?;
    match typed {
        Typed { media_type: Some(media_type), .. } => Some(media_type),
        Typed { manifests: Some(_), .. } => Some("application/vnd.oci.image.index.v1+json".to_owned()),
        Typed { config: Some(_), .. } => Some("application/vnd.oci.image.manifest.v1+json".to_owned()),
        _ => None,
    }
}

/// `len` as a length in memory, if the range lies within the blob.
fn check_range(blob: &Blob, offset: u64, len: u64, place: &str) -> Result<usize, StoreError> {
    match (offset.checked_add(len), usize::try_from(len)) {
        (Some(end), Ok(len)) if end <= blob.size => Ok(len),
        _ => Err(StoreError::Content {
            place: place.to_owned(),
            problem: format!("{len} bytes from {offset} lie outside of the blob, which has {} bytes", blob.size),
        }),
    }
}
