//! `inspect`: what an image of a run holds, and what each task did, from manifests, configs and tables of contents alone.
//! No layer is downloaded, except to verify.
//!
//! | module | its one concept |
//! |---|---|
//! | [`source`] | an image as far as it is known without its layers |
//! | [`changes`] | what a task did, and how two images differ; pure |
//! | [`history`] | what each task found at a path and left there; pure |
//! | [`holding`] | how much a tree holds, and what a task restored |
//! | [`files`] | single files with what they hold |
//! | [`report`], [`listing`] | how it is shown |
//! | [`verify`] | checks all digests again |

pub(crate) mod changes;
pub(crate) mod files;
pub(crate) mod history;
pub(crate) mod holding;
pub(crate) mod listing;
pub(crate) mod report;
pub(crate) mod source;
#[cfg(test)]
mod tests;
mod verify;

use std::io::{self, BufWriter, Write};

use self::{report::Report, source::InspectedImage};
use crate::{store, target::Target, workspace::Error};

/// What to look at.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The target of a run: all its tasks; the snapshot of a task: it and the tasks before it; or any other image
    #[arg(required_unless_present = "diff")]
    image: Option<String>,
    /// List the files: type and mode, owner, size, path
    #[arg(long)]
    tree: bool,
    /// List what differs between two images: A added, D deleted, M other content, T other type, m other attributes only
    #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with_all = ["image", "tree"])]
    diff: Option<Vec<String>>,
    /// Download everything and check each digest again: layers, files, and the snapshots that the image was made from
    #[arg(long, conflicts_with_all = ["diff", "tree", "output"])]
    verify: bool,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "text")]
    output: Output,
}

/// Forms of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Text,
    /// For programs: the names of the fields are stable (docs/inspect.md).
    Json,
}

/// Writes the answer to `out`. If nobody reads it to its end (`| head`), that is no error.
pub fn inspect(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let mut out = BufWriter::with_capacity(1 << 16, out);
    let written = answer(args, &mut out).and_then(|()| out.flush().map_err(unwritable()));
    match written {
        Err(Error::File { path, source, .. }) if path == STDOUT && source.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

fn answer(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    if let Some([a, b]) = args.diff.as_deref() {
        let (a, b) = (listed(a)?, listed(b)?);
        return listing::diff(&a, &b, args.output, out);
    }
    let image = args.image.as_deref().unwrap_or_default();
    if args.tree {
        return listing::tree(&listed(image)?, args.output, out);
    }
    if args.verify {
        let store = store::open(&image.parse::<Target>()?)?;
        return verify::verify(&InspectedImage::open(image)?, &*store, out);
    }
    let report = Report::new(&InspectedImage::open(image)?)?;
    let text = match args.output {
        Output::Text => report.to_string(),
        Output::Json => serde_json::to_string_pretty(&report).map_err(io::Error::from).map_err(unwritable())? + "\n",
    };
    out.write_all(text.as_bytes()).map_err(unwritable())
}

/// An image whose files are to be listed. One of which no file is known is refused.
pub(crate) fn listed(image: &str) -> Result<InspectedImage, Error> {
    let source = InspectedImage::open(image)?;
    if let Some(why) = &source.unlisted {
        if source.lineage.writers.is_empty() {
            let problem = format!(
                "its files can't be listed, as {why}; tekton-wrap restore {image} DIR downloads and unpacks it"
            );
            return Err(Error::damaged(&source.image, problem));
        }
        tracing::warn!("{}: {why}", source.image);
    }
    Ok(source)
}

const STDOUT: &str = "the standard output";

fn unwritable() -> impl FnOnce(io::Error) -> Error {
    Error::file(STDOUT, "can't be written")
}
