//! `prune`: deletes what runs left beside their targets: snapshots of tasks, and images that later ones replaced. A target
//! needs none of them: its layers stay as long as it does.
//!
//! | module | contents |
//! |---|---|
//! | [`run`] | what one run left, found from its target |
//! | [`repository`] | what many runs left, found from the tags of a repository |
//! | [`caches`] | caches beyond the newest ones |
//! | [`replaced`] | images without a tag, found from those that replaced them |
//! | [`image`] | what an image says about its run |

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects, clippy::cast_possible_truncation)
)]

mod caches;
mod image;
mod replaced;
mod repository;
mod run;

use std::{
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use self::repository::RunSelection;
use crate::{
    digest::Digest,
    quote::Quoted,
    store::{self, Store, StoreError},
    target::{InvalidTarget, Target},
    units::{self, count},
    unread::Unread,
    workspace::Error,
};

/// Arguments.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The target of a run that is over: deletes the snapshots of the run, and the images that the target replaced
    /// (with --caches: any image of the repository)
    #[arg(required_unless_present = "repository", conflicts_with = "repository")]
    target: Option<String>,
    /// A repository (without a tag): deletes the same for the runs that --older-than or --run selects, or what --expired or --caches do
    #[arg(long, value_name = "REPOSITORY", requires = "runs")]
    repository: Option<String>,
    /// Runs whose last snapshot is older than this, for example 12h, 7d or 2w; take more than the longest run needs
    #[arg(long, value_name = "TIME", group = "runs", requires = "repository", conflicts_with = "target", value_parser = units::parse_duration)]
    older_than: Option<Duration>,
    /// The run with this UID, for one without a target
    #[arg(long, value_name = "UID", group = "runs", requires = "repository", conflicts_with = "target")]
    run: Option<String>,
    /// Images whose own time is over, as the params expires and target-expires say it: for stores that don't delete them themselves
    #[arg(long, group = "runs", requires = "repository", conflicts_with = "target")]
    expired: bool,
    /// Caches in the repository, in place of what runs left: all but the newest ones of each path and scope
    #[arg(long, group = "runs", requires = "keep", conflicts_with = "all")]
    caches: bool,
    /// How many caches of each path and scope stay
    #[arg(long, value_name = "NUMBER", requires = "caches")]
    keep: Option<usize>,
    /// Delete targets too, and the snapshots of runs with `keep: all`
    #[arg(long)]
    all: bool,
    /// Only print what would be deleted
    #[arg(long)]
    dry_run: bool,
}

/// Why not everything was deleted.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// An image can't be read.
    #[error(transparent)]
    Image(#[from] Error),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// An invalid reference.
    #[error(transparent)]
    Target(#[from] InvalidTarget),
    /// A reference with a tag or digest in place of a repository.
    #[error("{0:?} names an image; give --repository without a tag or digest")]
    NotARepository(String),
    /// Some images could not be deleted, the others were.
    #[error("{} of {} could not be deleted; the first: {first}", .failed, count(*.total, "image"))]
    Incomplete {
        /// Images that are still there.
        failed: u64,
        /// All images that were to be deleted.
        total: u64,
        /// The first failure.
        first: StoreError,
    },
}

/// An image to delete.
#[derive(Debug, PartialEq, Eq)]
struct Doomed {
    /// Without a tag it was replaced.
    tag: Option<String>,
    digest: Digest,
}

/// Deletes, and writes one line about each image to `out`. An image that does not exist any more is no error, so that the
/// command can be repeated; nor is one without a tag that the registry leaves to its garbage collection. It goes on if nobody reads
/// the lines to the end.
pub fn prune(args: &Args, out: &mut dyn Write) -> Result<(), PruneError> {
    let target = match (&args.target, &args.repository) {
        (_, Some(repository)) => parse_repository(repository)?,
        (target, None) => target.as_deref().unwrap_or_default().parse::<Target>()?,
    };
    let store = store::open(&target)?;
    let doomed = match (args.older_than, &args.run) {
        _ if args.caches => caches::beyond(&*store, args.keep.unwrap_or(usize::MAX))?,
        (None, None) if args.expired => {
            repository::left_in(&*store, &RunSelection::Expired(Timestamp::now()), args.all)?
        }
        (None, None) => run::left_by(&*store, &target, args.all)?,
        (Some(age), _) => repository::left_in(&*store, &RunSelection::older_than(age), args.all)?,
        (None, Some(uid)) => repository::left_in(&*store, &RunSelection::Run(uid.clone()), args.all)?,
    };
    delete(&*store, &target, &doomed, args.dry_run, &mut Unread(out))
}

fn delete(
    store: &dyn Store,
    target: &Target,
    doomed: &[Doomed],
    dry_run: bool,
    out: &mut dyn Write,
) -> Result<(), PruneError> {
    let mut deleted = 0_u64;
    let mut failures = Vec::new();
    for image in doomed {
        let outcome = if dry_run { Ok("would delete") } else { delete_image(store, image) };
        let outcome = outcome.unwrap_or_else(|error| {
            tracing::warn!("{error}");
            failures.push(error);
            "not deleted"
        });
        deleted = deleted.saturating_add(u64::from(outcome == "deleted"));
        let digest = image.digest;
        let line = match &image.tag {
            Some(tag) => format!("{} ({digest})", target.with_tag(tag)),
            None => format!("{}@{digest} (replaced)", target.repository()),
        };
        writeln!(out, "{outcome}: {}", Quoted(line.as_bytes())).map_err(unwritable())?;
    }
    if !dry_run {
        store.collect()?;
        writeln!(out, "{} deleted", count(deleted, "image")).map_err(unwritable())?;
    }
    let failed = failures.len() as u64;
    match failures.into_iter().next() {
        Some(first) => Err(PruneError::Incomplete { failed, total: doomed.len() as u64, first }),
        None => Ok(()),
    }
}

fn delete_image(store: &dyn Store, image: &Doomed) -> Result<&'static str, StoreError> {
    let deleted = match &image.tag {
        Some(tag) => store.delete_image(tag, &image.digest),
        None => match store.delete_manifest(&image.digest) {
            Err(error @ StoreError::Registry { .. }) => {
                tracing::warn!("left to the registry's garbage collection: {error}");
                return Ok("left");
            }
            deleted => deleted,
        },
    };
    Ok(if deleted? { "deleted" } else { "gone already" })
}

fn parse_repository(text: &str) -> Result<Target, PruneError> {
    let target = text.parse::<Target>()?;
    // The tag is implicit.
    let named = target.reference() != "latest" || text.ends_with(":latest");
    if named { Err(PruneError::NotARepository(text.to_owned())) } else { Ok(target) }
}

fn unwritable() -> impl FnOnce(io::Error) -> Error {
    Error::file("the standard output", "can't be written")
}

#[cfg(test)]
mod tests;
