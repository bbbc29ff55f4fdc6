//! System calls on a directory tree, always relative to an open directory and never through a symbolic link.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, LazyLock, Mutex},
};

use rustix::{
    fs::{self as sys, AtFlags, CWD, FileType, Gid, Mode, OFlags, RawMode, Stat, Timestamps, Uid},
    io::Errno,
};

use crate::workspace::{
    entry::{Device, Time, keeps_xattr},
    path::{TreePath, shared_prefix},
};

const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// An open directory.
pub struct Dir(OwnedFd);

/// Opens our own directories and files also where their mode forbids it, by changing the mode; by default it is set back
/// when the last reference goes away. Shared by all threads that work on one tree.
pub struct Access {
    set_back: bool,
    is_root: bool,
    changed: Mutex<Vec<Handle>>,
}

/// Keeps the directories on the way to the last one asked for open, so that going through a tree in tree order opens
/// each directory once.
pub struct Cursor {
    access: Arc<Access>,
    root: Dir,
    /// The path of the innermost directory that is open.
    at: Vec<u8>,
    /// The directories on the way to it: the length of the path of each, and itself.
    open: Vec<(usize, Dir)>,
}

/// What `lstat` says, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The type.
    pub kind: FileType,
    /// Permission bits with setuid, setgid and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Time of the last change of the content.
    pub mtime: Time,
    /// Bytes of a regular file.
    pub size: u64,
    /// Number of names.
    pub nlink: u64,
    /// Device numbers of a device.
    pub device: Device,
    /// Which file it is, and the time of its last change of any kind.
    pub identity: Identity,
}

/// What no program can set back after a change: which file it is and when it was last changed in any way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Identity {
    /// Number of the file system.
    pub dev: u64,
    /// Number of the file in it.
    pub ino: u64,
    /// Time of the last change of content or attributes.
    pub ctime: Time,
}

/// A handle of one file of any type, whatever happens to its name (open(2), `O_PATH`).
pub struct Handle {
    fd: OwnedFd,
    status: Status,
}

impl Handle {
    /// A handle of `name` in `parent`, which was just made. Fails where something of another type is there by now, or
    /// something that has another name: whoever may write to the directory may have put it there.
    pub fn open(parent: BorrowedFd<'_>, name: &[u8], kind: FileType) -> io::Result<Self> {
        let handle = Self::of(parent, name)?;
        if handle.status.kind != kind || kind != FileType::RegularFile && handle.status.nlink != 1 {
            return Err(io::Error::other("something else was put in its place meanwhile"));
        }
        Ok(handle)
    }

    /// Sets the owner, of a symbolic link too.
    pub fn set_owner(&self, uid: Option<Uid>, gid: Option<Gid>) -> io::Result<()> {
        Ok(sys::chownat(&self.fd, c"", uid, gid, AtFlags::EMPTY_PATH)?)
    }

    /// Sets the mode; symbolic links have none.
    pub fn set_mode(&self, mode: Mode) -> io::Result<()> {
        Ok(sys::chmodat(CWD, self.path(), mode, AtFlags::empty())?)
    }

    /// Sets the times, of a symbolic link too.
    pub fn set_times(&self, times: &Timestamps) -> io::Result<()> {
        Ok(sys::utimensat(CWD, self.path(), times, AtFlags::empty())?)
    }

    /// Makes `name` in `parent` a hard link to it.
    pub fn link(&self, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
        Ok(sys::linkat(CWD, self.path(), parent, name, AtFlags::SYMLINK_FOLLOW)?)
    }

    fn of(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        let fd = sys::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let status = status_of(&fd)?;
        Ok(Self { fd, status })
    }

    /// A path that leads to the file itself (proc_pid_fd(5)).
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

impl Dir {
    /// Opens the directory at `path`, which is trusted: symbolic links on the way are followed.
    pub fn open_root(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self(sys::openat(CWD, path, flags, Mode::empty())?))
    }

