//! A way down a tree: the directories on it, of which only the last ones are held open, however deep the tree is.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd},
};

use rustix::{
    fs::{self as sys, Mode, OFlags},
    io::Errno,
};

use super::tree::{self, Dir, READ};

/// So many directories of a way are open at most. The eight threads of a restore have two ways each, and 1,024 open files are what a
/// process often may have.
pub const MOST_OPEN: usize = 32;

/// See the module. One that was closed is opened again from the directory below it, by `..`, which no symbolic link can be, and must be
/// the same then.
#[derive(Default)]
pub struct Descent {
    /// Those above the open ones: device and inode.
    closed: Vec<(u64, u64)>,
    /// Never empty unless the way is.
    open: VecDeque<Dir>,
}

impl Descent {
    /// The last one.
    pub fn last(&self) -> Option<&Dir> {
        self.open.back()
    }

    /// Those that are open, with the last one; and the one before that, as long as the way only became longer since that one was the
    /// last.
    pub fn open(&self) -> &VecDeque<Dir> {
        &self.open
    }

    /// Goes on into `dir`, which is in the last one.
    pub fn push(&mut self, dir: Dir) -> io::Result<()> {
        if self.open.len() >= MOST_OPEN
            && let Some(first) = self.open.front()
        {
            self.closed.push(identity(first)?);
            self.open.pop_front();
        }
        self.open.push_back(dir);
        Ok(())
    }

    /// Goes back to the first `len` directories. An error where one of them was moved meanwhile; then nothing is left of the way.
    pub fn truncate(&mut self, len: usize) -> io::Result<()> {
        let Some(up) = self.closed.len().checked_sub(len) else {
            self.open.truncate(len.saturating_sub(self.closed.len()));
            return Ok(());
        };
        let way = std::mem::take(self);
        let (Some(lowest), Some(wanted)) = (way.open.front(), len.checked_sub(1).and_then(|i| way.closed.get(i)))
        else {
            return Ok(());
        };
        let mut dir = above(lowest.as_fd())?;
        for _ in 0..up {
            dir = above(dir.as_fd())?;
        }
        if identity(&dir)? != *wanted {
            return Err(Errno::STALE.into());
        }
        self.closed = way.closed;
        self.closed.truncate(len.saturating_sub(1));
        self.open.push_back(dir);
        Ok(())
    }
}

fn above(dir: BorrowedFd<'_>) -> io::Result<Dir> {
    Ok(Dir(sys::openat(dir, c"..", READ | OFlags::DIRECTORY, Mode::empty())?))
}

fn identity(dir: &Dir) -> io::Result<(u64, u64)> {
    let identity = tree::status_of(dir)?.identity;
    Ok((identity.dev, identity.ino))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A chain of directories `d`, and the way down to the last one.
    fn chain(root: &std::path::Path, depth: usize) -> Descent {
        let mut way = Descent::default();
        way.push(Dir::open_root(root).unwrap()).unwrap();
        for _ in 1..depth {
            let last = way.last().unwrap().as_fd();
            sys::mkdirat(last, c"d", Mode::RWXU).unwrap();
            let next = Dir(sys::openat(last, c"d", READ | OFlags::DIRECTORY, Mode::empty()).unwrap());
            way.push(next).unwrap();
        }
        way
    }

    #[test]
    fn it_leads_back_to_the_same_directories() {
        let folder = tempfile::tempdir().unwrap();
        for depth in [1, MOST_OPEN, MOST_OPEN + 1, 4 * MOST_OPEN] {
            let root = folder.path().join(depth.to_string());
            fs::create_dir(&root).unwrap();
            let mut way = chain(&root, depth);
            assert!(way.open.len() <= MOST_OPEN);
            let mut expected = root.clone();
            expected.extend(vec!["d"; depth - 1]);
            for len in (1..depth).rev() {
                expected.pop();
                // Now and then several at once.
                if len % 7 != 0 {
                    way.truncate(len).unwrap();
                    let here = std::os::unix::fs::MetadataExt::ino(&fs::metadata(&expected).unwrap());
                    assert_eq!(identity(way.last().unwrap()).unwrap().1, here, "{depth} {len}");
                    assert_eq!(way.closed.len() + way.open.len(), len);
                }
            }
            way.truncate(0).unwrap();
            assert!(way.last().is_none() && way.closed.is_empty());
        }
    }

    #[test]
    fn a_directory_that_was_moved_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("root");
        fs::create_dir(&root).unwrap();
        let mut way = chain(&root, 2 * MOST_OPEN);
        let mut moved = root.clone();
        moved.extend(vec!["d"; MOST_OPEN / 2]);
        fs::rename(moved, folder.path().join("elsewhere")).unwrap();
        let error = way.truncate(MOST_OPEN / 2).unwrap_err();
        assert!(tree::is_change(&error), "{error}");
        assert!(way.last().is_none());
    }
}
