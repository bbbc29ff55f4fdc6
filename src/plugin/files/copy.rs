//! `cp`

use std::{
    io::{Read, Write},
    path::{Path, PathBuf},
};

use super::{
    super::{
        PluginError,
        cluster::{ClusterArgs, UserCluster},
    },
    RunPath, absent, opened,
};
use crate::{
    inspect::{files, source::InspectedImage},
    quote::Quoted,
    units::count,
    unread::Unread,
    workspace::{
        self,
        entry::{Entry, Node},
        files::extract::Extractor,
        path::TreePath,
    },
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap cp build-x7k2p:sources/target/app .              # of the workspace's last state
  tkn wrap cp build-x7k2p/test:sources/reports ./reports    # as task test left it
  tkn wrap cp 'build-x7k2p/build[2]:sources/log' log        # a combination of a matrix";

/// What to copy, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// RUN[/TASK]:WORKSPACE[/PATH]: a file or folder; without TASK, of the workspace's last state
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<RunPath>,
    /// A folder that exists, or the new name of a single source
    dest: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Copies files to this machine.
pub fn cp(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let into = args.dest.is_dir();
    if args.sources.len() > 1 && !into {
        let dest = args.dest.display();
        return Err(PluginError::Argument(format!("{dest} is no folder that exists: several sources need one")));
    }
    let mut out = Unread(out);
    for source in &args.sources {
        let image = opened(&cluster, source, InspectedImage::open)?;
        let (folder, name) = destination(&args.dest, into, source)?;
        let copied = copy(&image, source, &folder, &name)?;
        let text = format!("{} to {}", count(copied, "file"), folder.join(as_path(&name)).display());
        writeln!(out, "{text}").map_err(PluginError::Output)?;
    }
    Ok(())
}

/// The folder that a source is copied into, and its name there.
fn destination(dest: &Path, into: bool, source: &RunPath) -> Result<(PathBuf, TreePath), PluginError> {
    let unusable = |e: &dyn std::fmt::Display| PluginError::Argument(format!("{}: {e}", dest.display()));
    if into {
        // All of a workspace goes into the folder itself.
        let name = TreePath::parse(source.path.name()).map_err(|e| unusable(&e))?;
        return Ok((dest.to_owned(), name));
    }
    let folder = dest.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = dest.file_name().ok_or_else(|| unusable(&"it has no name"))?;
    if source.path.is_root() {
        std::fs::create_dir(dest).map_err(|e| unusable(&format!("it can't be made: {e}")))?;
        return Ok((dest.to_owned(), TreePath::root()));
    }
    let name = TreePath::parse(std::os::unix::ffi::OsStrExt::as_bytes(name)).map_err(|e| unusable(&e))?;
    Ok((folder.to_owned(), name))
}

/// Makes `source`, and what is below it, as `name` in `folder`. Gives the number of files.
fn copy(image: &InspectedImage, source: &RunPath, folder: &Path, name: &TreePath) -> Result<u64, PluginError> {
    let mut made = Extractor::new(folder)?;
    let (mut dirs, mut copied, mut found) = (Vec::new(), 0_u64, source.path.is_root());
    let renamed = |entry: &Entry| -> Result<Entry, workspace::Error> {
        let (_, below) = entry.path.split_at(source.path.as_bytes().len());
        let path = below.names().fold(name.clone(), |path, name| path.join(name));
        Ok(Entry { path, ..entry.clone() })
    };
    let wanted = |path: &TreePath| *path == source.path || source.path.contains(path);
    files::read(image, &wanted, &mut |entry, content: &mut dyn Read| {
        found = true;
        let mut entry = renamed(entry)?;
        match &entry.node {
            Node::Dir { .. } => {
                made.make_dir(&entry.path)?;
                dirs.push(entry);
                return Ok(());
            }
            Node::Char(_) | Node::Block(_) => {
                tracing::warn!("{} is a device and is left out", Quoted(entry.path.as_bytes()));
                return Ok(());
            }
            _ => {}
        }
        if let Some(content) = entry.content() {
            entry.node = Node::File(*content);
        }
        copied = copied.saturating_add(1);
        made.make_entry(&entry, content, &mut |_| {})
    })?;
    // Each after those in it.
    dirs.iter().rev().filter(|dir| !dir.path.is_root()).try_for_each(|dir| made.finish_dir(dir, true))?;
    if found { Ok(copied) } else { Err(absent(source)) }
}

fn as_path(path: &TreePath) -> &Path {
    Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.as_bytes()))
}
