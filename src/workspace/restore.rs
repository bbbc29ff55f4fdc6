//! Makes a workspace from the snapshots of the tasks before, straight into place.
//!
//! | module | its one concept |
//! |---|---|
//! | [`prepare`] | what is made of each path: directories at once, everything else by the layer that has it |
//! | [`layer`] | makes what one layer has |
//! | [`record`] | the baseline, of what is there then |

mod layer;
mod prepare;
mod record;

use std::{
    cmp::Reverse,
    collections::BTreeSet,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    base::{self, Made},
    baseline::BaselineWriter,
    cache::{find::CacheFinder, found::Caches},
    conflict::{ConflictPolicy, report_settled},
    error::Error,
    files::{extract::Extractor, mounts::MountPoints, space::Space, space::least},
    layer::toc::Toc,
    progress::{Phase, Progress},
    selection::{Choice, LeftOut, Selection},
    snapshot::{
        image,
        lineage::{Input, Lineage},
        load,
        view::View,
    },
    threads,
};
use crate::store::Store;

/// How long a kernel may take to give a later change another ctime: a tick where time stamps are coarse (Linux before
/// 6.13; the slowest clock has 100 ticks a second).
const TICK: Duration = Duration::from_millis(12);

/// How a workspace is restored, beside what it is made of.
#[derive(Clone, Debug)]
pub struct RestoreOptions<'a> {
    /// Where the baseline is written, if anywhere.
    pub baseline: Option<&'a Path>,
    /// How conflicts end.
    pub policy: ConflictPolicy,
    /// What is restored.
    pub selection: Selection,
    /// Where other containers have something mounted.
    pub mounts: Arc<MountPoints>,
}

/// What a restore did.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Restored {
    /// Everything that is no directory, by name.
    pub files: u64,
    /// Bytes of regular files, of hard links once.
    pub bytes: u64,
    /// Layers that were read.
    pub layers: usize,
    /// Tasks that these are of, as far as the layers say.
    pub tasks: usize,
    /// Files that were written without setuid, setgid or capabilities, because not the run itself restores them.
    pub stripped: u64,
    /// What was left out.
    pub left_out: LeftOut,
    /// How long it took.
    pub time: Duration,
}

impl<'a> RestoreOptions<'a> {
    /// Everything, with conflicts told apart by `policy`.
    pub fn whole(policy: ConflictPolicy, baseline: Option<&'a Path>) -> Self {
        Self { baseline, policy, selection: Selection::default(), mounts: Arc::default() }
    }
}

/// What is made: the input of a task, and the caches on top of it.
struct Whole<'a> {
    input: Input,
    tocs: &'a [Toc],
    view: &'a View<'a>,
    /// How many of the writers are those of the input; the others are of caches.
    own_writers: usize,
    caches: &'a Caches<'a>,
}

/// Why files can't be made.
enum RestoreFailure {
    /// Because of a cache, by its place: without it they can be.
    Cache(usize, Error),
    Other(Error),
}

impl From<Error> for RestoreFailure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

/// Makes what `input` says in the directory `root`. `store` has the layers. `finder` says which caches are added.
pub fn restore(
    store: &dyn Store,
    input: &Input,
    root: &Path,
    options: &RestoreOptions<'_>,
    finder: Option<&mut CacheFinder<'_>>,
    progress: &Progress,
) -> Result<Restored, Error> {
    let start = Instant::now();
    let lineage = &input.lineage;
    let space = Space::of(root)?;
    let mut restored = Restored::default();
    let tocs = load::tocs(store, lineage)?;
    // The verdict comes before anything is made. The base has no say in it: it is an ancestor of every task.
    let mut view = View::judged(lineage, None, &tocs, Some(&options.policy))?;
    if view.conflicts.count > 0 {
        return Err(Error::Conflict { workspace: progress.workspace().to_owned(), conflicts: view.conflicts });
    }
    report_settled(progress.workspace(), &view.settled);
    let base = restore_base(lineage, root, options, &space, progress, &mut restored)?;
    if base.is_some() {
        view = View::new(lineage, base.as_ref(), &tocs)?;
    }
    let mut caches = finder.map_or_else(|| Ok(Caches::default()), |finder| finder.find(&view))?;
    let made = loop {
        let (input, tocs) = caches.on_top_of(input, &tocs);
        let with_caches = caches.last().map(|_| View::new(&input.lineage, base.as_ref(), &tocs)).transpose()?;
        let view = with_caches.as_ref().unwrap_or(&view);
        let whole = Whole { input, tocs: &tocs, view, own_writers: lineage.writers.len(), caches: &caches };
        match whole.make(store, root, options, &space, progress) {
            Ok(made) => break made,
            Err(RestoreFailure::Other(error)) => return Err(error),
            Err(RestoreFailure::Cache(place, error)) => {
                let mut extractor = Extractor::new(root)?.around(&options.mounts);
                caches.leave_out(place, &error).iter().try_for_each(|path| extractor.remove(path))?;
            }
        }
    };
    caches.report();
    restored.layers = restored.layers.saturating_add(made.layers);
    restored.tasks = made.tasks;
    restored.left_out = made.left_out;
    restored.add(Made { files: made.files, bytes: made.bytes, stripped: made.stripped });
    restored.time = start.elapsed();
    Ok(restored)
}

