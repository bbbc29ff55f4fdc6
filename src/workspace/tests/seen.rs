//! A directory tree as the standard library sees it, to be compared.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::{
        ffi::{OsStrExt, OsStringExt},
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::{Path, PathBuf},
};

/// Everything that must be the same after a round trip, by path.
pub type Seen = BTreeMap<PathBuf, Item>;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    pub kind: &'static str,
    pub mode: u32,
    /// Owner and group, where they can be restored.
    pub owner: Option<(u32, u32)>,
    pub mtime: (i64, i64),
    /// Bytes of a file, or the target of a link.
    pub content: Vec<u8>,
    /// All names of the file.
    pub names: BTreeSet<PathBuf>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The names of each regular file, by device and inode.
pub type Files = BTreeMap<(u64, u64), BTreeSet<PathBuf>>;

/// What is in `root`; of the root itself only the mtime.
pub fn see(root: &Path) -> Seen {
    see_files(root).0
}

/// What is in `root`, and which names are of which file.
pub fn see_files(root: &Path) -> (Seen, Files) {
    let mut seen = Seen::new();
    let mut files = Files::new();
    visit(root, Path::new(""), &mut seen, &mut files);
    for names in files.values() {
        for name in names {
            seen.get_mut(name).unwrap().names = names.clone();
        }
    }
    (seen, files)
}

/// Contents alone: paths with what they are and hold.
pub fn contents(root: &Path) -> BTreeMap<PathBuf, (&'static str, Vec<u8>)> {
    see(root).into_iter().map(|(path, item)| (path, (item.kind, item.content))).collect()
}

/// Makes all directories below `root` accessible, for good.
pub fn open_up(root: &Path) {
    let meta = fs::symlink_metadata(root).unwrap();
    if meta.is_dir() {
        if meta.mode() & 0o700 != 0o700 {
            fs::set_permissions(root, fs::Permissions::from_mode(meta.mode() & 0o7777 | 0o700)).unwrap();
        }
        for entry in fs::read_dir(root).unwrap() {
            open_up(&entry.unwrap().path());
        }
    }
}

fn visit(root: &Path, path: &Path, seen: &mut Seen, names: &mut Files) {
    let full = root.join(path);
    let meta = fs::symlink_metadata(&full).unwrap();
    let kind = meta.file_type();
    let mut item = Item {
        kind: "",
        mode: meta.mode() & 0o7777,
        owner: rustix::process::geteuid().is_root().then_some((meta.uid(), meta.gid())),
        mtime: (meta.mtime(), meta.mtime_nsec()),
        content: Vec::new(),
        names: BTreeSet::new(),
        xattrs: Vec::new(),
    };
    if kind.is_dir() || kind.is_file() {
        item.xattrs = with_access(&full, &meta, || Ok(xattrs(&full))).unwrap();
    }
    if kind.is_dir() {
        item.kind = "dir";
        let children = with_access(&full, &meta, || {
            let mut children: Vec<PathBuf> = fs::read_dir(&full)?.map(|e| path.join(e.unwrap().file_name())).collect();
            children.sort();
            children.iter().for_each(|child| visit(root, child, seen, names));
            Ok(())
        });
        children.unwrap();
    } else if kind.is_file() {
        item.kind = "file";
        item.content = with_access(&full, &meta, || fs::read(&full)).unwrap();
        names.entry((meta.dev(), meta.ino())).or_default().insert(path.to_owned());
    } else if kind.is_symlink() {
        item.kind = "symlink";
        item.mode = 0;
        item.content = fs::read_link(&full).unwrap().into_os_string().into_vec();
    } else if kind.is_fifo() {
        item.kind = "fifo";
    } else {
        item.kind = "other";
    }
    if path.as_os_str().is_empty() {
        (item.mode, item.owner) = (0, None);
    }
    seen.insert(path.to_owned(), item);
}

fn with_access<T>(path: &Path, meta: &fs::Metadata, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let wanted = if meta.is_dir() { 0o700 } else { 0o400 };
    if meta.mode() & wanted == wanted || rustix::process::geteuid().is_root() {
        return work();
    }
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777 | wanted))?;
    let result = work();
    fs::set_permissions(path, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
    result
}

fn xattrs(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut list = vec![0; 64 * 1024];
    let Ok(len) = rustix::fs::llistxattr(path, &mut list[..]) else { return Vec::new() };
    let names = list[..len].split(|&b| b == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 64 * 1024];
        let len = rustix::fs::lgetxattr(path, std::ffi::OsStr::from_bytes(name), &mut value[..]).unwrap();
        value[..len].to_vec()
    };
    let mut xattrs: Vec<_> = names.map(|name| (name.to_vec(), value(name))).collect();
    xattrs.sort();
    xattrs
}
