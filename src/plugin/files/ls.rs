//! `ls`

use std::io::Write;

use serde_json::{Value, json};

use super::{
    super::{
        PluginError,
        cluster::{ClusterArgs, UserCluster},
        output::DescriptionForm,
    },
    RunPath, absent, opened,
};
use crate::{
    inspect::{listed, listing},
    quote::Quoted,
    workspace::{self, entry::Entry},
    yaml,
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap ls build-x7k2p:sources
  tkn wrap ls -R build-x7k2p/test:sources/reports
  tkn wrap ls -R build-x7k2p:sources -o json | jq '.entries[] | select(.size > 1000000) | .path'";

/// What to list.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// RUN[/TASK]:WORKSPACE[/PATH]
    #[arg(value_name = "PLACE")]
    source: RunPath,
    /// With all that is below
    #[arg(short = 'R', long)]
    recursive: bool,
    /// How to write it; wide has times, name only paths
    #[arg(short, long, value_enum, default_value = "text")]
    output: DescriptionForm,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Lists files.
pub fn ls(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let (cluster, source) = (UserCluster::open(&args.cluster)?, &args.source);
    let image = opened(&cluster, source, listed)?;
    let mut found = source.path.is_root();
    let mut entries = Vec::new();
    image.for_each(&mut |entry| {
        let is_child = || entry.path.parent().is_some_and(|parent| parent == source.path);
        let is_it = entry.path == source.path;
        found |= is_it || source.path.contains(&entry.path);
        let is_below = if args.recursive { source.path.contains(&entry.path) } else { is_child() };
        if !is_below && (!is_it || entry.is_dir()) {
            return Ok(());
        }
        match line(&entry, args.output) {
            Some(line) => {
                writeln!(out, "{line}").map_err(workspace::Error::file("the standard output", "can't be written"))
            }
            None => {
                entries.push(listing::as_json(&entry));
                Ok(())
            }
        }
    })?;
    if !found {
        return Err(absent(source));
    }
    let object = || json!({"image": image.image, "digest": image.digest, "entries": Value::Array(entries)});
    match args.output {
        DescriptionForm::Json => writeln!(out, "{:#}", object()).map_err(PluginError::Output),
        DescriptionForm::Yaml => out.write_all(yaml::to_string(&object()).as_bytes()).map_err(PluginError::Output),
        _ => Ok(()),
    }
}

/// An entry as a line; none where all are one object.
fn line(entry: &Entry, form: DescriptionForm) -> Option<String> {
    match form {
        DescriptionForm::Text => Some(listing::EntryLine(entry).to_string()),
        DescriptionForm::Wide => Some(format!("{} {}", listing::time(entry.mtime), listing::EntryLine(entry))),
        DescriptionForm::Name => Some(Quoted(entry.path.as_bytes()).to_string()),
        DescriptionForm::Json | DescriptionForm::Yaml => None,
    }
}
