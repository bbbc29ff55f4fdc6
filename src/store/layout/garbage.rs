//! Blobs that no image needs any more.
//!
//! A writer may be about to name a blob that it found: so only what is older than [`KEEP`] goes, and a writer that finds an
//! old one makes it young again ([`may_go_soon`]). A rule of the bucket that deletes by age is safe for the same reason, if
//! its age is longer than that of the oldest image that is to be kept, by [`YOUNG`].

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::{Layout, Objects, damaged, key, tag};
use crate::{
    digest::Digest,
    store::{StoreError, named_by},
};

/// How old a blob without an image has to be.
pub const KEEP: Duration = Duration::from_secs(24 * 60 * 60);

/// Until what age a blob is in no danger: half of [`KEEP`].
const YOUNG: Duration = Duration::from_secs(12 * 60 * 60);

/// How many tags are read at once.
const READERS: usize = 8;

/// What the tags name, as far as it was read: tags that did not change are not read again.
#[derive(Default)]
pub struct Catalog(Mutex<HashMap<String, (String, TaggedImage)>>);

/// What a tag names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaggedImage {
    pub tag: String,
    pub digest: Digest,
    /// Config, layers and other manifests.
    pub needs: Vec<Digest>,
}

/// Whether an object that was stored then is about to be old.
pub fn may_go_soon(modified: Option<SystemTime>) -> bool {
    is_older(modified, YOUNG)
}

fn is_older(modified: Option<SystemTime>, than: Duration) -> bool {
    // What is stored in the future is young.
    modified.is_some_and(|modified| modified.elapsed().is_ok_and(|age| age > than))
}

impl<O: Objects> Layout<O> {
    /// All images.
    pub fn images(&self) -> Result<Vec<TaggedImage>, StoreError> {
        let listed = self.objects.list(tag::FOLDER)?;
        let tags = listed.into_iter().filter_map(|entry| Some((tag::of_key(&entry.key)?, entry.version)));
        let tags: HashMap<String, String> = tags.collect();
        let mut known = self.catalog.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|tag, (version, _)| tags.get(tag) == Some(version));
        let unknown: Vec<(&String, &String)> = tags.iter().filter(|(tag, _)| !known.contains_key(*tag)).collect();
        for (tag, image) in self.read_images(&unknown)? {
            let version = tags.get(&tag).cloned().unwrap_or_default();
            known.extend(image.map(|image| (tag, (version, image))));
        }
        Ok(known.values().map(|(_, image)| image.clone()).collect())
    }

    fn read_images(&self, tags: &[(&String, &String)]) -> Result<Vec<(String, Option<TaggedImage>)>, StoreError> {
        let share = tags.len().div_ceil(READERS).max(1);
        std::thread::scope(|scope| {
            let read = |share| scope.spawn(move || self.read_share(share));
            let readers: Vec<_> = tags.chunks(share).map(read).collect();
            let join = |reader: std::thread::ScopedJoinHandle<'_, Result<Vec<_>, StoreError>>| {
                reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            let read: Result<Vec<Vec<_>>, StoreError> = readers.into_iter().map(join).collect();
            Ok(read?.into_iter().flatten().collect())
        })
    }

    fn read_share(&self, tags: &[(&String, &String)]) -> Result<Vec<(String, Option<TaggedImage>)>, StoreError> {
        let image = |tag: &str| -> Result<Option<TaggedImage>, StoreError> {
            let Some((manifest, _)) = self.read_tag(tag)? else { return Ok(None) };
            let needs = named_by(&manifest.bytes).map_err(|why| damaged(self.objects.place(&tag::key(tag)), &why))?;
            Ok(Some(TaggedImage { tag: tag.to_owned(), digest: manifest.digest, needs }))
        };
        tags.iter().map(|(tag, _)| Ok(((*tag).clone(), image(tag)?))).collect()
    }

    /// Deletes old blobs that no image needs, and what broken uploads left.
    pub fn sweep(&self) -> Result<(), StoreError> {
        // Blobs first: an image that is stored meanwhile needs none of those that are seen as old now.
        let blobs = self.objects.list("blobs/")?;
        let old = |entry: &&super::ListedObject| is_older(entry.modified, KEEP);
        let images = self.images()?;
        let needed: HashSet<String> =
            images.iter().flat_map(|image| image.needs.iter().chain([&image.digest])).map(key).collect();
        let unused = blobs.iter().filter(old).map(|entry| &entry.key).filter(|key| !needed.contains(*key));
        let unused: Vec<String> = unused.cloned().collect();
        // Somebody may have found a use for one since.
        self.objects.delete_all(&unused, &|now| is_older(now.modified, KEEP))?;
        for entry in self.objects.list("tmp/")?.iter().filter(old) {
            self.objects.delete(&entry.key, None)?;
        }
        Ok(())
    }
}
