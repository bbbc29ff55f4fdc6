//! What becomes of each path: directories are made before all files and finished after them; of everything else it is noted
//! which layer has what is to be there.

use fixedbitset::FixedBitSet;

use crate::workspace::{
    entry::Entry,
    error::Error,
    files::extract::Extractor,
    path::TreePath,
    selection::{Choice, Extent},
    snapshot::{
        merge::{Change, Outcome},
        view::View,
    },
    threads,
};

/// Which entries of a layer are to be made, directories aside.
#[derive(Default)]
pub struct Winners {
    indexes: FixedBitSet,
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// What is done before files are made.
enum Preparation {
    Remove(TreePath),
    MakeDir(TreePath),
}

/// Makes all directories, removes what the base has and is not to be there, and finds which entry of which layer wins. Devices
/// are refused unless a step of the run itself (`is_run`) restores them.
pub fn prepare(
    view: &View<'_>,
    choice: &Choice,
    mut extractor: Extractor,
    layers: usize,
    is_run: bool,
) -> Result<Vec<Winners>, Error> {
    let mut winners: Vec<Winners> = (0..layers).map(|_| Winners::default()).collect();
    let decide = |hand_over: &mut dyn FnMut(Preparation) -> Result<(), Error>| {
        let mut extents = choice.extents();
        view.for_each(&mut |group, outcome| {
            let base = group.first().filter(|change| change.layer == 0);
            match outcome {
                Outcome::Keep { from, .. } => {
                    let Some(winner) = group.get(from) else { return Ok(()) };
                    let path = || winner.entry.path.clone();
                    if extents.next(&winner.entry) == Extent::Nothing {
                        return if base.is_some() { hand_over(Preparation::Remove(path())) } else { Ok(()) };
                    }
                    if !is_run && winner.entry.is_device() {
                        return Err(Error::Device(path()));
                    }
                    let stays = |base: &Change| winner.layer == 0 || base.entry.is_dir() && winner.entry.is_dir();
                    if base.is_some_and(|base| !stays(base)) {
                        hand_over(Preparation::Remove(path()))?;
                    }
                    if winner.entry.is_dir() {
                        hand_over(Preparation::MakeDir(path()))?;
                    } else if let Some(winners) = winners.get_mut(winner.layer) {
                        winners.insert(winner);
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

/// A directory that gets its attributes.
struct Finished {
    dir: Entry,
    /// All of them, or the mtime alone.
    all: bool,
}

/// Sets modes, owners and times of all directories, each after those in it.
pub fn finish_directories(view: &View<'_>, choice: &Choice, mut extractor: Extractor) -> Result<(), Error> {
    let directories = |hand_over: &mut dyn FnMut(Finished) -> Result<(), Error>| {
        let mut extents = choice.extents();
        view.for_each(&mut |group, outcome| {
            let Outcome::Keep { from, mtime, touched } = outcome else { return Ok(()) };
            let Some(winner) = group.get(from) else { return Ok(()) };
            if extents.next(&winner.entry) == Extent::Nothing || !winner.entry.is_dir() {
                return Ok(());
            }
            // The root belongs to the volume: a task must have changed it.
            let all = !(winner.entry.path.is_root() && touched);
            hand_over(Finished { dir: Entry { mtime, ..winner.entry.clone() }, all })
        })
    };
    threads::ahead(directories, |directories| {
        let mut open: Vec<Finished> = Vec::new();
        for next in directories {
            let next = next?;
            while let Some(done) = open.pop_if(|open| !open.dir.path.contains(&next.dir.path)) {
                extractor.finish_dir(&done.dir, done.all)?;
            }
            open.push(next);
        }
        open.into_iter().rev().try_for_each(|done| extractor.finish_dir(&done.dir, done.all))
    })
}

impl Winners {
    fn insert(&mut self, winner: &Change) {
        // A table in memory has no more entries than there are addresses.
        let Ok(index) = usize::try_from(winner.index) else { return };
        self.indexes.grow_and_insert(index);
        self.files = self.files.saturating_add(1);
        self.bytes = self.bytes.saturating_add(winner.entry.own_size());
    }

    /// Whether the entry at `index` of the layer's table is to be made.
    pub fn contains(&self, index: u64) -> bool {
        usize::try_from(index).is_ok_and(|index| self.indexes.contains(index))
    }
}
