//! A folder as a store: an OCI image layout (OCI image-spec, image-layout.md), which `crane`, `skopeo` and `podman` read.
//!
//! Several processes may use one folder at once: blobs and `index.json` appear whole, by rename, and changes of
//! `index.json` are serialised by a lock on the file `oci-layout`, which is itself never replaced.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Read, Write},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use super::{Blob, Manifest, Produce, Store, StoreError, verify::VerifyReader};
use crate::{
    digest::{Digest, Hasher},
    target::Target,
};

const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// See the module.
pub struct DirStore {
    path: PathBuf,
}

impl DirStore {
    /// The store in the folder `path`, which is made when something is stored.
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    fn index_path(&self) -> PathBuf {
        self.path.join("index.json")
    }

    /// Opens the blob; a blob that is not there is an error.
    fn open_blob(&self, digest: &Digest) -> Result<(File, String), StoreError> {
        let path = self.blob_path(digest);
        let place = path.display().to_string();
        match File::open(&path) {
            Ok(file) => Ok((file, place)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                let problem = "the blob is not there; run the pipeline again if it was deleted".to_owned();
                Err(StoreError::Content { place, problem })
            }
            Err(e) => Err(at(&path, e)),
        }
    }

    /// Config, layers and other manifests that a manifest names.
    fn named_by(&self, manifest: &Digest) -> Result<Vec<Digest>, StoreError> {
        let path = self.blob_path(manifest);
        let bytes = fs::read(&path).map_err(|e| at(&path, e))?;
        let manifest: Value = serde_json::from_slice(&bytes).map_err(|e| damaged(&path, &e.to_string()))?;
        let lists = ["layers", "manifests"].iter().filter_map(|list| manifest[list].as_array()).flatten();
        let named = lists.chain([&manifest["config"]]).filter_map(|named| named["digest"].as_str()?.parse().ok());
        Ok(named.collect())
    }

    /// The entries of `index.json`, none where there is no such file.
    fn index(&self) -> Result<Value, StoreError> {
        let path = self.index_path();
        let empty =
            || json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []});
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice::<Value>(&bytes) {
                Ok(index) if index["manifests"].is_array() => Ok(index),
                Ok(_) => Err(damaged(&path, "it has no list of manifests")),
                Err(e) => Err(damaged(&path, &e.to_string())),
            },
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(empty()),
            Err(e) => Err(at(&path, e)),
        }
    }

    /// Makes the folder a layout and takes the lock on it, which ends when the file is closed.
    fn lock(&self) -> Result<File, StoreError> {
        self.make_folders()?;
        let path = self.path.join("oci-layout");
        let open = || -> io::Result<File> {
            let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path)?;
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

    fn temporary(&self) -> Result<Temporary, StoreError> {
        self.make_folders()?;
        Temporary::new(&self.path).map_err(|e| at(&self.path, e))
    }
}

impl Store for DirStore {
    fn manifest(&self, reference: &str) -> Result<Option<Manifest>, StoreError> {
        let index = self.index()?;
        let entries = index["manifests"].as_array().map_or(&[][..], Vec::as_slice);
        let wanted = |entry: &&Value| match reference.parse::<Digest>() {
            Ok(digest) => entry["digest"] == digest.to_string(),
            Err(_) => entry["annotations"][REF_NAME] == reference,
        };
        // The last entry wins where another tool left several of one name.
        let entry = entries.iter().rev().find(wanted);
        let digest = match (entry, reference.parse::<Digest>()) {
            (_, Ok(digest)) => digest,
            (Some(entry), _) => {
                let text = entry["digest"].as_str().unwrap_or_default();
                text.parse().map_err(|e| damaged(&self.index_path(), &format!("{e}")))?
            }
            (None, _) => return Ok(None),
        };
        let path = self.blob_path(&digest);
        let bytes = match fs::read(&path) {
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
            None => super::own_media_type(&bytes).ok_or_else(|| damaged(&path, "it is not a manifest"))?,
        };
        Ok(Some(Manifest { digest, media_type, bytes }))
    }

    fn put_manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<Digest, StoreError> {
        let Blob { digest, size } = self.put_bytes(bytes)?;
        let lock = self.lock()?;
        let mut index = self.index()?;
        if let Some(entries) = index["manifests"].as_array_mut() {
            entries.retain(|entry| entry["annotations"][REF_NAME] != tag);
            entries.push(json!({
                "mediaType": media_type, "digest": digest.to_string(), "size": size, "annotations": {REF_NAME: tag},
            }));
        }
        let mut file = self.temporary()?;
        file.write_all(index.to_string().as_bytes()).map_err(|e| at(&self.path, e))?;
        file.rename(&self.index_path())?;
        drop(lock);
        Ok(digest)
    }

