//! Handles of files: what is done to one of them can't go astray when its name leads elsewhere meanwhile.

use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{self as sys, AtFlags, CWD, FileType, Gid, Mode, OFlags, Timestamps, Uid},
    io::Errno,
};

use super::tree::{FileStatus, status_of};

/// A handle of one file of any type, whatever happens to its name (open(2), `O_PATH`).
pub struct Handle {
    fd: OwnedFd,
    status: FileStatus,
}

impl Handle {
    /// A handle of `name` in `parent`, which was just made. Fails if something of another type is there by now, or
    /// something that has another name: any process that may write to the directory may have put it there.
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

    /// What it was when it was opened.
    pub fn status(&self) -> &FileStatus {
        &self.status
    }

    fn of(parent: BorrowedFd<'_>, name: &[u8]) -> io::Result<Self> {
        let fd = sys::openat(parent, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
        let status = status_of(&fd)?;
        Ok(Self { fd, status })
    }

    /// A path that leads to the file itself (proc_pid_fd(5)).
    pub(super) fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }
}

/// Adds `bits` to the mode of our own `name` in `parent`. Returns a handle of this very file with the status before.
pub(super) fn allow(parent: BorrowedFd<'_>, name: &[u8], kind: FileType, bits: Mode) -> io::Result<Handle> {
    let handle = Handle::of(parent, name)?;
    if handle.status.kind != kind {
        return Err(Errno::ACCESS.into());
    }
    handle.set_mode(handle.status.mode() | bits).map_err(|_| io::Error::from(Errno::ACCESS))?;
    Ok(handle)
}
