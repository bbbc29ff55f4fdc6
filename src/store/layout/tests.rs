//! The layout over objects in memory.

use std::{
    collections::BTreeMap,
    sync::Mutex,
    time::{Duration, SystemTime},
};

use super::*;
use crate::store::net::{
    pressure::{Permit, Pressure},
    retry::{Backoff, RetryPolicy},
};

const TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const OLD: Duration = Duration::from_secs(2 * 24 * 60 * 60);

#[derive(Default)]
struct Memory {
    objects: Mutex<BTreeMap<String, (Vec<u8>, SystemTime)>>,
    /// Keys that were read, and changes.
    requests: Mutex<Vec<String>>,
    pressure: Pressure,
}

impl Memory {
    fn note(&self, what: &str, key: &str) {
        self.requests.lock().unwrap().push(format!("{what} {key}"));
    }

    fn insert(&self, key: &str, bytes: Vec<u8>) {
        self.objects.lock().unwrap().insert(key.to_owned(), (bytes, SystemTime::now()));
    }

    fn age(&self, key: &str) {
        self.objects.lock().unwrap().get_mut(key).unwrap().1 = SystemTime::now() - OLD;
    }

    fn keys(&self) -> Vec<String> {
        self.objects.lock().unwrap().keys().cloned().collect()
    }

    fn version(bytes: &[u8]) -> String {
        Digest::of(bytes).hex()
    }
}

impl Objects for Memory {
    fn place(&self, key: &str) -> String {
        format!("memory/{key}")
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(&RetryPolicy { deadline: Duration::ZERO, ..RetryPolicy::default() })
    }