    /// The names in it, sorted as bytes.
    pub fn names(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut names = Vec::new();
        let mut buffer = Vec::with_capacity(32 * 1024);
        sys::seek(&self.0, sys::SeekFrom::Start(0))?;
        let mut entries = sys::RawDir::new(&self.0, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name != b"." && name != b".." {
                names.push(name.to_owned());
            }
        }
        names.sort_unstable();
        Ok(names)
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Access {
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

impl Drop for Access {
    fn drop(&mut self) {
        let changed = self.changed.get_mut().unwrap_or_else(|poisoned| poisoned.into_inner());
        while let Some(handle) = changed.pop() {
            let _ = handle.set_mode(handle.status.mode());
        }
    }
}

impl Cursor {
    /// A cursor at the directory `path`.
    pub fn new(path: &Path, access: Arc<Access>) -> io::Result<Self> {
        Ok(Self { access, root: Dir::open_root(path)?, at: Vec::new(), open: Vec::new() })
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
        self.open.clear();
    }

    /// Opens the directory at `path`, names joined by `/`.
    fn go(&mut self, path: &[u8]) -> io::Result<BorrowedFd<'_>> {
        let ends_name = |len: usize| matches!(path.get(len), None | Some(b'/'));
        let same = shared_prefix(&self.at, path);
        // Of the directories within the part that is the same only the last one may end within a name.
        self.open.truncate(self.open.partition_point(|(len, _)| *len <= same && ends_name(*len)));
        let known = self.open.last().map_or(0, |(len, _)| *len);
        self.at.truncate(known);
        for name in path.get(known..).unwrap_or_default().split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            check_name(name)?;
            let dir = self.access.dir(self.last().as_fd(), name)?;
            if !self.at.is_empty() {
                self.at.push(b'/');
            }
            self.at.extend_from_slice(name);
            self.open.push((self.at.len(), dir));
        }
        Ok(self.last().as_fd())
    }

    fn last(&self) -> &Dir {
        self.open.last().map_or(&self.root, |(_, dir)| dir)
    }
}

/// Refuses a name that leads elsewhere. No path has one; were there a way to make such a path, it would still lead nowhere.
fn check_name(name: &[u8]) -> io::Result<()> {
    if matches!(name, b"." | b"..") { Err(Errno::INVAL.into()) } else { Ok(()) }
}

impl Status {
    /// The permission bits as system calls take them.
    fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode as RawMode)
    }
}

impl From<Stat> for Status {
    #[allow(
        clippy::unnecessary_cast,
        clippy::cast_possible_truncation,
        reason = "the widths of these fields differ between architectures; nanoseconds are below 1,000,000,000"
    )]
    fn from(stat: Stat) -> Self {
        let raw = stat.st_mode as RawMode;
        Self {
            kind: FileType::from_raw_mode(raw),
            mode: (raw & 0o7777) as u32,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { sec: stat.st_mtime as i64, nsec: stat.st_mtime_nsec as u32 },
            size: stat.st_size as u64,
            nlink: stat.st_nlink as u64,
            device: Device { major: sys::major(stat.st_rdev), minor: sys::minor(stat.st_rdev) },
            identity: Identity {
                dev: stat.st_dev as u64,
                ino: stat.st_ino as u64,
                ctime: Time { sec: stat.st_ctime as i64, nsec: stat.st_ctime_nsec as u32 },
            },
        }
    }
}

/// `lstat` of `name` in `parent`.
pub fn status(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Status> {
    Ok(sys::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW)?.into())
}

/// Whether a call failed because something else is at a path than was found there a moment before: nothing, a file in place of
/// a directory on the way, or a file of another type.
pub fn is_change(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::InvalidInput)
        || [Errno::LOOP, Errno::NXIO, Errno::STALE]
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

/// `fstat`.
pub fn status_of(fd: impl AsFd) -> io::Result<Status> {
    Ok(sys::fstat(fd)?.into())
}

