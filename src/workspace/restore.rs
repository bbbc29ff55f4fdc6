//! Makes a workspace from the snapshots of the tasks before, straight into place.

use std::{
    collections::HashMap,
    io,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use rustix::fs::FileType;

use super::{
    base::{self, Made},
    baseline::{self, Known},
    conflict::{ConflictPolicy, report_settled},
    entry::{Content, Entry, Node},
    error::Error,
    files::{
        extract::Extractor,
        space,
        tree::{self, Access},
        walk::{Found, Walk},
    },
    layer::{descriptor::Descriptor, read, toc::Toc},
    path::TreePath,
    progress::{Phase, Progress},
    snapshot::{
        lineage::{Input, Lineage},
        load,
        merge::{Change, Outcome},
        view::View,
    },
    threads,
};
use crate::store::{Store, StoreError};

/// How long a kernel may take to give a later change another ctime: a tick where time stamps are coarse (Linux before
/// 6.13; the slowest clock has 100 ticks a second).
const TICK: Duration = Duration::from_millis(12);

/// What a restore did.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Restored {
    /// Regular files that were written, by name.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Layers that were read.
    pub layers: usize,
    /// Tasks that these are of.
    pub tasks: usize,
    /// Files that were written without setuid, setgid or capabilities, because not the run itself restores them.
    pub stripped: u64,
    /// How long it took.
    pub time: Duration,
}

/// What is done before files are made.
enum Preparation {
    Remove(TreePath),
    MakeDir(TreePath),
}

/// Which entries of a layer are to be made, directories aside: a set of their indexes.
#[derive(Default)]
struct Wins {
    bits: Vec<u64>,
    files: u64,
    bytes: u64,
}

/// Makes what `input` says in the directory `root` and writes a baseline of it. `store` has the layers.
pub fn restore(
    store: &dyn Store,
    input: &Input,
    root: &Path,
    baseline: Option<&Path>,
    policy: &ConflictPolicy,
    progress: &Progress,
) -> Result<Restored, Error> {
    let start = Instant::now();
    let lineage = &input.lineage;
    let space = space::Space::of(root)?;
    let mut restored = Restored::default();
    let tocs = load::tocs(store, lineage)?;
    // The verdict comes before anything is made. The base has no say in it: it is an ancestor of every task.
    let mut view = View::judged(lineage, None, &tocs, Some(policy))?;
    if view.conflicts.count > 0 {
        return Err(Error::Conflict { workspace: progress.workspace().to_owned(), conflicts: view.conflicts });
    }
    report_settled(progress.workspace(), &view.settled);
    let base = restore_base(lineage, root, &space, progress, &mut restored)?;
    if base.is_some() {
        view = View::new(lineage, base.as_ref(), &tocs)?;
    }

    progress.begin(Phase::Files);
    let is_run = lineage.origin.is_none();
    let winners = make_directories(&view, root, tocs.len().saturating_add(1), is_run)?;
    // The first ones are those of the base.
    let own = winners.get(1..).unwrap_or_default();
    let layers: Vec<_> = lineage.layers().zip(&tocs).zip(own).filter(|(_, wins)| wins.files > 0).collect();
    let least = layers.iter().map(|(((_, layer), _), wins)| space::least(wins.bytes, layer.size));
    let (files, bytes) = (sum(own.iter().map(|wins| wins.files)), sum(own.iter().map(|wins| wins.bytes)));
    space.check(progress.workspace(), files, sum(least))?;
    progress.expect(files, bytes);
    let made = threads::for_each(&layers, |_, (((_, layer), toc), wins)| {
        let extract_layer = || {
            let extractor = Extractor::new(root)?.keeping_privileges(is_run);
            extract(store, layer, toc, wins, extractor, progress)
        };
        extract_layer().or_else(|error| {
            if !is_damage(&error) {
                return Err(error);
            }
            // In transit, perhaps: what was written of the layer is replaced.
            tracing::warn!("{error}; reading the layer again");
            extract_layer()
        })
    })?;
    restored.layers = restored.layers.saturating_add(layers.len());
    let mut tasks: Vec<usize> = layers.iter().map(|(((writer, _), _), _)| *writer).collect();
    tasks.dedup();
    restored.tasks = tasks.len();
    made.into_iter().for_each(|made| restored.add(made));

    progress.enter(Phase::Finishing);
    finish_directories(&view, root)?;
    if let Some(path) = baseline {
        write_baseline(&view, root, baseline::BaselineWriter::create(path, input)?)?;
        thread::sleep(TICK);
    }
    restored.time = start.elapsed();
    Ok(restored)
}

/// Whether the content of a layer was wrong, as opposed to a failure of its store or of the system.
fn is_damage(error: &Error) -> bool {
    let Error::File { source, .. } = error else { return matches!(error, Error::Damaged { .. }) };
    match source.get_ref().and_then(|inner| inner.downcast_ref::<StoreError>()) {
        Some(error) => matches!(error, StoreError::Content { .. }),
        // What a decoder says is no error of the system.
        None => source.raw_os_error().is_none(),
    }
}

