//! Commands for people at a terminal: the same program, called `tkn-wrap` or `kubectl-wrap`, is a plugin of tkn or kubectl.
//! They use the rights of whoever calls them: a kubeconfig for the cluster, and credentials for the registry as any other
//! tool has them. The webhook has no part in them.
//!
//! | module | its one concept |
//! |---|---|
//! | [`start`] | a new run, with a local folder in it |
//! | [`list`], [`describe`] | wrapped runs, and what each task restored and saved |
//! | [`outcome`] | how the tasks of a run are |
//! | [`report`] | a page about a run |
//! | [`files`] | files of any task of any run |
//! | [`rerun`] | a run again, from the task that failed |
//! | [`snapshots`] | whether the snapshots of a run are still there |
//! | [`stored`] | a wrapped run as it is stored |
//! | [`version`] | of this program and of the webhook |
//! | [`place`] | where a run says that its files are |
//! | [`params`] | `-p NAME=VALUE` |
//! | [`cluster`] | the cluster, with the user's kubeconfig |
//! | [`program`] | what the program is called; completions and man pages |
//! | [`output`], [`error`] | how answers are written; what can go wrong |

mod cluster;
mod describe;
mod error;
mod files;
mod list;
mod outcome;
mod output;
mod params;
mod place;
pub mod program;
mod report;
mod rerun;
mod snapshots;
mod start;
mod stored;
mod version;

use std::io::{self, BufWriter, Write};

pub use self::error::PluginError;
use crate::workspace;

/// The commands.
#[derive(Debug, clap::Subcommand)]
pub enum PluginCommand {
    /// Start a wrapped run of a Pipeline, with a local folder in it if you like
    #[command(after_help = start::EXAMPLES)]
    Start(start::Args),
    /// List wrapped runs
    #[command(after_help = list::EXAMPLES)]
    List(list::Args),
    /// Show a wrapped run: its workspaces, what each task restored and saved, and why it failed
    #[command(after_help = describe::EXAMPLES)]
    Describe(describe::Args),
    /// Write a page about a wrapped run: its tasks, what each one did with the files, conflicts, layers
    #[command(after_help = report::EXAMPLES)]
    Report(report::Args),
    /// Copy files of any task of a run to this machine
    #[command(after_help = files::copy::EXAMPLES)]
    Cp(files::copy::Args),
    /// Print files of any task of a run
    #[command(after_help = files::CAT_EXAMPLES)]
    Cat(files::CatArgs),
    /// List files of any task of a run: type and mode, owner, size, path
    #[command(after_help = files::ls::EXAMPLES)]
    Ls(files::ls::Args),
    /// List what differs between two tasks or two runs: A added, D deleted, M other content, T other type, m other attributes only
    #[command(after_help = files::diff::EXAMPLES)]
    Diff(files::diff::Args),
    /// Run a wrapped run again, from the task that failed or from any other one
    ///
    /// Tasks that succeeded and come after no task that runs again are left out: their results stand as values wherever they
    /// are used, and their snapshots are what the others start from. finally runs whole. Without --failed and --from all
    /// tasks run again.
    #[command(after_help = rerun::EXAMPLES)]
    Rerun(rerun::Args),
    /// Print the versions of this program and of the webhook
    #[command(after_help = version::EXAMPLES)]
    Version(version::Args),
}

/// Does what `command` says and writes the answer to `out`.
pub fn run(command: &PluginCommand, out: &mut dyn Write) -> Result<(), PluginError> {
    let mut out = BufWriter::new(out);
    let answered = match command {
        PluginCommand::Start(args) => start::start(args, &mut out),
        PluginCommand::List(args) => list::list(args, &mut out),
        PluginCommand::Describe(args) => describe::describe(args, &mut out),
        PluginCommand::Report(args) => report::report(args, &mut out),
        PluginCommand::Cp(args) => files::copy::cp(args, &mut out),
        PluginCommand::Cat(args) => files::cat(args, &mut out),
        PluginCommand::Ls(args) => files::ls::ls(args, &mut out),
        PluginCommand::Diff(args) => files::diff::diff(args, &mut out),
        PluginCommand::Rerun(args) => rerun::rerun(args, &mut out),
        PluginCommand::Version(args) => version::version(args, &mut out),
    };
    unless_unread(answered.and_then(|()| out.flush().map_err(PluginError::Output)))
}

/// That nobody reads an answer to its end (`| head`) is no error.
pub fn unless_unread(answered: Result<(), PluginError>) -> Result<(), PluginError> {
    match answered {
        Err(PluginError::Output(source) | PluginError::Workspace(workspace::Error::File { source, .. }))
            if source.kind() == io::ErrorKind::BrokenPipe =>
        {
            Ok(())
        }
        other => other,
    }
}
