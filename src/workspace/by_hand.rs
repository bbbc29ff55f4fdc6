//! Restore and save by hand, of any image and any directory.

use std::{path::Path, time::Instant};

use super::{
    baseline,
    conflict::ConflictPolicy,
    error::Error,
    files::mounts::MountPoints,
    progress::{Action, Phase, Progress},
    report::report_saved,
    restore::RestoreOptions,
    save::{self, SaveOptions},
    snapshot::{
        assemble::{self, ImageLabels},
        lineage::{Input, Writer},
        load,
    },
    steps::restore_reported,
};
use crate::{step::Compression, store, target::Target};

/// By hand: makes in `dir` what the image `source` holds, a snapshot or any other. A `baseline` lets [`save_dir`] store
/// only what changed since.
pub fn restore_image(source: &str, dir: &Path, baseline: Option<&Path>) -> Result<(), Error> {
    let target = source.parse::<Target>()?;
    let store = store::open(&target)?;
    let input = Input { lineage: load::lineage(&*store, &target)?, ..Input::default() };
    std::fs::create_dir_all(dir).map_err(Error::file(dir.display(), "can't be made"))?;
    // What conflicts a snapshot's tasks had was settled when it was made.
    restore_reported(&*store, &input, dir, &RestoreOptions::whole(ConflictPolicy::last(), baseline), None, source)
        .map(drop)
}

/// By hand: stores what is in `dir` as the image `target`: all of it, or what changed since `baseline` on top of the image
/// that was restored.
pub fn save_dir(dir: &Path, target: &str, baseline: Option<&Path>) -> Result<(), Error> {
    let start = Instant::now();
    let to = Target::to_write(target)?;
    let store = store::open(&to)?;
    let mut lineage = baseline::input(baseline)?.lineage;
    let progress = Progress::new(Action::Save, target);
    progress.logged(|| {
        let (compression, mounts) = (Compression::default(), MountPoints::default());
        let saved = save::save(&*store, dir, SaveOptions::whole(baseline, compression, &mounts), &progress)?;
        progress.enter(Phase::Finishing);
        let last = lineage.writers.last().map(|writer| writer.order);
        let order = last.map_or(Some(0), |last| last.checked_add(1)).ok_or_else(|| no_order_left(target))?;
        if !saved.layers.is_empty() {
            lineage.writers.push(Writer::unsaved("save", order, &lineage, saved.layers.clone()));
        }
        let replaces = store.digest(&to.reference())?.into_iter().collect();
        let labels = ImageLabels { replaces, ..ImageLabels::default() };
        assemble::put_whole(&*store, &to.reference(), &lineage, Compression::default(), &labels)?;
        report_saved(target, &saved, start);
        Ok(())
    })
}

fn no_order_left(target: &str) -> Error {
    Error::damaged(
        target,
        "the image that was restored has a task with the highest order there is; save without --baseline",
    )
}
