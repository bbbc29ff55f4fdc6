//! The two injected steps: what the webhook tells them, done for each workspace of the task.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use super::{
    baseline,
    conflict::ConflictPolicy,
    error::Error,
    failure,
    files::{mounts::MountPoints, room::Room},
    progress::{Action, INTERVAL, Progress},
    publish::{self, PendingSnapshot},
    report::{report_restored, report_saved},
    restore::{self, RestoreOptions, Restored},
    save::{self, SaveOptions},
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
    step.workspaces.iter().try_for_each(|workspace| {
        let store = store::open(&workspace.target.parse::<Target>()?)?;
        restore_workspace(&*store, &step, workspace, state)
    })?;
    write_results(&step, Path::new(RESULTS_DIR))
}

/// Stores what a task changed in each workspace of its save step since [`restore_task`] with the same `state`. Returns the exit
/// code of the task: that of its own step that failed, or 0.
pub fn save_task(step: StepConfig, state: &Path) -> Result<u8, Error> {
    let step = step.of_combination()?;
    let failed = step.after_failure.as_ref().map(failure::failed_step).transpose()?.flatten();
    let Some(failed) = failed else {
        save_workspaces(&step, state)?;
        return write_results(&step, Path::new(RESULTS_DIR)).map(|()| 0);
    };
    let saved = if failed.is_retried { Ok(()) } else { save_workspaces(&step, state) };
    failed.report(&saved);
    Ok(failed.code)
}

/// Writes the results that a rerun has from tasks that don't run again, as Tekton reads them: a string as it is, arrays and
/// objects as JSON (Tekton: docs/tasks.md, "Emitting Array Results").
fn write_results(step: &StepConfig, dir: &Path) -> Result<(), Error> {
    step.results.iter().try_for_each(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::file(path.display(), "the result can't be written"))
    })
}

fn save_workspaces(step: &StepConfig, state: &Path) -> Result<(), Error> {
    let save = || {
        let saved = step.workspaces.iter().map(|workspace| save_workspace(step, workspace, state));
        publish::all(&saved.collect::<Result<Vec<_>, _>>()?)
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

pub(super) fn restore_workspace(
    store: &dyn Store,
    step: &StepConfig,
    workspace: &WorkspaceStep,
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
    let restored = restore_reported(store, &input, root, &options, name)?;
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
    name: &str,
) -> Result<Restored, Error> {
    let progress = Progress::new(Action::Restore, name);
    let restore = || restore::restore(store, input, root, options, &progress);
    let restored = progress.logged(INTERVAL, restore)?;
    report_restored(name, &restored, &options.selection);
    Ok(restored)
}

fn save_workspace<'a>(
    step: &'a StepConfig,
    workspace: &'a WorkspaceStep,
    state: &Path,
) -> Result<PendingSnapshot<'a>, Error> {
    let start = Instant::now();
    let store = store::open(&workspace.target.parse::<Target>()?)?;
    // A task without a restore step starts from nothing.
    let baseline = Some(baseline_path(step, workspace, state)).filter(|path| path.exists());
    let input = baseline::input(baseline.as_deref())?;
    let progress = Progress::new(Action::Save, &workspace.name);
    let root = Path::new(&workspace.path);
    let mounts = MountPoints::new(&workspace.mounts);
    let options = SaveOptions { baseline: baseline.as_deref(), compression: step.compression, mounts: &mounts };
    let save = || save::save(&*store, root, options, &progress);
    let mut saved = progress.logged(INTERVAL, save)?;
    for layer in &mut saved.layers {
        layer.annotations.insert(image::TASK.to_owned(), step.task.clone());
    }
    report_saved(&workspace.name, &saved, start);
    Ok(PendingSnapshot { store, step, workspace, input, layers: saved.layers })
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
