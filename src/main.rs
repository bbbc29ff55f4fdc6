//! The command line, nothing else.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tekton_wrap::render;

/// Runs Tekton Pipelines without PersistentVolumeClaims: workspaces travel as image layers through a registry.
#[derive(Parser)]
#[command(version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Print the wrapped form of PipelineRuns from files, without a cluster
    Render(render::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
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

fn run_render(args: &render::Args) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (text, warnings) = runtime.block_on(render::render(args))?;
    warnings.iter().for_each(|warning| eprintln!("tekton-wrap: warning: {warning}"));
    print!("{text}");
    Ok(())
}
