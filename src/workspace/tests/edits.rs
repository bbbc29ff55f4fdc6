//! Random edits of a real directory tree.

use std::{
    ffi::OsStr,
    fs,
    io::Write,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    path::{Path, PathBuf},
};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use super::seen;

/// What can be done to a tree. Numbers choose among what is there.
#[derive(Clone, Debug)]
pub enum Edit {
    File {
        dir: u16,
        name: u8,
        size: u32,
        fill: u8,
    },
    Dir {
        dir: u16,
        name: u8,
    },
    Symlink {
        dir: u16,
        name: u8,
        target: u8,
    },
    Link {
        file: u16,
        dir: u16,
        name: u8,
    },
    Fifo {
        dir: u16,
        name: u8,
    },
    /// Other content, the same size and mtime.
    Stealth {
        file: u16,
    },
    /// More content, in place.
    Append {
        file: u16,
        fill: u8,
    },
    /// The same content in a new file.
    Copy {
        file: u16,
    },
    Delete {
        path: u16,
    },
    /// A directory becomes a file, anything else a directory.
    Replace {
        path: u16,
    },
    Rename {
        path: u16,
        dir: u16,
        name: u8,
    },
    Chmod {
        path: u16,
        mode: u8,
    },
    Chown {
        path: u16,
        owner: u8,
    },
    Touch {
        path: u16,
        time: i32,
        nsec: u32,
    },
    Xattr {
        path: u16,
        name: bool,
        value: u8,
    },
}

const NAMES: [&[u8]; 16] = [
    b"a",
    b"b",
    b"c",
    b"a-b",
    b"a.b",
    b"ab",
    b".wh.a",
    b".wh..wh..opq",
    b".tekton-wrap.a",
    b"\xff\xfe",
    b" space ",
    b"new\nline",
    "\u{e4}\u{20ac}".as_bytes(),
    b"-rf",
    b"lost+found",
    b"*?[",
];

const MODES: [u32; 10] = [0o644, 0o600, 0o755, 0o777, 0o000, 0o555, 0o400, 0o4755, 0o2750, 0o1777];

pub fn edits(most: usize) -> impl Strategy<Value = Vec<Edit>> {
    let edit = prop_oneof![
        6 => (any::<u16>(), any::<u8>(), 0..200_000_u32, any::<u8>())
            .prop_map(|(dir, name, size, fill)| Edit::File { dir, name, size: size * u32::from(size % 3 == 0) + size % 700, fill }),
        4 => (any::<u16>(), any::<u8>()).prop_map(|(dir, name)| Edit::Dir { dir, name }),
        2 => (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(dir, name, target)| Edit::Symlink { dir, name, target }),
        3 => (any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(file, dir, name)| Edit::Link { file, dir, name }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(dir, name)| Edit::Fifo { dir, name }),
        2 => any::<u16>().prop_map(|file| Edit::Stealth { file }),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(file, fill)| Edit::Append { file, fill }),
        1 => any::<u16>().prop_map(|file| Edit::Copy { file }),
        3 => any::<u16>().prop_map(|path| Edit::Delete { path }),
        1 => any::<u16>().prop_map(|path| Edit::Replace { path }),
        3 => (any::<u16>(), any::<u16>(), any::<u8>()).prop_map(|(path, dir, name)| Edit::Rename { path, dir, name }),
        2 => (any::<u16>(), any::<u8>()).prop_map(|(path, mode)| Edit::Chmod { path, mode }),
        1 => (any::<u16>(), any::<u8>()).prop_map(|(path, owner)| Edit::Chown { path, owner }),
        2 => (any::<u16>(), any::<i32>(), 0..1_000_000_000_u32)
            .prop_map(|(path, time, nsec)| Edit::Touch { path, time, nsec: nsec * (nsec % 2) }),
        1 => (any::<u16>(), any::<bool>(), any::<u8>()).prop_map(|(path, name, value)| Edit::Xattr { path, name, value }),
    ];
    prop::collection::vec(edit, 0..most)
}

/// Does `edits` in `root`, where every directory becomes accessible first; modes are set at the end.
pub fn apply(root: &Path, edits: &[Edit]) {
    seen::open_up(root);
    let mut modes = Vec::new();
    for edit in edits {
        match edit {
            Edit::Chmod { path, mode } => {
                if let Some(path) = choose(paths(root, |_| true), *path).filter(|path| !path.is_symlink()) {
                    modes.push((path, MODES[usize::from(*mode) % MODES.len()]));
                }
            }
            other => one(root, other),
        }
    }
    for (path, mode) in modes.iter().rev() {
        if fs::symlink_metadata(path).is_ok_and(|meta| !meta.is_symlink()) {
            fs::set_permissions(path, fs::Permissions::from_mode(*mode)).unwrap();
        }
    }
}

