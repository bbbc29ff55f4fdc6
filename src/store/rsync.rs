//! A folder of another machine, which the program `rsync` reaches: from a daemon, or over ssh (rsync(1)).
//!
//! | module | contents |
//! |---|---|
//! | `process` | runs of the program: their arguments, their environment |
//! | `run` | one run: how far it is, what it said, how it ended |
//! | `login` | who we are to the machine, and whom we take it for |
//! | `refusal` | what to say when it fails |
//! | `batch` | many objects in one run |
//! | `transfer` | what runs send, bring, look for and delete |
//! | `listing` | what a run prints that lists |
//! | `arriving` | an object that is read while it comes |
//! | `spool` | files of this machine: what is to be sent, and what was brought |
//!
//! rsync moves files between folders, so that whatever comes or goes is a file here for a while, though a large one is read
//! while it comes. It knows no conditions: two writers of one tag are not told of each other.

mod arriving;
mod batch;
mod listing;
mod login;
mod process;
mod refusal;
mod run;
mod spool;
mod transfer;

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    sync::Arc,
};

use self::{
    arriving::BrokenRun,
    run::RunEnd,
    spool::{Spool, SpoolFile},
    transfer::{ObjectKind, Transfer},
};
pub use self::{login::SECRET_KEYS, process::is_installed};
use super::{
    StoreError, StoreOptions,
    layout::{FoundObject, ListedObject, ObjectAction, Objects, Opened},
    net::{
        blocks::BlockReader,
        pressure::Permit,
        retry::{Backoff, Failure, RetryPolicy},
    },
};
use crate::{
    digest::Digest,
    target::{RsyncPlace, Target},
};

/// Where blobs are, which never change.
const BLOBS: &str = "blobs/";

/// What lies below is only on this machine: it is sent when its name is known.
const TEMPORARY: &str = "tmp/";

/// So many uploads are made at a time.
const UPLOADS: usize = 4;

/// An object of which this little comes before the part that is wanted is brought whole, and is here when the rest is wanted.
const SHORT: u64 = 4 << 20;

/// A blob of which so much is wanted is read while it comes.
const LARGE: u64 = 1 << 20;

/// So many objects are looked for, or deleted, in one run.
const NAMES: usize = 200;

/// See the module.
pub struct RsyncObjects {
    place: RsyncPlace,
    transfer: Transfer,
    retry: RetryPolicy,
}

impl RsyncObjects {
    /// What is at `place`. Nothing is sent yet.
    pub fn new(place: &RsyncPlace, options: &StoreOptions) -> Result<Self, StoreError> {
        let transfer = Transfer::new(place, options)?;
        transfer.process.pressure().limit_uploads(UPLOADS);
        Ok(Self { place: place.clone(), transfer, retry: options.retry.clone() })
    }

    fn spool(&self) -> &Spool {
        &self.transfer.spool
    }

    fn failure(&self, action: ObjectAction, key: &str, ended: &RunEnd) -> Failure {
        refusal::failure(&refusal::FailedRun {
            place: self.place(key),
            at: &self.place,
            action,
            searched: ended.searched.clone(),
            spool: self.spool().folder(),
            ended,
        })
    }

    /// A file of the object that has what is in it from `offset` on; none if the object is not there.
    fn bring(&self, key: &str, offset: u64, len: Option<u64>) -> Result<Option<File>, Failure> {
        let spool = self.spool();
        if let Some(file) = spool.get(key, offset, len.is_none()).map_err(|error| self.local(key, error))? {
            return Ok(Some(file));
        }
        let failed = |ended: &RunEnd| self.failure(ObjectAction::Read, key, ended);
        // A second part is a sign of more to come.
        let part = (offset >= SHORT && !spool.has_part(key)).then_some(offset);
        let brought = match part {
            Some(from) => self.transfer.bring_end(key, from).map_err(|ended| failed(&ended))?,
            None => self.transfer.bring(key).map_err(|ended| failed(&ended))?,
        };
        let Some(path) = brought else { return Ok(None) };
        let keeps = key.starts_with(BLOBS) && len.is_some();
        let from = part.unwrap_or_default();
        spool.adopt(key, path, from, keeps).map(Some).map_err(|error| self.local(key, error))
    }

    /// A file of this machine can't be used: there is no use in trying again.
    fn local(&self, key: &str, error: io::Error) -> Failure {
        let problem = refusal::no_spool(self.spool().folder(), error);
        Failure::Final(StoreError::Registry { place: self.place(key), problem })
    }

    /// Stores a file of the spool.
    fn send(&self, key: &str, file: &SpoolFile) -> Result<(), StoreError> {
        let kind = if key.starts_with(BLOBS) { ObjectKind::Blob } else { ObjectKind::Tag };
        self.backoff()
            .run(|| self.transfer.send(kind, key, file).map_err(|ended| self.failure(ObjectAction::Store, key, &ended)))
    }
}

impl Objects for RsyncObjects {
    fn place(&self, key: &str) -> String {
        format!("{}/{key}", self.place.url())
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
    }

