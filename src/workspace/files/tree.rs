//! System calls on a directory tree, always relative to an open directory and never through a symbolic link.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::LazyLock,
};

use rustix::{
    fs::{self as sys, AtFlags, CWD, FileType, Mode, OFlags, RawMode, Stat},
    io::Errno,
};

use super::{access::DirAccess, descent::Descent, handle::allow};
use crate::workspace::entry::{Device, Time, keeps_xattr};

/// How directories and files are opened for reading.
pub(super) const READ: OFlags = OFlags::RDONLY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC).union(OFlags::NONBLOCK);

/// An open directory.
pub struct Dir(pub(super) OwnedFd);

/// What `lstat` says, as far as it is used here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStatus {
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
    pub identity: FileIdentity,
}

/// What no program can set back after a change: which file it is and when it was last changed in any way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct FileIdentity {
    /// Number of the file system.
    pub dev: u64,
    /// Number of the file in it.
    pub ino: u64,
    /// Time of the last change of content or attributes.
    pub ctime: Time,
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

impl FileStatus {
    /// The permission bits as system calls take them.
    pub(super) fn mode(&self) -> Mode {
        Mode::from_raw_mode(self.mode as RawMode)
    }
}

impl From<Stat> for FileStatus {
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
            identity: FileIdentity {
                dev: stat.st_dev as u64,
                ino: stat.st_ino as u64,
                ctime: Time { sec: stat.st_ctime as i64, nsec: stat.st_ctime_nsec as u32 },
            },
        }
    }
}

/// `lstat` of `name` in `parent`.
pub fn status(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<FileStatus> {
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
pub fn status_of(fd: impl AsFd) -> io::Result<FileStatus> {
    Ok(sys::fstat(fd)?.into())
}

/// Opens the regular file `name` in `parent` for reading, also our own one with a mode that forbids it. Says too what it
/// is.
pub fn open_file(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<(File, FileStatus)> {
    let fd = match sys::openat(parent, name, READ, Mode::empty()) {
        Err(Errno::ACCESS) => {
            let handle = allow(parent, name, FileType::RegularFile, Mode::RUSR)?;
            let fd = sys::openat(CWD, handle.path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            handle.set_mode(handle.status().mode())?;
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

/// Removes `name` in `parent`, and everything in it if it is a directory. It may be absent.
pub fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<()> {
    match sys::unlinkat(parent, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(e) => return Err(e.into()),
    }
    let access = DirAccess::lasting();
    let (first, names) = open_to_remove(&access, parent, name)?;
    let mut way = Descent::default();
    way.push(first)?;
    // What is left in each directory on the way down, the last of these on the way already. A loop, since directories may lie deeper
    // than a stack is.
    let mut left = vec![names];
    while let (Some(dir), Some(names)) = (way.last(), left.last_mut()) {
        match names.last() {
            None => {
                left.pop();
                way.truncate(left.len())?;
                match (way.last(), left.last_mut()) {
                    (Some(above), Some(names)) => {
                        sys::unlinkat(above, names.pop().unwrap_or_default(), AtFlags::REMOVEDIR)?;
                    }
                    _ => sys::unlinkat(parent, name, AtFlags::REMOVEDIR)?,
                }
            }
            Some(inner) => match sys::unlinkat(dir, &inner[..], AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => drop(names.pop()),
                Err(Errno::ISDIR | Errno::PERM) => {
                    let (inner, names) = open_to_remove(&access, dir.as_fd(), inner)?;
                    way.push(inner)?;
                    left.push(names);
                }
                Err(e) => return Err(e.into()),
            },
        }
    }
    Ok(())
}

/// The directory `name` in `parent`, which may be emptied, and what is in it.
fn open_to_remove(access: &DirAccess, parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<(Dir, Vec<Vec<u8>>)> {
    let dir = access.dir(parent, name)?;
    if status_of(&dir)?.mode & 0o300 != 0o300 {
        sys::fchmod(&dir, Mode::RWXU)?;
    }
    let names = dir.names()?;
    Ok((dir, names))
}

/// Opens the regular file `name` in `parent` to be overwritten, without content and extended attributes, if it belongs to this
/// process alone: its owner is our user, it has one name, and it is empty unless `has_content`. None if it is another file.
pub fn emptied(parent: BorrowedFd<'_>, name: &[u8], has_content: bool) -> io::Result<Option<OwnedFd>> {
    if status(parent, name).map_or(true, |status| status.kind != FileType::RegularFile) {
        return Ok(None);
    }
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(fd) = sys::openat(parent, name, flags, Mode::empty()) else { return Ok(None) };
    let status = status_of(&fd)?;
    let is_own = status.uid == rustix::process::geteuid().as_raw() && status.nlink == 1;
    if status.kind != FileType::RegularFile || !is_own || !(has_content || status.size == 0) {
        return Ok(None);
    }
    sys::ftruncate(&fd, 0)?;
    sys::fchmod(&fd, Mode::RUSR | Mode::WUSR)?;
    for (name, _) in xattrs(&fd)? {
        sys::fremovexattr(&fd, &name[..])?;
    }
    Ok(Some(fd))
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
