//! A folder as a store: an OCI image layout (OCI image-spec, image-layout.md), which `crane`, `skopeo` and `podman` read.
//!
//! Several processes may use a folder concurrently: blobs and `index.json` are replaced atomically, by rename, and changes
//! of `index.json` are serialised by a lock on the file `oci-layout`, which is itself never replaced. A blob that no image needs
//! stays for a while ([`garbage`]).

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

mod garbage;
mod temporary;

use std::{
    collections::BTreeSet,
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use rustix::fs::OFlags;

use serde_json::{Value, json};

use self::temporary::Temporary;
use super::{Blob, Produce, Store, StoreError, StoredManifest, verify::VerifyReader};
use crate::{
    digest::{Digest, Hasher},
    target::Target,
};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// `index.json` and manifests are read into memory: larger ones are refused.
const MAX_JSON: u64 = 64 << 20;

/// An image layout.
pub struct DirStore {
    path: PathBuf,
}

impl DirStore {
    /// The store in the folder `path`, which is created by the first write.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    /// Opens the blob; an absent blob is an error.
    fn open_blob(&self, digest: &Digest) -> Result<(File, String), StoreError> {
        let path = self.blob_path(digest);
        let place = path.display().to_string();
        match open_file(&path) {
            Ok(file) => Ok((file, place)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let problem = "the blob is not there; run the pipeline again if it was deleted".to_owned();
                Err(StoreError::Content { place, problem })
            }
            Err(e) => Err(at(&path, e)),
        }
    }

    /// The content of `index.json`, without entries if there is no such file.
    fn index(&self) -> Result<Value, StoreError> {
        let path = self.index_path();
        let empty =
            || json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
        match read_json(&path) {
            Ok(bytes) => match serde_json::from_slice::<Value>(&bytes) {
                Ok(index) if index["manifests"].is_array() => Ok(index),
                Ok(_) => Err(damaged(&path, &"it has no list of manifests")),
                Err(e) => Err(damaged(&path, &e)),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(empty()),
            Err(e) => Err(at(&path, e)),
        }
    }

    /// Creates the layout and locks it until the file is closed.
    fn lock(&self) -> Result<File, StoreError> {
        self.make_folders()?;
        let path = self.path.join("oci-layout");
        let open = || -> io::Result<File> {
            let mut options = OpenOptions::new();
            // A link would have a file made, or written, where it leads.
            let mut file = options
                .custom_flags(flags(OFlags::NOFOLLOW | OFlags::NONBLOCK))
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .open(&path)?;
            let status = file.metadata()?;
            if !status.is_file() {
                return Err(no_file());
            }
            file.lock()?;
            if file.metadata()?.len() == 0 {
                file.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            }
            Ok(file)
        };
        open().map_err(|e| at(&path, e))
    }

    fn make_folders(&self) -> Result<(), StoreError> {
        let path = self.path.join("blobs/sha256");
        fs::create_dir_all(&path).map_err(|e| at(&path, e))
    }

    /// Removes the entries of the image that `goes` accepts, and its manifest if it has no use any more; false if there was
    /// nothing to do. Its blobs are left to [`garbage`].
    fn delete(&self, digest: &Digest, goes: impl Fn(&Value) -> bool) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        if !path.try_exists().map_err(|e| at(&path, e))? {
            return Ok(false);
        }
        let lock = self.lock()?;
        let mut index = self.index()?;
        let mut deleted = false;
        if let Some(entries) = index["manifests"].as_array_mut() {
            let count = entries.len();
            entries.retain(|entry| entry["digest"] != digest.to_string() || !goes(entry));
            deleted = entries.len() < count;
        }
        if deleted {
            self.write_index(&index)?;
        }
        if !self.has_use(&index, digest)? {
            deleted |= fs::remove_file(&path).is_ok();
        }
        drop(lock);
        Ok(deleted)
    }

    /// Replaces `index.json`; the layout has to be locked.
    fn write_index(&self, index: &Value) -> Result<(), StoreError> {
        let mut file = self.temporary()?;
        file.write_all(index.to_string().as_bytes()).map_err(|e| at(&self.path, e))?;
        file.rename(&self.index_path())
    }

    /// Stores a small blob, in place of what is there.
    fn put_new(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(|e| at(&self.path, e))?;
        let blob = file.blob();
        file.rename(&self.blob_path(&blob.digest))?;
        Ok(blob)
    }

    fn temporary(&self) -> Result<Temporary, StoreError> {
        self.make_folders()?;
        Temporary::new(&self.path).map_err(|e| at(&self.path, e))
    }
}

impl Store for DirStore {
    fn manifest(&self, reference: &str) -> Result<Option<StoredManifest>, StoreError> {
        let index = self.index()?;
        let entries = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
        let wanted = |entry: &&Value| match reference.parse::<Digest>() {
            Ok(digest) => entry["digest"] == digest.to_string(),
            Err(_) => entry["annotations"][REF_NAME] == reference,
        };
        // The last entry wins if another tool wrote several with one name.
        let entry = entries.iter().rev().find(wanted);
        let digest = match (entry, reference.parse::<Digest>()) {
            (_, Ok(digest)) => digest,
            (Some(entry), _) => {
                let text = entry["digest"].as_str().unwrap_or_default();
                text.parse().map_err(|e| damaged(&self.index_path(), &e))?
            }
            (None, _) => return Ok(None),
        };
        let path = self.blob_path(&digest);
        let bytes = match read_json(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound && entry.is_none() => return Ok(None),
            Err(e) => return Err(at(&path, e)),
        };
        let found = Digest::of(&bytes);
        if found != digest {
            return Err(damaged(&path, &format!("its content has the digest {found}")));
        }
        let described = entry.and_then(|e| e["mediaType"].as_str()).map(str::to_owned);
        let media_type = match described {
            Some(media_type) => media_type,
            None => super::own_media_type(&bytes).ok_or_else(|| damaged(&path, &"it is not a manifest"))?,
        };
        Ok(Some(StoredManifest { digest, media_type, bytes }))
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        let lock = self.lock()?;
        // Whoever deletes the same manifest does it before this, or sees the new entry.
        let Blob { digest, size } = self.put_new(bytes)?;
        let mut index = self.index()?;
        if let Some(entries) = index["manifests"].as_array_mut() {
            entries.retain(|entry| entry["annotations"][REF_NAME] != tag);
            entries.push(json!({
                "mediaType": media_type, "digest": digest.to_string(), "size": size, "annotations": {REF_NAME: tag},
            }));
        }
        self.write_index(&index)?;
        drop(lock);
        Ok(digest)
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.delete(digest, |_| true)
    }

    fn delete_image(&self, tag: &str, digest: &Digest) -> Result<bool, StoreError> {
        self.delete(digest, |entry| entry["annotations"][REF_NAME] == tag)
    }

    fn collect(&self) -> Result<(), StoreError> {
        self.sweep()
    }

    fn tags(&self) -> Result<Vec<String>, StoreError> {
        let index = self.index()?;
        let entries = index["manifests"].as_array().into_iter().flatten();
        let tags: BTreeSet<&str> = entries.filter_map(|entry| entry["annotations"][REF_NAME].as_str()).collect();
        Ok(tags.into_iter().map(str::to_owned).collect())
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        self.keep(digest)
    }

    fn blob(&self, blob: &Blob) -> Result<Box<dyn Read + Send>, StoreError> {
        let (file, place) = self.open_blob(&blob.digest)?;
        Ok(Box::new(VerifyReader::new(file, *blob, place)))
    }

    fn blob_range(&self, blob: &Blob, offset: u64, len: u64) -> Result<Vec<u8>, StoreError> {
        let (file, place) = self.open_blob(&blob.digest)?;
        let len = super::check_range(blob, offset, len, &place)?;
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, offset).map_err(|source| StoreError::Io { place, source })?;
        Ok(bytes)
    }

    fn put_blob(&self, produce: &mut Produce<'_>) -> Result<Blob, StoreError> {
        let mut file = BufWriter::with_capacity(1 << 18, self.temporary()?);
        produce(&mut file).map_err(|e| at(&self.path, e))?;
        let file = file.into_inner().map_err(|e| at(&self.path, e.into_error()))?;
        let blob = file.blob();
        file.rename(&self.blob_path(&blob.digest))?;
        Ok(blob)
    }

    fn put_bytes(&self, bytes: &[u8]) -> Result<Blob, StoreError> {
        let digest = Digest::of(bytes);
        if self.keep(&digest)? { Ok(Blob { digest, size: bytes.len() as u64 }) } else { self.put_new(bytes) }
    }

    /// Makes a hard link to the blob of another folder, or a copy if the file system can't link; and looks whether it is that blob, as
    /// all images here will rely on it.
    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        let Target::Dir { path, .. } = from else { return Ok(false) };
        let (source, to) = (Self::new(path).blob_path(digest), self.blob_path(digest));
        if self.keep(digest)? {
            return Ok(true);
        }
        // A link would become one here too, to what may be another file tomorrow.
        if !fs::symlink_metadata(&source).is_ok_and(|status| status.is_file()) {
            return Ok(false);
        }
        let file = self.temporary()?;
        match file.replace_by(&source) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(false),
            replaced => replaced.map_err(|e| at(&source, e))?,
        }
        // It gets its name, by which others may take it, when it is known to be what that says.
        check(&file.path, digest, &source)?;
        match fs::hard_link(&file.path, &to) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => file.rename(&to)?,
            // Two names of one file: a rename of one to the other would leave both (rename(2)).
            _ => drop(file),
        }
        // It is as old as it was there.
        self.keep(digest)
    }
}

