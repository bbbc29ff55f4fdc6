//! Ways to directories, also to those whose mode is in the way.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::{Arc, Mutex},
};

use rustix::{
    fs::{self as sys, AtFlags, FileType, Mode, OFlags},
    io::Errno,
};

use super::{
    descent::Descent,
    handle::{Handle, allow},
    tree::{Dir, READ, is_root},
};
use crate::workspace::path::{TreePath, shared_prefix};

/// Opens our own directories and files also if their mode forbids it, by changing the mode; by default it is set back
/// when the last reference goes away. Shared by all threads that work on one tree.
pub struct DirAccess {
    set_back: bool,
    is_root: bool,
    changed: Mutex<Vec<Handle>>,
}

/// Keeps the last directories on the way to the last one asked for open, so that going through a tree in tree order opens each
/// directory once.
pub struct Cursor {
    access: Arc<DirAccess>,
    root: Dir,
    /// The path of the innermost directory that is open.
    at: Vec<u8>,
    /// The directories on the way to it.
    way: Descent,
    /// The length of the path of each of them.
    lengths: Vec<usize>,
}

impl DirAccess {
    /// Modes are set back.
    pub fn temporary() -> Arc<Self> {
        Self::new(true)
    }

    /// Modes are left as they had to be.
    pub fn lasting() -> Arc<Self> {
        Self::new(false)
    }

    fn new(set_back: bool) -> Arc<Self> {
        Arc::new(Self { set_back, is_root: is_root(), changed: Mutex::default() })
    }

    /// Opens the directory `name` in `parent`.
    pub fn dir(&self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Dir> {
        let open = || match sys::openat(parent, name, READ | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) if self.is_root || sys::accessat(&fd, c".", sys::Access::EXISTS, AtFlags::empty()).is_ok() => Ok(fd),
            Ok(_) => Err(Errno::ACCESS),
            Err(e) => Err(e),
        };
        match open() {
            Err(Errno::ACCESS) => {
                // Another thread may be about to do the same.
                let mut changed = self.changed.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                let fd = match open() {
                    Err(Errno::ACCESS) => {
                        let handle = allow(parent, name, FileType::Directory, Mode::RWXU)?;
                        let opened = open();
                        if self.set_back {
                            changed.push(handle);
                        }
                        opened?
                    }
                    other => other?,
                };
                Ok(Dir(fd))
            }
            other => Ok(Dir(other?)),
        }
    }
}

impl Drop for DirAccess {
    fn drop(&mut self) {
        let changed = self.changed.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Some(handle) = changed.pop() {
            let _ = handle.set_mode(handle.status().mode());
        }
    }
}

impl Cursor {
    /// A cursor at the directory `path`.
    pub fn new(path: &Path, access: Arc<DirAccess>) -> io::Result<Self> {
        Ok(Self { access, root: Dir::open_root(path)?, at: Vec::new(), way: Descent::default(), lengths: Vec::new() })
    }

    /// The open directory at `path`.
    pub fn dir(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        self.go(path.as_bytes())
    }

    /// The open directory that holds `path`.
    pub fn parent(&mut self, path: &TreePath) -> io::Result<BorrowedFd<'_>> {
        check_name(path.name())?;
        let path = path.as_bytes();
        match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => self.go(path.get(..slash).unwrap_or_default()),
            None if path.is_empty() => Err(Errno::INVAL.into()),
            None => self.go(&[]),
        }
    }

    /// Forgets what is open: for when directories were replaced.
    pub fn forget(&mut self) {
        self.way = Descent::default();
        self.lengths.clear();
    }

    /// Opens the directory at `path`, names joined by `/`.
    fn go(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        let ends_name = |len: usize| matches!(path.get(len), None | Some(b'/'));
        let same = shared_prefix(&self.at, path);
        // Of the directories within the part that is the same only the last one may end within a name.
        self.lengths.truncate(self.lengths.partition_point(|len| *len <= same && ends_name(*len)));
        if self.way.truncate(self.lengths.len()).is_err() {
            // Whatever is there now is found from the root on.
            self.forget();
        }
        let known = self.lengths.last().copied().unwrap_or(0);
        self.at.truncate(known);
        for name in path.get(known..).unwrap_or_default().split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            check_name(name)?;
            let dir = self.access.dir(self.last().as_fd(), name)?;
            if !self.at.is_empty() {
                self.at.push(b'/');
            }
            self.at.extend_from_slice(name);
            self.way.push(dir)?;
            self.lengths.push(self.at.len());
        }
        Ok(self.last().as_fd())
    }

    fn last(&self) -> &Dir {
        self.way.last().unwrap_or(&self.root)
    }
}

/// Refuses a name that leads elsewhere. No path has one; were there a way to make such a path, it would still lead nowhere.
fn check_name(name: &[u8]) -> io::Result<()> {
    if matches!(name, b"." | b"..") { Err(Errno::INVAL.into()) } else { Ok(()) }
}
