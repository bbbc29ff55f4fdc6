//! The command line, nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tekton_wrap::{admission, render};

/// Runs Tekton Pipelines without PersistentVolumeClaims: workspaces travel as image layers through a registry.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the mutating admission webhook
    Webhook(admission::Args),
    /// Print the wrapped form of PipelineRuns from files, without a cluster
    Render(render::Args),
}

type Result = std::result::Result<(), Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    // The one provider of the process; it is only refused where there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match Cli::parse().command {
        Command::Webhook(args) => run_webhook(args),
        Command::Render(args) => run_render(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tekton-wrap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run_webhook(args: admission::Args) -> Result {
    Ok(tokio::runtime::Runtime::new()?.block_on(admission::serve(args))?)
}

fn run_render(args: &render::Args) -> Result {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (text, warnings) = runtime.block_on(render::render(args))?;
    warnings.iter().for_each(|warning| eprintln!("tekton-wrap: warning: {warning}"));
    print!("{text}");
    Ok(())
}
