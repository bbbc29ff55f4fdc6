//! A temporary file of the layout, removed unless it is renamed.

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

/// How the names of all of them begin.
pub const PREFIX: &str = ".tmp-";

/// A file while it is written.
pub struct Temporary {
    file: File,
    /// Its temporary path.
    pub path: PathBuf,
    hasher: Hasher,
    size: u64,
    renamed: bool,
}

impl Temporary {
    /// Beside `index.json` and not among the blobs, where tools expect only digests.
    pub fn new(folder: &Path) -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        loop {
            let name = format!("{PREFIX}{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).open(&path) {
                Ok(file) => return Ok(Self { file, path, hasher: Hasher::default(), size: 0, renamed: false }),
                // Left by a process with the same id in another container, or by one that was killed.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Digest and size of what was written.
    pub fn blob(&self) -> Blob {
        Blob { digest: self.hasher.clone().finish(), size: self.size }
    }

    /// Puts a link to another file in its place, or a copy where there can't be one.
    pub fn replace_by(&self, source: &Path) -> io::Result<()> {
        fs::remove_file(&self.path)?;
        match fs::hard_link(source, &self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => fs::copy(source, &self.path).map(drop),
            linked => linked,
        }
    }

    /// Renames it to its final path.
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
            // An error of the clean-up is ignored.
            let _ = fs::remove_file(&self.path);
        }
    }
}
