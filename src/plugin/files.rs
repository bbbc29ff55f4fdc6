//! `cp`, `cat`, `ls` and `diff`: files of any task of any run, while it runs or after its pods are gone. Only the tables of
//! contents are read, and the parts of layers that hold the files.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    str::FromStr,
};

use super::{
    Error,
    cluster::{Cluster, ClusterArgs},
    stored::StoredRun,
};
use crate::{
    inspect::{Output, files, listed, listing, source::InspectedImage},
    quote::Quoted,
    target::Target,
    units::count,
    workspace::{
        self,
        entry::{Entry, Node},
        files::extract::Extractor,
        path::TreePath,
    },
};

/// For `--help`.
pub const CP_EXAMPLES: &str = "Examples:
  tkn wrap cp build-x7k2p:sources/target/app .              # of the workspace's last state
  tkn wrap cp build-x7k2p/test:sources/reports ./reports    # as task test left it
  tkn wrap cp 'build-x7k2p/build[2]:sources/log' log        # a combination of a matrix";

/// For `--help`.
pub const LS_EXAMPLES: &str = "Examples:
  tkn wrap ls build-x7k2p:sources
  tkn wrap ls -R build-x7k2p/test:sources/reports";

/// For `--help`.
pub const DIFF_EXAMPLES: &str = "Examples:
  tkn wrap diff build-x7k2p compile test    # what is different after task test
  tkn wrap diff build-x7k2p build-k3m9q     # two runs";

/// Files of a run: `RUN[/TASK]:WORKSPACE[/PATH]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    run: String,
    task: Option<String>,
    workspace: String,
    path: TreePath,
}

