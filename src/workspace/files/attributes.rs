//! Attributes of files and directories, as system calls take them.

use std::{io, os::fd::BorrowedFd};

use rustix::{
    fs::{self as sys, Gid, Timespec, Timestamps, Uid, XattrFlags},
    io::Errno,
};

use crate::{
    quote::Quoted,
    workspace::entry::{Entry, Time, keeps_xattr},
};

/// Sets those extended attributes of `entry` that travel and that it `keeps`; warns if the file system has none.
pub fn set_xattrs(fd: BorrowedFd<'_>, entry: &Entry, keeps: &dyn Fn(&[u8]) -> bool) -> io::Result<()> {
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| keeps_xattr(name) && keeps(name)) {
        match sys::fsetxattr(fd, &name[..], value, XattrFlags::empty()) {
            Err(Errno::OPNOTSUPP | Errno::PERM) => {
                let name = Quoted(name);
                tracing::warn!("{}: the extended attribute {name} can't be set here; it is left out", entry.path);
            }
            other => other?,
        }
    }
    Ok(())
}

/// Whether the call was denied; other errors stay errors.
pub fn is_denied(result: rustix::io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(Errno::PERM | Errno::ACCESS | Errno::ROFS) => Ok(true),
        Err(e) => Err(e.into()),
    }
}

/// Owner and group of `entry`, as system calls take them.
pub fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(entry.uid)), Some(Gid::from_raw(entry.gid)))
}

/// Times for a file that was last changed at `mtime`.
pub fn times(mtime: Time) -> Timestamps {
    let time = Timespec { tv_sec: mtime.sec, tv_nsec: mtime.nsec.into() };
    Timestamps { last_access: time, last_modification: time }
}
