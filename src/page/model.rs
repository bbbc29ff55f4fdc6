//! What a page shows: plain data, from which nothing is looked up any more.

use super::tree::ChangeTree;
use crate::{
    digest::Digest,
    inspect::{
        changes::{Amount, Summary},
        holding::Holding,
    },
};

/// A PipelineRun, or one that would be created.
#[derive(Clone, Debug, Default)]
pub struct ShownRun {
    /// Its name.
    pub name: String,
    /// How it is; none for one that was not created.
    pub badge: Option<Badge>,
    /// What else is known of it: a name and a value.
    pub facts: Vec<(&'static str, String)>,
    /// What the reader has to know, a sentence each.
    pub notes: Vec<String>,
    /// In pipeline order.
    pub tasks: Vec<ShownTask>,
    /// The wrapped ones.
    pub workspaces: Vec<ShownWorkspace>,
}

/// How a run or a task is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Badge {
    /// Which of the colours.
    pub tone: Tone,
    /// As Tekton says it.
    pub word: String,
}

/// The colours of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// It was not started (yet).
    #[default]
    Waiting,
    /// It is under way.
    Running,
    /// It ended well.
    Succeeded,
    /// It failed.
    Failed,
}

/// A task of the pipeline.
#[derive(Clone, Debug, Default)]
pub struct ShownTask {
    /// Its name.
    pub name: String,
    /// Whether it is in `finally`.
    pub finally: bool,
    /// The tasks that it waits for itself, by their indexes.
    pub after: Vec<usize>,
    /// What wrapping does to it, for a run that was not created: a name and a sentence.
    pub planned: Vec<(&'static str, String)>,
    /// Its TaskRuns: several if it has a matrix.
    pub runs: Vec<ShownTaskRun>,
    /// What it did with each workspace, of each combination of a matrix.
    pub changes: Vec<ShownChanges>,
}

/// A TaskRun, or why there is none.
#[derive(Clone, Debug)]
pub struct ShownTaskRun {
    /// `build`, or `build[2]` of a matrix.
    pub name: String,
    /// How it is.
    pub badge: Badge,
    /// When it ran; none if it was not started.
    pub times: Option<TaskTimes>,
    /// Why it failed.
    pub failure: Option<String>,
}

/// When something began and ended: milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeSpan {
    /// The beginning.
    pub from: i64,
    /// The end, or the time of the report.
    pub to: i64,
}

/// When a TaskRun was created and ended, and its injected steps with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TaskTimes {
    /// The TaskRun.
    pub whole: TimeSpan,
    /// Its restore step.
    pub restore: Option<TimeSpan>,
    /// Its save step.
    pub save: Option<TimeSpan>,
}

/// What a task did with a workspace.
#[derive(Clone, Debug, Default)]
pub struct ShownChanges {
    /// The task, with the number of its combination.
    pub task: String,
    /// The workspace.
    pub workspace: String,
    /// What it started with; none if nothing is known of it.
    pub restored: Option<Amount>,
    /// What it left; none if it saved nothing.
    pub saved: Option<ShownSave>,
}

/// What a task left.
#[derive(Clone, Debug, Default)]
pub struct ShownSave {
    /// How many layers.
    pub layers: usize,
    /// Their bytes, compressed.
    pub stored: u64,
    /// In numbers.
    pub summary: Summary,
    /// Path by path.
    pub tree: ChangeTree,
}

/// A wrapped workspace, as its target has it.
#[derive(Clone, Debug, Default)]
pub struct ShownWorkspace {
    /// Its name.
    pub name: String,
    /// The target.
    pub image: String,
    /// Digest of its manifest; none if it can't be read.
    pub digest: Option<Digest>,
    /// What it holds.
    pub holding: Holding,
    /// Its layers, the lowest first.
    pub layers: Vec<ShownLayer>,
    /// Paths that parallel tasks left differently: the first ones.
    pub conflicts: Vec<Disagreement>,
    /// How many more there are.
    pub more_conflicts: usize,
    /// What the numbers do not say, or why there are none.
    pub note: Option<String>,
}

/// A layer of the target.
#[derive(Clone, Debug)]
pub struct ShownLayer {
    /// Its digest.
    pub digest: Digest,
    /// Whose it is: a task, the base, or what corrects the others.
    pub of: String,
    /// Its bytes, compressed.
    pub stored: u64,
}

/// A path that two parallel tasks left differently.
#[derive(Clone, Debug)]
pub struct Disagreement {
    /// The path.
    pub path: Vec<u8>,
    /// The earlier task and what it did, the later one, whose result was kept, and what it did.
    pub tasks: [(String, &'static str); 2],
}

impl ShownTask {
    /// How it is: of several TaskRuns, what matters most.
    pub fn badge(&self) -> Option<&Badge> {
        let rank = |state: Tone| match state {
            Tone::Succeeded => 0,
            Tone::Waiting => 1,
            Tone::Running => 2,
            Tone::Failed => 3,
        };
        self.runs.iter().map(|run| &run.badge).max_by_key(|badge| rank(badge.tone))
    }

    /// From the beginning of its first TaskRun to the end of the last one, in milliseconds.
    pub fn duration(&self) -> Option<u64> {
        let spans = || self.runs.iter().filter_map(|run| Some(run.times?.whole));
        let (from, to) = (spans().map(|span| span.from).min()?, spans().map(|span| span.to).max()?);
        Some(TimeSpan { from, to }.length())
    }

    /// What it restored of all workspaces, if that is known.
    pub fn restored(&self) -> Option<Amount> {
        let known = self.changes.iter().filter_map(|changes| changes.restored);
        known.reduce(|a, b| Amount { files: a.files.saturating_add(b.files), bytes: a.bytes.saturating_add(b.bytes) })
    }

    /// What it left: paths that it added or changed with their bytes, the paths that it deleted, and the bytes stored for it.
    pub fn saved(&self) -> Option<(Amount, u64, u64)> {
        let mut all = self.changes.iter().filter_map(|changes| changes.saved.as_ref()).peekable();
        all.peek()?;
        Some(all.fold((Amount::default(), 0, 0), |(kept, deleted, stored), saved| {
            let Summary { added, changed, .. } = saved.summary;
            let files = kept.files.saturating_add(added.files).saturating_add(changed.files);
            let bytes = kept.bytes.saturating_add(added.bytes).saturating_add(changed.bytes);
            let deleted = u64::saturating_add(deleted, saved.summary.deleted.files);
            (Amount { files, bytes }, deleted, u64::saturating_add(stored, saved.stored))
        }))
    }
}

impl TimeSpan {
    /// In milliseconds.
    pub fn length(self) -> u64 {
        u64::try_from(self.to.saturating_sub(self.from)).unwrap_or_default()
    }
}

impl Tone {
    /// Its class in the style sheet.
    pub fn class(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
        }
    }
}