    fn delete_manifest(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        if !path.try_exists().map_err(|e| at(&path, e))? {
            return Ok(false);
        }
        let lock = self.lock()?;
        let mut index = self.index()?;
        if let Some(entries) = index["manifests"].as_array_mut() {
            entries.retain(|entry| entry["digest"] != digest.to_string());
        }
        let mut file = self.temporary()?;
        file.write_all(index.to_string().as_bytes()).map_err(|e| at(&self.path, e))?;
        file.rename(&self.index_path())?;
        let mut unused = self.named_by(digest)?;
        unused.push(*digest);
        for entry in index["manifests"].as_array().into_iter().flatten() {
            let other = entry["digest"].as_str().and_then(|digest| digest.parse().ok());
            let needed = other.map(|digest| self.named_by(&digest)).transpose()?.unwrap_or_default();
            unused.retain(|digest| !needed.contains(digest));
        }
        for digest in unused {
            // One that is not there is gone already.
            let _ = fs::remove_file(self.blob_path(&digest));
        }
        drop(lock);
        Ok(true)
    }

    fn has_blob(&self, digest: &Digest) -> Result<bool, StoreError> {
        let path = self.blob_path(digest);
        path.try_exists().map_err(|e| at(&path, e))
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
        if !self.has_blob(&digest)? {
            let mut file = self.temporary()?;
            file.write_all(bytes).map_err(|e| at(&self.path, e))?;
            file.rename(&self.blob_path(&digest))?;
        }
        Ok(Blob { digest, size: bytes.len() as u64 })
    }

    /// A blob of another folder becomes a hard link, or a copy where the file system can't link.
    fn mount_blob(&self, digest: &Digest, from: &Target) -> Result<bool, StoreError> {
        let Target::Dir { path, .. } = from else { return Ok(false) };
        let (source, to) = (Self::new(path).blob_path(digest), self.blob_path(digest));
        if self.has_blob(digest)? {
            return Ok(true);
        }
        self.make_folders()?;
        match fs::hard_link(&source, &to) {
            Ok(()) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(_) => {
                let file = self.temporary()?;
                fs::copy(&source, &file.path).map_err(|e| at(&source, e))?;
                file.rename(&to)?;
                Ok(true)
            }
        }
    }
}

/// A file of the layout while it is written; removed again unless it is renamed.
struct Temporary {
    file: File,
    path: PathBuf,
    hasher: Hasher,
    size: u64,
    renamed: bool,
}

