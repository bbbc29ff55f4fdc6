//! Files of this machine: what is to be sent, and what was brought. They are in a folder that goes with the store, below
//! `TMPDIR`.

use std::{
    collections::HashMap,
    env,
    fs::{self, DirBuilder, File, Permissions},
    io::{self, Read},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// What files are stored with, as far as the machine's umask lets it: whoever may enter the folder may read them.
const MODE: u32 = 0o644;

/// See the module.
pub struct Spool {
    folder: PathBuf,
    count: AtomicU64,
    /// What is to be sent, by the name that it has until then.
    kept: Mutex<HashMap<String, SpoolFile>>,
    /// Blobs of which parts were asked for, or their ends.
    parts: Mutex<HashMap<String, SpoolPart>>,
}

/// A file that goes with the last copy of this.
#[derive(Clone)]
pub struct SpoolFile(Arc<Guarded>);

struct Guarded(PathBuf);

/// A file that has what is in the object from `from` on, at the same place, and a hole before it.
struct SpoolPart {
    file: SpoolFile,
    from: u64,
}

impl Spool {
    /// An empty one.
    pub fn new() -> io::Result<Self> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let parent = env::temp_dir();
        let folder = loop {
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let folder = parent.join(format!("tekton-wrap-rsync-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&folder) {
                Ok(()) => break folder,
                // Left by a process of the same number that was killed.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        Ok(Self { folder, count: AtomicU64::new(0), kept: Mutex::default(), parts: Mutex::default() })
    }

    /// Where its files are.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// A path that nothing is at.
    pub fn path(&self) -> PathBuf {
        self.folder.join(self.count.fetch_add(1, Ordering::Relaxed).to_string())
    }

    /// A new folder.
    pub fn make_folder(&self) -> io::Result<PathBuf> {
        let path = self.path();
        fs::create_dir(&path)?;
        Ok(path)
    }

    /// A file with what `content` brings.
    pub fn write(&self, content: &mut dyn Read) -> io::Result<SpoolFile> {
        let (file, mut open) = self.create()?;
        io::copy(content, &mut open)?;
        Ok(file)
    }

    /// A file of `size` bytes that takes no room.
    pub fn empty(&self, size: u64) -> io::Result<SpoolFile> {
        let (file, open) = self.create()?;
        open.set_len(size)?;
        Ok(file)
    }

    fn create(&self) -> io::Result<(SpoolFile, File)> {
        let file = SpoolFile(Guarded(self.path()).into());
        let open = File::create_new(file.path())?;
        open.set_permissions(Permissions::from_mode(MODE))?;
        Ok((file, open))
    }

    /// Keeps a file until it is forgotten.
    pub fn keep(&self, name: &str, file: SpoolFile) {
        lock(&self.kept).insert(name.to_owned(), file);
    }

    /// The file that is kept under the name.
    pub fn kept(&self, name: &str) -> Option<SpoolFile> {
        lock(&self.kept).get(name).cloned()
    }

    /// False if none is.
    pub fn forget(&self, name: &str) -> bool {
        lock(&self.kept).remove(name).is_some()
    }

    /// Whether a part of the object is here.
    pub fn has_part(&self, key: &str) -> bool {
        lock(&self.parts).contains_key(key)
    }

    /// A file that has what is in the object from `offset` on, if one is here; not any more if it is for the `last` use.
    pub fn get(&self, key: &str, offset: u64, last: bool) -> io::Result<Option<File>> {
        let mut parts = lock(&self.parts);
        let file = match parts.get(key) {
            Some(part) if part.from <= offset => Some(File::open(part.file.path())?),
            _ => None,
        };
        if last {
            parts.remove(key);
        }
        Ok(file)
    }

    /// Opens a file that has what is in the object from `from` on. One that is not kept is gone when it is closed.
    pub fn adopt(&self, key: &str, path: PathBuf, from: u64, keeps: bool) -> io::Result<File> {
        let file = SpoolFile(Guarded(path).into());
        let open = File::open(file.path())?;
        if keeps {
            lock(&self.parts).insert(key.to_owned(), SpoolPart { file, from });
        }
        Ok(open)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        // An error of the clean-up is ignored.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl SpoolFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays() {
        let spool = Spool::new().unwrap();
        let folder = spool.folder().to_owned();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
        let file = spool.write(&mut &b"content"[..]).unwrap();
        let path = file.path().to_owned();
        spool.keep("tmp/a", file);
        assert_eq!(fs::read(spool.kept("tmp/a").unwrap().path()).unwrap(), b"content");
        assert!(spool.forget("tmp/a") && !spool.forget("tmp/a"));
        assert!(!path.exists());
        assert_eq!(fs::metadata(spool.empty(1 << 40).unwrap().path()).unwrap().len(), 1 << 40);
        drop(spool);
        assert!(!folder.exists());
    }

    #[test]
    fn parts() {
        let spool = Spool::new().unwrap();
        let part = |text: &str| {
            let path = spool.path();
            fs::write(&path, text).unwrap();
            path
        };
        spool.adopt("a", part("....end"), 4, true).unwrap();
        assert!(spool.has_part("a") && !spool.has_part("b"));
        assert!(spool.get("a", 3, false).unwrap().is_none(), "it begins later");
        assert!(spool.get("a", 5, false).unwrap().is_some());
        assert!(spool.get("a", 4, true).unwrap().is_some() && !spool.has_part("a"));
        spool.adopt("a", part("whole"), 0, false).unwrap();
        assert!(!spool.has_part("a"));
        assert_eq!(fs::read_dir(spool.folder()).unwrap().count(), 0);
    }
}
