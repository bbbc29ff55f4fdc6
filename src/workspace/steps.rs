//! The two injected steps: what the webhook tells them, done for each workspace of the task.

use std::{
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    baseline,
    cache::{
        self,
        find::CacheFinder,
        hash::FileHashes,
        put::{self, PendingCache},
    },
    conflict::ConflictPolicy,
    diff::Part,
    error::Error,
    failure,
    files::{mounts::MountPoints, room::Room},
    progress::{Action, Progress},
    publish::{self, PendingSnapshot},
    report::{report_restored, report_saved},
    restore::{self, RestoreOptions, Restored},
    save::{self, SaveOptions, Saved},
    selection::Selection,
    snapshot::{image, lineage::Input, load},
};
use crate::{
    step::{ENV, RESULTS_DIR, STATE_DIR, StepConfig, WorkspaceStep},
    store::{self, Store, StoreError},
    target::Target,
};

/// The injected restore step, which is told in the environment variable [`ENV`] what to do.
pub fn restore_step() -> Result<(), Error> {
    restore_task(step("an image and a directory")?, Path::new(STATE_DIR))
}

/// The injected save step, which is told in [`ENV`] what to do. Returns the exit code that it has to end with.
pub fn save_step() -> Result<u8, Error> {
    save_task(step("a directory and an image")?, Path::new(STATE_DIR))
}

/// Makes each workspace of a restore step. What a save of the same task has to know is left in the folder `state`, if
/// there is one.
pub fn restore_task(step: StepConfig, state: &Path) -> Result<(), Error> {
    let step = step.of_combination()?;
    let mut hashes = FileHashes::wanted_by(&step)?;
    in_order(&step.workspaces).into_iter().try_for_each(|workspace| {
        let store = store::open(&workspace.target.parse::<Target>()?)?;
        restore_workspace(&*store, &step, workspace, &mut hashes, state)
    })?;
    write_results(&step, Path::new(RESULTS_DIR))
}

/// Stores what a task changed in each workspace of its save step since [`restore_task`] with the same `state`. Returns the exit
/// code of the task: that of its own step that failed, or 0.
pub fn save_task(step: StepConfig, state: &Path) -> Result<u8, Error> {
    let step = step.of_combination()?;
    let failed = step.after_failure.as_ref().map(failure::failed_step).transpose()?.flatten();
    let Some(failed) = failed else {
        save_workspaces(&step, state, true)?;
        return write_results(&step, Path::new(RESULTS_DIR)).map(|()| 0);
    };
    let saved = if failed.is_retried { Ok(()) } else { save_workspaces(&step, state, false) };
    failed.report(&saved);
    Ok(failed.code)
}

/// The workspaces as they have to be restored: those with files that the key of a cache is made of before the others, else as they
/// are listed.
fn in_order(workspaces: &[WorkspaceStep]) -> Vec<&WorkspaceStep> {
    let needs = |workspace: &WorkspaceStep, other: &WorkspaceStep| {
        let mut files = workspace.caches.iter().flat_map(|cache| &cache.files);
        workspace.name != other.name && files.any(|files| files.workspace == other.name)
    };
    let mut left: Vec<&WorkspaceStep> = workspaces.iter().collect();
    let mut ordered = Vec::with_capacity(left.len());
    while !left.is_empty() {
        let free = left.iter().position(|workspace| !left.iter().any(|other| needs(workspace, other)));
        ordered.push(left.remove(free.unwrap_or_default()));
    }
    ordered
}

/// Stores what the task changed in its workspaces, and its caches too if it `succeeded`.
fn save_workspaces(step: &StepConfig, state: &Path, succeeded: bool) -> Result<(), Error> {
    let save = || {
        let saved = step.workspaces.iter().map(|workspace| save_workspace(step, workspace, state, succeeded));
        let saved = saved.collect::<Result<Vec<_>, _>>()?;
        publish::all(&saved)?;
        saved.iter().for_each(PendingSnapshot::put_caches);
        Ok(())
    };
    save().or_else(|error| match error {
        // The registry collected a blob between its upload and the manifest.
        Error::Store(StoreError::MissingBlob { .. }) => {
            tracing::warn!("{error}; storing the workspaces again");
            save()
        }
        error => Err(error),
    })
}

/// Writes the results that a rerun has from tasks that don't run again, as Tekton reads them: a string as it is, arrays and
/// objects as JSON (Tekton: docs/tasks.md, "Emitting Array Results").
fn write_results(step: &StepConfig, dir: &Path) -> Result<(), Error> {
    step.results.iter().try_for_each(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let path = dir.join(name);
        write_new(&path, &text).map_err(Error::file(path.display(), "the result can't be written"))
    })
}

/// Writes a new file, in place of whatever is there: a link would lead elsewhere, and a pipe be waited for.
fn write_new(path: &Path, text: &str) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::File::create_new(path)?.write_all(text.as_bytes())
}

