//! Whether a volume can hold what is about to be written.

use std::path::Path;

use super::tree::{self, Dir};
use crate::{units::size, workspace::error::Error};

/// A layer of more than this many times its stored size consists of zeros for the most part, which take no room on a disk
/// (see [`super::sparse`]).
const SPARSE: u64 = 100;

/// The room of a volume before anything is written. An emptyDir's `sizeLimit` is not visible, except with `medium: Memory`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Bytes, if the file system reports them.
    bytes: Option<u64>,
    /// Files and directories, if the file system reports them.
    files: Option<u64>,
}

impl Space {
    /// The room of the volume that the directory `root` is on. Unknown if there are files that may be replaced.
    pub fn of(root: &Path) -> Result<Self, Error> {
        let dir = Dir::open_root(root).map_err(Error::file(root.display(), "can't be read"))?;
        if has_files(root) {
            return Ok(Self { bytes: None, files: None });
        }
        let volume = rustix::fs::fstatvfs(&dir).map_err(Error::file(root.display(), "can't be read"))?;
        let blocks = if tree::is_root() { volume.f_bfree } else { volume.f_bavail };
        let files = if tree::is_root() { volume.f_ffree } else { volume.f_favail };
        Ok(Self {
            bytes: (volume.f_blocks > 0).then(|| blocks.saturating_mul(volume.f_frsize)),
            files: (volume.f_files > 0).then_some(files),
        })
    }

    /// The free bytes, as far as they are known.
    pub fn bytes(&self) -> u64 {
        self.bytes.unwrap_or(u64::MAX)
    }

    /// Fails unless there is room for as many files and bytes.
    pub fn check(&self, workspace: &str, files: u64, bytes: u64) -> Result<(), Error> {
        let (free_files, free) = (self.files.unwrap_or(u64::MAX), self.bytes());
        if files <= free_files && bytes <= free {
            return Ok(());
        }
        Err(Error::NoSpace { workspace: workspace.to_owned(), files, need: size(bytes), free_files, free: size(free) })
    }
}

/// The room that files of `bytes` in a layer of `stored` bytes take at least.
pub fn least(bytes: u64, stored: u64) -> u64 {
    bytes.min(stored.saturating_mul(SPARSE))
}

/// Whether anything but directories is in the directory `root`.
fn has_files(root: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(root) else { return false };
    entries.flatten().any(|entry| match entry.file_type() {
        Ok(kind) if kind.is_dir() => has_files(&entry.path()),
        _ => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_numbers_are_in_one_sentence() {
        let space = Space { bytes: Some(1_000_000), files: Some(10) };
        assert!(space.check("ws", 10, 1_000_000).is_ok());
        for (files, bytes) in [(11, 0), (1, 1_000_001)] {
            let error = space.check("ws", files, bytes).unwrap_err().to_string();
            assert!(error.starts_with(&format!("ws: its {files} files take {}, but", size(bytes))), "{error}");
            assert!(error.contains("room for 10 files and 1.0 MB"), "{error}");
        }
        assert!(Space { bytes: None, files: None }.check("ws", u64::MAX, u64::MAX).is_ok());
    }

    #[test]
    fn what_may_be_replaced_is_no_obstacle() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("working/dir")).unwrap();
        assert_ne!(Space::of(folder.path()).unwrap().bytes, None);
        std::fs::write(folder.path().join("working/dir/a"), "").unwrap();
        assert_eq!(Space::of(folder.path()).unwrap(), Space { bytes: None, files: None });
    }

    #[test]
    fn zeros_take_no_room() {
        assert_eq!(least(5_000, 1_000), 5_000);
        assert_eq!(least(1 << 40, 50_000), 5_000_000);
    }
}