impl Temporary {
    /// It lies beside `index.json` and not among the blobs, where tools expect nothing but digests.
    fn new(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!(".tmp-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, hasher: Hasher::default(), size: 0, renamed: false }),
                // A process with the same id in another container, or one that was killed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// What was written so far.
    fn blob(&self) -> Blob {
        Blob { digest: self.hasher.clone().finish(), size: self.size }
    }

    fn rename(mut self, to: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, to).map_err(|e| at(to, e))?;
        self.renamed = true;
        Ok(())
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.renamed {
            // An error while cleaning up helps nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn at(path: &Path, source: io::Error) -> StoreError {
    StoreError::Io { place: path.display().to_string(), source }
}

fn damaged(path: &Path, why: &str) -> StoreError {
    let problem = format!("the image layout is damaged: {why}; remove the folder and run the pipeline again");
    StoreError::Content { place: path.display().to_string(), problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, DirStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = DirStore::new(&folder.path().join("new/layout"));
        (folder, store)
    }

    const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";

    #[test]
    fn an_absent_folder_is_an_empty_store() {
        let (_folder, store) = store();
        assert!(store.manifest("a").unwrap().is_none());
        assert!(store.manifest(&Digest::of(b"").to_string()).unwrap().is_none());
        assert!(!store.has_blob(&Digest::of(b"")).unwrap());
        let error = store.blob(&Blob { digest: Digest::of(b""), size: 0 }).err().unwrap().to_string();
        assert!(error.contains(&Digest::of(b"").hex()), "{error}");
        assert!(!store.path.exists());
    }

    #[test]
    fn blobs_come_back() {
        let (_folder, store) = store();
        let content = vec![3; 1 << 20];
        let blob = store.put_blob(&mut |w: &mut dyn Write| w.write_all(&content)).unwrap();
        assert_eq!(blob, Blob { digest: Digest::of(&content), size: 1 << 20 });
        assert_eq!(store.put_bytes(&content).unwrap(), blob);
        let mut read = Vec::new();
        store.blob(&blob).unwrap().read_to_end(&mut read).unwrap();
        assert_eq!(read, content);
        assert_eq!(store.blob_range(&blob, 10, 5).unwrap(), [3; 5]);
        assert!(store.blob_range(&blob, (1 << 20) - 1, 2).is_err());
        fs::write(store.blob_path(&blob.digest), b"other").unwrap();
        assert!(store.blob(&blob).unwrap().read_to_end(&mut read).is_err());
    }

    #[test]
    fn a_failed_upload_leaves_nothing() {
        let (_folder, store) = store();
        let failed = store.put_blob(&mut |w: &mut dyn Write| {
            w.write_all(b"half")?;
            Err(io::Error::other("no more"))
        });
        assert!(failed.unwrap_err().to_string().contains("no more"));
        let names: Vec<_> = fs::read_dir(&store.path).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["blobs"]);
        assert_eq!(fs::read_dir(store.path.join("blobs/sha256")).unwrap().count(), 0);
    }

    #[test]
    fn a_tag_moves_and_other_entries_stay() {
        let (_folder, store) = store();
        store.put_manifest("old", TYPE, b"{\"a\":1}").unwrap();
        let mut index: Value = serde_json::from_slice(&fs::read(store.index_path()).unwrap()).unwrap();
        index["manifests"][0]["platform"] = json!({"os": "linux"});
        fs::write(store.index_path(), index.to_string()).unwrap();
        store.put_manifest("a", TYPE, b"{\"a\":1}").unwrap();
        let digest = store.put_manifest("a", TYPE, b"{\"a\":2}").unwrap();
        let by_tag = store.manifest("a").unwrap().unwrap();
        assert_eq!((by_tag.digest, by_tag.media_type.as_str(), &by_tag.bytes[..]), (digest, TYPE, &b"{\"a\":2}"[..]));
        assert_eq!(store.manifest(&digest.to_string()).unwrap().unwrap().bytes, by_tag.bytes);
        let index = store.index().unwrap();
        assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
        assert_eq!(index["manifests"][0]["platform"]["os"], "linux");
    }

    #[test]
    fn writers_at_the_same_time_lose_nothing() {
        let (_folder, store) = store();
        std::thread::scope(|scope| {
            for writer in 0..8 {
                // A lock belongs to an open file, so that two threads exclude each other as two processes do.
                let store = DirStore::new(&store.path);
                scope.spawn(move || {
                    for turn in 0..20 {
                        store
                            .put_manifest(&format!("t{writer}-{turn}"), TYPE, format!("{{\"t\":{turn}}}").as_bytes())
                            .unwrap();
                    }
                });
            }
        });
        assert_eq!(store.index().unwrap()["manifests"].as_array().unwrap().len(), 160);
        assert_eq!(fs::read_to_string(store.path.join("oci-layout")).unwrap(), r#"{"imageLayoutVersion":"1.0.0"}"#);
    }

    #[test]
    fn mounts_from_another_folder() {
        let (_folder, from) = store();
        let (_other, to) = store();
        let blob = from.put_bytes(b"layer").unwrap();
        let source = Target::Dir { path: from.path.clone(), tag: "x".to_owned() };
        assert!(to.mount_blob(&blob.digest, &source).unwrap());
        assert!(to.mount_blob(&blob.digest, &source).unwrap());
        assert!(to.has_blob(&blob.digest).unwrap());
        assert!(!to.mount_blob(&Digest::of(b"absent"), &source).unwrap());
    }

    #[test]
    fn a_damaged_layout_is_one_clear_error() {
        for index in
            ["{", "{}", r#"{"manifests":[{"digest":"md5:1","annotations":{"org.opencontainers.image.ref.name":"a"}}]}"#]
        {
            let (_folder, store) = store();
            fs::create_dir_all(&store.path).unwrap();
            fs::write(store.index_path(), index).unwrap();
            let error = store.manifest("a").unwrap_err().to_string();
            assert!(error.contains("index.json: the image layout is damaged"), "{error}");
        }
    }
}
