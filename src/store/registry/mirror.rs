//! A pull-through registry near by, which blobs are read from first. It is asked by digest, without credentials, and what
//! it gives is checked; where it has no answer the registry itself is asked, and nobody learns of it.

use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    auth::Auth,
    candidates::Candidates,
    http::Client,
    origin::PlainHosts,
    retry::RetryPolicy,
    session::{Session, SessionOptions},
};
use crate::{
    store::{
        Blob, HttpOptions, Options, StoreError, credentials::Credentials, settings::MirrorAddress, verify::VerifyReader,
    },
    target::ImageReference,
};

/// How long one that failed is left alone.
const LEFT_ALONE: Duration = Duration::from_secs(60);

/// Blobs up to this size are checked before anybody sees them, so that a damaged one is fetched elsewhere.
const CHECKED_FIRST: u64 = 1 << 20;

/// The mirror of a repository.
pub struct Mirror {
    session: Session,
    registry: String,
}

impl Mirror {
    /// What is at `address` for the repository of `image`.
    pub fn new(address: &MirrorAddress, image: &ImageReference, options: &Options) -> Result<Self, StoreError> {
        let mut plain = options.insecure.clone();
        plain.extend(address.plain.then(|| address.host.clone()));
        let limits = options.http.clone().unwrap_or_default();
        let http = HttpOptions {
            connect_timeout: limits.connect_timeout.min(Duration::from_secs(2)),
            stall_timeout: limits.stall_timeout.min(Duration::from_secs(20)),
            ..limits
        };
        let repository = format!("{}{}", address.prefix, image.repository);
        let there = ImageReference { registry: address.host.clone(), repository, ..image.clone() };
        let candidates = Candidates::find(&Credentials::default(), &there.registry, &there.repository)?;
        let session = SessionOptions {
            client: Client::new(&http)?,
            auth: Auth::new(candidates),
            retry: RetryPolicy { deadline: Duration::ZERO, ..RetryPolicy::default() },
            plain: PlainHosts::new(&plain),
            token_hosts: Vec::new(),
        };
        Ok(Self { session: Session::new(there, session), registry: image.registry.clone() })
    }

    /// The blob from there; none where it has to come from elsewhere.
    pub fn blob(&self, blob: &Blob) -> Option<Box<dyn Read + Send>> {
        if self.is_left_alone() {
            return None;
        }
        // containerd asks its mirrors in the same way for the images of several registries.
        let query = format!("?ns={}", self.registry);
        let body = match self.session.blob_from(blob, &query, 0, None) {
            Ok(body) => body,
            Err(failure) => {
                self.failed(&format!("{failure:?}"));
                return None;
            }
        };
        if blob.size > CHECKED_FIRST {
            return Some(body);
        }
        let mut bytes = Vec::new();
        let place = self.session.place(&blob.digest.to_string());
        match VerifyReader::new(body, *blob, place).read_to_end(&mut bytes) {
            Ok(_) => Some(Box::new(std::io::Cursor::new(bytes))),
            Err(error) => {
                self.failed(&error.to_string());
                None
            }
        }
    }

    /// Something went wrong there: it is not asked again for a while.
    pub fn failed(&self, why: &str) {
        tracing::debug!("the mirror {} is not used: {why}", self.session.image.registry);
        let until = Instant::now().checked_add(LEFT_ALONE);
        if let Some(until) = until {
            let mut alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
            alone.insert(self.session.image.registry.clone(), until);
        }
    }

    /// How messages name it.
    pub fn name(&self) -> &str {
        &self.session.image.registry
    }

    fn is_left_alone(&self) -> bool {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        alone.get(&self.session.image.registry).is_some_and(|until| Instant::now() < *until)
    }
}

static ALONE: LazyLock<Arc<Mutex<HashMap<String, Instant>>>> = LazyLock::new(Arc::default);
