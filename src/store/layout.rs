//! Images in a place that only keeps objects by name: a bucket, or a folder on another machine.
//!
//! | object | content |
//! |---|---|
//! | `blobs/sha256/<hex>` | a blob or a manifest, as in an OCI image layout |
//! | `manifests/<tag>` | an OCI descriptor with the manifest embedded (OCI image-spec, descriptor.md, `data`) |
//! | `tmp/<id>` | a large blob until its digest is known |
//!
//! A tag is one object of its own, so that writers of different tags never meet, and it holds the manifest, so that reading it
//! takes one request and never finds half of a change. What two writers store under one tag is what the later one stored.

mod garbage;
mod objects;
mod tag;

use std::{
    fmt,
    io::{self, Read},
    sync::Arc,
};

use self::garbage::Catalog;
pub use self::objects::{FoundObject, ListedObject, ObjectAction, Objects, Opened};
use super::{
    Blob, Produce, Store, StoreError, StoredManifest, grace,
    net::{
        blocks::BlockReader,
        pump::pump,
        resume::{ContentSource, Incoming, Resuming, ended},
        retry::Failure,
    },
    verify::VerifyReader,
};
use crate::{digest::Digest, target::Target};

/// A blob up to this size is held in memory until its digest is known, and is then stored under its name at once.
const SMALL: usize = 8 << 20;

/// An object with a manifest in it is not larger.
const TAG_SIZE: u64 = 32 << 20;

/// Hexadecimal digits of the name of what lies in `tmp/`.
const TEMPORARY_DIGITS: usize = 32;

/// See the module.
pub struct Layout<O> {
    objects: Arc<O>,
    catalog: Catalog,
}

/// A blob of a layout, to be read.
struct LayoutBlob<O> {
    objects: Arc<O>,
    blob: Blob,
}

/// What became of the content of a blob whose name was not known.
enum Sent {
    InMemory(Vec<u8>),
    Temporary(String),
}

impl<O: Objects> Layout<O> {
    /// The images that are in `objects`.
    pub fn new(objects: O) -> Self {
        Self { objects: Arc::new(objects), catalog: Catalog::default() }
    }

    fn read_tag(&self, tag: &str) -> Result<Option<(StoredManifest, String)>, StoreError> {
        let key = tag::key(tag);
        let Some((bytes, version)) = self.read(&key, TAG_SIZE)? else { return Ok(None) };
        let manifest = tag::parse(&bytes).map_err(|why| damaged(self.objects.place(&key), &why))?;
        Ok(Some((manifest, version)))
    }

    /// The whole of a small object and its version.
    fn read(&self, key: &str, most: u64) -> Result<Option<(Vec<u8>, String)>, StoreError> {
        self.objects.backoff().run(|| {
            let Some(Opened { incoming, size, version }) = self.objects.open(key, 0, None)? else { return Ok(None) };
            if size > most {
                let error = damaged(self.objects.place(key), &format!("it has {size} bytes, which is too large"));
                return Err(Failure::Final(error));
            }
            let mut bytes = Vec::new();
            incoming.take(size).read_to_end(&mut bytes).map_err(|error| self.objects.broken(key, error))?;
            if bytes.len() as u64 != size {
                return Err(self.objects.broken(key, ended()));
            }
            Ok(Some((bytes, version)))
        })
    }

    fn put_once(&self, produce: &mut Produce<'_>) -> Result<Blob, Failure> {
        let _permit = self.objects.upload_permit();
        let temporary = format!("tmp/{}", unique());
        let (sent, blob) = pump(produce, |body| self.send(&temporary, body))?;
        match sent {
            Sent::InMemory(bytes) => self.put_named(&blob, &bytes).map_err(Failure::Final)?,
            Sent::Temporary(from) => {
                let moved = self.adopt(&from, &blob);
                // What is left there is of no use, whatever came of it.
                let _ = self.objects.delete(&from, None);
                moved.map_err(Failure::Final)?;
            }
        }
        Ok(blob)
    }

