//! What an image says about the run that it belongs to.

use jiff::{SignedDuration, Timestamp};

use crate::{
    digest::Digest,
    step::StepConfig,
    store::{Store, StoredManifest},
    units,
    workspace::{
        Error,
        snapshot::{
            image::{self, CREATED, EXPIRES, KEEP, REPLACES, RUN, WORKSPACE},
            load,
        },
    },
};

/// An image names no more images than this one that it replaced: each is looked up.
const REPLACED: usize = 1000;

/// No run and no workspace has a longer name. What is read is held for all images of a repository.
const NAME: usize = 1024;

/// An image of a run, as its annotations describe it.
#[derive(Clone, Debug)]
pub struct RunImage {
    /// Digest of its manifest.
    pub digest: Digest,
    /// UID of the run; none for an image that was saved by hand.
    pub run: Option<String>,
    /// The workspace in the Pipeline, likewise.
    workspace: Option<String>,
    /// When it was made; none if it does not say.
    pub created: Option<Timestamp>,
    /// How long it is to be kept, by the params `expires` and `target-expires`; none if that is not said.
    expires: Option<SignedDuration>,
    /// Whether the run keeps its snapshots.
    pub keeps_all: bool,
    /// The images that were under its tag before, or that it lists.
    pub replaces: Vec<Digest>,
}

impl RunImage {
    /// From an image manifest; none if it is not one.
    pub fn parse(manifest: &StoredManifest) -> Option<Self> {
        let image: image::Manifest = serde_json::from_slice(&manifest.bytes).ok()?;
        let annotation = |name: &str| image.annotations.get(name).cloned();
        let name = |of: &str| annotation(of).filter(|name| name.len() <= NAME);
        let replaces = annotation(REPLACES).unwrap_or_default();
        Some(Self {
            digest: manifest.digest,
            run: name(RUN),
            workspace: name(WORKSPACE),
            created: annotation(CREATED).and_then(|text| text.parse().ok()),
            expires: annotation(EXPIRES).and_then(|text| units::parse_duration(&text).ok()?.try_into().ok()),
            keeps_all: annotation(KEEP).is_some_and(|keep| keep == "all"),
            replaces: replaces.split(',').take(REPLACED).filter_map(|digest| digest.parse().ok()).collect(),
        })
    }

    /// Whether it was to be kept until a time that is over at `now`.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        let end = self.created.zip(self.expires).and_then(|(created, expires)| created.checked_add(expires).ok());
        end.is_some_and(|end| end < now)
    }

    /// Whether `tag` is the one that the image's own run gives to the snapshot of a task, or to its list of replaced images.
    pub fn is_of_task(&self, tag: &str) -> bool {
        let (Some(run), Some(workspace)) = (&self.run, &self.workspace) else { return false };
        StepConfig::is_tag_of(run, workspace, tag)
    }
}

/// The config of the image under `reference`; none if there is no such image, or if it is none of ours.
pub fn config(store: &dyn Store, reference: &str) -> Result<Option<image::Config>, Error> {
    match load::image(store, reference, reference) {
        Ok(found) => Ok(found.map(|found| found.config)),
        Err(Error::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}
