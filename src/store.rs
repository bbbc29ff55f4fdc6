//! Storage of images: the trait [`Store`] and its implementations.
//!
//! A store holds blobs and manifests by digest and gives manifests tags, as a registry does (OCI distribution-spec) and
//! as an OCI image layout does in a folder (OCI image-spec, image-layout.md). It knows no workspaces.

mod bucket;
mod cloud;
mod credentials;
mod dir;
mod gcs;
mod grace;
mod layout;
mod net;
mod registry;
mod rsync;
mod s3;
mod settings;
mod verify;
mod xml;

use std::{
    io::{self, Read, Write},
    time::Duration,
};

pub(crate) use self::net::{drain, http::HttpClient};
#[cfg(any(test, fuzzing))]
pub use self::registry::any_answer::check as check_answer;
pub use self::{
    cloud::Environment,
    credentials::{Credentials, TEKTON_CREDENTIALS},
    net::{http::HttpOptions, retry::RetryPolicy},
    rsync::is_installed as has_rsync,
    settings::RegistrySettings,
};
use crate::{digest::Digest, mirror::MirrorAddress, target::Target, units};

/// How stores are accessed.
#[derive(Clone, Debug, Default)]
pub struct StoreOptions {
    /// Where credentials are read.
    pub credentials: Credentials,
    /// Timeouts and certificate authorities; none: the defaults, and a connection pool that the whole process shares.
    pub http: Option<HttpOptions>,
    /// Retries.
    pub retry: RetryPolicy,
    /// Registries, `host[:port]`, that may be accessed over plain HTTP.
    pub insecure: Vec<String>,
    /// Token servers that may get credentials although they belong to another site than the registry.
    pub token_hosts: Vec<String>,
    /// A registry from which blobs are read first.
    pub mirror: Option<MirrorAddress>,
    /// Who we are to a cloud, and where its services are.
    pub cloud: Environment,
}

/// Opens the store that `target` lies in, with the credentials and [`RegistrySettings`] of this process. Nothing is sent yet.
pub fn open(target: &Target) -> Result<Box<dyn Store>, StoreError> {
    match target {
        Target::Dir { .. } => open_with(target, &StoreOptions::default()),
        Target::Registry(_) | Target::S3(_) | Target::Gcs(_) | Target::Rsync(_) => {
            open_with(target, &StoreOptions::new(&RegistrySettings::of_process()?))
        }
    }
}

/// The same without credentials, for references that come from an image and not from the user.
pub fn open_anonymous(target: &Target) -> Result<Box<dyn Store>, StoreError> {
    let options = StoreOptions::new(&RegistrySettings::of_process()?);
    open_with(
        target,
        &StoreOptions { credentials: Credentials::default(), cloud: options.cloud.anonymous(), ..options },
    )
}

/// The same with these options.
pub fn open_with(target: &Target, options: &StoreOptions) -> Result<Box<dyn Store>, StoreError> {
    Ok(match target {
        Target::Dir { path, .. } => Box::new(dir::DirStore::new(path)),
        Target::Registry(image) => Box::new(registry::RegistryStore::new(image, options)?),
        Target::Gcs(bucket) => Box::new(layout::Layout::new(gcs::GcsObjects::new(bucket, options)?)),
        Target::S3(bucket) => Box::new(layout::Layout::new(s3::S3Objects::new(bucket, options)?)),
        Target::Rsync(place) => Box::new(layout::Layout::new(rsync::RsyncObjects::new(place, options)?)),
    })
}

impl StoreOptions {
    /// From `settings` and the environment of this process.
    pub fn new(settings: &RegistrySettings) -> Self {
        let http = (!settings.ca.is_empty())
            .then(|| HttpOptions { authorities: settings.ca.clone(), ..HttpOptions::default() });
        Self {
            credentials: Credentials::from_env(settings.registry_secret.as_deref()),
            http,
            retry: RetryPolicy { deadline: settings.retry_for, ..RetryPolicy::default() },
            insecure: settings.insecure.clone(),
            token_hosts: settings.token_hosts.clone(),
            mirror: settings.mirror.clone(),
            cloud: Environment::of_process(settings.registry_secret.as_deref()),
        }
    }
}

/// A stored blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blob {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Number of its bytes.
    pub size: u64,
}

/// A stored manifest.
#[derive(Clone, Debug)]
pub struct StoredManifest {
    /// SHA-256 of `bytes`, checked.
    pub digest: Digest,
    /// For example `application/vnd.oci.image.manifest.v1+json`.
    pub media_type: String,
    /// The JSON text, exactly as stored.
    pub bytes: Vec<u8>,
}

/// What is known of a manifest without its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestHead {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// As in [`StoredManifest`]; none if it is not told.
    pub media_type: Option<String>,
}

impl ManifestHead {
    /// Whether it may consist of other manifests, by its media type.
    pub fn may_be_index(&self) -> bool {
        let indexes =
            ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];
        self.media_type.as_deref().is_none_or(|kind| kind.is_empty() || indexes.contains(&kind))
    }
}

impl From<StoredManifest> for ManifestHead {
    fn from(StoredManifest { digest, media_type, .. }: StoredManifest) -> Self {
        Self { digest, media_type: Some(media_type) }
    }
}

/// Writes the whole content of a blob. It may be called more than once (a broken upload starts again) and must write the
/// same bytes each time.
pub type Produce<'a> = dyn FnMut(&mut dyn Write) -> io::Result<()> + Send + 'a;

/// One repository of a registry, or one folder. Every method may be called from several threads at once.
pub trait Store: Send + Sync {
    /// The manifest under `reference`, a tag or a `sha256:` digest; none if there is no such manifest.
    fn manifest(&self, reference: &str) -> Result<Option<StoredManifest>, StoreError>;

