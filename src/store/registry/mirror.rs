//! A pull-through registry from which blobs are read first: by digest, without credentials, and verified. If it fails, the
//! blob is read from the registry itself; only the debug log says so.

use std::{
    collections::HashMap,
    io::Read,
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{
    auth::Auth,
    candidates::Candidates,
    session::{Session, SessionOptions},
};
use crate::{
    mirror::MirrorAddress,
    store::{
        Blob, HttpOptions, StoreError, StoreOptions,
        credentials::Credentials,
        net::{http::HttpClient, origin::PlainHosts, retry::RetryPolicy},
        verify::VerifyReader,
    },
    target::ImageReference,
};

/// How long a mirror that failed is not used.
const COOLDOWN: Duration = Duration::from_secs(60);

/// Blobs up to this size are verified as a whole before they are returned, so that a damaged one is read from the registry.
const VERIFIED_FIRST: u64 = 1 << 20;

/// The mirror of a repository.
pub struct Mirror {
    session: Session,
    registry: String,
}

impl Mirror {
    /// The mirror at `address` of the repository of `image`.
    pub fn new(address: &MirrorAddress, image: &ImageReference, options: &StoreOptions) -> Result<Self, StoreError> {
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
        let candidates = Candidates::find(&Credentials::default(), None, &there.registry, &there.repository)?;
        let session = SessionOptions {
            client: HttpClient::new(&http)?,
            auth: Auth::new(candidates),
            retry: RetryPolicy { deadline: Duration::ZERO, ..RetryPolicy::default() },
            plain: PlainHosts::new(&plain),
            token_hosts: Vec::new(),
        };
        Ok(Self { session: Session::new(there, session), registry: image.registry.clone() })
    }

    /// The blob from the mirror; none if it has to be read from the registry.
    pub fn blob(&self, blob: &Blob) -> Option<Box<dyn Read + Send>> {
        if self.is_cooling_down() {
            return None;
        }
        // As containerd does for mirrors of several registries.
        let query = format!("?ns={}", self.registry);
        let body = match self.session.blob_from(blob, &query, 0, None) {
            Ok(body) => body,
            Err(failure) => {
                self.failed(&format!("{failure:?}"));
                return None;
            }
        };
        if blob.size > VERIFIED_FIRST {
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

    /// Records a failure: the mirror is not used for a while.
    pub fn failed(&self, why: &str) {
        tracing::debug!("the mirror {} is not used: {why}", self.session.image.registry);
        let until = Instant::now().checked_add(COOLDOWN);
        if let Some(until) = until {
            let mut mirrors = COOLING_DOWN.lock().unwrap_or_else(PoisonError::into_inner);
            mirrors.insert(self.session.image.registry.clone(), until);
        }
    }

    /// How messages name it.
    pub fn name(&self) -> &str {
        &self.session.image.registry
    }

    fn is_cooling_down(&self) -> bool {
        let mirrors = COOLING_DOWN.lock().unwrap_or_else(PoisonError::into_inner);
        mirrors.get(&self.session.image.registry).is_some_and(|until| Instant::now() < *until)
    }
}

static COOLING_DOWN: LazyLock<Arc<Mutex<HashMap<String, Instant>>>> = LazyLock::new(Arc::default);
