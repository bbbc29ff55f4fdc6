//! A file of the layout while it is written; removed again unless it is renamed.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use super::at;
use crate::{
    digest::Hasher,
    store::{Blob, StoreError},
};

/// See the module.
pub struct Temporary {
    file: File,
    /// Where it is now.
    pub path: PathBuf,
    hasher: Hasher,
    size: u64,
    renamed: bool,
}

impl Temporary {
    /// It lies beside `index.json` and not among the blobs, where tools expect nothing but digests.
    pub fn new(folder: &Path) -> io::Result<Self> {
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
    pub fn blob(&self) -> Blob {
        Blob { digest: self.hasher.clone().finish(), size: self.size }
    }

    /// Gives it its name.
    pub fn rename(mut self, to: &Path) -> Result<(), StoreError> {
        fs::rename(&self.path, to).map_err(|e| at(to, e))?;
        self.renamed = true;
        Ok(())
    }
}

impl Write for Temporary {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.file.write(bytes)?;
        self.hasher.update(bytes.get(..count).unwrap_or(bytes));
        self.size = self.size.saturating_add(count as u64);
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
