//! Manifests that say that they belong to an image (OCI distribution-spec, "Listing Referrers"). Registries that don't list them
//! answer 404; clients use the Referrers Tag Schema there.

use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, StatusCode, header};
use serde::Deserialize;

use super::{
    operation::Operation,
    session::{Payload, RegistryRequest, Session},
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

/// Whether a registry turned out not to list them.
#[derive(Debug, Default)]
pub struct Unlisted(AtomicBool);

#[derive(Deserialize)]
struct List {
    manifests: Vec<Referrer>,
}

#[derive(Deserialize)]
struct Referrer {
    digest: String,
}

impl Session {
    /// See the module; the first page of them.
    pub fn referrers(&self, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
        if self.unlisted.0.load(Ordering::Relaxed) {
            return Ok(Vec::new());
        }
        self.backoff().run(|| self.list_referrers(digest))
    }

    fn list_referrers(&self, digest: &Digest) -> Result<Vec<Digest>, Failure> {
        let place = self.place(&digest.to_string());
        let response = self.call(RegistryRequest {
            operation: Operation::ListReferrers,
            place: &place,
            method: Method::GET,
            url: self.url(&format!("referrers/{digest}"))?,
            headers: &[(header::ACCEPT, INDEX)],
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND
            | StatusCode::METHOD_NOT_ALLOWED
            | StatusCode::BAD_REQUEST
            | StatusCode::NOT_IMPLEMENTED => {
                self.unlisted.0.store(true, Ordering::Relaxed);
                drain(response);
                return Ok(Vec::new());
            }
            _ => return Err(self.refused_to(Operation::ListReferrers, &place, response)),
        }
        let bytes = read_up_to(response.into_body(), LIST_SIZE);
        let bytes = bytes.map_err(|error| self.broken_reading(&place, error))?;
        let list: List =
            serde_json::from_slice(&bytes).map_err(|_| self.unexpected(&place, "its list of referrers is not JSON"))?;
        // A digest of another kind is none that we could delete.
        Ok(list.manifests.into_iter().filter_map(|referrer| referrer.digest.parse().ok()).collect())
    }
}