    fn upload_permit(&self) -> Permit<'_> {
        self.transfer.process.pressure().upload()
    }

    fn looks_first(&self) -> bool {
        false
    }

    fn broken(&self, key: &str, error: io::Error) -> Failure {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<BrokenRun>()) {
            Some(BrokenRun(ended)) => self.failure(ObjectAction::Read, key, ended),
            None => self.local(key, error),
        }
    }

    fn find(&self, key: &str) -> Result<Option<FoundObject>, StoreError> {
        self.backoff().run(|| self.transfer.find(key).map_err(|ended| self.failure(ObjectAction::Find, key, &ended)))
    }

    fn find_all(&self, keys: &[String]) -> Result<HashMap<String, FoundObject>, StoreError> {
        let mut found = HashMap::new();
        for keys in keys.chunks(NAMES) {
            found.extend(self.backoff().run(|| {
                let failed = |ended: Arc<RunEnd>| self.failure(ObjectAction::Find, BLOBS, &ended);
                self.transfer.find_all(keys).map_err(failed)
            })?);
        }
        Ok(found)
    }

    fn open(&self, key: &str, offset: u64, len: Option<u64>) -> Result<Option<Opened>, Failure> {
        let file = self.bring(key, offset, len)?;
        file.map(|file| opened(key, file, offset, len)).transpose().map_err(|error| self.local(key, error))
    }

    fn open_blob(&self, key: &str, offset: u64, size: u64) -> Result<Option<Opened>, Failure> {
        // Small ones go together in one run.
        if size.saturating_sub(offset) < LARGE {
            return self.open(key, offset, None);
        }
        if let Some(file) = self.spool().get(key, offset, true).map_err(|error| self.local(key, error))? {
            return opened(key, file, offset, None).map(Some).map_err(|error| self.local(key, error));
        }
        let followed = self.transfer.follow(key, offset);
        let followed = followed.map_err(|ended| self.failure(ObjectAction::Read, key, &ended))?;
        Ok(followed.map(|file| {
            let size = file.left();
            Opened { incoming: Box::new(file), size, version: String::new() }
        }))
    }

    fn put(&self, key: &str, bytes: &[u8]) -> Result<(), StoreError> {
        let file = self.spool().write(&mut &*bytes).map_err(|error| self.local(key, error).into_error())?;
        self.send(key, &file)
    }

    /// Both in one run, which sends what is below `blobs/` before what is below `manifests/`: it goes by the alphabet.
    fn put_tagged(&self, manifest: (&str, &[u8]), tag: (&str, &[u8])) -> Result<(), StoreError> {
        let file = |(key, bytes): (&str, &[u8])| {
            let file = self.spool().write(&mut &*bytes).map_err(|error| self.local(key, error).into_error())?;
            Ok::<_, StoreError>((key.to_owned(), file))
        };
        let files = [file(manifest)?, file(tag)?];
        let failed = |ended: Arc<RunEnd>| self.failure(ObjectAction::Store, tag.0, &ended);
        self.backoff().run(|| self.transfer.replace(&files).map_err(failed))
    }

    fn put_stream(&self, key: &str, first: Vec<u8>, body: &mut BlockReader) -> Result<(), Failure> {
        let file = self.spool().write(&mut first.chain(body)).map_err(|error| self.local(key, error))?;
        self.spool().keep(key, file);
        Ok(())
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>, StoreError> {
        if prefix == TEMPORARY {
            return Ok(Vec::new());
        }
        self.backoff()
            .run(|| self.transfer.list(prefix).map_err(|ended| self.failure(ObjectAction::List, prefix, &ended)))
    }

    fn copy(&self, from: &str, to: &str, _: u64) -> Result<bool, StoreError> {
        let Some(file) = self.spool().kept(from) else { return Ok(false) };
        self.send(to, &file)?;
        Ok(true)
    }

    /// Two machines don't send each other anything.
    fn copy_from(&self, _: &Target, _: &str) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn touch(&self, key: &str, size: u64) -> Result<bool, StoreError> {
        if self.find(key)?.is_none() {
            return Ok(false);
        }
        let file = self.spool().empty(size).map_err(|error| self.local(key, error).into_error())?;
        self.backoff().run(|| {
            let touched = self.transfer.touch(key, &file);
            touched.map(|()| true).map_err(|ended| self.failure(ObjectAction::Store, key, &ended))
        })
    }

    /// The version is compared right before, not in the same moment: rsync knows no conditions.
    fn delete(&self, key: &str, only: Option<&str>) -> Result<bool, StoreError> {
        if key.starts_with(TEMPORARY) {
            return Ok(self.spool().forget(key));
        }
        if let Some(only) = only {
            let now = self.backoff().run(|| self.open(key, 0, None))?;
            if now.is_none_or(|now| now.version != only) {
                return Ok(false);
            }
        }
        self.backoff().run(|| {
            let deleted = self.transfer.delete(&[key.to_owned()]);
            deleted.map(|count| count > 0).map_err(|ended| self.failure(ObjectAction::Delete, key, &ended))
        })
    }

    fn delete_all(&self, keys: &[String], may_go: &dyn Fn(&FoundObject) -> bool) -> Result<(), StoreError> {
        for keys in keys.chunks(NAMES) {
            self.backoff().run(|| {
                let failed = |ended: Arc<RunEnd>| self.failure(ObjectAction::Delete, BLOBS, &ended);
                let found = self.transfer.find_all(keys).map_err(failed)?;
                let old: Vec<String> = keys.iter().filter(|key| found.get(*key).is_some_and(may_go)).cloned().collect();
                self.transfer.delete(&old).map(drop).map_err(failed)
            })?;
        }
        Ok(())
    }
}

/// What `file` has of the object from `offset` on.
fn opened(key: &str, mut file: File, offset: u64, len: Option<u64>) -> io::Result<Opened> {
    let size = file.metadata()?.len().saturating_sub(offset);
    let mut version = String::new();
    if !key.starts_with(BLOBS) {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        version = Digest::of(&bytes).hex();
    }
    file.seek(SeekFrom::Start(offset))?;
    let size = len.map_or(size, |len| len.min(size));
    Ok(Opened { incoming: Box::new(file.take(size)), size, version })
}
