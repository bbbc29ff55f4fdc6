//! Manifests of a registry (OCI distribution-spec, "Pulling manifests", "Pushing manifests").

use http::{HeaderMap, Method, Response, StatusCode, header};
use ureq::Body;

use super::{
    operation::Operation,
    session::{Payload, RegistryRequest, Session},
};
use crate::{
    digest::Digest,
    store::{
        ManifestHead, StoreError, StoredManifest,
        net::{drain, read_up_to, retry::Failure},
        own_media_type,
    },
};

/// Accepted media types: images and indexes of OCI and of Docker.
const MANIFEST_TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                              application/vnd.docker.distribution.manifest.v2+json, \
                              application/vnd.docker.distribution.manifest.list.v2+json";

/// Registries refuse manifests of more than 4 MiB (OCI distribution-spec, "Pushing manifests").
const MANIFEST_SIZE: u64 = 16 << 20;

/// How often a manifest is sent again that was refused for a blob that was just stored: registries with several replicas
/// are eventually consistent.
const UNKNOWN_BLOB_ATTEMPTS: u32 = 3;

/// The response to HEAD.
enum HeadAnswer {
    Found(ManifestHead),
    Absent,
    /// GET says more.
    Unsupported,
}

impl Session {
    /// The manifest under a tag or a digest; none where there is none.
    pub fn manifest(&self, reference: &str) -> Result<Option<StoredManifest>, StoreError> {
        self.backoff().run(|| self.read_manifest(reference))
    }

    /// What it is; none if there is none. HEAD is cheaper, and no pull where pulls are limited (Docker Hub: "Usage and
    /// limits").
    pub fn manifest_head(&self, reference: &str) -> Result<Option<ManifestHead>, StoreError> {
        match self.backoff().run(|| self.head_manifest(reference))? {
            HeadAnswer::Found(head) => Ok(Some(head)),
            HeadAnswer::Absent => Ok(None),
            HeadAnswer::Unsupported => Ok(self.manifest(reference)?.map(ManifestHead::from)),
        }
    }

    /// Stores a manifest under a tag.
    pub fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        let mut unknown_blob = 0_u32;
        self.backoff().run(|| match self.write_manifest(tag, media_type, bytes) {
            Err(Failure::Final(error @ StoreError::MissingBlob { .. })) if unknown_blob < UNKNOWN_BLOB_ATTEMPTS => {
                unknown_blob = unknown_blob.saturating_add(1);
                Err(Failure::transient(error))
            }
            written => written,
        })
    }

    fn head_manifest(&self, reference: &str) -> Result<HeadAnswer, Failure> {
        let response = self.call(RegistryRequest {
            operation: Operation::ReadManifest,
            place: &self.place(reference),
            method: Method::HEAD,
            url: self.url(&format!("manifests/{reference}"))?,
            headers: &[(header::ACCEPT, MANIFEST_TYPES)],
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        Ok(match (response.status(), told_digest(response.headers())) {
            (StatusCode::OK, Some(digest)) => {
                HeadAnswer::Found(ManifestHead { digest, media_type: told_type(response.headers()).map(str::to_owned) })
            }
            (StatusCode::NOT_FOUND, _) => HeadAnswer::Absent,
            // GET has a body with the reason.
            _ => HeadAnswer::Unsupported,
        })
    }

    fn read_manifest(&self, reference: &str) -> Result<Option<StoredManifest>, Failure> {
        let place = self.place(reference);
        let response = self.call(RegistryRequest {
            operation: Operation::ReadManifest,
            place: &place,
            method: Method::GET,
            url: self.url(&format!("manifests/{reference}"))?,
            headers: &[(header::ACCEPT, MANIFEST_TYPES)],
            body: Payload::None,
            scope: &self.pull_scope(),
        })?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => {
                let page = is_html(&response);
                drain(response);
                if page && !self.is_registry() {
                    return Err(self.unexpected(&place, "it responds with an HTML page (404): is it a registry?"));
                }
                return Ok(None);
            }
            _ => return Err(self.refused_to(Operation::ReadManifest, &place, response)),
        }
        let (parts, body) = response.into_parts();
        let bytes = read_up_to(body, MANIFEST_SIZE.saturating_add(1));
        let bytes = bytes.map_err(|error| self.broken_reading(&place, error))?;
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
        let told = told_type(&parts.headers);
        let media_type = match told {
            Some(told) if MANIFEST_TYPES.split(", ").any(|known| known == told) => told.to_owned(),
            _ => own_media_type(&bytes).ok_or_else(|| {
                let what =
                    told.unwrap_or("unknown data").chars().filter(|c| !c.is_control()).take(80).collect::<String>();
                wrong(format!("this is no image manifest but {what}; is {} a registry?", self.image.registry))
            })?,
        };
        Ok(Some(StoredManifest { digest, media_type, bytes }))
    }

    fn write_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, Failure> {
        let place = self.place(tag);
        let response = self.call(RegistryRequest {
            operation: Operation::StoreManifest,
            place: &place,
            method: Method::PUT,
            url: self.url(&format!("manifests/{tag}"))?,
            headers: &[(header::CONTENT_TYPE, media_type)],
            body: Payload::Bytes(bytes),
            scope: &self.push_scope(),
        })?;
        if !response.status().is_success() {
            return Err(self.refused_to(Operation::StoreManifest, &place, response));
        }
        let digest = Digest::of(bytes);
        match told_digest(response.headers()) {
            Some(stored) if stored != digest => Err(Failure::Final(StoreError::Content {
                place,
                problem: format!("the registry stored the manifest as {stored} instead of {digest}"),
            })),
            _ => {
                drain(response);
                Ok(digest)
            }
        }
    }
}

/// The header `Docker-Content-Digest`, where it is a SHA-256.
fn told_digest(headers: &HeaderMap) -> Option<Digest> {
    headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()
}

/// The header `Content-Type`, without its parameters.
fn told_type(headers: &HeaderMap) -> Option<&str> {
    let told = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
    told.split(';').next().map(str::trim)
}

fn is_html(response: &Response<Body>) -> bool {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    kind.is_some_and(|kind| kind.starts_with("text/html"))
}
