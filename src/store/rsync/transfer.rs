//! What runs send, bring, look for and delete.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    slice,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    arriving::ArrivingFile,
    batch::Batches,
    listing::{self, ListedFile},
    process::RsyncProcess,
    run::{RunEnd, RunExit},
    spool::{Spool, SpoolFile},
};
use crate::{
    store::{
        StoreError, StoreOptions,
        layout::{FoundObject, ListedObject},
    },
    target::RsyncPlace,
};

/// Some files were not transferred, for reasons that are said (rsync(1), "EXIT VALUES").
const PARTIAL: RunExit = RunExit::Code(23);

/// Some were not there any more when it was their turn.
const VANISHED: RunExit = RunExit::Code(24);

/// Runs that make the same folders at the same moment get in each other's way once for each of them.
const TRIES: usize = 8;

/// Of an object, or of what it lies in.
const NOT_THERE: &str = "No such file or directory (2)";

/// Whoever may enter the folder may read what is in it, as far as the machine's umask lets them; whatever the umask is here.
const CHMOD: &str = "--chmod=D755,F644";

/// What came of a run; several callers may have shared it.
type RunResult<T> = Result<T, Arc<RunEnd>>;

/// See the module.
pub struct Transfer {
    pub process: Arc<RsyncProcess>,
    pub spool: Spool,
    finds: Batches<String, RunResult<Option<FoundObject>>>,
    brings: Batches<String, RunResult<Option<PathBuf>>>,
    ends: Batches<(String, u64), RunResult<Option<PathBuf>>>,
    blobs: Batches<(String, SpoolFile), RunResult<()>>,
    /// Whether the folder has to be made with those that it lies in.
    makes_path: AtomicBool,
}

/// What becomes of an object that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectKind {
    /// It stays if it has the same size, and becomes young.
    Blob,
    /// It is replaced.
    Tag,
}

impl Transfer {
    pub fn new(place: &RsyncPlace, options: &StoreOptions) -> Result<Self, StoreError> {
        let spool = Spool::new().map_err(|source| {
            let place = std::env::temp_dir().display().to_string();
            StoreError::Io { place: format!("{place} (TMPDIR names another folder for files on their way)"), source }
        })?;
        let process = Arc::new(RsyncProcess::new(place, options, spool.folder()));
        Ok(Self {
            process,
            spool,
            finds: Batches::default(),
            brings: Batches::default(),
            ends: Batches::default(),
            blobs: Batches::default(),
            makes_path: AtomicBool::new(false),
        })
    }

    /// The object, if it is there.
    pub fn find(&self, key: &str) -> RunResult<Option<FoundObject>> {
        self.finds.submit(key.to_owned(), |keys| match self.find_all(keys) {
            Ok(mut found) => keys.iter().map(|key| Ok(found.remove(key))).collect(),
            Err(ended) => keys.iter().map(|_| Err(ended.clone())).collect(),
        })
    }

    /// Those of the objects that are there.
    pub fn find_all(&self, keys: &[String]) -> RunResult<HashMap<String, FoundObject>> {
        if keys.is_empty() {
            return Ok(HashMap::new());
        }
        let ended = self.process.pull(&["--list-only", "--relative"], &each(keys), self.spool.folder());
        let found = |listed: ListedFile| (listed.name, FoundObject { size: listed.size, modified: listed.modified });
        let found: HashMap<String, FoundObject> = listing::parse(&ended.stdout).map(found).collect();
        let is_answered = |key: &String| ended.is_ok() || found.contains_key(key) || is_absent(&ended, key);
        if keys.iter().all(is_answered) { Ok(found) } else { Err(ended.into()) }
    }

    /// All objects whose keys begin with `prefix`, which ends with a slash.
    pub fn list(&self, prefix: &str) -> RunResult<Vec<ListedObject>> {
        let options = ["--recursive", "--list-only"];
        let ended = self.process.pull(&options, &[prefix.to_owned()], self.spool.folder());
        // What vanishes meanwhile is not there.
        if !ended.is_ok() && ended.how != VANISHED && !is_absent(&ended, prefix) {
            return Err(ended.into());
        }
        let entry = |ListedFile { name, modified, version, .. }: ListedFile| ListedObject {
            key: format!("{prefix}{name}"),
            modified,
            version,
        };
        Ok(listing::parse(&ended.stdout).map(entry).collect())
    }

    /// A file with the content of the object, if that is there.
    pub fn bring(&self, key: &str) -> RunResult<Option<PathBuf>> {
        self.brings.submit(key.to_owned(), |keys| self.bring_all(keys))
    }