    fn upload_permit(&self) -> Permit<'_> {
        self.pressure.upload()
    }

    fn broken(&self, key: &str, source: io::Error) -> Failure {
        Failure::Final(StoreError::Io { place: self.place(key), source })
    }

    fn find(&self, key: &str) -> Result<Option<FoundObject>, StoreError> {
        let objects = self.objects.lock().unwrap();
        Ok(objects.get(key).map(|(bytes, time)| FoundObject { size: bytes.len() as u64, modified: Some(*time) }))
    }

    fn open(&self, key: &str, offset: u64, len: Option<u64>) -> Result<Option<Opened>, Failure> {
        self.note("open", key);
        let objects = self.objects.lock().unwrap();
        let Some((bytes, _)) = objects.get(key) else { return Ok(None) };
        let version = Self::version(bytes);
        let part = &bytes[offset as usize..];
        let part = part[..len.map_or(part.len(), |len| part.len().min(len as usize))].to_vec();
        Ok(Some(Opened { size: part.len() as u64, incoming: Box::new(io::Cursor::new(part)), version }))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        self.note("put", key);
        self.insert(key, bytes.to_vec());
        Ok(())
    }

    fn put_stream(&self, key: &str, mut first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure> {
        body.read_to_end(&mut first).map_err(|error| self.broken(key, error))?;
        self.insert(key, first);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, StoreError> {
        let objects = self.objects.lock().unwrap();
        let entry = |(key, (bytes, time)): (&String, &(Vec<u8>, SystemTime))| ListedObject {
            key: key.clone(),
            modified: Some(*time),
            version: Self::version(bytes),
        };
        Ok(objects.iter().filter(|(key, _)| key.starts_with(prefix)).map(entry).collect())
    }

    fn copy(&self, from: &str, to: &str, _: u64) -> Result<bool, StoreError> {
        let bytes = self.objects.lock().unwrap().get(from).map(|(bytes, _)| bytes.clone());
        Ok(bytes.map(|bytes| self.insert(to, bytes)).is_some())
    }

    fn copy_from(&self, _: &Target, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn touch(&self, key: &str, size: u64) -> Result<bool, StoreError> {
        self.note("touch", key);
        self.copy(key, key, size)
    }

    fn delete(&self, key: &str, only: Option<&str>) -> Result<bool, StoreError> {
        let mut objects = self.objects.lock().unwrap();
        let is_meant = |(bytes, _): &(Vec<u8>, _)| only.is_none_or(|only| only == Self::version(bytes));
        let found = objects.get(key).is_some_and(is_meant);
        Ok(found && objects.remove(key).is_some())
    }
}

fn layout() -> Layout<Memory> {
    Layout::new(Memory::default())
}

fn manifest(config: &Blob, layer: &Blob) -> Vec<u8> {
    format!(r#"{{"config":{{"digest":"{}"}},"layers":[{{"digest":"{}"}}]}}"#, config.digest, layer.digest).into_bytes()
}

fn read(store: &dyn Store, blob: &Blob) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.blob(blob).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_small_blob_is_stored_at_once_and_a_large_one_by_way_of_another_name() {
    let store = layout();
    for size in [0, 1, SMALL - 1, SMALL, SMALL + 1] {
        let content = vec![size as u8; size];
        let blob = store.put_blob(&mut |to| to.write_all(&content)).unwrap();
        assert_eq!(blob, Blob { digest: Digest::of(&content), size: size as u64 });
        assert!(read(&store, &blob) == content);
    }
    assert!(store.objects.keys().iter().all(|key| key.starts_with("blobs/sha256/")));
    let puts = store.objects.requests.lock().unwrap().iter().filter(|r| r.starts_with("put ")).count();
    assert_eq!(puts, 3);
}

#[test]
fn what_fails_to_be_made_leaves_nothing() {
    let store = layout();
    let failed = store.put_blob(&mut |to| {
        to.write_all(&vec![0; SMALL + 1])?;
        Err(io::Error::other("no more"))
    });
    assert!(failed.unwrap_err().to_string().contains("no more"));
    assert!(store.objects.keys().is_empty());
}

#[test]
fn an_old_blob_that_is_found_becomes_young() {
    let store = layout();
    let blob = store.put_bytes(b"x").unwrap();
    assert!(store.has_blob(&blob.digest).unwrap());
    store.objects.age(&key(&blob.digest));
    assert!(store.has_blob(&blob.digest).unwrap() && store.has_blob(&blob.digest).unwrap());
    let touched = format!("touch {}", key(&blob.digest));
    assert_eq!(store.objects.requests.lock().unwrap().iter().filter(|request| **request == touched).count(), 1);
}

#[test]
fn deleting_an_image_leaves_what_others_need() {
    let store = layout();
    let [config, one, two] = ["{}", "one", "two"].map(|text| store.put_bytes(text.as_bytes()).unwrap());
    let first = store.put_manifest("first", TYPE, &manifest(&config, &one)).unwrap();
    store.put_manifest("same", TYPE, &manifest(&config, &one)).unwrap();
    store.put_manifest("second", TYPE, &manifest(&config, &two)).unwrap();
    store.objects.keys().iter().for_each(|key| store.objects.age(key));
    assert!(store.delete_image("first", &first).unwrap());
    assert!(store.manifest(&first.to_string()).unwrap().is_some(), "another tag names it");
    assert!(store.delete_image("same", &first).unwrap());
    assert!(store.manifest(&first.to_string()).unwrap().is_none());
    store.collect().unwrap();
    assert!(
        !store.has_blob(&one.digest).unwrap()
            && store.has_blob(&two.digest).unwrap()
            && store.has_blob(&config.digest).unwrap()
    );
    let left = format!("tmp/{}", unique());
    store.objects.insert(&left, Vec::new());
    store.objects.age(&left);
    let orphan = store.put_bytes(b"orphan").unwrap();
    store.collect().unwrap();
    assert!(!store.objects.keys().contains(&left));
    assert!(store.has_blob(&orphan.digest).unwrap(), "it is young");
}

/// A target without a prefix is the whole bucket, which others may use too; and a list may name anything.
#[test]
fn what_is_not_ours_stays() {
    let store = layout();
    let hex = Digest::of(b"x").hex();
    let others = [
        "blobs/photo.jpg".to_owned(),
        "blobs/sha256/readme".to_owned(),
        format!("blobs/sha256/{hex}/{hex}"),
        format!("blobs/sha256/../{hex}"),
        format!("blobs/sha512/{hex}"),
        "tmp/report.csv".to_owned(),
        format!("tmp/{hex}/x"),
        format!("uploads/{hex}"),
    ];
    for key in &others {
        store.objects.insert(key, Vec::new());
        store.objects.age(key);
    }
    store.collect().unwrap();
    let mut expected = others.to_vec();
    expected.sort();
    assert_eq!(store.objects.keys(), expected);
}

#[test]
fn tags_that_did_not_change_are_read_once() {
    let store = layout();
    let config = store.put_bytes(b"{}").unwrap();
    for tag in 0..20 {
        store.put_manifest(&format!("t{tag}"), TYPE, &manifest(&config, &config)).unwrap();
    }
    for _ in 0..3 {
        store.collect().unwrap();
    }
    let reads =
        store.objects.requests.lock().unwrap().iter().filter(|request| request.starts_with("open manifests/")).count();
    assert_eq!(reads, 20);
}