    /// The same without its content, which is cheaper where it travels.
    fn head(&self, reference: &str) -> Result<Option<ManifestHead>, StoreError> {
        Ok(self.manifest(reference)?.map(ManifestHead::from))
    }

    /// The digest of the manifest under `reference`; none if there is no such manifest.
    fn digest(&self, reference: &str) -> Result<Option<Digest>, StoreError> {
        Ok(self.head(reference)?.map(|head| head.digest))
    }

    /// Stores `bytes` as a manifest under `tag`, which it moves if it exists. All blobs that it refers to must be stored.
    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError>;

    /// Deletes the manifest and all its tags; false if it does not exist. Blobs without another reference are left to
    /// [`Store::collect`], or to the registry's garbage collection.
    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// Deletes the image with this digest, and `tag`, which points to it; false if it does not exist. Not every registry
    /// deletes by digest, or while a tag points to it. If the image still exists afterwards, that is an error.
    fn delete_image(&self, tag: &str, digest: &Digest) -> Result<bool, StoreError> {
        let _ = tag;
        self.delete_manifest(digest)
    }

    /// Deletes blobs that no image has needed for a day, where that does not happen by itself.
    fn collect(&self) -> Result<(), StoreError> {
        Ok(())
    }

    /// All tags, in order.
    fn tags(&self) -> Result<Vec<String>, StoreError> {
        Err(StoreError::Registry { place: "this store".to_owned(), problem: "its tags can't be listed".to_owned() })
    }

    /// The manifests that say that they belong to the image with this digest, such as signatures, if the store lists them (OCI
    /// distribution-spec, "Listing Referrers"). None if there are more than are read.
    fn referrers(&self, digest: &Digest) -> Result<Option<Vec<Digest>>, StoreError> {
        let _ = digest;
        Ok(Some(Vec::new()))
    }

    /// Whether the blob is stored.
    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError>;

    /// The same of several, in their order.
    fn has_blobs(&self, digests: &[Digest]) -> Result<Vec<bool>, StoreError> {
        digests.iter().map(|digest| self.has_blob(digest)).collect()
    }

    /// Reads a whole blob. At its end the reader fails unless size and digest were as asked.
    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError>;

    /// Reads `len` bytes from `offset` of a blob: unverified, the caller knows a digest of the part.
    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError>;

    /// Stores what `produce` writes, streaming: it is never held in memory or in a file as a whole.
    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError>;

    /// Stores `bytes` as a blob, unless the store has it.
    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError>;

    /// Mounts a blob of `from` here, without transferring it through this machine; false if that is impossible, so that the
    /// caller has to copy it.
    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError>;
}

/// A failed operation of a store: one sentence that names the place and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Stored content is invalid.
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
        /// The system's error.
        source: io::Error,
    },
    /// A registry can't be reached, or refuses a request.
    #[error("{place}: {problem}")]
    Registry {
        /// The image or blob.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A manifest refers to a blob that the registry does not have: it has to be stored again.
    #[error("{place}: {problem}")]
    MissingBlob {
        /// The image.
        place: String,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// An invalid setting: a flag or an environment variable.
    #[error("{problem}")]
    Settings {
        /// Which one, and what is wrong with it.
        problem: String,
    },
    /// A registry denies access.
    #[error("{place}: {problem}")]
    Denied {
        /// The image or blob.
        place: String,
        /// What it denied, and which credentials were used.
        problem: String,
    },
    /// An invalid file with credentials.
    #[error("{file}: the credentials for registries can't be used: {problem}")]
    Credentials {
        /// The file.
        file: String,
        /// What is wrong with it; no part of its content.
        problem: String,
    },
    /// A transient fault lasted until the deadline.
    #[error("{error} (tried {attempts} times in {})", units::duration(*elapsed))]
    GaveUp {
        /// The number of attempts.
        attempts: u32,
        /// The time since the first fault.
        elapsed: Duration,
        /// The last fault.
        error: Box<StoreError>,
    },
    /// The content to store could not be read or produced.
    #[error("{0}")]
    Source(io::Error),
}

/// The media type in a manifest (OCI image-spec, manifest.md: `mediaType` should be used).
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

/// What a manifest refers to.
struct NamedBlobs {
    /// Config and layers.
    blobs: Vec<Digest>,
    /// Other manifests.
    manifests: Vec<Digest>,
}

impl NamedBlobs {
    /// Those of the manifest with this JSON text.
    fn of(manifest: &[u8]) -> Result<Self, serde_json::Error> {
        #[derive(serde::Deserialize)]
        struct Named {
            #[serde(default)]
            layers: Vec<Descriptor>,
            #[serde(default)]
            manifests: Vec<Descriptor>,
            config: Option<Descriptor>,
        }
        #[derive(serde::Deserialize)]
        struct Descriptor {
            digest: String,
        }
        let Named { layers, manifests, config } = serde_json::from_slice(manifest)?;
        // A digest of another kind names nothing that we store.
        let digests =
            |named: Vec<Descriptor>| named.into_iter().filter_map(|named| named.digest.parse().ok()).collect();
        Ok(Self { blobs: digests(layers.into_iter().chain(config).collect()), manifests: digests(manifests) })
    }
}

/// `len` as `usize`, if the range lies within the blob.
fn check_range(blob: &Blob, offset: u64, len: u64, place: &str) -> Result<usize, StoreError> {
    match (offset.checked_add(len), usize::try_from(len)) {
        (Some(end), Ok(len)) if end <= blob.size => Ok(len),
        _ => Err(StoreError::Content {
            place: place.to_owned(),
            problem: format!("{len} bytes from {offset} lie outside of the blob, which has {} bytes", blob.size),
        }),
    }
}
