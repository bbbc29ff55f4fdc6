//! Goes through a directory tree in tree order.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    vec,
};

use rustix::fs::FileType;

use super::{
    access::DirAccess,
    descent::Descent,
    tree::{self, Dir, FileStatus},
};
use crate::workspace::{
    entry::{Content, Entry, Node},
    error::Error,
    path::{self, TreePath},
};

/// A walk through a workspace: the root first, then what it holds, in tree order.
///
/// Sockets are left out, they mean nothing elsewhere. So is `lost+found` in the root, which belongs to the file system.
pub struct Walk {
    access: Arc<DirAccess>,
    root: Option<Dir>,
    /// The directories that it is in.
    way: Descent,
    /// What is known of each of them.
    levels: Vec<Level>,
    /// Whether the last path was a directory, which is then the last of these.
    at_dir: bool,
}

/// A path that the walk came to.
#[derive(Clone, Debug)]
pub struct WalkEntry {
    /// Where.
    pub path: TreePath,
    /// What.
    pub status: FileStatus,
}

struct Level {
    path: TreePath,
    names: vec::IntoIter<Vec<u8>>,
}

impl Walk {
    /// A walk through the directory at `path`.
    pub fn new(path: &Path, access: Arc<DirAccess>) -> Result<Self, Error> {
        let root = Dir::open_root(path).map_err(Error::file(path.display(), "can't be opened"))?;
        Ok(Self { access, root: Some(root), way: Descent::default(), levels: Vec::new(), at_dir: false })
    }

    /// The next path.
    #[allow(clippy::should_implement_trait, reason = "it would hide that `describe` is about the last one")]
    pub fn next(&mut self) -> Option<Result<WalkEntry, Error>> {
        if let Some(root) = self.root.take() {
            return Some(self.enter_root(root).map_err(Error::file(".", "can't be read")));
        }
        loop {
            let level = self.levels.last_mut()?;
            let Some(name) = level.names.next() else {
                self.levels.pop();
                if self.way.truncate(self.levels.len()).is_err() {
                    let above = self.levels.last().map(|level| level.path.clone());
                    return Some(Err(Error::Changed(above.unwrap_or_default())));
                }
                continue;
            };
            let path = level.path.join(&name);
            if path.as_bytes() == b"lost+found" {
                continue;
            }
            if path.as_bytes().len() > path::MAX_LEN {
                return Some(Err(Error::LongPath(path)));
            }
            match self.visit(&name, &path) {
                Ok(found) if found.status.kind == FileType::Socket => {}
                // It was deleted since its directory was read: as if it had been before.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) if tree::is_change(&e) => return Some(Err(Error::Changed(path))),
                result => return Some(result.map_err(Error::file(path, "can't be read"))),
            }
        }
    }

    /// What is kept of the last path that [`Walk::next`] gave. Of a regular file neither content nor extended attributes
    /// are read.
    pub fn describe(&self, found: &WalkEntry) -> Result<Entry, Error> {
        let read = || -> io::Result<Entry> {
            let node = match found.status.kind {
                FileType::Directory => Node::Dir { touched: false },
                FileType::RegularFile => Node::File(Content { size: found.status.size, ..Content::default() }),
                FileType::Symlink => Node::Symlink(tree::read_link(self.parent(), found.path.name())?),
                FileType::Fifo => Node::Fifo,
                FileType::CharacterDevice => Node::Char(found.status.device),
                FileType::BlockDevice => Node::Block(found.status.device),
                _ => return Err(io::Error::other("it has a type that can't be saved")),
            };
            let xattrs = match (&node, self.way.last()) {
                (Node::Dir { .. }, Some(dir)) => tree::xattrs(dir)?,
                _ => Vec::new(),
            };
            Ok(found.status.entry(found.path.clone(), node, xattrs))
        };
        read().map_err(|e| match &e {
            e if tree::is_change(e) => Error::Changed(found.path.clone()),
            _ => Error::file(&found.path, "can't be read")(e),
        })
    }

    /// The open directory that holds the last path.
    #[allow(
        clippy::arithmetic_side_effects,
        clippy::indexing_slicing,
        reason = "there is a last path, so that the root is open, or what is open is below it"
    )]
    pub fn parent(&self) -> BorrowedFd<'_> {
        let open = self.way.open();
        open[open.len() - 1 - usize::from(self.at_dir && open.len() > 1)].as_fd()
    }

    fn visit(&mut self, name: &[u8], path: &TreePath) -> io::Result<WalkEntry> {
        let parent = self.way.last().ok_or(io::ErrorKind::NotFound)?.as_fd();
        let status = tree::status(parent, name)?;
        if status.kind != FileType::Directory {
            self.at_dir = false;
            return Ok(WalkEntry { path: path.clone(), status });
        }
        // Opening may change the mode for a while; what counts is what it was.
        let dir = self.access.dir(parent, name)?;
        self.enter(dir, path.clone())?;
        Ok(WalkEntry { path: path.clone(), status })
    }

    fn enter_root(&mut self, root: Dir) -> io::Result<WalkEntry> {
        let status = tree::status_of(&root)?;
        self.enter(root, TreePath::root())?;
        Ok(WalkEntry { path: TreePath::root(), status })
    }

    fn enter(&mut self, dir: Dir, path: TreePath) -> io::Result<()> {
        let names = dir.names()?.into_iter();
        self.way.push(dir)?;
        self.levels.push(Level { path, names });
        self.at_dir = true;
        Ok(())
    }
}

impl FileStatus {
    /// The entry of `path` with these attributes.
    pub fn entry(&self, path: TreePath, node: Node, xattrs: Vec<(Vec<u8>, Vec<u8>)>) -> Entry {
        Entry { path, node, mode: self.mode, uid: self.uid, gid: self.gid, mtime: self.mtime, xattrs }
    }
}