/// Opens the regular file `name` in `parent` for reading, also our own one with a mode that forbids it. Says too what it
/// is.
pub fn open_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, Status)> {
    let fd = match sys::openat(parent, name, READ, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = allow(parent, name, FileType::RegularFile, Mode::RUSR)?;
            let fd = sys::openat(CWD, handle.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            handle.set_mode(handle.status.mode())?;
            fd?
        }
        other => other?,
    };
    let status = status_of(&fd)?;
    if status.kind != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file any more"));
    }
    Ok((fd.into(), status))
}

/// Removes `name` in `parent`, and everything in it where it is a directory. Nothing there is fine.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match sys::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let access = Access::lasting();
    // From `parent` on: each directory on the way down with what is left in it, the last of these on the way already. A loop,
    // since directories may lie deeper than a stack is.
    let mut open = vec![open_to_remove(&access, parent, name)?];
    while let Some((dir, names)) = open.last_mut() {
        match names.last() {
            None => {
                open.pop();
                match open.last_mut() {
                    Some((above, names)) => {
                        sys::unlinkat(&*above, names.pop().unwrap_or_default(), AtFlags::REMOVEDIR)?;
                    }
                    None => sys::unlinkat(parent, name, AtFlags::REMOVEDIR)?,
                }
            }
            Some(inner) => match sys::unlinkat(&*dir, &inner[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => drop(names.pop()),
                Err(Errno::ISDIR | Errno::PERM) => {
                    let inner = open_to_remove(&access, dir.as_fd(), inner)?;
                    open.push(inner);
                }
                Err(e) => return Err(e.into()),
            },
        }
    }
    Ok(())
}

/// The directory `name` in `parent`, which may be emptied, and what is in it.
fn open_to_remove(access: &Access, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<(Dir, Vec<Vec<u8>>)> {
    let dir = access.dir(parent, name)?;
    if status_of(&dir)?.mode & 0o300 != 0o300 {
        sys::fchmod(&dir, Mode::RWXU)?;
    }
    let names = dir.names()?;
    Ok((dir, names))
}

/// The target of the symbolic link `name` in `parent`.
pub fn read_link(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Vec<u8>> {
    Ok(sys::readlinkat(parent, name, Vec::new())?.into_bytes())
}

/// The extended attributes that are kept, sorted by name. Only root reads them, as only root can restore them all;
/// a file system without them has none.
pub fn xattrs(fd: impl AsFd) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    if !is_root() {
        return Ok(Vec::new());
    }
    let names = match read_all(|buffer| sys::flistxattr(&fd, buffer)) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other?,
    };
    let mut xattrs = Vec::new();
    for name in names.split(|&b| b == 0).filter(|name| keeps_xattr(name)) {
        match read_all(|buffer| sys::fgetxattr(&fd, name, buffer)) {
            Ok(value) => xattrs.push((name.to_owned(), value)),
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    xattrs.sort();
    Ok(xattrs)
}

/// Whether this process may set owners.
pub fn is_root() -> bool {
    static IS_ROOT: LazyLock<bool> = LazyLock::new(|| rustix::process::geteuid().is_root());
    *IS_ROOT
}

/// Reads what a system call gives into a buffer whose size is not known beforehand.
fn read_all(mut call: impl FnMut(&mut [u8]) -> rustix::io::Result<usize>) -> rustix::io::Result<Vec<u8>> {
    let mut size = 256;
    loop {
        let mut buffer = vec![0; size];
        match call(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len);
                return Ok(buffer);
            }
            Err(Errno::RANGE) if size < 1 << 20 => size = size.saturating_mul(8),
            Err(e) => return Err(e),
        }
    }
}

/// Adds `bits` to the mode of our own `name` in `parent`. Returns a handle of this very file with the status before.
fn allow(parent: BorrowedFd<'_>, name: &[u8], kind: FileType, bits: Mode) -> io::Result<Handle> {
    let handle = Handle::of(parent, name)?;
    if handle.status.kind != kind {
        return Err(Errno::ACCESS.into());
    }
    handle.set_mode(handle.status.mode() | bits).map_err(|_| io::Error::from(Errno::ACCESS))?;
    Ok(handle)
}