fn restore_base(
    lineage: &Lineage,
    root: &Path,
    space: &space::Space,
    progress: &Progress,
    restored: &mut Restored,
) -> Result<Option<Toc>, Error> {
    let Some(base) = &lineage.base else { return Ok(None) };
    progress.enter(Phase::Base);
    // How large it is unpacked, nobody says: hardly smaller than packed.
    space.check(progress.workspace(), 0, base.layers.iter().map(|layer| layer.size).fold(0, u64::saturating_add))?;
    let store = load::base_store(lineage, base)?;
    let mut made = base::BaseUnpacker::new(root, space.bytes(), lineage.origin.is_none())?;
    for (number, layer) in (0..).zip(&base.layers) {
        made.apply(&*store, number, layer, progress)?;
    }
    let (listed, made) = made.finish()?;
    restored.layers = base.layers.len();
    restored.add(made);
    Ok(Some(listed))
}

/// Makes all directories, removes what the base has and no longer is, and finds which entry of which layer wins. Devices are
/// refused unless a step of the run itself (`is_run`) restores them.
fn make_directories(view: &View<'_>, root: &Path, layers: usize, is_run: bool) -> Result<Vec<Wins>, Error> {
    let mut winners: Vec<Wins> = (0..layers).map(|_| Wins::default()).collect();
    let decide = |hand_over: &mut dyn FnMut(Preparation) -> Result<(), Error>| {
        view.for_each(&mut |group, outcome| {
            let base = group.first().filter(|write| write.layer == 0);
            match outcome {
                Outcome::Keep { from, .. } => {
                    let Some(winner) = group.get(from) else { return Ok(()) };
                    let path = || winner.entry.path.clone();
                    if !is_run && winner.entry.is_device() {
                        return Err(Error::Device(path()));
                    }
                    let stays = |base: &Change| winner.layer == 0 || base.entry.is_dir() && winner.entry.is_dir();
                    if base.is_some_and(|base| !stays(base)) {
                        hand_over(Preparation::Remove(path()))?;
                    }
                    if winner.entry.is_dir() {
                        hand_over(Preparation::MakeDir(path()))?;
                    } else if let Some(wins) = winners.get_mut(winner.layer) {
                        wins.insert(winner);
                    }
                }
                Outcome::Gone { visible: true } => {
                    if let Some(base) = base {
                        hand_over(Preparation::Remove(base.entry.path.clone()))?;
                    }
                }
                Outcome::Gone { visible: false } => {}
            }
            Ok(())
        })
    };
    threads::ahead(decide, |preparations| {
        let mut extractor = Extractor::new(root)?;
        for preparation in preparations {
            match preparation? {
                Preparation::Remove(path) => extractor.remove(&path)?,
                Preparation::MakeDir(path) => extractor.make_dir(&path)?,
            }
        }
        Ok(())
    })?;
    Ok(winners)
}

/// Makes those entries of one layer that win.
fn extract(
    store: &dyn Store,
    layer: &Descriptor,
    toc: &Toc,
    wins: &Wins,
    mut extractor: Extractor,
    progress: &Progress,
) -> Result<Made, Error> {
    let names = first_names(layer, toc, wins)?;
    let mut made = Made::default();
    read::read(store, layer, toc, &mut |index, entry, content| {
        let won = wins.contains(index);
        if won {
            progress.file();
        }
        match &entry.node {
            Node::Link { to, .. } if won => {
                made.files = made.files.saturating_add(1);
                match names.get(to) {
                    Some(first) if *first == entry.path => Ok(()),
                    first => extractor.make_link(&entry.path, first.unwrap_or(to)),
                }
            }
            Node::File(Content { size, .. }) => {
                let promoted = names.get(&entry.path).map(|path| Entry { path: path.clone(), ..entry.clone() });
                if !won && promoted.is_none() {
                    return Ok(());
                }
                made.files = made.files.saturating_add(u64::from(won));
                made.bytes = made.bytes.saturating_add(*size);
                let mut content = progress.counting(content);
                extractor.make_entry(promoted.as_ref().unwrap_or(entry), &mut content, &mut |_| {})
            }
            Node::Dir { .. } => Ok(()),
            _ if won => extractor.make_entry(entry, &mut io::empty(), &mut |_| {}),
            _ => Ok(()),
        }
    })?;
    Ok(Made { stripped: extractor.stripped(), ..made })
}

