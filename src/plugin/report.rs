//! `report`: a page about a run.

mod run;
mod workspaces;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::{
    PluginError,
    cluster::{ClusterArgs, UserCluster},
    outcome::outcomes,
    stored::{self, StoredRun},
};
use crate::{page::Document, units, workspace};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap report build-x7k2p                       # writes build-x7k2p.html
  tkn wrap report build-x7k2p -o - > public/index.html";

/// Of which run, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A wrapped PipelineRun, over or not
    run: String,
    /// The file to write, `-` for the standard output [default: RUN.html]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Writes the page.
pub fn report(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let object = cluster.run(&args.run)?;
    let stored = StoredRun::new(&object)?;
    let children = stored::children(&cluster, &object)?;
    let now = units::now();
    let mut run = run::described(&object, outcomes(&cluster, &object, &children), &now)?;
    workspaces::add(&mut run, &stored)?;
    let page = Document {
        title: format!("{} · tekton-wrap", args.run),
        runs: vec![run],
        made: format!("Made by tekton-wrap {} at {now}, from tables of contents alone.", env!("CARGO_PKG_VERSION")),
    };
    let file = args.output.clone().unwrap_or_else(|| PathBuf::from(format!("{}.html", args.run)));
    if file.as_os_str() == "-" {
        return write!(out, "{page}").map_err(PluginError::Output);
    }
    write_to(&file, &page).map_err(workspace::Error::file(file.display(), "can't be written"))?;
    writeln!(out, "{}", file.display()).map_err(PluginError::Output)
}

fn write_to(file: &PathBuf, page: &Document) -> io::Result<()> {
    let mut out = io::BufWriter::new(std::fs::File::create(file)?);
    write!(out, "{page}")?;
    out.flush()
}
