//! `prune`: deletes what runs left beside their targets: snapshots of tasks, and images that later ones replaced. A target
//! needs none of them: its layers stay as long as it does.
//!
//! | module | contents |
//! |---|---|
//! | [`run`] | what one run left, found from its target |
//! | [`repository`] | what many runs left, found from the tags of a repository |
//! | [`caches`] | caches beyond the newest ones |
//! | [`replaced`] | images without a tag, found from those that replaced them |
//! | [`named`] | what tags name, which stays |
//! | [`image`] | what an image says about its run |
//! | [`attached`] | signatures and attestations of images |

mod attached;
mod caches;
mod image;
mod named;
mod replaced;
mod repository;
mod run;

use std::{
    collections::BTreeSet,
    io::{self, Write},
    time::Duration,
};

use jiff::Timestamp;

use self::{attached::Attachment, repository::RunSelection};
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
    /// Delete targets too, the snapshots of runs with `keep: all`, and images that are signed, with their signatures
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
    /// What goes with it.
    attached: Vec<Attachment>,
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
    let doomed = doomed(args, &*store, &target)?;
    delete(&*store, &target, &doomed, args.dry_run, &mut Unread(out))
}

fn doomed(args: &Args, store: &dyn Store, target: &Target) -> Result<Vec<Doomed>, PruneError> {
    let tags = match store.tags() {
        Err(error) if args.repository.is_none() && !args.caches => {
            tracing::warn!("images that were replaced stay, as it is not known whether they have other tags: {error}");
            None
        }
        tags => Some(tags?.into_iter().collect::<BTreeSet<_>>()),
    };
    if tags.as_ref().is_some_and(BTreeSet::is_empty) && args.repository.is_some() {
        tracing::warn!("{}: there is no image, or no such repository", Quoted(target.repository().as_bytes()));
    }
    let selection = match (args.older_than, &args.run) {
        _ if args.caches => None,
        (None, None) if args.expired => Some(RunSelection::Expired(Timestamp::now())),
        (None, None) => None,
        (Some(age), _) => Some(RunSelection::older_than(age)),
        (None, Some(uid)) => Some(RunSelection::Run(uid.clone())),
    };
    let doomed = match (&tags, selection) {
        (Some(tags), _) if args.caches => caches::beyond(store, tags, args.keep.unwrap_or(usize::MAX))?,
        (Some(tags), Some(selection)) => repository::left_in(store, tags, &selection, args.all)?,
        (tags, _) => run::left_by(store, target, tags.as_ref(), args.all)?,
    };
    // What says itself that its time is over needs nobody who asks for it.
    Ok(attached::settle(store, tags.as_ref(), doomed, args.all || args.expired)?)
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
    let mut report = |what: Result<&'static str, StoreError>, tag: Option<&str>, digest: &Digest, untagged: &str| {
        let outcome = what.unwrap_or_else(|error| {
            tracing::warn!("{error}");
            failures.push(error);
            "not deleted"
        });
        deleted = deleted.saturating_add(u64::from(outcome == "deleted"));
        let line = match tag {
            Some(tag) => format!("{} ({digest})", target.with_tag(tag)),
            None => format!("{}@{digest} ({untagged})", target.repository()),
        };
        writeln!(out, "{outcome}: {}", Quoted(line.as_bytes())).map_err(unwritable())?;
        Ok::<_, PruneError>(outcome != "not deleted")
    };
    let mut total = 0_u64;
    for image in doomed {
        let mut is_bare = true;
        for Attachment { tag, digest } in &image.attached {
            let outcome = if dry_run { Ok("would delete") } else { delete_image(store, tag.as_deref(), digest) };
            is_bare &= report(outcome, tag.as_deref(), digest, "attached")?;
            total = total.saturating_add(1);
        }
        total = total.saturating_add(1);
        let tag = image.tag.as_deref();
        let outcome = match (dry_run, is_bare) {
            (true, _) => Ok("would delete"),
            // Without it nobody would find again what is attached to it.
            (false, false) => Err(StoreError::Registry {
                place: tag.map_or_else(|| image.digest.to_string(), |tag| target.with_tag(tag).to_string()),
                problem: "it stays, as what is attached to it could not be deleted".to_owned(),
            }),
            (false, true) => delete_image(store, tag, &image.digest),
        };
        report(outcome, tag, &image.digest, "replaced")?;
    }
    if !dry_run {
        store.collect()?;
        writeln!(out, "{} deleted", count(deleted, "image")).map_err(unwritable())?;
    }
    let failed = failures.len() as u64;
    match failures.into_iter().next() {
        Some(first) => Err(PruneError::Incomplete { failed, total, first }),
        None => Ok(()),
    }
}

fn delete_image(store: &dyn Store, tag: Option<&str>, digest: &Digest) -> Result<&'static str, StoreError> {
    let deleted = match tag {
        Some(tag) => store.delete_image(tag, digest),
        None => match store.delete_manifest(digest) {
            Err(error @ StoreError::Registry { .. }) => {
                tracing::warn!("left to the registry's garbage collection: {error}");
                return Ok("left");
            }
            deleted => deleted,
        },
    };
    Ok(if deleted? { "deleted" } else { "gone already" })
}

impl Doomed {
    fn tagged(tag: String, digest: Digest) -> Self {
        Self { tag: Some(tag), digest, attached: Vec::new() }
    }

    fn replaced(digest: Digest) -> Self {
        Self { tag: None, digest, attached: Vec::new() }
    }
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
