//! What a place must be able to do to hold images.

use std::{collections::HashMap, io, time::SystemTime};

use super::super::{
    StoreError,
    net::{
        blocks::BlockReader,
        pressure::Permit,
        resume::Incoming,
        retry::{Backoff, Failure},
    },
};
use crate::target::Target;

/// A place that keeps objects by name. What is stored is seen by everybody at once and as a whole. A method that gives a
/// [`Failure`] makes one attempt, the others as many as they like. Keys are relative to the place, without a slash in front.
pub trait Objects: Send + Sync + 'static {
    /// How errors name the object.
    fn place(&self, key: &str) -> String;

    /// The waits of a new operation.
    fn backoff(&self) -> Backoff;

    /// Waits until an upload may begin; it may as long as what is given lives.
    fn upload_permit(&self) -> Permit<'_>;

    /// Whether it pays to look for a blob before it is stored: not where storing sends nothing that is there, and makes that young.
    fn looks_first(&self) -> bool {
        true
    }

    /// What a connection that broke while it brought the object means.
    fn broken(&self, key: &str, error: io::Error) -> Failure;

    /// The object, if it is there.
    fn find(&self, key: &str) -> Result<Option<FoundObject>, StoreError>;

    /// Those of the objects that are there, by their keys.
    fn find_all(&self, keys: &[String]) -> Result<HashMap<String, FoundObject>, StoreError> {
        let find = |key: &String| Some(self.find(key).transpose()?.map(|found| (key.clone(), found)));
        keys.iter().filter_map(find).collect()
    }

    /// The object from `offset` on, at most `len` bytes of it; none if it is not there.
    fn open(&self, key: &str, offset: u64, len: Option<u64>) -> Result<Option<Opened>, Failure>;

    /// As [`Self::open`], for what is in a blob of `size` bytes from `offset` to its end.
    fn open_blob(&self, key: &str, offset: u64, _size: u64) -> Result<Option<Opened>, Failure> {
        self.open(key, offset, None)
    }

    /// Stores `bytes`, in place of what was there.
    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError>;

    /// Stores a manifest and then the tag that names it, each a key and its content.
    fn put_tagged(&self, manifest: (&str, &[u8]), tag: (&str, &[u8])) -> Result<(), StoreError> {
        self.put(manifest.0, manifest.1)?;
        self.put(tag.0, tag.1)
    }

    /// Stores `first` and then what `body` brings. Where it fails nothing is left behind.
    fn put_stream(&self, key: &str, first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure>;

    /// All objects whose keys begin with `prefix`, which ends with a slash.
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, StoreError>;

    /// Copies an object of `size` bytes; false if it is not there.
    fn copy(&self, from: &str, to: &str, size: u64) -> Result<bool, StoreError>;

    /// Copies the object of the same key in another place; false if that can't be done without this machine.
    fn copy_from(&self, from: &Target, key: &str) -> Result<bool, StoreError>;

    /// Makes an object of `size` bytes as young as one that is stored now; false if it is not there.
    fn touch(&self, key: &str, size: u64) -> Result<bool, StoreError>;

    /// Deletes the object, if `only` is its version where one is given; false if it was not there, or was another one.
    fn delete(&self, key: &str, only: Option<&str>) -> Result<bool, StoreError>;

    /// Deletes those of the objects that are still as `may_go` wants them.
    fn delete_all(&self, keys: &[String], may_go: &dyn Fn(&FoundObject) -> bool) -> Result<(), StoreError> {
        for key in keys {
            if self.find(key)?.is_some_and(|found| may_go(&found)) {
                self.delete(key, None)?;
            }
        }
        Ok(())
    }
}

/// What a request is for, in the words of messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectAction {
    Find,
    Read,
    Store,
    List,
    Copy,
    Delete,
}

impl ObjectAction {
    /// Fits after "denied".
    pub fn gerund(self) -> &'static str {
        match self {
            Self::Find => "looking for an object",
            Self::Read => "reading an object",
            Self::Store => "storing an object",
            Self::List => "listing objects",
            Self::Copy => "copying an object",
            Self::Delete => "deleting an object",
        }
    }
}

/// An object that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundObject {
    /// Number of its bytes.
    pub size: u64,
    /// When it was stored; none where nobody knows.
    pub modified: Option<SystemTime>,
}

/// The content of an object.
pub struct Opened {
    /// What was asked for.
    pub incoming: Incoming,
    /// Number of these bytes.
    pub size: u64,
    /// Changes with the content.
    pub version: String,
}

impl Opened {
    /// What is behind the end.
    pub fn nothing() -> Self {
        Self { incoming: Box::new(io::empty()), size: 0, version: String::new() }
    }
}

/// An object of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedObject {
    /// Its key.
    pub key: String,
    /// When it was stored; none where nobody knows.
    pub modified: Option<SystemTime>,
    /// Changes with the content, and may be another one than that of [`Opened`].
    pub version: String,
}
