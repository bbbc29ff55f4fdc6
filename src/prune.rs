//! `prune`: deletes what a run left beside its target, the snapshots of its tasks. The target needs none of them: its
//! layers stay as long as it does.

use std::io::{self, Write};

use crate::{
    digest::Digest,
    step::StepConfig,
    store::{self, Store},
    target::Target,
    units::count,
    workspace::{
        Error,
        snapshot::{
            image::{RUN, WORKSPACE},
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
    let mut doomed = snapshots(&*store, args)?;
    if args.all {
        doomed.push(image(&*store, &target.reference(), &target.to_string())?);
    }
    let mut deleted = 0;
    for Doomed { name, tag, digest } in &doomed {
        let what = match args.dry_run {
            true => "would delete",
            false if store.delete_image(tag, digest)? => "deleted",
            false => "gone already",
        };
        deleted += u64::from(what == "deleted");
        writeln!(out, "{what}: {name} ({digest})").map_err(unwritable())?;
    }
    if !args.dry_run {
        writeln!(out, "{} deleted", count(deleted, "image")).map_err(unwritable())?;
    }
    Ok(())
}

/// Those snapshots of the run that are still what the target was made from.
fn snapshots(store: &dyn Store, args: &Args) -> Result<Vec<Doomed>, Error> {
    let target = args.target.parse::<Target>()?;
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
    let mut snapshots = Vec::new();
    for writer in &lineage.writers {
        let Some(digest) = writer.manifest else { continue };
        let tag = StepConfig::tag(run, writer.order, workspace);
        let name = target.with_tag(&tag).to_string();
        match store.manifest(&tag)? {
            Some(now) if now.digest == digest => snapshots.push(Doomed { name, tag, digest }),
            Some(now) => tracing::warn!("{name} is {} by now and stays", now.digest),
            None => {}
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