fn one(root: &Path, edit: &Edit) {
    let dirs = || paths(root, |path| path.is_dir() && !path.is_symlink());
    let files = || paths(root, |path| path.is_file() && !path.is_symlink());
    let free = |dir: u16, name: u8| {
        let dir = choose(dirs(), dir).unwrap_or_else(|| root.to_owned());
        let dir = if u32::from(name) % 3 == 0 { root.to_owned() } else { dir };
        let name = NAMES[usize::from(name) % NAMES.len()];
        let path = dir.join(OsStr::from_bytes(name));
        let reserved = dir == root && name == b"lost+found";
        (!reserved && fs::symlink_metadata(&path).is_err() && path.as_os_str().len() < 3000).then_some(path)
    };
    match edit {
        Edit::File { dir, name, size, fill } => {
            if let Some(path) = free(*dir, *name) {
                fs::write(path, bytes(*size, *fill)).unwrap();
            }
        }
        Edit::Dir { dir, name } => drop(free(*dir, *name).map(|path| fs::create_dir(path).unwrap())),
        Edit::Symlink { dir, name, target } => {
            if let Some(path) = free(*dir, *name) {
                let target = match target % 4 {
                    0 => b"../../etc/passwd".to_vec(),
                    1 => b"/absolute".to_vec(),
                    2 => vec![b't'; 150],
                    _ => NAMES[usize::from(*target) % NAMES.len()].to_vec(),
                };
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), path).unwrap();
            }
        }
        Edit::Link { file, dir, name } => {
            if let (Some(file), Some(path)) = (choose(files(), *file), free(*dir, *name)) {
                fs::hard_link(file, path).unwrap();
            }
        }
        Edit::Fifo { dir, name } => {
            if let Some(path) = free(*dir, *name) {
                rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
            }
        }
        Edit::Stealth { file } => writable(choose(files(), *file), |path| {
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            let changed: Vec<u8> = fs::read(path).unwrap().iter().map(|byte| byte ^ 1).collect();
            let mut file = fs::File::options().write(true).open(path).unwrap();
            file.write_all(&changed).unwrap();
            file.set_modified(modified).unwrap();
        }),
        Edit::Append { file, fill } => writable(choose(files(), *file), |path| {
            fs::File::options().append(true).open(path).unwrap().write_all(&[*fill]).unwrap();
        }),
        Edit::Copy { file } => writable(choose(files(), *file), |path| {
            let meta = fs::metadata(path).unwrap();
            let content = fs::read(path).unwrap();
            fs::remove_file(path).unwrap();
            fs::write(path, content).unwrap();
            fs::set_permissions(path, meta.permissions()).unwrap();
            fs::File::options().write(true).open(path).unwrap().set_modified(meta.modified().unwrap()).unwrap();
        }),
        Edit::Delete { path } => drop(choose(paths(root, |_| true), *path).map(|path| remove(&path))),
        Edit::Replace { path } => match choose(paths(root, |_| true), *path) {
            Some(path) if remove(&path) => fs::write(path, "was a directory").unwrap(),
            Some(path) => fs::create_dir(path).unwrap(),
            None => {}
        },
        Edit::Rename { path, dir, name } => {
            if let (Some(from), Some(to)) = (choose(paths(root, |_| true), *path), free(*dir, *name))
                && !to.starts_with(&from)
            {
                fs::rename(from, to).unwrap();
            }
        }
        Edit::Chown { path, owner } => {
            if let Some(path) = choose(paths(root, |_| true), *path).filter(|_| rustix::process::geteuid().is_root()) {
                let owner = [0, 1000, 1_000_650_000][usize::from(*owner) % 3];
                std::os::unix::fs::lchown(path, Some(owner), Some(owner / 2)).unwrap();
            }
        }
        Edit::Touch { path, time, nsec } => {
            if let Some(path) = choose(paths(root, |_| true), *path) {
                let time = Timespec { tv_sec: i64::from(*time), tv_nsec: i64::from(*nsec) };
                let times = Timestamps { last_access: time, last_modification: time };
                rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            }
        }
        Edit::Xattr { path, name, value } => {
            let real = paths(root, |path| !path.is_symlink() && (path.is_dir() || path.is_file()));
            if let Some(path) = choose(real, *path).filter(|_| rustix::process::geteuid().is_root()) {
                let name = if *name { "user.a" } else { "user.b" };
                let value = vec![*value; usize::from(*value)];
                // Not every file system has them.
                let _ = rustix::fs::lsetxattr(path, name, &value, rustix::fs::XattrFlags::empty());
            }
        }
        Edit::Chmod { .. } => {}
    }
}

/// Removes what is there; true if it was a directory.
fn remove(path: &Path) -> bool {
    let is_dir = path.is_dir() && !path.is_symlink();
    if is_dir { fs::remove_dir_all(path) } else { fs::remove_file(path) }.unwrap();
    is_dir
}

/// Lets `work` write to the file; its mode is then what it was.
fn writable(path: Option<PathBuf>, work: impl FnOnce(&Path)) {
    let Some(path) = path else { return };
    let permissions = fs::metadata(&path).unwrap().permissions();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    work(&path);
    fs::set_permissions(&path, permissions).unwrap();
}

fn bytes(size: u32, fill: u8) -> Vec<u8> {
    (0..size).map(|i| (i / 7) as u8 ^ fill).collect()
}

/// All paths below `root` that are wanted, sorted.
fn paths(root: &Path, wanted: impl Fn(&Path) -> bool + Copy) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root).unwrap() {
        let path = entry.unwrap().path();
        if wanted(&path) {
            found.push(path.clone());
        }
        if path.is_dir() && !path.is_symlink() {
            found.extend(paths(&path, wanted));
        }
    }
    found.sort();
    found
}

fn choose(mut paths: Vec<PathBuf>, number: u16) -> Option<PathBuf> {
    (!paths.is_empty()).then(|| paths.swap_remove(usize::from(number) % paths.len()))
}
