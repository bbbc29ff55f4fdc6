//! The log lines that say what a restore or a save did.

use std::time::Instant;

use super::{
    diff::Seen,
    restore::Restored,
    save::Saved,
    selection::{LeftOut, Selection},
};
use crate::{
    quote::Line,
    units::{count, size},
};

/// A workspace was restored, as far as `selection` says.
pub fn report_restored(name: &str, restored: &Restored, selection: &Selection) {
    let &Restored { files, bytes, layers, tasks, stripped, time, ref left_out } = restored;
    // Layers of an image that was made by hand are of no task.
    let of_tasks = if tasks > 0 { format!(" of {}", count(tasks as u64, "task")) } else { String::new() };
    let seconds = time.as_secs_f64();
    tracing::info!(
        event = "restored",
        workspace = name,
        files,
        bytes,
        layers,
        tasks,
        seconds,
        "restored {}: {}, {} from {}{of_tasks} in {seconds:.2} s",
        Line(name),
        count(files, "file"),
        size(bytes),
        count(layers as u64, "layer"),
    );
    report_left_out(name, left_out, selection);
    if stripped > 0 {
        let files = count(stripped, "file");
        tracing::warn!(
            "{}: {files} lost setuid, setgid or capabilities, which only the steps of a run restore",
            Line(name)
        );
    }
}

/// Tells the author of a task why a file is missing.
fn report_left_out(name: &str, left_out: &LeftOut, selection: &Selection) {
    let &LeftOut { files, bytes, ref listed, unlisted } = left_out;
    if listed.is_empty() {
        return;
    }
    let more = if unlisted > 0 { format!(" and {unlisted} more") } else { String::new() };
    tracing::info!(
        event = "left_out",
        workspace = name,
        files,
        bytes,
        "{}: left out {}, {}, which the paths {:?} of this task don't match: {}{more}",
        Line(name),
        count(files, "file"),
        size(bytes),
        selection.shown,
        listed.join(", "),
    );
}

/// A workspace was saved, begun at `start`.
pub fn report_saved(name: &str, saved: &Saved, start: Instant) {
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
    let Seen { metadata_only, metadata_only_bytes, .. } = saved.seen;
    if metadata_only > 0 {
        tracing::info!(
            event = "metadata_only",
            workspace = name,
            files = metadata_only,
            bytes = metadata_only_bytes,
            "{}: of {}, {}, only mode, owner or attributes changed; an image holds files whole, so they are stored again",
            Line(name),
            count(metadata_only, "file"),
            size(metadata_only_bytes)
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
        "saved {}: {what} in {seconds:.2} s",
        Line(name)
    );
}
