//! `prune`: deletes what a run left beside its target, the snapshots of its tasks. The target needs none of them: its
//! layers stay as long as it does.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

use std::io::{self, Write};

use crate::{
    digest::Digest,
    quote::{Line, Quoted},
    step::StepConfig,
    store::{self, Store},
    target::Target,
    units::count,
    workspace::{
        Error,
        snapshot::{
            image::{RUN, WORKSPACE},
            lineage::Writer,
            load,
        },
    },
};

/// What to delete.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The target of a run that is over
    target: String,
    /// Delete the target too
    #[arg(long)]
    all: bool,
    /// Only say what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// An image that is to go.
struct Doomed {
    name: String,
    tag: String,
    digest: Digest,
}

/// Deletes, and writes one line about each image to `out`. What is gone already is no error, so that it can be repeated.
pub fn prune(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let target = args.target.parse::<Target>()?;
    let store = store::open(&target)?;
    let mut doomed = snapshots(&*store, &target)?;
    if args.all {
        doomed.push(image(&*store, &target.reference(), &target.to_string())?);
    }
    let mut deleted = 0_u64;
    for Doomed { name, tag, digest } in &doomed {
        let what = if args.dry_run {
            "would delete"
        } else if store.delete_image(tag, digest)? {
            deleted = deleted.saturating_add(1);
            "deleted"
        } else {
            "gone already"
        };
        writeln!(out, "{what}: {} ({digest})", Quoted(name.as_bytes())).map_err(unwritable())?;
    }
    if !args.dry_run {
        store.collect()?;
        writeln!(out, "{} deleted", count(deleted, "image")).map_err(unwritable())?;
    }
    Ok(())
}

/// Those snapshots of the run that are still what the target was made from. What the target says is not believed: each
/// image must say itself that it is the snapshot.
fn snapshots(store: &dyn Store, target: &Target) -> Result<Vec<Doomed>, Error> {
    let place = target.to_string();
    let found = load::image(store, &target.reference(), &place)?.ok_or_else(|| Error::NoImage(place.clone()))?;
    if found.config.snapshot.is_some() {
        return Err(Error::damaged(place, "it is the snapshot of one task; name the target of the run"));
    }
    let annotation = |name: &str| found.manifest.annotations.get(name);
    let (Some(lineage), Some(run), Some(workspace)) = (&found.config.lineage, annotation(RUN), annotation(WORKSPACE))
    else {
        return Err(Error::damaged(place, "it is not the target of a run, so that there is nothing to prune"));
    };
    lineage.check().map_err(|e| Error::damaged(&place, format!("its lineage is invalid: {e}")))?;
    let mut snapshots = Vec::new();
    for Writer { manifest, order, .. } in &lineage.writers {
        let Some(digest) = *manifest else { continue };
        // It must not lead to another place than a tag of this repository.
        let tag = StepConfig::tag(run, *order, workspace);
        let place = target.with_tag(&tag).to_string().parse::<Target>()?;
        let name = place.to_string();
        let Some(found) = load::image(store, &place.reference(), &name)? else { continue };
        let is_snapshot =
            found.config.snapshot.as_ref().is_some_and(|snapshot| {
                (&snapshot.run, snapshot.order, &snapshot.workspace) == (run, *order, workspace)
            });
        if !is_snapshot {
            tracing::warn!("{} is not the snapshot that the target takes it for, and stays", Line(&name));
        } else if found.digest != digest {
            tracing::warn!("{} is {} by now and stays", Line(&name), found.digest);
        } else {
            snapshots.push(Doomed { name, tag, digest });
        }
    }
    Ok(snapshots)
}

fn image(store: &dyn Store, reference: &str, place: &str) -> Result<Doomed, Error> {
    let found = store.manifest(reference)?.ok_or_else(|| Error::NoImage(place.to_owned()))?;
    Ok(Doomed { name: place.to_owned(), tag: reference.to_owned(), digest: found.digest })
}

fn unwritable() -> impl FnOnce(io::Error) -> Error {
    Error::file("the standard output", "can't be written")
}