/// What to copy, and where to.
#[derive(Clone, Debug, clap::Args)]
pub struct CpArgs {
    /// RUN[/TASK]:WORKSPACE[/PATH]: a file or folder; without TASK, of the workspace's last state
    #[arg(required = true, value_name = "SOURCE")]
    sources: Vec<Place>,
    /// A folder that exists, or the new name of a single source
    dest: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What to print.
#[derive(Clone, Debug, clap::Args)]
pub struct CatArgs {
    /// RUN[/TASK]:WORKSPACE/PATH
    #[arg(required = true, value_name = "FILE")]
    sources: Vec<Place>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What to list.
#[derive(Clone, Debug, clap::Args)]
pub struct LsArgs {
    /// RUN[/TASK]:WORKSPACE[/PATH]
    #[arg(value_name = "PLACE")]
    source: Place,
    /// With all that is below
    #[arg(short = 'R', long)]
    recursive: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct DiffArgs {
    /// A run
    run: String,
    /// A task of it with another one, or another run
    #[arg(num_args = 1..=2, required = true, value_name = "TASK TASK | RUN")]
    with: Vec<String>,
    /// Only this workspace; default: all that are wrapped
    #[arg(short, long, value_name = "NAME")]
    workspace: Option<String>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let form = "write RUN:WORKSPACE/PATH or RUN/TASK:WORKSPACE/PATH";
        let (run, rest) = text.split_once(':').ok_or(form)?;
        let (run, task) = run.split_once('/').map_or((run, None), |(run, task)| (run, Some(task.to_owned())));
        let (workspace, path) = rest.split_once('/').unwrap_or((rest, ""));
        if run.is_empty() || workspace.is_empty() || task.as_deref() == Some("") {
            return Err(form.to_owned());
        }
        let names: Vec<&str> = path.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
        let path = TreePath::parse(names.join("/").as_bytes()).map_err(|e| e.to_string())?;
        Ok(Self { run: run.to_owned(), task, workspace: workspace.to_owned(), path })
    }
}

/// `cp`
pub fn cp(args: &CpArgs, out: &mut dyn Write) -> Result<(), Error> {
    let cluster = Cluster::open(&args.cluster)?;
    let into = args.dest.is_dir();
    if args.sources.len() > 1 && !into {
        let dest = args.dest.display();
        return Err(Error::Argument(format!("{dest} is no folder that exists: several sources need one")));
    }
    for source in &args.sources {
        let image = open(&cluster, source)?;
        let (folder, name) = destination(&args.dest, into, source)?;
        let copied = copy(&image, source, &folder, &name)?;
        let text = format!("{} to {}", count(copied, "file"), folder.join(as_path(&name)).display());
        writeln!(out, "{text}").map_err(Error::Output)?;
    }
    Ok(())
}

/// `cat`
pub fn cat(args: &CatArgs, out: &mut dyn Write) -> Result<(), Error> {
    let cluster = Cluster::open(&args.cluster)?;
    for source in &args.sources {
        let image = open(&cluster, source)?;
        let mut found = None;
        files::read(&image, &|path| *path == source.path, &mut |entry, content| {
            found = Some(entry.content().is_some());
            io::copy(content, out).map(drop).map_err(workspace::Error::file("the standard output", "can't be written"))
        })?;
        match found {
            Some(true) => {}
            Some(false) => return Err(Error::Argument(format!("{}: it is not a file", shown(source)))),
            None => return Err(absent(source)),
        }
    }
    Ok(())
}

/// `ls`
pub fn ls(args: &LsArgs, out: &mut dyn Write) -> Result<(), Error> {
    let (cluster, source) = (Cluster::open(&args.cluster)?, &args.source);
    let image = listed(&image(&cluster, source)?.to_string())?;
    let mut found = source.path.is_root();
    image.for_each(&mut |entry| {
        let is_child = || entry.path.parent().is_some_and(|parent| parent == source.path);
        let is_it = entry.path == source.path;
        found |= is_it || source.path.contains(&entry.path);
        let is_below = if args.recursive { source.path.contains(&entry.path) } else { is_child() };
        if is_below || is_it && !entry.is_dir() {
            writeln!(out, "{}", listing::EntryLine(&entry))
                .map_err(workspace::Error::file("the standard output", "can't be written"))?;
        }
        Ok(())
    })?;
    if found { Ok(()) } else { Err(absent(source)) }
}

/// `diff`
pub fn diff(args: &DiffArgs, out: &mut dyn Write) -> Result<(), Error> {
    let cluster = Cluster::open(&args.cluster)?;
    let first = cluster.run(&args.run)?;
    let stored = StoredRun::new(&first)?;
    let names = match &args.workspace {
        Some(name) => vec![name.as_str()],
        None => stored.workspaces(),
    };
    let other = match &args.with[..] {
        [other] => Some(cluster.run(other)?),
        _ => None,
    };
    for name in &names {
        let (a, b) = match (&args.with[..], &other) {
            ([one, two], _) => (stored.snapshot(one, name)?, stored.snapshot(two, name)?),
            (_, Some(other)) => (stored.target(name)?, StoredRun::new(other)?.target(name)?),
            _ => continue,
        };
        if names.len() > 1 {
            writeln!(out, "workspace {name}:").map_err(Error::Output)?;
        }
        listing::diff(&listed(&a.to_string())?, &listed(&b.to_string())?, Output::Text, out)?;
    }
    Ok(())
}

/// The image that has the files of `place`.
fn image(cluster: &Cluster, place: &Place) -> Result<Target, Error> {
    let run = cluster.run(&place.run)?;
    let stored = StoredRun::new(&run)?;
    match &place.task {
        Some(task) => stored.snapshot(task, &place.workspace),
        None => stored.target(&place.workspace),
    }
}

fn open(cluster: &Cluster, place: &Place) -> Result<InspectedImage, Error> {
    Ok(InspectedImage::open(&image(cluster, place)?.to_string())?)
}

/// The folder that a source is copied into, and its name there.
fn destination(dest: &Path, into: bool, source: &Place) -> Result<(PathBuf, TreePath), Error> {
    let unusable = |e: &dyn std::fmt::Display| Error::Argument(format!("{}: {e}", dest.display()));
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
fn copy(image: &InspectedImage, source: &Place, folder: &Path, name: &TreePath) -> Result<u64, Error> {
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

fn absent(place: &Place) -> Error {
    Error::Argument(format!("{}: there is no such file: tkn wrap ls lists what there is", shown(place)))
}

/// As it was written.
fn shown(place: &Place) -> String {
    let task = place.task.as_ref().map_or(String::new(), |task| format!("/{task}"));
    format!("{}{task}:{}/{}", place.run, place.workspace, Quoted(place.path.as_bytes()))
}

fn as_path(path: &TreePath) -> &Path {
    Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path.as_bytes()))
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
            let place: Place = text.parse().unwrap();
            let found = (&*place.run, place.task.as_deref(), &*place.workspace, place.path.as_bytes());
            assert_eq!(found, (run, task, workspace, path.as_bytes()), "{text}");
        }
        for text in ["", "r", "r:", ":w", "/t:w", "r/:w", "r:/a", "r:w/../a"] {
            assert!(text.parse::<Place>().is_err(), "{text}");
        }
    }
}
