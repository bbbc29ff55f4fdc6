//! `cp`, `cat`, `ls` and `diff`: files of any task of any run, while it runs or after its pods are gone. Only the tables of
//! contents are read, and the parts of layers that hold the files.

pub mod copy;
pub mod diff;
pub mod ls;

use std::{
    io::{self, Write},
    str::FromStr,
};

use super::{
    PluginError,
    cluster::{ClusterArgs, UserCluster},
    stored::StoredRun,
};
use crate::{
    inspect::{files, source::InspectedImage},
    quote::Quoted,
    workspace::{self, path::TreePath},
};

/// For `--help`.
pub const CAT_EXAMPLES: &str = "Examples:
  tkn wrap cat build-x7k2p:sources/go.mod
  tkn wrap cat build-x7k2p/test:sources/reports/junit.xml";

/// Files of a run: `RUN[/TASK]:WORKSPACE[/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunPath {
    run: String,
    task: Option<String>,
    workspace: String,
    path: TreePath,
}

/// What is no [`RunPath`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidRunPath {
    /// Run, task or workspace is missing.
    #[error("write RUN:WORKSPACE/PATH or RUN/TASK:WORKSPACE/PATH")]
    Form,
    /// Its path leads out of the workspace.
    #[error("{0}")]
    Path(String),
}

/// What to print.
#[derive(Clone, Debug, clap::Args)]
pub struct CatArgs {
    /// RUN[/TASK]:WORKSPACE/PATH
    #[arg(required = true, value_name = "FILE")]
    sources: Vec<RunPath>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl FromStr for RunPath {
    type Err = InvalidRunPath;

    fn from_str(text: &str) -> Result<Self, InvalidRunPath> {
        let (run, rest) = text.split_once(':').ok_or(InvalidRunPath::Form)?;
        let (run, task) = run.split_once('/').map_or((run, None), |(run, task)| (run, Some(task.to_owned())));
        let (workspace, path) = rest.split_once('/').unwrap_or((rest, ""));
        if run.is_empty() || workspace.is_empty() || task.as_deref() == Some("") {
            return Err(InvalidRunPath::Form);
        }
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let path = TreePath::parse(names.join("/").as_bytes()).map_err(|e| InvalidRunPath::Path(e.to_string()))?;
        Ok(Self { run: run.to_owned(), task, workspace: workspace.to_owned(), path })
    }
}

/// Prints files.
pub fn cat(args: &CatArgs, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    for source in &args.sources {
        let image = opened(&cluster, source, InspectedImage::open)?;
        let mut found = None;
        files::read(&image, &|path| *path == source.path, &mut |entry, content| {
            found = Some(entry.content().is_some());
            io::copy(content, out).map(drop).map_err(workspace::Error::file("the standard output", "can't be written"))
        })?;
        match found {
            Some(true) => {}
            Some(false) => return Err(PluginError::Argument(format!("{}: it is not a file", shown(source)))),
            None => return Err(absent(source)),
        }
    }
    Ok(())
}

/// The image that has the files of `path`, opened by `open`.
fn opened(
    cluster: &UserCluster,
    path: &RunPath,
    open: impl FnOnce(&str) -> Result<InspectedImage, workspace::Error>,
) -> Result<InspectedImage, PluginError> {
    let run = cluster.run(&path.run)?;
    opened_of(&StoredRun::new(&run)?, path.task.as_deref(), &path.workspace, open)
}

/// What a task left of a workspace, or the workspace's target.
fn opened_of(
    run: &StoredRun<'_>,
    task: Option<&str>,
    workspace: &str,
    open: impl FnOnce(&str) -> Result<InspectedImage, workspace::Error>,
) -> Result<InspectedImage, PluginError> {
    let image = match task {
        Some(task) => run.snapshot(task, workspace)?,
        None => run.target(workspace)?,
    };
    open(&image.to_string()).map_err(|error| match (error, task) {
        (workspace::Error::NoImage(place), task) => {
            let (run, workspace) = (run.name().to_owned(), workspace.to_owned());
            match task {
                Some(task) => PluginError::NothingLeft { task: task.to_owned(), run, workspace, place },
                None => PluginError::NoTarget { run, workspace, place },
            }
        }
        (other, _) => other.into(),
    })
}

fn absent(path: &RunPath) -> PluginError {
    PluginError::Argument(format!("{}: there is no such file: tkn wrap ls lists what there is", shown(path)))
}

/// As it was written.
fn shown(path: &RunPath) -> String {
    let task = path.task.as_ref().map_or(String::new(), |task| format!("/{task}"));
    format!("{}{task}:{}/{}", path.run, path.workspace, Quoted(path.path.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places() {
        for (text, run, task, workspace, path) in [
            ("r:w", "r", None, "w", ""),
            ("r:w/", "r", None, "w", ""),
            ("r/t:w/a/b", "r", Some("t"), "w", "a/b"),
            ("r/t[2]:w/./a//b/", "r", Some("t[2]"), "w", "a/b"),
            ("r:w/a:b", "r", None, "w", "a:b"),
        ] {
            let place: RunPath = text.parse().unwrap();
            let found = (&*place.run, place.task.as_deref(), &*place.workspace, place.path.as_bytes());
            assert_eq!(found, (run, task, workspace, path.as_bytes()), "{text}");
        }
        for text in ["", "r", "r:", ":w", "/t:w", "r/:w", "r:/a", "r:w/../a"] {
            assert!(text.parse::<RunPath>().is_err(), "{text}");
        }
    }
}
