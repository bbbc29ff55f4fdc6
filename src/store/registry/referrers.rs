//! Manifests that say that they belong to an image (OCI distribution-spec, "Listing Referrers"). Registries that don't list them
//! answer 404; clients use the Referrers Tag Schema there.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::Deserialize;

use super::{
    operation::Operation,
    session::{Payload, RegistryRequest, Session},
    tags::next_page,
};
use crate::{
    digest::Digest,
    store::{
        StoreError,
        net::{drain, read_up_to, retry::Failure},
    },
};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// The most bytes of a list.
const LIST_SIZE: u64 = 4 << 20;

/// Bounds for registries that return endless pages, and for images that somebody attached endless things to.
const PAGES: usize = 100;
const REFERRERS: usize = 10_000;

/// Whether a registry lists them, as far as it has answered.
#[derive(Debug, Default)]
pub struct ReferrersApi {
    is_absent: AtomicBool,
    /// It has listed some: a 404 is about something else then.
    is_present: AtomicBool,
}

#[derive(Deserialize)]
struct List {
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
struct Referrer {
    digest: String,
}

/// A page of a list.
struct ReferrersPage {
    digests: Vec<Digest>,
    next: Next,
}

/// What follows a page.
enum Next {
    Nothing,
    /// The page with this query.
    Query(String),
    /// Something that can't be read.
    Unreadable,
}

impl Session {
    /// See the module. None if there are more than are read.
    pub fn referrers(&self, digest: &Digest) -> Result<Option<Vec<Digest>>, StoreError> {
        let (mut all, mut query) = (Vec::new(), None);
        if self.referrers_api.is_absent.load(Ordering::Relaxed) {
            return Ok(Some(all));
        }
        for _ in 0..PAGES {
            let ReferrersPage { digests, next } =
                self.backoff().run(|| self.referrers_page(digest, query.as_deref()))?;
            all.extend(digests);
            match next {
                Next::Nothing => return Ok(Some(all)),
                Next::Query(next) if all.len() <= REFERRERS && query.as_ref() != Some(&next) => query = Some(next),
                _ => break,
            }
        }
        Ok(None)
    }

    fn referrers_page(&self, digest: &Digest, query: Option<&str>) -> Result<ReferrersPage, Failure> {
        let place = self.place(&digest.to_string());
        let query = query.map(|query| format!("?{query}")).unwrap_or_default();
        let url = self.url(&format!("referrers/{digest}{query}"))?;
        let response = self.call(RegistryRequest {
            operation: Operation::ListReferrers,
            place: &place,
            method: Method::GET,
            url: url.clone(),
            headers: &[(header::ACCEPT, INDEX)],
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        let api = &self.referrers_api;
        match response.status() {
            StatusCode::OK => api.is_present.store(true, Ordering::Relaxed),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED
                if query.is_empty() =>
            {
                if response.status() == StatusCode::NOT_FOUND && !api.is_present.load(Ordering::Relaxed) {
                    api.is_absent.store(true, Ordering::Relaxed);
                }
                drain(response);
                return Ok(ReferrersPage { digests: Vec::new(), next: Next::Nothing });
            }
            _ => return Err(self.refused_to(Operation::ListReferrers, &place, response)),
        }
        let next = self.next_referrers(&url, response.headers());
        let bytes = read_up_to(response.into_body(), LIST_SIZE);
        let bytes = bytes.map_err(|error| self.broken_reading(&place, error))?;
        let list: List =
            serde_json::from_slice(&bytes).map_err(|_| self.unexpected(&place, "its list of referrers is not JSON"))?;
        // A digest of another kind is none that we could delete.
        let digests = list.manifests.into_iter().filter_map(|referrer| referrer.digest.parse().ok()).collect();
        Ok(ReferrersPage { digests, next })
    }

    /// Of the header `Link` only the query is used, as for tags: the host and the path are known.
    fn next_referrers(&self, url: &Uri, headers: &HeaderMap) -> Next {
        let Some(target) = next_page(headers) else { return Next::Nothing };
        match self.resolve(url, target).as_ref().and_then(Uri::query) {
            Some(query) => Next::Query(query.to_owned()),
            None => Next::Unreadable,
        }
    }
}