    fn bring_all(&self, keys: &[String]) -> Vec<RunResult<Option<PathBuf>>> {
        let folder = match self.spool.make_folder() {
            Ok(folder) => folder,
            Err(error) => return all_failed(keys.len(), &not_begun(error)),
        };
        // What came of a file when a run broke off is where the next run finds it.
        let partial = format!("--partial-dir={}", self.spool.folder().join("partial").display());
        let options = ["--relative", "--chmod=D700,F600", &partial];
        let ended = Arc::new(self.process.pull(&options, &each(keys), &folder));
        let arrived = |key: &String| -> RunResult<Option<PathBuf>> {
            match self.take_out(&folder.join(key)) {
                // A file has its name only when it is complete.
                Ok(path) => Ok(Some(path)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_absent(&ended, key) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ended.clone()),
                Err(error) => Err(not_begun(error)),
            }
        };
        let brought = keys.iter().map(arrived).collect();
        let _ = fs::remove_dir_all(&folder);
        brought
    }

    /// What is in the object from `from` on, while it comes; none if the object is not there.
    pub fn follow(&self, key: &str, from: u64) -> RunResult<Option<ArrivingFile>> {
        let file = self.spool.empty(from).map_err(not_begun)?;
        let mut open = File::open(file.path()).map_err(not_begun)?;
        open.seek(SeekFrom::Start(from)).map_err(not_begun)?;
        // How long the object is, in a line of its own, before its content comes.
        let run = self.process.begin_pull(&["--append", "--out-format=%l", "--outbuf=L"], key, file.path());
        let len = match run.first_line() {
            Ok(line) => str::from_utf8(&line).ok().and_then(|line| line.trim().parse().ok()),
            // An empty object, or one that ends where this begins, has nothing to come.
            Err(ended) if ended.is_ok() => Some(from),
            Err(ended) if is_absent(&ended, key) => return Ok(None),
            Err(ended) => return Err(ended),
        };
        let Some(len) = len else { return Err(not_begun(io::Error::other("rsync did not say how long a file is"))) };
        Ok(Some(ArrivingFile::new(file, open, u64::saturating_sub(len, from), run)))
    }

    /// A file with what is in the object from `from` on, at the same place behind a hole; none if the object is not there.
    pub fn bring_end(&self, key: &str, from: u64) -> RunResult<Option<PathBuf>> {
        self.ends.submit((key.to_owned(), from), |ends| match self.bring_ends(ends) {
            Ok(brought) => brought.into_iter().map(Ok).collect(),
            // Which of them it was is not said in a way that a program could read.
            Err(ended) if ended.how == PARTIAL && ends.len() > 1 => {
                let alone = |end| Ok(self.bring_ends(slice::from_ref(end))?.pop().flatten());
                ends.iter().map(alone).collect()
            }
            Err(ended) => all_failed(ends.len(), &ended),
        })
    }

    /// Where a file is to be appended to, what it has is taken for the beginning of the other one without a look at it.
    fn bring_ends(&self, ends: &[(String, u64)]) -> RunResult<Vec<Option<PathBuf>>> {
        let mut holes = BTreeMap::new();
        for (key, from) in ends {
            let hole = holes.entry(key.clone()).or_insert(*from);
            *hole = (*from).min(*hole);
        }
        let folder = self.spool.make_folder().map_err(not_begun)?;
        let staged = holes.iter().try_for_each(|(key, from)| stage(&folder, key, &self.spool.empty(*from)?));
        let brought = staged.map_err(not_begun).and_then(|()| {
            let keys: Vec<String> = holes.into_keys().collect();
            let ended = self.process.pull(&["--relative", "--append"], &each(&keys), &folder);
            // One that was broken off looks like one that is whole, unless nothing went wrong but that others are not there.
            let lacks_some = ended.how == PARTIAL && all_say(&ended, NOT_THERE);
            let lacks_all = keys.iter().all(|key| is_absent(&ended, key));
            if !ended.is_ok() && !lacks_some && !lacks_all {
                return Err(ended.into());
            }
            let is_there = |key: &String| !is_absent(&ended, key);
            let take_out = |key: &String| self.take_out(&folder.join(key)).map_err(not_begun);
            ends.iter().map(|(key, _)| is_there(key).then(|| take_out(key)).transpose()).collect()
        });
        let _ = fs::remove_dir_all(&folder);
        brought
    }

    /// Gives a file of a folder that goes another name. It may have several: two callers may want the same object.
    fn take_out(&self, file: &Path) -> io::Result<PathBuf> {
        let path = self.spool.path();
        fs::hard_link(file, &path)?;
        Ok(path)
    }

