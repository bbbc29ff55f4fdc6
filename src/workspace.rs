//! The data plane: a directory to a snapshot in a store, and back.
//!
//! | module | its one concept |
//! |---|---|
//! | [`path`], [`entry`] | a path in tree order, and what is kept of it |
//! | [`tree`], [`scan`] | system calls on a tree; a walk through it |
//! | [`baseline`], [`diff`], [`shard`] | what a workspace was after its restore; what changed since, in parts |
//! | [`archive`], [`codec`], [`toc`], [`layer`] | the form of a layer |
//! | [`image`], [`lineage`], [`load`] | manifests and configs; what a workspace is made of; reading both |
//! | [`merge`], [`view`], [`stack`] | several tasks' changes as one tree; what a plain stack of layers shows instead |
//! | [`extract`], [`sparse`] | making files safely, with holes |
//! | [`foreign`], [`untar`], [`listing`] | layers that others made, their archives, and what is there after them |
//! | [`save`], [`restore`] | the two operations |
//! | [`publish`], [`target`] | what others see of a save: snapshots, and the image that any tool reads |
//!
//! `merge`, `archive`, `toc` and `stack` are pure. Only `tree`, `scan`, `extract` and `baseline` touch files.

pub(crate) mod archive;
mod baseline;
pub(crate) mod codec;
mod diff;
pub(crate) mod entry;
mod error;
pub(crate) mod extract;
pub(crate) mod foreign;
pub(crate) mod image;
pub(crate) mod layer;
pub(crate) mod lineage;
mod listing;
pub(crate) mod load;
pub(crate) mod merge;
pub(crate) mod path;
pub(crate) mod progress;
mod publish;
mod restore;
mod save;
pub(crate) mod scan;
mod shard;
mod space;
mod sparse;
mod stack;
mod target;
#[cfg(test)]
pub(crate) mod tests;
mod threads;
pub(crate) mod toc;
pub(crate) mod tree;
pub(crate) mod untar;
pub(crate) mod view;

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

pub use self::error::Error;
use self::{
    diff::Seen,
    lineage::Lineage,
    progress::{Action, INTERVAL, Phase, Progress},
    publish::Unpublished,
    restore::Restored,
    save::Saved,
    target::Labels,
};
use crate::{
    step::{Compression, Conflict, ENV, STATE_DIR, StepConfig, WorkspaceStep},
    store::{self, Store},
    units::{count, size},
};

/// The injected restore step, which is told in the environment variable [`ENV`] what to do.
pub fn restore_step() -> Result<(), Error> {
    restore_task(step("an image and a directory")?, Path::new(STATE_DIR))
}

/// The injected save step, which is told in [`ENV`] what to do.
pub fn save_step() -> Result<(), Error> {
    save_task(step("a directory and an image")?, Path::new(STATE_DIR))
}

/// Makes each workspace of a restore step. What a save of the same task has to know is left in the folder `state`, if
/// there is one.
pub fn restore_task(step: StepConfig, state: &Path) -> Result<(), Error> {
    let step = step.of_combination().map_err(|e| Error::Run(e.to_string()))?;
    step.workspaces.iter().try_for_each(|workspace| {
        let store = store::open(&load::target(&workspace.target)?)?;
        restore_workspace(&*store, &step, workspace, state)
    })
}

/// Stores what a task changed in each workspace of its save step since [`restore_task`] with the same `state`.
pub fn save_task(step: StepConfig, state: &Path) -> Result<(), Error> {
    let step = step.of_combination().map_err(|e| Error::Run(e.to_string()))?;
    let saved = step.workspaces.iter().map(|workspace| save_workspace(&step, workspace, state));
    publish::all(&saved.collect::<Result<Vec<_>, _>>()?)
}

/// By hand: makes in `dir` what the image `source` holds, a snapshot or any other. A `baseline` lets [`save_dir`] store
/// only what changed since.
pub fn restore_image(source: &str, dir: &Path, baseline: Option<&Path>) -> Result<(), Error> {
    let target = load::target(source)?;
    let store = store::open(&target)?;
    let lineage = load::lineage(&*store, &target)?;
    std::fs::create_dir_all(dir).map_err(Error::file(dir.display(), "can't be made"))?;
    // What conflicts a snapshot's tasks had was settled when it was made.
    restore_logged(&*store, &lineage, dir, baseline, Conflict::Last, source)
}

/// By hand: stores what is in `dir` as the image `target`: all of it, or what changed since `baseline` on top of the image
/// that was restored.
pub fn save_dir(dir: &Path, target: &str, baseline: Option<&Path>) -> Result<(), Error> {
    let start = Instant::now();
    let to = load::target(target)?;
    let store = store::open(&to)?;
    let mut lineage = lineage_of(baseline)?;
    let progress = Progress::new(Action::Save, target);
    progress.logged(INTERVAL, || {
        let saved = save::save(&*store, dir, baseline, Compression::default(), &progress)?;
        progress.enter(Phase::Finishing);
        let order = lineage.orders().last().map_or(0, |last| last + 1);
        if !saved.layers.is_empty() {
            lineage.writers.push(target::writer("save", order, &lineage, saved.layers.clone()));
        }
        target::put_whole(&*store, &to.reference(), &lineage, Compression::default(), &Labels::default())?;
        report_saved(target, &saved, start);
        Ok(())
    })
}

