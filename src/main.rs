//! The command line of tekton-wrap.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tekton_wrap::admission;

/// Runs Tekton Pipelines without PersistentVolumeClaims
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the mutating admission webhook
    Webhook(admission::Args),
}

fn main() -> ExitCode {
    // The one provider of the process; it is only refused where there is one already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let result = match Cli::parse().command {
        Command::Webhook(args) => webhook(args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tekton-wrap: {error}");
            ExitCode::FAILURE
        }
    }
}

fn webhook(args: admission::Args) -> Result<(), Box<dyn std::error::Error>> {
    Ok(tokio::runtime::Runtime::new()?.block_on(admission::serve(args))?)
}