    /// Stores a file as the object.
    pub fn send(&self, kind: ObjectKind, key: &str, file: &SpoolFile) -> RunResult<()> {
        match kind {
            ObjectKind::Tag => self.replace(&[(key.to_owned(), file.clone())]),
            ObjectKind::Blob => self.blobs.submit((key.to_owned(), file.clone()), |files| {
                match self.send_all(kind, files) {
                    Ok(()) => files.iter().map(|_| Ok(())).collect(),
                    // Which of them it was is not said in a way that a program could read.
                    Err(ended) if ended.how == PARTIAL && files.len() > 1 => {
                        files.iter().map(|file| self.send_all(kind, slice::from_ref(file))).collect()
                    }
                    Err(ended) => files.iter().map(|_| Err(ended.clone())).collect(),
                }
            }),
        }
    }

    /// Stores files as the objects in one run, whatever was there.
    pub fn replace(&self, files: &[(String, SpoolFile)]) -> RunResult<()> {
        self.send_all(ObjectKind::Tag, files)
    }

    fn send_all(&self, kind: ObjectKind, files: &[(String, SpoolFile)]) -> RunResult<()> {
        let ended = self.push_files(
            files,
            match kind {
                // The times are ours, so that one that is there becomes young.
                ObjectKind::Blob => &["--size-only", "--times", "--omit-dir-times", "--partial-dir=.partial", CHMOD],
                ObjectKind::Tag => &["--ignore-times", CHMOD],
            },
        )?;
        // One that somebody else stored can't be made young by us; it is there.
        let is_there = kind == ObjectKind::Blob && ended.how == PARTIAL && all_say(&ended, "failed to set times on");
        if ended.is_ok() || is_there { Ok(()) } else { Err(ended.into()) }
    }

    /// Makes the object as young as `file`, which has its size and nothing else of it.
    pub fn touch(&self, key: &str, file: &SpoolFile) -> RunResult<()> {
        let options = ["--size-only", "--times", "--omit-dir-times", "--existing"];
        let ended = self.push_files(&[(key.to_owned(), file.clone())], &options)?;
        if ended.is_ok() || ended.how == PARTIAL { Ok(()) } else { Err(ended.into()) }
    }

    /// Deletes the objects; how many of them were there.
    pub fn delete(&self, keys: &[String]) -> RunResult<usize> {
        let folders: BTreeSet<&str> = keys.iter().filter_map(|key| Some(key.rsplit_once('/')?.0)).collect();
        let mut count = 0_usize;
        for folder in folders {
            let names = keys.iter().filter_map(|key| key.strip_prefix(folder)?.strip_prefix('/'));
            // What could be a pattern is none of ours.
            let names = names.filter(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c)));
            let patterns: Vec<String> = names.map(|name| format!("/{name}")).collect();
            count = count.saturating_add(self.delete_in(folder, &patterns)?);
        }
        Ok(count)
    }

    /// What is not in an empty folder here is deleted there, except for what is excluded.
    fn delete_in(&self, folder: &str, patterns: &[String]) -> RunResult<usize> {
        let (patterns, empty) = (self.names(patterns)?, self.spool.make_folder().map_err(not_begun)?);
        let include = from_file("include-from", patterns.path());
        let options = ["--recursive", "--delete", "--existing", "--itemize-changes", &include, "--exclude=*"];
        let ended = self.process.push(&options, &empty, &format!("{folder}/"));
        let _ = fs::remove_dir(&empty);
        if !ended.is_ok() && !lacks_path(&ended) {
            return Err(ended.into());
        }
        let lines = ended.stdout.split(|byte| *byte == b'\n');
        Ok(lines.filter(|line| line.starts_with(b"*deleting")).count())
    }

    /// Sends files that are each where `files` say.
    fn push_files(&self, files: &[(String, SpoolFile)], options: &[&str]) -> RunResult<RunEnd> {
        let folder = self.spool.make_folder().map_err(not_begun)?;
        let staged = files.iter().try_for_each(|(key, file)| stage(&folder, key, file));
        let run = |mkpath: bool| {
            let mkpath = if mkpath { &["--mkpath"][..] } else { &[] };
            let more = [&["--recursive"][..], options, mkpath].concat();
            let mut ended = self.process.push(&more, &folder, "");
            for _ in 1..TRIES {
                if !was_made_meanwhile(&ended) {
                    break;
                }
                ended = self.process.push(&more, &folder, "");
            }
            ended
        };
        let pushed = staged.map_err(not_begun).map(|()| {
            let ended = run(self.makes_path.load(Ordering::Relaxed));
            if ended.is_ok() || !lacks_path(&ended) {
                return ended;
            }
            self.makes_path.store(true, Ordering::Relaxed);
            run(true)
        });
        let _ = fs::remove_dir_all(&folder);
        pushed
    }

    /// A file with a line for each.
    fn names(&self, names: &[String]) -> RunResult<SpoolFile> {
        let text: String = names.iter().map(|name| format!("{name}\n")).collect();
        self.spool.write(&mut text.as_bytes()).map_err(not_begun)
    }
}

