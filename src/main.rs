//! The command line, nothing else.

use std::{
    error::Error,
    io::{self, ErrorKind, IsTerminal as _, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tekton_wrap::{
    admission, inspect, log,
    plugin::{
        self,
        program::{self, CalledAs, ShellName},
    },
    prune, render, store,
    traces::Traces,
    workspace,
};

/// Runs Tekton Pipelines without PersistentVolumeClaims: workspaces travel as image layers through a registry.
#[derive(Parser)]
#[command(version, about, after_help = EXIT_CODES)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    /// How the log on stderr is written
    #[arg(long, global = true, value_enum, default_value = "text", env = "TEKTON_WRAP_LOG_FORMAT")]
    log_format: log::Format,
    #[command(flatten)]
    registries: store::RegistrySettings,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the mutating admission webhook
    Webhook(admission::WebhookArgs),
    /// Print the wrapped form of PipelineRuns from files, without a cluster
    Render(render::Args),
    /// Make a workspace from an image; without arguments, as an injected step
    Restore {
        /// A snapshot, or any other image
        #[arg(requires = "dir")]
        source: Option<String>,
        /// Where its files go; existing files stay, unless the image has something else at the same path
        dir: Option<PathBuf>,
        /// Records what was restored, for a later save
        #[arg(long, value_name = "FILE", requires = "dir")]
        baseline: Option<PathBuf>,
    },
    /// Store a workspace as an image; without arguments, as an injected step
    Save {
        /// What to store
        #[arg(requires = "target")]
        dir: Option<PathBuf>,
        /// The image to write
        target: Option<String>,
        /// The record of a restore: only what changed since is stored, on top of what was restored
        #[arg(long, value_name = "FILE", requires = "target")]
        baseline: Option<PathBuf>,
    },
    /// Show what an image of a run holds and what each task did, without downloading a layer
    Inspect(inspect::Args),
    /// Delete the snapshots that the tasks of a run left beside its target
    Prune(prune::Args),
    #[command(flatten)]
    Plugin(plugin::PluginCommand),
    /// Print what makes a shell complete commands and flags
    #[command(after_help = COMPLETION)]
    Completion {
        /// The shell
        #[arg(value_enum)]
        shell: ShellName,
    },
    /// Write a man page for each command into a folder
    Man {
        /// The folder; it is made if need be
        dir: PathBuf,
    },
}

/// For `--help`.
const COMPLETION: &str = "Examples:
  source <(tekton-wrap completion bash)
  tekton-wrap completion zsh > \"${fpath[1]}/_tekton-wrap\"
  tekton-wrap completion fish > ~/.config/fish/completions/tekton-wrap.fish";

/// For `--help`: docs/cli.md promises them.
const EXIT_CODES: &str = "Exit codes: 0 done, 1 failed or refused (a sentence on stderr says why), 2 wrong arguments";

/// The exit code for a command line, or an environment, that can't be used; clap's own.
const USAGE: u8 = 2;

impl Command {
    /// Whether it runs as an injected step.
    fn is_step(&self) -> bool {
        matches!(self, Self::Restore { source: None, .. } | Self::Save { dir: None, .. })
    }
}

type Result = std::result::Result<(), Box<dyn Error>>;

fn main() -> ExitCode {
    // The one crypto provider of the process; installing it fails only if there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    open_more_files();
    let called = CalledAs::of(std::env::args_os().next().as_deref());
    let line = called.dress(Cli::command());
    let Cli { command, log_format, registries } = match Cli::from_arg_matches(&line.clone().get_matches()) {
        Ok(cli) => cli,
        Err(error) => error.exit(),
    };
    registries.set();
    let program = if matches!(command, Command::Webhook(_)) { log::Program::Service } else { log::Program::Tool };
    let (trace_settings, instance) = match &command {
        Command::Webhook(args) => (args.traces.settings(|name| std::env::var(name).ok()), args.pod_name.clone()),
        _ => Default::default(),
    };
    let (spans, traces) = trace_settings.start(&instance.unwrap_or_default()).unzip();
    match log::start(log_format, program, spans) {
        Ok(()) if log_format == log::Format::Text && std::io::stderr().is_terminal() => workspace::draw_progress(),
        Ok(()) => {}
        // A variable that a task has for its own programs must not end it.
        Err(error) if command.is_step() => tracing::warn!("{error}"),
        Err(error) => {
            log::failed(log_format, &error);
            return ExitCode::from(USAGE);
        }
    }
    trace_settings.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let result = match command {
        Command::Webhook(args) => {
            let result = run_webhook(args);
            traces.into_iter().for_each(Traces::finish);
            result
        }
        Command::Render(args) => return run_render(&args, log_format),
        Command::Restore { source: Some(source), dir: Some(dir), baseline } => {
            workspace::restore_image(&source, &dir, baseline.as_deref()).map_err(Into::into)
        }
        Command::Restore { .. } => workspace::restore_step().map_err(Into::into),
        Command::Save { dir: Some(dir), target: Some(target), baseline } => {
            workspace::save_dir(&dir, &target, baseline.as_deref()).map_err(Into::into)
        }
        Command::Save { .. } => match workspace::save_step() {
            Ok(code) => return ExitCode::from(code),
            Err(error) => Err(error.into()),
        },
        Command::Prune(args) => prune::prune(&args, &mut io::stdout().lock()).map_err(Into::into),
        Command::Inspect(args) => inspect::inspect(&args, &mut io::stdout().lock()).map_err(Into::into),
        Command::Plugin(command) => plugin::run(&command, &mut io::stdout().lock()).map_err(Into::into),
        Command::Completion { shell } => {
            plugin::unless_unread(called.complete(line, shell, &mut io::stdout().lock())).map_err(Into::into)
        }
        Command::Man { dir } => program::write_man_pages(line, &dir).map_err(Into::into),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::failed(log_format, &*error);
            ExitCode::FAILURE
        }
    }
}

/// Containers often begin with 1,024 although they may have more: connections of a webhook, or directories that have to be locked
/// again, may need them. Where that is not permitted it stays as it is.
fn open_more_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

fn run_webhook(args: admission::WebhookArgs) -> Result {
    Ok(tokio::runtime::Runtime::new()?.block_on(admission::serve(args))?)
}

/// Prints what can be rendered, and for each run that can't be, the reason. All runs are tried.
fn run_render(args: &render::Args, log_format: log::Format) -> ExitCode {
    let rendered = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(render::render(args)).map_err(Box::<dyn std::error::Error>::from),
        Err(error) => Err(error.into()),
    };
    let rendered = match rendered {
        Ok(rendered) => rendered,
        Err(error) => {
            log::failed(log_format, &*error);
            return ExitCode::FAILURE;
        }
    };
    rendered.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut stdout = io::stdout().lock();
    if let Err(error) = stdout.write_all(rendered.text.as_bytes()).and_then(|()| stdout.flush())
        && error.kind() != ErrorKind::BrokenPipe
    {
        log::failed(log_format, &Unwritten(error));
        return ExitCode::FAILURE;
    }
    rendered.refused.iter().for_each(|refused| log::failed(log_format, refused));
    if rendered.refused.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The standard output is closed or full.
#[derive(Debug, thiserror::Error)]
#[error("the output can't be written: {0}")]
struct Unwritten(#[source] io::Error);
