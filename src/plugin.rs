//! Commands for people at a terminal: the same program, called `tkn-wrap` or `kubectl-wrap`, is a plugin of tkn or kubectl.
//! They use the rights of whoever calls them: a kubeconfig for the cluster, and credentials for the registry as any other
//! tool has them. The webhook has no part in them.
//!
//! | module | its one concept |
//! |---|---|
//! | [`start`] | a new run, with a local folder in it |
//! | [`list`], [`describe`] | wrapped runs, and what each task restored and saved |
//! | [`files`] | files of any task of any run |
//! | [`rerun`] | a run again, from the task that failed |
//! | [`snapshots`] | whether the snapshots of a run are still there |
//! | [`stored`] | a wrapped run as it is stored |
//! | [`params`] | `-p NAME=VALUE` |
//! | [`cluster`] | the cluster, with the user's kubeconfig |
//! | [`program`] | what the program is called; completions and man pages |
//! | [`output`], [`error`] | how answers are written; what can go wrong |

mod cluster;
mod describe;
mod error;
mod files;
mod list;
mod output;
mod params;
pub mod program;
mod rerun;
mod snapshots;
mod start;
mod stored;

use std::io::{self, BufWriter, Write};

pub use self::error::Error;
use crate::workspace;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Start a wrapped run of a Pipeline, with a local folder in it if you like
    #[command(after_help = start::EXAMPLES)]
    Start(start::Args),
    /// List wrapped runs
    #[command(after_help = list::EXAMPLES)]
    List(list::Args),
    /// Show a wrapped run: its workspaces, what each task restored and saved, and why it failed
    #[command(after_help = describe::EXAMPLES)]
    Describe(describe::Args),
    /// Copy files of any task of a run to this machine
    #[command(after_help = files::CP_EXAMPLES)]
    Cp(files::CpArgs),
    /// Print files of any task of a run
    Cat(files::CatArgs),
    /// List files of any task of a run: type and mode, owner, size, path
    #[command(after_help = files::LS_EXAMPLES)]
    Ls(files::LsArgs),
    /// List what differs between two tasks or two runs: A added, D deleted, M other content, T other type, m other attributes only
    #[command(after_help = files::DIFF_EXAMPLES)]
    Diff(files::DiffArgs),
    /// Run a wrapped run again, from the task that failed or from any other one
    ///
    /// Tasks that succeeded and come after no task that runs again are left out: their results stand as values wherever they
    /// are used, and their snapshots are what the others start from. finally runs whole. Without --failed and --from all
    /// tasks run again.
    #[command(after_help = rerun::EXAMPLES)]
    Rerun(rerun::Args),
}

/// Does what `command` says and writes the answer to `out`. If nobody reads it to its end (`| head`), that is no error.
pub fn run(command: &Command, out: &mut dyn Write) -> Result<(), Error> {
    let mut out = BufWriter::new(out);
    let answered = match command {
        Command::Start(args) => start::start(args, &mut out),
        Command::List(args) => list::list(args, &mut out),
        Command::Describe(args) => describe::describe(args, &mut out),
        Command::Cp(args) => files::cp(args, &mut out),
        Command::Cat(args) => files::cat(args, &mut out),
        Command::Ls(args) => files::ls(args, &mut out),
        Command::Diff(args) => files::diff(args, &mut out),
        Command::Rerun(args) => rerun::rerun(args, &mut out),
    };
    match answered.and_then(|()| out.flush().map_err(Error::Output)) {
        Err(Error::Output(source) | Error::Workspace(workspace::Error::File { source, .. }))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(())
        }
        other => other,
    }
}
