//! What can go wrong between a directory and a snapshot.

use std::io;

use super::{
    conflict::Conflicts,
    path::{MAX_LEN, TreePath},
};
use crate::{
    digest::Digest,
    globs::InvalidGlob,
    quote::Line,
    step::{ENV, InvalidStepConfig, TooManyCombinations},
    store::StoreError,
    target::InvalidTarget,
};

/// One sentence that names the file, layer, snapshot or task, and what to do if something can be done. Whatever foreign text
/// is in it, it is one line without control characters.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file or directory could not be read, made or changed.
    #[error("{}: {action}: {}", Line(path), Line(&source.to_string()))]
    File {
        /// Which one.
        path: String,
        /// What was tried, as a clause: "can't be read".
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file changed while it was being saved.
    #[error(
        "{0} changed while it was being saved; stop what still writes to the workspace (a sidecar?) before the task ends"
    )]
    Changed(TreePath),
    /// A path that is too long to be stored.
    #[error(
        "{:.200}…: the path has {} bytes, more than the {MAX_LEN} that can be stored; move or delete what is so deep in the workspace",
        .0.to_string(),
        .0.as_bytes().len()
    )]
    LongPath(TreePath),
    /// Something that was stored is not what it has to be.
    #[error("{}: {}", Line(place), Line(problem))]
    Damaged {
        /// The layer, image or file.
        place: String,
        /// What is wrong with it, as a sentence's rest.
        problem: String,
    },
    /// Parallel tasks changed the same paths differently.
    #[error(
        "workspace {workspace:?}: {conflicts}; let one of the tasks run after the other (runAfter), or set the param conflict to \"last\" to keep what the later one in the Pipeline left"
    )]
    Conflict {
        /// Name of the workspace.
        workspace: String,
        /// Which paths, and which tasks.
        conflicts: Conflicts,
    },
    /// A task before this one should have left a snapshot.
    #[error(
        "task {task:?} left no snapshot of workspace {workspace:?} at {}; its save step must have failed, or the snapshot was deleted",
        Line(place)
    )]
    NoSnapshot {
        /// Name of the task.
        task: String,
        /// Name of the workspace.
        workspace: String,
        /// Where it was looked for.
        place: String,
    },
    /// An image that is to be read does not exist.
    #[error("{}: there is no such image", Line(.0))]
    NoImage(String),
    /// The volume of the workspace is too small.
    #[error(
        "{}: its {files} files take {need}, but its volume has room for {free_files} files and {free}; give the volume more room (an emptyDir in memory its sizeLimit, any other one the disk of the node)",
        Line(workspace)
    )]
    NoSpace {
        /// How messages name the workspace.
        workspace: String,
        /// Files that are to be made.
        files: u64,
        /// Their size, for people.
        need: String,
        /// How many more the volume can hold.
        free_files: u64,
        /// Its free bytes, for people.
        free: String,
    },
    /// What names a store can't be parsed.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    /// An injected step was started without its configuration.
    #[error("the environment variable {ENV} is not set; by hand, give {by_hand}")]
    NoStepConfig {
        /// The arguments of the command by hand.
        by_hand: &'static str,
    },
    /// The configuration of an injected step can't be read.
    #[error(transparent)]
    StepConfig(#[from] InvalidStepConfig),
    /// A rule of param `conflict` can't be read.
    #[error("param conflict: {0}")]
    ConflictRule(#[from] InvalidGlob),
    /// A pattern of param `paths` can't be read.
    #[error("param paths: {0}")]
    Paths(InvalidGlob),
    /// A pattern of param `cache` can't be read.
    #[error("param cache: {0}")]
    CacheFiles(InvalidGlob),
    /// A matrix has more combinations than its steps were made for.
    #[error(transparent)]
    Combinations(#[from] TooManyCombinations),
    /// The base image is not the same for all tasks of a run.
    #[error("the base image {} changed during the run, from {from} to {to}; name it by its digest", Line(image))]
    BaseChanged {
        /// The image, as the user wrote it.
        image: String,
        /// Digest of the manifest that one task started from.
        from: Digest,
        /// Digest of the manifest that another one did.
        to: Digest,
    },
    /// Tasks of a run were seen with different snapshots of one and the same task.
    #[error("two different snapshots of task {task:?} are in use in one run; it must have been saved twice")]
    SavedTwice {
        /// Name of the task.
        task: String,
    },
    /// A device in an image that was not saved by the run that restores it.
    #[error("{0} is a device; only the steps of a run restore devices, and only those that the run itself saved")]
    Device(TreePath),
    /// A snapshot that a task started from was replaced while the task ran.
    #[error(
        "the snapshot of task {task:?} changed while this task worked on what it restored: {} was {restored} and is {now}; someone else writes to this repository",
        Line(place)
    )]
    Moved {
        /// Name of the task.
        task: String,
        /// The image, by its tag.
        place: String,
        /// Digest of the manifest that was restored.
        restored: Digest,
        /// Digest of the manifest that is there now.
        now: Digest,
    },
    /// The consumer stopped because of an error of its own. Never shown.
    #[error("stopped")]
    Stopped,
}

impl Error {
    /// [`Error::Damaged`]
    pub fn damaged(place: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Damaged { place: place.into(), problem: problem.into() }
    }

    /// For `map_err`: [`Error::File`] at `path`.
    pub fn file<E: Into<io::Error>>(path: impl ToString, action: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::File { path: path.to_string(), action, source: source.into() }
    }
}
