//! Makes files and directories in a workspace, from trusted and untrusted entries: nothing is ever made outside, as every path
//! is taken name by name from an open directory and no symbolic link is followed.

use std::{
    io::{self, Read},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
};

use rustix::{
    fs::{self as sys, FileType, Mode, OFlags, RawMode},
    io::Errno,
};

use super::{
    access::{Cursor, DirAccess},
    attributes::{is_denied, owner, set_xattrs, times},
    handle::Handle,
    mounts::MountPoints,
    sparse::{SparseFile, fill},
    tree,
};
use crate::workspace::{
    entry::{CAPABILITY, Device, Entry, Node},
    error::Error,
    path::TreePath,
};

/// Makes things in one workspace, on one thread.
pub struct Extractor {
    dirs: Cursor,
    links: Cursor,
    mounts: Arc<MountPoints>,
    is_root: bool,
    keeps_privileges: bool,
    /// Files that lost privileges.
    stripped: u64,
    buffer: Vec<u8>,
}

impl Extractor {
    /// For the workspace in the directory `root`. Files lose what gives privileges to a process: setuid, setgid and
    /// capabilities.
    pub fn new(root: &Path) -> Result<Self, Error> {
        let open = || Cursor::new(root, DirAccess::lasting()).map_err(Error::file(root.display(), "can't be opened"));
        Ok(Self {
            dirs: open()?,
            links: open()?,
            mounts: Arc::default(),
            is_root: tree::is_root(),
            keeps_privileges: false,
            stripped: 0,
            buffer: vec![0; 128 * 1024],
        })
    }

    /// Whether files keep setuid, setgid and capabilities.
    pub fn keeping_privileges(self, keeps_privileges: bool) -> Self {
        Self { keeps_privileges, ..self }
    }

    /// Where other containers have something mounted: what is there stays, and a file is written in place.
    pub fn around(self, mounts: &Arc<MountPoints>) -> Self {
        Self { mounts: mounts.clone(), ..self }
    }

    /// The number of files that lost setuid, setgid or capabilities.
    pub fn stripped(&self) -> u64 {
        self.stripped
    }