/// Opens a file to read. Whoever made the folder may have put anything in its place: a pipe would be waited for, a device be
/// read without end.
fn open_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(flags(OFlags::NONBLOCK)).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file()) }
}

/// Checks that the file at `path`, which is from `source`, has the digest.
fn check(path: &Path, digest: &Digest, source: &Path) -> Result<(), StoreError> {
    let mut hasher = Hasher::default();
    io::copy(&mut open_file(path).map_err(|e| at(path, e))?, &mut hasher).map_err(|e| at(path, e))?;
    let found = hasher.finish();
    if found == *digest { Ok(()) } else { Err(damaged(source, &format!("its content has the digest {found}"))) }
}

/// A file that is held in memory.
fn read_json(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_file(path)?.take(MAX_JSON.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_JSON {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("it has more than {} MiB", MAX_JSON >> 20)));
    }
    Ok(bytes)
}

fn no_file() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is not a file")
}

/// Flags as the standard library takes them.
#[allow(clippy::cast_possible_wrap, reason = "the bits of open(2), which are an int there")]
fn flags(flags: OFlags) -> i32 {
    flags.bits() as i32
}

fn at(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { place: path.display().to_string(), source }
}

fn damaged(path: &Path, why: &dyn fmt::Display) -> StoreError {
    let problem = format!("the image layout is damaged: {why}; remove the folder and run the pipeline again");
    StoreError::Content { place: path.display().to_string(), problem }
}

#[cfg(test)]
mod tests;