    fn send(&self, temporary: &str, body: &mut BlockReader) -> Result<Sent, Failure> {
        let mut first = Vec::new();
        let broken = |error: io::Error| self.objects.broken(temporary, error);
        body.read_up_to(SMALL, &mut first).map_err(broken)?;
        if first.len() < SMALL {
            return Ok(Sent::InMemory(first));
        }
        self.objects.put_stream(temporary, first, body)?;
        Ok(Sent::Temporary(temporary.to_owned()))
    }

    /// Gives what is at `from` the name of its digest.
    fn adopt(&self, from: &str, blob: &Blob) -> Result<(), StoreError> {
        if self.objects.looks_first() && self.keep(&blob.digest)? {
            return Ok(());
        }
        if self.objects.copy(from, &key(&blob.digest), blob.size)? {
            return Ok(());
        }
        let problem = "it was deleted while it was being stored; exempt tmp/ from whatever deletes there".to_owned();
        Err(StoreError::Content { place: self.objects.place(from), problem })
    }

    fn put_named(&self, blob: &Blob, bytes: &[u8]) -> Result<(), StoreError> {
        if self.objects.looks_first() && self.keep(&blob.digest)? {
            return Ok(());
        }
        self.objects.put(&key(&blob.digest), bytes)
    }

    /// Whether the blob is there. One that is old is made young again, so that neither a rule of the bucket nor [`garbage`]
    /// takes it before it has a use again.
    fn keep(&self, digest: &Digest) -> Result<bool, StoreError> {
        let key = key(digest);
        self.keep_found(&key, self.objects.find(&key)?.as_ref())
    }

    fn keep_found(&self, key: &str, found: Option<&FoundObject>) -> Result<bool, StoreError> {
        match found {
            None => Ok(false),
            Some(found) if grace::may_go_soon(found.modified) => self.make_young(key, found.size),
            Some(_) => Ok(true),
        }
    }

    fn make_young(&self, key: &str, size: u64) -> Result<bool, StoreError> {
        if !self.objects.touch(key, size)? {
            return Ok(false);
        }
        match self.objects.find(key)? {
            None => Ok(false),
            // Not every server takes a copy onto itself for something new.
            Some(found) if grace::may_go_soon(found.modified) => {
                let temporary = format!("tmp/{}", unique());
                let there = self.objects.copy(key, &temporary, size)?;
                let back = there && self.objects.copy(&temporary, key, size)?;
                let _ = self.objects.delete(&temporary, None);
                Ok(back)
            }
            Some(_) => Ok(true),
        }
    }
}

impl<O: Objects> Store for Layout<O> {
    fn manifest(&self, reference: &str) -> Result<Option<StoredManifest>, StoreError> {
        let Ok(digest) = reference.parse::<Digest>() else {
            return Ok(self.read_tag(reference)?.map(|(manifest, _)| manifest));
        };
        let key = key(&digest);
        let Some((bytes, _)) = self.read(&key, TAG_SIZE)? else { return Ok(None) };
        let manifest = tag::of_bytes(digest, None, bytes);
        manifest.map(Some).map_err(|why| damaged(self.objects.place(&key), &why))
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        let descriptor = tag::render(media_type, &digest, bytes);
        self.objects.put_tagged((&key(&digest), bytes), (&tag::key(tag), &descriptor))?;
        Ok(digest)
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        let images = self.images()?;
        let tags = images.iter().filter(|image| image.digest == *digest);
        for image in tags {
            self.objects.delete(&tag::key(&image.tag), None)?;
        }
        self.objects.delete(&key(digest), None)
    }

    /// The tag goes only if it still names this image when it is deleted; the manifest if no other tag names it.
    fn delete_image(&self, tag: &str, digest: &Digest) -> Result<bool, StoreError> {
        let found = self.read_tag(tag)?.filter(|(manifest, _)| manifest.digest == *digest);
        let deleted = match found {
            Some((_, version)) => self.objects.delete(&tag::key(tag), Some(&version))?,
            None => false,
        };
        let needed = self.images()?.iter().any(|image| image.digest == *digest);
        Ok((!needed && self.objects.delete(&key(digest), None)?) || deleted)
    }

    fn collect(&self) -> Result<(), StoreError> {
        self.sweep()
    }