impl Whole<'_> {
    /// Makes everything but the base, which is there, and writes the baseline.
    fn make(
        &self,
        store: &dyn Store,
        root: &Path,
        options: &RestoreOptions<'_>,
        space: &Space,
        progress: &Progress,
    ) -> Result<Restored, RestoreFailure> {
        let &Self { ref input, tocs, view, own_writers, caches } = self;
        let lineage = &input.lineage;
        progress.begin(Phase::Files);
        let is_run = lineage.origin.is_none();
        let choice = Choice::new(&options.selection, view)?;
        let extractor = |is_own| {
            let extractor = Extractor::new(root)?.keeping_privileges(is_run && is_own);
            Ok::<_, Error>(extractor.around(&options.mounts))
        };
        let winners = prepare::prepare(view, &choice, extractor(true)?, tocs.len().saturating_add(1), is_run)?;
        // The first ones are those of the base.
        let own = winners.get(1..).unwrap_or_default();
        let layers = lineage.layers().zip(tocs).zip(own).filter(|(_, winners)| winners.files > 0);
        let mut layers: Vec<_> = layers.collect();
        // So that no thread begins a large one when the others are done.
        layers.sort_by_key(|(((_, layer), _), _)| Reverse(layer.size));
        let needed = layers.iter().map(|(((_, layer), _), winners)| least(winners.bytes, layer.size));
        let (files, bytes) =
            (sum(own.iter().map(|winners| winners.files)), sum(own.iter().map(|winners| winners.bytes)));
        space.check(progress.workspace(), files, sum(needed)).map_err(|error| match caches.last() {
            Some(last) => RestoreFailure::Cache(last, error),
            None => RestoreFailure::Other(error),
        })?;
        progress.expect(files, bytes);
        let broken = Mutex::new(None);
        let made = threads::for_each(&layers, |_, &(((writer, layer), toc), winners)| {
            let cache = writer.checked_sub(own_writers).and_then(|place| caches.of_writer(place));
            let Some((place, store)) = cache else {
                return layer::extract(store, layer, toc, winners, &|| extractor(true), progress);
            };
            layer::extract(store, layer, toc, winners, &|| extractor(false), progress).map_err(|error| {
                broken.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((place, error));
                Error::Stopped
            })
        });
        let broken = broken.into_inner().unwrap_or_else(PoisonError::into_inner);
        let made = match (made, broken) {
            (Err(Error::Stopped), Some((place, error))) => return Err(RestoreFailure::Cache(place, error)),
            (made, _) => made?,
        };
        let tasks: BTreeSet<&String> =
            layers.iter().filter_map(|(((_, layer), _), _)| layer.annotations.get(image::TASK)).collect();
        let mut restored = Restored { layers: layers.len(), tasks: tasks.len(), ..Restored::default() };
        made.into_iter().for_each(|made| restored.add(made));

        progress.enter(Phase::Finishing);
        prepare::finish_directories(view, &choice, extractor(true)?)?;
        if let Some(path) = options.baseline {
            let bytes_of = |place: usize| {
                let live =
                    lineage.layers().zip(own).filter(|((writer, _), _)| writer.checked_sub(own_writers) == Some(place));
                sum(live.map(|(_, winners)| winners.bytes))
            };
            let input = Input { caches: caches.with_live(bytes_of), ..input.clone() };
            record::write(view, &choice, root, &options.mounts, BaselineWriter::create(path, &input)?)?;
            thread::sleep(TICK);
        }
        restored.left_out = choice.summary;
        Ok(restored)
    }
}

fn restore_base(
    lineage: &Lineage,
    root: &Path,
    options: &RestoreOptions<'_>,
    space: &Space,
    progress: &Progress,
    restored: &mut Restored,
) -> Result<Option<Toc>, Error> {
    let Some(base) = &lineage.base else { return Ok(None) };
    progress.enter(Phase::Base);
    // Its unpacked size is not known, but is hardly smaller than the packed one.
    space.check(progress.workspace(), 0, sum(base.layers.iter().map(|layer| layer.size)))?;
    let store = load::base_store(lineage, base)?;
    let extractor = Extractor::new(root)?.keeping_privileges(lineage.origin.is_none()).around(&options.mounts);
    let mut made = base::BaseUnpacker::new(extractor, space.bytes());
    for (number, layer) in (0..).zip(&base.layers) {
        made.apply(&*store, number, layer, progress)?;
    }
    let (listed, made) = made.finish()?;
    restored.layers = base.layers.len();
    restored.add(made);
    Ok(Some(listed))
}

impl Restored {
    fn add(&mut self, made: Made) {
        self.files = self.files.saturating_add(made.files);
        self.bytes = self.bytes.saturating_add(made.bytes);
        self.stripped = self.stripped.saturating_add(made.stripped);
    }
}

/// What tables say may add up to more than there is.
fn sum(numbers: impl Iterator<Item = u64>) -> u64 {
    numbers.fold(0, u64::saturating_add)
}
