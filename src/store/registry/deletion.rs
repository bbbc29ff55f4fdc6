//! Deleting images (OCI distribution-spec, "Content Management"). Registries differ: some take a tag only, some a digest
//! only, some refuse a digest while a tag points to it, and some say that they did it and did not.

use std::{thread, time::Duration};

use http::{Method, StatusCode};

use super::{
    action::Action,
    drain,
    retry::Failure,
    session::{Call, Payload, Session},
};
use crate::{digest::Digest, store::StoreError};

/// How often to look, a second apart, before a registry that says that it deleted is not believed.
const LOOKS: u32 = 4;

/// What a registry made of a request to delete.
enum Outcome {
    Deleted,
    Absent,
    /// It does not delete what is named like this, or not now.
    Refused(StoreError),
}

impl Session {
    /// Deletes the image with this digest, and `tag`, which it was found under. False where nothing was there.
    pub fn delete_image(&self, tag: Option<&str>, digest: &Digest) -> Result<bool, StoreError> {
        let by_tag = match tag {
            Some(tag) => self.delete(tag)?,
            None => Outcome::Absent,
        };
        let by_digest = self.delete(&digest.to_string())?;
        match (&by_tag, by_digest) {
            (Outcome::Absent, Outcome::Absent) => Ok(false),
            (Outcome::Deleted, Outcome::Refused(error)) => {
                // Another tag needs it, or the registry collects it by itself, or its operator does.
                tracing::warn!("only the tag is gone: {error}");
                self.is_gone(tag, digest)
            }
            (_, Outcome::Refused(error)) => Err(error),
            (_, Outcome::Deleted) => self.is_gone(None, digest).and_then(|_| self.is_gone(tag, digest)),
            (Outcome::Deleted, Outcome::Absent) => self.is_gone(tag, digest),
            (_, Outcome::Absent) => self.is_gone(tag, digest).map(|_| false),
        }
    }

    fn delete(&self, reference: &str) -> Result<Outcome, StoreError> {
        let place = self.place(reference);
        self.backoff().run(|| {
            let answer = self.call(Call {
                action: Action::DeleteImage,
                place: &place,
                method: Method::DELETE,
                url: self.url(&format!("manifests/{reference}"))?,
                headers: &[],
                body: Payload::None,
                scope: &self.delete_scope(),
            })?;
            match answer.status() {
                StatusCode::NOT_FOUND => {
                    drain(answer);
                    Ok(Outcome::Absent)
                }
                status if status.is_success() => {
                    drain(answer);
                    Ok(Outcome::Deleted)
                }
                StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED | StatusCode::CONFLICT => {
                    match self.refused_to(Action::DeleteImage, &place, answer) {
                        Failure::Final(error @ StoreError::Registry { .. }) => Ok(Outcome::Refused(error)),
                        failure => Err(failure),
                    }
                }
                _ => Err(self.refused_to(Action::DeleteImage, &place, answer)),
            }
        })
    }

    /// Looks whether the image is gone; where it stays there, that is an error.
    fn is_gone(&self, tag: Option<&str>, digest: &Digest) -> Result<bool, StoreError> {
        let name = digest.to_string();
        let reference = tag.unwrap_or(&name);
        for look in 1..=LOOKS {
            match self.manifest(reference)? {
                Some(manifest) if manifest.digest == *digest => {}
                _ => return Ok(true),
            }
            if look < LOOKS {
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