pub(super) fn restore_workspace(
    store: &dyn Store,
    step: &StepConfig,
    workspace: &WorkspaceStep,
    hashes: &mut FileHashes,
    state: &Path,
) -> Result<(), Error> {
    let input = load::input(store, step, workspace)?;
    // Without the volume there is no save step.
    let baseline = state.is_dir().then(|| baseline_path(step, workspace, state));
    let (root, name) = (Path::new(&workspace.path), &workspace.name);
    let options = RestoreOptions {
        baseline: baseline.as_deref(),
        policy: ConflictPolicy::new(&step.conflict_rules, step.conflict)?,
        selection: Selection::new(&workspace.paths).map_err(Error::Paths)?,
        mounts: Arc::new(MountPoints::new(&workspace.mounts)),
    };
    let room = if workspace.sized { None } else { Room::of(root) };
    let mut finder = CacheFinder { step, workspace, hashes };
    let restored = restore_reported(store, &input, root, &options, Some(&mut finder), name)?;
    if let Some(room) = room {
        room.warn_if_filled(name, restored.bytes);
    }
    Ok(())
}

/// Restores, with progress in the log and a line about the result at the end. `name` is how messages name the workspace.
pub fn restore_reported(
    store: &dyn Store,
    input: &Input,
    root: &Path,
    options: &RestoreOptions<'_>,
    finder: Option<&mut CacheFinder<'_>>,
    name: &str,
) -> Result<Restored, Error> {
    let progress = Progress::new(Action::Restore, name);
    let restore = || restore::restore(store, input, root, options, finder, &progress);
    let restored = progress.logged(restore)?;
    report_restored(name, &restored, &options.selection);
    Ok(restored)
}

fn save_workspace<'a>(
    step: &'a StepConfig,
    workspace: &'a WorkspaceStep,
    state: &Path,
    succeeded: bool,
) -> Result<PendingSnapshot<'a>, Error> {
    let start = Instant::now();
    let store = store::open(&workspace.target.parse::<Target>()?)?;
    // A task without a restore step starts from nothing.
    let baseline = Some(baseline_path(step, workspace, state)).filter(|path| path.exists());
    let input = baseline::input(baseline.as_deref())?;
    let (root, mounts) = (Path::new(&workspace.path), MountPoints::new(&workspace.mounts));
    let whole = SaveOptions::whole(baseline.as_deref(), step.compression, &mounts);
    let save = |options: SaveOptions<'_>| {
        let progress = Progress::new(Action::Save, &workspace.name);
        let mut saved = progress.logged(|| save::save(&*store, root, options, &progress))?;
        for layer in &mut saved.layers {
            layer.annotations.insert(image::TASK.to_owned(), step.task.clone());
        }
        Ok::<Saved, Error>(saved)
    };
    // What is in the folder of a cache has layers of its own, which are the cache's too.
    let places = cache::places(workspace)?;
    let mut saved = match &places[..] {
        [] => save(whole)?,
        [place] if place.is_root() => Saved::default(),
        places => save(whole.of(Part::Without(places)))?,
    };
    let mut caches = Vec::new();
    for (index, (cache, place)) in workspace.caches.iter().zip(&places).enumerate() {
        let used = input.caches.get(index).cloned().unwrap_or_default();
        let changed = save(whole.of(Part::Within(place)).ignoring_mtimes(cache.ignore_mtimes))?;
        let mut layers = put::restored_layers(cache, &used, &input.lineage);
        put::bring(&*store, workspace, cache, &layers)?;
        if let Some(key) = used.key.filter(|_| succeeded && changed.seen.paths > 0) {
            let known = if used.anew { 0 } else { layers.len() };
            if used.anew {
                layers = save(SaveOptions { baseline: None, ..whole }.of(Part::Within(place)))?.layers;
            } else {
                layers.extend(changed.layers.iter().cloned());
            }
            caches.push(PendingCache { cache, key, replaces: used.replaces, layers, known });
        }
        saved.add(changed);
    }
    report_saved(&workspace.name, &saved, start);
    Ok(PendingSnapshot { store, step, workspace, input, layers: saved.layers, caches })
}

/// The configuration of this step, out of its environment.
fn step(by_hand: &'static str) -> Result<StepConfig, Error> {
    let text = std::env::var(ENV).map_err(|_| Error::NoStepConfig { by_hand })?;
    Ok(StepConfig::parse(&text, |name| std::env::var(name).ok())?)
}

/// Where the baseline of a workspace is in the folder `state`.
fn baseline_path(step: &StepConfig, workspace: &WorkspaceStep, state: &Path) -> PathBuf {
    state.join(StepConfig::tag(&step.run, step.order, &workspace.name))
}

#[cfg(test)]
mod tests;