/// For files that lost at the path where the layer has their content, but of which a hard link won: the first such link.
fn first_names(layer: &Descriptor, toc: &Toc, wins: &Wins) -> Result<HashMap<TreePath, TreePath>, Error> {
    let (mut files, mut promoted) = (HashMap::new(), HashMap::new());
    if layer.info()?.hardlinks == 0 {
        return Ok(promoted);
    }
    for (index, entry) in (0..).zip(toc.iter()) {
        let Entry { path, node, .. } = entry?;
        let won = wins.contains(index);
        match node {
            Node::File(_) => drop(files.insert(path, won)),
            Node::Link { to, .. } if won => match files.get(&to) {
                Some(true) => {}
                Some(false) => drop(promoted.entry(to).or_insert(path)),
                None => {
                    return Err(Error::damaged(layer.place(), format!("{path} is a link to {to}, which it has not")));
                }
            },
            _ => {}
        }
    }
    Ok(promoted)
}

/// Sets modes, owners and times of all directories, each after those in it.
fn finish_directories(view: &View<'_>, root: &Path) -> Result<(), Error> {
    let directories = |hand_over: &mut dyn FnMut((Entry, bool)) -> Result<(), Error>| {
        view.for_each(&mut |group, outcome| {
            let Outcome::Keep { from, mtime, touched } = outcome else { return Ok(()) };
            let Some(winner) = group.get(from).filter(|winner| winner.entry.is_dir()) else { return Ok(()) };
            let dir = Entry { mtime, ..winner.entry.clone() };
            // The root belongs to the volume: a task must have changed it.
            let all = !(dir.path.is_root() && touched);
            hand_over((dir, all))
        })
    };
    threads::ahead(directories, |directories| {
        let mut extractor = Extractor::new(root)?;
        let mut open: Vec<(Entry, bool)> = Vec::new();
        for next in directories {
            let next = next?;
            while let Some((done, all)) = open.pop_if(|(dir, _)| !dir.path.contains(&next.0.path)) {
                extractor.finish_dir(&done, all)?;
            }
            open.push(next);
        }
        open.into_iter().rev().try_for_each(|(done, all)| extractor.finish_dir(&done, all))
    })
}

/// Records what is there now. What was there before the restore counts as known if it is a directory (the container
/// runtime makes working directories); files that others put there are new.
fn write_baseline(view: &View<'_>, root: &Path, mut baseline: baseline::BaselineWriter) -> Result<(), Error> {
    let made = |hand_over: &mut dyn FnMut(Entry) -> Result<(), Error>| {
        view.for_each(&mut |group, outcome| match outcome {
            Outcome::Keep { from, .. } => group.get(from).map_or(Ok(()), |winner| hand_over(winner.entry.clone())),
            Outcome::Gone { .. } => Ok(()),
        })
    };
    threads::ahead(made, |made| {
        let mut made = made.peekable();
        let mut walk = Walk::new(root, Access::temporary())?;
        while let Some(found) = walk.next() {
            let found = found?;
            while made.next_if(|wanted| matches!(wanted, Ok(wanted) if wanted.path < found.path)).is_some() {}
            let wanted = made.next_if(|wanted| wanted.as_ref().map_or(true, |wanted| wanted.path == found.path));
            if let Some(known) = known(&walk, &found, wanted.transpose()?.as_ref())? {
                baseline.push(&known)?;
            }
        }
        made.try_for_each(|rest| rest.map(drop))
    })?;
    baseline.finish()
}

/// What is recorded of a path that was restored as `wanted`, or was there before.
fn known(walk: &Walk, found: &Found, wanted: Option<&Entry>) -> Result<Option<Known>, Error> {
    if wanted.is_none() && found.status.kind != FileType::Directory {
        return Ok(None);
    }
    let mut entry = walk.describe(found)?;
    let mut sure = true;
    if let (Node::File(Content { size, .. }), Some(wanted)) = (&entry.node, wanted) {
        let Some(content) = wanted.content() else { return Ok(None) };
        // Someone may have written to it since it was made.
        sure = content.size == *size && wanted.mtime == entry.mtime;
        entry.node = Node::File(*content);
        entry.mtime = wanted.mtime;
        if tree::is_root() {
            entry.xattrs = wanted.xattrs.clone();
        }
    }
    let identity = sure.then_some(found.status.identity);
    Ok(Some(Known { entry, identity, nlink: found.status.nlink }))
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

impl Wins {
    #[allow(
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation,
        clippy::indexing_slicing,
        reason = "a table in memory has so many entries; there are as many words"
    )]
    fn insert(&mut self, winner: &Change) {
        let (word, bit) = ((winner.index / 64) as usize, winner.index % 64);
        if self.bits.len() <= word {
            self.bits.resize(word + 1, 0);
        }
        self.bits[word] |= 1 << bit;
        self.files += 1;
        if let Node::File(content) = &winner.entry.node {
            self.bytes = self.bytes.saturating_add(content.size);
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "what would be cut off is the index of no entry in memory")]
    fn contains(&self, index: u64) -> bool {
        self.bits.get((index / 64) as usize).is_some_and(|word| word >> (index % 64) & 1 == 1)
    }
}
