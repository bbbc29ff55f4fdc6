//! Blobs of a folder that no image needs any more; [`grace`] says how long they stay. What looks at a blob and what deletes one
//! exclude each other by the lock of the layout, so that none goes between the look and what it is for.

use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use serde_json::Value;

use super::{DirStore, at, damaged, read_json, temporary};
use crate::{
    digest::Digest,
    store::{NamedBlobs, StoreError, grace},
};

/// Media types of manifests that name no other manifests (OCI image-spec, media-types.md; Docker, manifest v2 schema 2).
const SINGLE: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

impl DirStore {
    /// Whether the blob is there. One that is old is made young again.
    pub(super) fn keep(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        match modified(&path)? {
            None => Ok(false),
            Some(time) if grace::may_go_soon(time) => self.make_young(&path),
            Some(_) => Ok(true),
        }
    }

    /// False if it is gone by now.
    fn make_young(&self, path: &Path) -> Result<bool, StoreError> {
        let kept = || -> Result<bool, StoreError> {
            let lock = self.lock()?;
            if modified(path)?.is_none() {
                return Ok(false);
            }
            if touch(path).is_err() {
                // It is someone else's.
                let file = self.temporary()?;
                fs::copy(path, &file.path).map_err(|e| at(path, e))?;
                file.rename(path)?;
            }
            drop(lock);
            Ok(true)
        };
        match kept() {
            // Nothing can be stored from here.
            Err(StoreError::Io { source, .. })
                if matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                Ok(true)
            }
            kept => kept,
        }
    }

    /// Deletes old blobs that no image needs, and what broken writes left.
    pub(super) fn sweep(&self) -> Result<(), StoreError> {
        let is_blob = |name: &str| format!("sha256:{name}").parse::<Digest>().is_ok();
        let blobs = old_files(&self.path.join("blobs/sha256"), is_blob)?;
        let left = old_files(&self.path, |name| name.starts_with(temporary::PREFIX))?;
        if blobs.is_empty() && left.is_empty() {
            return Ok(());
        }
        let lock = self.lock()?;
        let needed: HashSet<PathBuf> =
            self.needed_by(&self.index()?, |_| true)?.iter().map(|digest| self.blob_path(digest)).collect();
        let unused = blobs.iter().filter(|path| !needed.contains(*path));
        for path in unused.chain(&left) {
            // Somebody may have found a use for it since.
            if modified(path)?.is_some_and(grace::is_over) {
                fs::remove_file(path).map_err(|e| at(path, e))?;
            }
        }
        drop(lock);
        Ok(())
    }

    /// Whether an image of `index` is the manifest, or has it as a part.
    pub(super) fn has_use(&self, index: &Value, manifest: &Digest) -> Result<bool, StoreError> {
        let may_have_parts = |entry: &Value| entry["mediaType"].as_str().is_none_or(|kind| !SINGLE.contains(&kind));
        Ok(self.needed_by(index, may_have_parts)?.contains(manifest))
    }

    /// What the images of `index` are, and what those that `is_read` accepts consist of: config, layers, manifests and what these
    /// consist of.
    fn needed_by(&self, index: &Value, is_read: impl Fn(&Value) -> bool) -> Result<HashSet<Digest>, StoreError> {
        let (mut needed, mut unread) = (HashSet::new(), Vec::new());
        for entry in index["manifests"].as_array().into_iter().flatten() {
            // A digest of another kind names nothing that is stored here.
            let Some(digest) = entry["digest"].as_str().and_then(|digest| digest.parse::<Digest>().ok()) else {
                continue;
            };
            if needed.insert(digest) && is_read(entry) {
                unread.push(digest);
            }
        }
        while let Some(manifest) = unread.pop() {
            let path = self.blob_path(&manifest);
            let bytes = match read_json(&path) {
                // An image need not be here whole (OCI image-spec, image-layout.md).
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(|e| at(&path, e))?,
            };
            let NamedBlobs { blobs, manifests } = NamedBlobs::of(&bytes).map_err(|why| damaged(&path, &why))?;
            needed.extend(blobs);
            unread.extend(manifests.into_iter().filter(|manifest| needed.insert(*manifest)));
        }
        Ok(needed)
    }
}

/// When the file was last stored, as far as the file system knows; none if there is no file.
#[allow(clippy::option_option, reason = "absent, and there since nobody knows when")]
fn modified(path: &Path) -> Result<Option<Option<SystemTime>>, StoreError> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.modified().ok())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(path, e)),
    }
}

/// The files in `folder` whose names are such and that are old.
fn old_files(folder: &Path, is_such: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, StoreError> {
    let entries = match fs::read_dir(folder) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(|e| at(folder, e))?,
    };
    let mut old = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|e| at(folder, e))?;
        let path = entry.path();
        if entry.file_name().to_str().is_some_and(&is_such) && modified(&path)?.is_some_and(grace::is_over) {
            old.push(path);
        }
    }
    Ok(old)
}

/// Sets the time to now, which whoever may write to the file may do (utimensat(2)).
fn touch(path: &Path) -> io::Result<()> {
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    Ok(utimensat(CWD, path, &Timestamps { last_access: now, last_modification: now }, AtFlags::empty())?)
}