    /// Makes a directory that this process may write to for now; [`Extractor::finish_dir`] gives it its attributes. One
    /// that is there is kept, as someone may be working in it; anything else at its place is removed.
    pub fn make_dir(&mut self, path: &TreePath) -> Result<(), Error> {
        if path.is_root() {
            return Ok(());
        }
        let make = &mut |parent: BorrowedFd<'_>, name: &[u8]| match sys::mkdirat(parent, name, Mode::RWXU) {
            Err(Errno::EXIST) => match tree::status(parent, name)? {
                status if status.kind != FileType::Directory => Err(Errno::EXIST.into()),
                status if status.mode & 0o700 == 0o700 => Ok(()),
                status => {
                    let mode = Mode::from_raw_mode(status.mode as RawMode) | Mode::RWXU;
                    let dir = DirAccess::lasting().dir(parent, name)?;
                    is_denied(sys::fchmod(&dir, mode)).map(drop)
                }
            },
            other => Ok(other?),
        };
        self.make(path, make).map(drop)
    }

    /// Makes what `entry` says, in place of what is there: a regular file with `content`, a symbolic link, a pipe or a
    /// device. `seen` gets the bytes of a file.
    pub fn make_entry(
        &mut self,
        entry: &Entry,
        content: &mut dyn Read,
        seen: &mut dyn FnMut(&[u8]),
    ) -> Result<(), Error> {
        let kind = match &entry.node {
            Node::File(_) | Node::Link { .. } => return self.make_file(entry, content, seen),
            Node::Dir { .. } | Node::Whiteout => return Ok(()),
            Node::Symlink(_) => FileType::Symlink,
            Node::Fifo => FileType::Fifo,
            Node::Char(_) => FileType::CharacterDevice,
            Node::Block(_) => FileType::BlockDevice,
        };
        let is_made = match &entry.node {
            Node::Symlink(target) => {
                self.make(&entry.path, &mut |parent, name| Ok(sys::symlinkat(&target[..], parent, name)?))?
            }
            Node::Char(device) | Node::Block(device) => self.make_device(&entry.path, kind, device)?,
            _ => self.make(&entry.path, &mut |parent, name| {
                Ok(sys::mknodat(parent, name, kind, Mode::RUSR | Mode::WUSR, 0)?)
            })?,
        };
        if !is_made {
            return Ok(());
        }
        let is_root = self.is_root;
        self.at(&entry.path, "can't be given its attributes", |parent, name| {
            let made = Handle::open(parent, name, kind)?;
            if is_root {
                let (uid, gid) = owner(entry);
                made.set_owner(uid, gid)?;
            }
            if kind != FileType::Symlink {
                made.set_mode(Mode::from_raw_mode(entry.mode as RawMode))?;
            }
            made.set_times(&times(entry.mtime))
        })
    }

    /// Makes `path` a hard link to the file at `to`, which must have been made before.
    pub fn make_link(&mut self, path: &TreePath, to: &TreePath) -> Result<(), Error> {
        let mut link = || -> io::Result<bool> {
            let from = self.links.parent(to)?;
            let parent = self.dirs.parent(path)?;
            let file = Handle::open(from, to.name(), FileType::RegularFile)?;
            replacing(parent, path, &self.mounts, &mut |parent, name| file.link(parent, name))
        };
        let linked = link();
        self.unless_mounted(path, linked).map(drop).map_err(Error::file(path, "can't be linked"))
    }

    /// Removes what is at `path`; nothing there is fine. Mount points stay, and what leads to them, but without what is in them.
    pub fn remove(&mut self, path: &TreePath) -> Result<(), Error> {
        if self.mounts.needs(path) {
            return self.clear(path);
        }
        let removed = self.at(path, "can't be removed", tree::remove);
        self.dirs.forget();
        self.links.forget();
        match removed {
            Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    /// Gives a directory its attributes, its mtime alone unless `all`. Where that is not permitted, because the directory
    /// was there before and is someone else's, it stays as it is.
    pub fn finish_dir(&mut self, entry: &Entry, all: bool) -> Result<(), Error> {
        let is_root = self.is_root;
        let mut finish = || -> io::Result<()> {
            let dir = self.dirs.dir(&entry.path)?;
            let status = tree::status_of(dir)?;
            let mut denied = false;
            if all && is_root && (status.uid, status.gid) != (entry.uid, entry.gid) {
                let (uid, gid) = owner(entry);
                denied |= is_denied(sys::fchown(dir, uid, gid))?;
            }
            if all && status.mode != entry.mode || is_root {
                let mode = if all { entry.mode } else { status.mode };
                denied |= is_denied(sys::fchmod(dir, Mode::from_raw_mode(mode as RawMode)))?;
            }
            if all && is_root {
                set_xattrs(dir, entry, &|_| true)?;
            }
            is_denied(sys::futimens(dir, &times(entry.mtime)))?;
            if denied {
                tracing::warn!("{}: it was there before and belongs to someone else, so it keeps its mode", entry.path);
            }
            Ok(())
        };
        match finish() {
            // A file is there, and something is mounted on it.
            Err(e) if self.is_in_the_way(&entry.path, &e) => Ok(()),
            other => other.map_err(Error::file(&entry.path, "can't be given its attributes")),
        }
    }

    fn make_file(&mut self, entry: &Entry, content: &mut dyn Read, seen: &mut dyn FnMut(&[u8])) -> Result<(), Error> {
        let (mut made, is_mounted) = (None, self.mounts.contains(&entry.path));
        self.make(&entry.path, &mut |parent, name| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            made = match sys::openat(parent, name, flags, Mode::RUSR | Mode::WUSR) {
                // An empty file may be the mount point of a path that the configuration does not name.
                Err(Errno::EXIST) => Some(tree::emptied(parent, name, is_mounted)?.ok_or(Errno::EXIST)?),
                other => Some(other?),
            };
            Ok(())
        })?;
        let mut file = made.map(|fd| SparseFile::new(fd.into()));
        loop {
            let len = match fill(content, &mut self.buffer) {
                Ok(0) => break,
                Ok(len) => len,
                Err(e) => return Err(Error::file(&entry.path, "its content can't be read")(e)),
            };
            let read = self.buffer.get(..len).unwrap_or_default();
            seen(read);
            let written = file.as_mut().map_or(Ok(()), |file| file.append(read));
            written.map_err(Error::file(&entry.path, "can't be written"))?;
        }
        let Some(file) = file else { return Ok(()) };
        let file = file.finish().map_err(Error::file(&entry.path, "can't be written"))?;
        let is_capability = |name: &[u8]| name == CAPABILITY;
        let mut mode = Mode::from_raw_mode(entry.mode as RawMode);
        if !self.keeps_privileges {
            let has_capability = self.is_root && entry.xattrs.iter().any(|(name, _)| is_capability(name));
            let has_privileges = mode.intersects(Mode::SUID | Mode::SGID) || has_capability;
            self.stripped = self.stripped.saturating_add(u64::from(has_privileges));
            mode.remove(Mode::SUID | Mode::SGID);
        }
        let set = || -> io::Result<()> {
            if self.is_root {
                let (uid, gid) = owner(entry);
                sys::fchown(&file, uid, gid)?;
                set_xattrs(file.as_fd(), entry, &|name| self.keeps_privileges || !is_capability(name))?;
            }
            sys::fchmod(&file, mode)?;
            Ok(sys::futimens(&file, &times(entry.mtime))?)
        };
        set().map_err(Error::file(&entry.path, "can't be given its attributes"))
    }

    /// Whether the device could be made.
    fn make_device(&mut self, path: &TreePath, kind: FileType, device: &Device) -> Result<bool, Error> {
        let number = sys::makedev(device.major, device.minor);
        let mut is_allowed = true;
        let is_made =
            self.make(path, &mut |parent, name| match sys::mknodat(parent, name, kind, Mode::empty(), number) {
                Err(Errno::PERM) => {
                    tracing::warn!("{path}: this container is not allowed to make the device; it is left out");
                    is_allowed = false;
                    Ok(())
                }
                other => Ok(other?),
            })?;
        Ok(is_made && is_allowed)
    }

    /// Calls `make`; if something is in its way, removes that and calls it again. False if it must not be removed.
    fn make(&mut self, path: &TreePath, make: &mut Make<'_>) -> Result<bool, Error> {
        let made = self.dirs.parent(path).and_then(|parent| replacing(parent, path, &self.mounts, make));
        self.unless_mounted(path, made).map_err(Error::file(path, "can't be made"))
    }

    /// Whether something was made. Warns if a mount point is in its place.
    fn unless_mounted(&self, path: &TreePath, made: io::Result<bool>) -> io::Result<bool> {
        match made {
            Ok(false) => {
                tracing::warn!(
                    "{path}: a container of this task has something else mounted there or in it, so that it stays as it is"
                );
                Ok(false)
            }
            Err(e) if self.is_in_the_way(path, &e) => Ok(false),
            other => other,
        }
    }

    /// Whether a file that something is mounted on made a call fail, as a directory would have to be there.
    fn is_in_the_way(&self, path: &TreePath, error: &io::Error) -> bool {
        error.kind() == io::ErrorKind::NotADirectory && (self.mounts.contains(path) || self.mounts.hides(path))
    }

    /// Removes what is in the mount point `path`, or in a directory that leads to one.
    fn clear(&mut self, path: &TreePath) -> Result<(), Error> {
        let is_mounted = self.mounts.contains(path);
        let names = self.dirs.parent(path).and_then(|parent| match tree::status(parent, path.name())?.kind {
            FileType::Directory => DirAccess::lasting().dir(parent, path.name())?.names(),
            _ if is_mounted => tree::emptied(parent, path.name(), true).map(|_| Vec::new()),
            _ => tree::remove(parent, path.name()).map(|()| Vec::new()),
        });
        match names {
            Err(e) if tree::is_change(&e) => Ok(()),
            names => {
                let names = names.map_err(Error::file(path, "can't be emptied"))?;
                names.iter().try_for_each(|name| self.remove(&path.join(name)))
            }
        }
    }

    fn at(
        &mut self,
        path: &TreePath,
        action: &'static str,
        work: impl FnOnce(BorrowedFd<'_>, &[u8]) -> io::Result<()>,
    ) -> Result<(), Error> {
        self.dirs.parent(path).and_then(|parent| work(parent, path.name())).map_err(Error::file(path, action))
    }
}

/// Whether `mounts` need what is at `path` in its directory `parent`: a file can't lead to a mount point.
fn is_needed(parent: BorrowedFd<'_>, path: &TreePath, mounts: &MountPoints) -> bool {
    let is_dir = || tree::status(parent, path.name()).is_ok_and(|status| status.kind == FileType::Directory);
    mounts.contains(path) || mounts.needs(path) && is_dir()
}

/// Makes something under a name in a directory.
type Make<'a> = dyn FnMut(BorrowedFd<'_>, &[u8]) -> io::Result<()> + 'a;

/// Calls `make` for `path` in its directory `parent`; if something is in its way, removes that and calls it again. False if
/// `mounts` need what is there.
fn replacing(parent: BorrowedFd<'_>, path: &TreePath, mounts: &MountPoints, make: &mut Make<'_>) -> io::Result<bool> {
    match make(parent, path.name()) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && is_needed(parent, path, mounts) => Ok(false),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            tree::remove(parent, path.name())?;
            make(parent, path.name()).map(|()| true)
        }
        other => other.map(|()| true),
    }
}
