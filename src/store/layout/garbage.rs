//! Blobs that no image needs any more.
//!
//! They stay for a while ([`grace`]), as a writer may be about to name one that it found. A rule of the bucket that deletes by age
//! is safe for the same reason, if its age is longer than that of the oldest image that is to be kept, by half of the grace.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use super::{Layout, Objects, TEMPORARY_DIGITS, damaged, key, tag};
use crate::{
    digest::Digest,
    store::{NamedBlobs, StoreError, grace},
};

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
            let named = NamedBlobs::of(&manifest.bytes);
            let NamedBlobs { blobs, manifests } =
                named.map_err(|why| damaged(self.objects.place(&tag::key(tag)), &why))?;
            let needs = [blobs, manifests].concat();
            Ok(Some(TaggedImage { tag: tag.to_owned(), digest: manifest.digest, needs }))
        };
        tags.iter().map(|(tag, _)| Ok(((*tag).clone(), image(tag)?))).collect()
    }

    /// Deletes old blobs that no image needs, and what broken uploads left: nothing that has no name of ours, as the place may be
    /// a whole bucket.
    pub fn sweep(&self) -> Result<(), StoreError> {
        // Blobs first: an image that is stored meanwhile needs none of those that are seen as old now.
        let blobs = self.objects.list("blobs/")?;
        let old = |entry: &&super::ListedObject| grace::is_over(entry.modified);
        let images = self.images()?;
        let needed: HashSet<String> =
            images.iter().flat_map(|image| image.needs.iter().chain([&image.digest])).map(key).collect();
        let old_blobs = blobs.iter().filter(old).map(|entry| &entry.key).filter(|key| is_blob(key));
        let unused: Vec<String> = old_blobs.filter(|key| !needed.contains(*key)).cloned().collect();
        // Somebody may have found a use for one since.
        self.objects.delete_all(&unused, &|now| grace::is_over(now.modified))?;
        for entry in self.objects.list("tmp/")?.iter().filter(old).filter(|entry| is_temporary(&entry.key)) {
            self.objects.delete(&entry.key, None)?;
        }
        Ok(())
    }
}

/// Whether a blob has this key, or what broke off while rsync stored one.
fn is_blob(key: &str) -> bool {
    let name = key.strip_prefix("blobs/sha256/").map(|name| name.strip_prefix(".partial/").unwrap_or(name));
    name.is_some_and(|name| format!("sha256:{name}").parse::<Digest>().is_ok())
}

/// Whether a blob had this key while it was sent.
fn is_temporary(key: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    key.strip_prefix("tmp/").is_some_and(|name| name.len() == TEMPORARY_DIGITS && name.bytes().all(is_digit))
}