/// Gives a file its place in a folder that is sent as it is, or that is written to.
fn stage(folder: &Path, key: &str, file: &SpoolFile) -> io::Result<()> {
    let path = folder.join(key);
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    match fs::hard_link(file.path(), path) {
        // Two that store one blob.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        linked => linked,
    }
}

fn from_file(option: &str, file: &Path) -> String {
    format!("--{option}={}", file.display())
}

/// A file of this machine can't be used.
fn not_begun(error: io::Error) -> Arc<RunEnd> {
    RunEnd::not_begun(RunExit::NoSpool(error.to_string())).into()
}

fn all_failed<T>(count: usize, ended: &Arc<RunEnd>) -> Vec<RunResult<T>> {
    (0..count).map(|_| Err(ended.clone())).collect()
}

/// Where the objects are, so that they come with the names that stand behind the dot.
///
/// A list of names (`--files-from`) would be shorter, but rsync 3.5.0 takes all files of one below a module for vanished.
fn each(keys: &[String]) -> Vec<String> {
    keys.iter().map(|key| format!("./{key}")).collect()
}

/// Whether it was said that the object is not there, or that nothing is.
fn is_absent(ended: &RunEnd, key: &str) -> bool {
    let is_about = |line: &str| line.contains("change_dir ") || line.contains(&format!("/{key}\""));
    ended.complaints().any(|line| line.contains(NOT_THERE) && is_about(line))
}

/// Whether nothing is said but that, the last line aside, which is about the exit code.
fn all_say(ended: &RunEnd, what: &str) -> bool {
    let mut lines = ended.complaints().filter(|line| !line.starts_with("rsync error: ")).peekable();
    lines.peek().is_some() && lines.all(|line| line.contains(what))
}

/// Whether a folder can't be made for want of the one that it lies in.
fn lacks_path(ended: &RunEnd) -> bool {
    ended.complaints().any(|line| line.contains("mkdir ") && line.contains(NOT_THERE))
}

/// Whether another run made a folder between the look for it and the attempt to make it.
fn was_made_meanwhile(ended: &RunEnd) -> bool {
    ended.complaints().any(|line| line.contains("mkdir ") && line.contains("File exists (17)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, stderr: &str) -> RunEnd {
        RunEnd { how: RunExit::Code(code), stdout: Vec::new(), stderr: stderr.to_owned(), searched: String::new() }
    }

    #[test]
    fn what_is_not_there() {
        let said = "rsync: [sender] link_stat \"/a/blobs/sha256/ab\" (in m) failed: No such file or directory (2)\n\
                    rsync: [sender] send_files failed to open \"/a/blobs/sha256/cd\" (in m): Permission denied (13)\n\
                    rsync error: some files/attrs were not transferred (see previous errors) (code 23) at main.c(1865)\n";
        let said = ended(23, said);
        for (key, absent) in [("blobs/sha256/ab", true), ("blobs/sha256/cd", false), ("blobs/sha256/a", false)] {
            assert_eq!(is_absent(&said, key), absent, "{key}");
        }
        let folder = "rsync: [sender] change_dir \"a\" (in m) failed: No such file or directory (2)\n\
                      rsync: [Receiver] read error: Connection reset by peer (104)\n";
        assert!(is_absent(&ended(12, folder), "blobs/sha256/ab"));
        assert!(!is_absent(&ended(12, "rsync: connection unexpectedly closed\n"), "blobs/sha256/ab"));
    }

    #[test]
    fn a_folder_that_lacks_the_one_above() {
        let mkdir = "rsync: [Receiver] mkdir \"/a/b\" (in m) failed: No such file or directory (2)\n";
        assert!(lacks_path(&ended(11, mkdir)));
        assert!(!lacks_path(&ended(11, "rsync: [Receiver] mkdir \"/a\" failed: Permission denied (13)\n")));
    }

    #[test]
    fn a_folder_that_two_runs_make() {
        let mkdir = "rsync: [Receiver] mkdir \"test/repo\" (in ci) failed: File exists (17)\n";
        assert!(was_made_meanwhile(&ended(11, mkdir)));
        assert!(!was_made_meanwhile(&ended(11, "rsync: [Receiver] mkdir \"/a\" failed: Permission denied (13)\n")));
        assert!(!was_made_meanwhile(&ended(0, "")));
    }
}