    fn tags(&self) -> Result<Vec<String>, StoreError> {
        let mut tags: Vec<String> =
            self.objects.list(tag::FOLDER)?.into_iter().filter_map(|entry| tag::of_key(&entry.key)).collect();
        tags.sort();
        Ok(tags)
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.keep(digest)
    }

    fn has_blobs(&self, digests: &[Digest]) -> Result<Vec<bool>, StoreError> {
        let keys: Vec<String> = digests.iter().map(key).collect();
        let found = self.objects.find_all(&keys)?;
        keys.iter().map(|key| self.keep_found(key, found.get(key))).collect()
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        let mut source = LayoutBlob { objects: self.objects.clone(), blob: *blob };
        let backoff = self.objects.backoff();
        let incoming = backoff.clone().run(|| source.open(0))?;
        let resuming = Resuming::new(source, blob.size, incoming, backoff);
        Ok(Box::new(VerifyReader::new(resuming, *blob, self.objects.place(&key(&blob.digest)))))
    }

    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let key = key(&blob.digest);
        let length = super::check_range(blob, offset, len, &self.objects.place(&key))?;
        if length == 0 {
            return Ok(Vec::new());
        }
        self.objects.backoff().run(|| {
            let opened = self.objects.open(&key, offset, Some(len))?;
            let Opened { mut incoming, size, .. } =
                opened.ok_or_else(|| Failure::Final(absent(&*self.objects, &blob.digest)))?;
            check_size(&*self.objects, &blob.digest, size, len)?;
            let mut bytes = vec![0; length];
            incoming.read_exact(&mut bytes).map_err(|error| self.objects.broken(&key, error))?;
            Ok(bytes)
        })
    }

    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        let mut backoff = self.objects.backoff();
        loop {
            match self.put_once(produce) {
                Ok(blob) => return Ok(blob),
                Err(failure) => backoff.wait(failure)?,
            }
        }
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let blob = Blob { digest: Digest::of(bytes), size: bytes.len() as u64 };
        self.put_named(&blob, bytes)?;
        Ok(blob)
    }

    /// Only within one service.
    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        if self.keep(digest)? {
            return Ok(true);
        }
        self.objects.copy_from(from, &key(digest))
    }
}

impl<O: Objects> ContentSource for LayoutBlob<O> {
    fn open(&mut self, offset: u64) -> Result<Incoming, Failure> {
        let digest = &self.blob.digest;
        let opened = self.objects.open_blob(&key(digest), offset, self.blob.size)?;
        let Opened { incoming, size, .. } = opened.ok_or_else(|| Failure::Final(absent(&*self.objects, digest)))?;
        check_size(&*self.objects, digest, size, self.blob.size.saturating_sub(offset))?;
        Ok(incoming)
    }

    fn broken(&mut self, error: io::Error) -> Option<Failure> {
        Some(self.objects.broken(&key(&self.blob.digest), error))
    }
}

/// Where the blob is.
pub fn key(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Refuses an object that has not as many bytes as it has to have.
fn check_size(objects: &impl Objects, digest: &Digest, size: u64, expected: u64) -> Result<(), Failure> {
    if size == expected {
        return Ok(());
    }
    let problem =
        format!("the blob is damaged: it has {size} bytes where {expected} were expected; store the image again");
    Err(Failure::Final(StoreError::Content { place: objects.place(&key(digest)), problem }))
}

fn absent(objects: &impl Objects, digest: &Digest) -> StoreError {
    let problem = "the blob is not there; run the pipeline again if it was deleted".to_owned();
    StoreError::Content { place: objects.place(&key(digest)), problem }
}

/// A name that nobody else has: 128 random bits.
fn unique() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    // The standard library seeds its hash maps from the system's random numbers.
    (0..2).map(|_| format!("{:016x}", RandomState::new().build_hasher().finish())).collect()
}

fn damaged(place: String, why: &dyn fmt::Display) -> StoreError {
    let problem = format!("the image layout is damaged: {why}; delete it and run the pipeline again");
    StoreError::Content { place, problem }
}

#[cfg(test)]
mod tests;