fn restore_workspace(
    store: &dyn Store,
    step: &StepConfig,
    workspace: &WorkspaceStep,
    state: &Path,
) -> Result<(), Error> {
    let lineage = load::input(store, step, workspace)?;
    // Without the volume there is no save step.
    let baseline = state.is_dir().then(|| baseline_path(step, workspace, state));
    let (root, name) = (Path::new(&workspace.path), &workspace.name);
    restore_logged(store, &lineage, root, baseline.as_deref(), step.conflict, name)
}

fn restore_logged(
    store: &dyn Store,
    lineage: &Lineage,
    root: &Path,
    baseline: Option<&Path>,
    conflict: Conflict,
    name: &str,
) -> Result<(), Error> {
    let progress = Progress::new(Action::Restore, name);
    let restore = || restore::restore(store, lineage, root, baseline, conflict, &progress);
    report_restored(name, &progress.logged(INTERVAL, restore)?);
    Ok(())
}

fn save_workspace<'a>(
    step: &'a StepConfig,
    workspace: &'a WorkspaceStep,
    state: &Path,
) -> Result<Unpublished<'a>, Error> {
    let start = Instant::now();
    let store = store::open(&load::target(&workspace.target)?)?;
    // A task without a restore step starts from nothing.
    let baseline = Some(baseline_path(step, workspace, state)).filter(|path| path.exists());
    let input = lineage_of(baseline.as_deref())?;
    let progress = Progress::new(Action::Save, &workspace.name);
    let root = Path::new(&workspace.path);
    let save = || save::save(&*store, root, baseline.as_deref(), step.compression, &progress);
    let mut saved = progress.logged(INTERVAL, save)?;
    for layer in &mut saved.layers {
        layer.annotations.insert(image::TASK.to_owned(), step.task.clone());
    }
    report_saved(&workspace.name, &saved, start);
    Ok(Unpublished { store, step, workspace, input, layers: saved.layers })
}

fn step(by_hand: &str) -> Result<StepConfig, Error> {
    let text = std::env::var(ENV)
        .map_err(|_| Error::Run(format!("the environment variable {ENV} is not set; by hand, give {by_hand}")))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::Run(format!("the environment variable {ENV} is not the configuration of a step: {e}")))
}

fn baseline_path(step: &StepConfig, workspace: &WorkspaceStep, state: &Path) -> PathBuf {
    state.join(StepConfig::tag(&step.run, step.order, &workspace.name))
}

fn lineage_of(baseline: Option<&Path>) -> Result<Lineage, Error> {
    baseline.map_or_else(|| Ok(Lineage::default()), |path| Ok(baseline::Reader::open(path)?.lineage().clone()))
}

fn report_restored(name: &str, restored: &Restored) {
    let Restored { files, bytes, layers, tasks, time } = *restored;
    let seconds = time.as_secs_f64();
    tracing::info!(
        event = "restored",
        workspace = name,
        files,
        bytes,
        layers,
        tasks,
        seconds,
        "restored {name}: {}, {} from {} of {} in {seconds:.2} s",
        count(files, "file"),
        size(bytes),
        count(layers as u64, "layer"),
        count(tasks as u64, "task"),
    );
}

fn report_saved(name: &str, saved: &Saved, start: Instant) {
    let (Saved { files, bytes, deleted, .. }, layers) = (saved, saved.layers.len());
    let (seconds, stored_bytes) = (start.elapsed().as_secs_f64(), saved.layers.iter().map(|layer| layer.size).sum());
    let what = match layers {
        0 => "nothing changed,".to_owned(),
        _ => format!(
            "{}, {}, {deleted} deleted in {} of {}",
            count(*files, "file"),
            size(*bytes),
            count(layers as u64, "layer"),
            size(stored_bytes)
        ),
    };
    let Seen { relabelled, relabelled_bytes } = saved.seen;
    if relabelled > 0 {
        tracing::info!(
            event = "relabelled",
            workspace = name,
            files = relabelled,
            bytes = relabelled_bytes,
            "{name}: of {}, {}, only mode, owner or attributes changed; an image holds files whole, so they are stored again",
            count(relabelled, "file"),
            size(relabelled_bytes)
        );
    }
    tracing::info!(
        event = "saved",
        workspace = name,
        files,
        bytes,
        deleted,
        layers,
        stored_bytes,
        seconds,
        "saved {name}: {what} in {seconds:.2} s"
    );
}
