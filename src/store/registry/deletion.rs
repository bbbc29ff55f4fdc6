//! Deleting images (OCI distribution-spec, "Content Management"). Registries differ: some accept only a tag, some only a
//! digest, some refuse a digest while a tag points to it, and some response 202 and delete nothing.

use std::{thread, time::Duration};

use http::{Method, StatusCode};

use super::{
    operation::Operation,
    session::{Payload, RegistryRequest, Session},
};
use crate::{
    digest::Digest,
    store::{
        StoreError,
        net::{drain, retry::Failure},
    },
};

/// How often the image is looked up, a second apart, before a deletion counts as failed.
const CHECKS: u32 = 4;

/// The outcome of a DELETE request.
enum DeleteOutcome {
    Deleted,
    Absent,
    /// The registry does not delete by this kind of reference, or not now.
    Refused(StoreError),
}

impl Session {
    /// Deletes the image with this digest, and `tag`, which pointed to it. False if there was none.
    pub fn delete_image(&self, tag: Option<&str>, digest: &Digest) -> Result<bool, StoreError> {
        let by_tag = match tag {
            Some(tag) => self.delete(tag)?,
            None => DeleteOutcome::Absent,
        };
        let by_digest = self.delete(&digest.to_string())?;
        match (&by_tag, by_digest) {
            (DeleteOutcome::Absent, DeleteOutcome::Absent) => Ok(false),
            (DeleteOutcome::Deleted, DeleteOutcome::Refused(error)) => {
                // Another tag points to it, or the registry's garbage collection deletes it.
                tracing::warn!("only the tag is gone: {error}");
                self.is_gone(tag, digest)
            }
            (_, DeleteOutcome::Refused(error)) => Err(error),
            (_, DeleteOutcome::Deleted) => self.is_gone(None, digest).and_then(|_| self.is_gone(tag, digest)),
            (DeleteOutcome::Deleted, DeleteOutcome::Absent) => self.is_gone(tag, digest),
            (_, DeleteOutcome::Absent) => self.is_gone(tag, digest).map(|_| false),
        }
    }

    fn delete(&self, reference: &str) -> Result<DeleteOutcome, StoreError> {
        let place = self.place(reference);
        self.backoff().run(|| {
            let response = self.call(RegistryRequest {
                operation: Operation::DeleteImage,
                place: &place,
                method: Method::DELETE,
                url: self.url(&format!("manifests/{reference}"))?,
                headers: &[],
                body: Payload::None,
                scope: &self.delete_scope(),
            })?;
            match response.status() {
                StatusCode::NOT_FOUND => {
                    drain(response);
                    Ok(DeleteOutcome::Absent)
                }
                status if status.is_success() => {
                    drain(response);
                    Ok(DeleteOutcome::Deleted)
                }
                StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT => {
                    match self.refused_to(Operation::DeleteImage, &place, response) {
                        Failure::Final(error @ StoreError::Registry { .. }) => Ok(DeleteOutcome::Refused(error)),
                        failure => Err(failure),
                    }
                }
                _ => Err(self.refused_to(Operation::DeleteImage, &place, response)),
            }
        })
    }

    /// Checks that the image is gone; an error if it is not.
    fn is_gone(&self, tag: Option<&str>, digest: &Digest) -> Result<bool, StoreError> {
        let name = digest.to_string();
        let reference = tag.unwrap_or(&name);
        for check in 1..=CHECKS {
            match self.manifest(reference)? {
                Some(manifest) if manifest.digest == *digest => {}
                _ => return Ok(true),
            }
            if check < CHECKS {
                thread::sleep(Duration::from_secs(1));
            }
        }
        Err(StoreError::Registry {
            place: self.place(reference),
            problem: format!(
                "{} answered that it deleted the image, but it is still there; delete it with the registry's own tools, or ask its operator",
                self.image.registry
            ),
        })
    }
}
