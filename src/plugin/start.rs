//! `start`: the PipelineRun that one would have to write, wrapped, with a local folder in it.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

mod build;
mod folder;
mod follow;

use std::{
    io::{self, Write},
    path::PathBuf,
};

use serde_json::Value;

use self::build::Wanted;
use super::{
    PluginError,
    cluster::{ClusterArgs, PIPELINE, PIPELINE_RUN, UserCluster},
    output::{self, Form},
    params,
    stored::StoredRun,
};
use crate::{tekton::run::Run, workspace, yaml};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap start build -p revision=main
  tkn wrap start build --base sources=. --showlog    # the local tree in the cluster's pipeline, without a push
  tkn wrap start -f pipeline.yaml -w sources,cache --target 'quay.io/me/ci:$(context.pipelineRun.name)-$(workspace)'
  tkn wrap start build --dry-run -o yaml             # the run as the webhook wraps it";

/// What to start.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A Pipeline of the namespace
    #[arg(required_unless_present = "file")]
    pipeline: Option<String>,
    /// A file with a PipelineRun or a Pipeline, `-` for the standard input
    #[arg(short, long = "filename", value_name = "FILE", conflicts_with = "pipeline")]
    file: Option<PathBuf>,
    /// The value of a param. An array is a,b,c and an object key:value,key:value
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// The workspaces to wrap, or auto for those that tasks share [default: what the run says, or auto]
    #[arg(short, long = "workspaces", value_name = "NAME,…|auto")]
    workspaces: Option<String>,
    /// Where workspaces go [default: that of the namespace or of the cluster]
    #[arg(long, value_name = "IMAGE")]
    target: Option<String>,
    /// Start a workspace with a local folder: it is saved beside the target, without what .gitignore names
    #[arg(long, value_name = "NAME=DIR")]
    base: Vec<String>,
    /// Save what .gitignore names too
    #[arg(long, requires = "base")]
    no_ignore: bool,
    /// Print the run as it would be stored, but create and save nothing
    #[arg(long)]
    dry_run: bool,
    /// How to print the PipelineRun; default: a sentence about it, with --dry-run yaml
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    /// Print the logs of the steps until the run is over, and fail if it does
    #[arg(long, conflicts_with = "dry_run")]
    showlog: bool,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Starts a run.
pub fn start(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let folders = args.base.iter().map(|base| folder::Folder::parse(base)).collect::<Result<Vec<_>, _>>()?;
    let (mut run, pipeline) = given(&cluster, args)?;
    let wanted = Wanted {
        params: params::parse(&args.params, pipeline.as_ref().unwrap_or(&Value::Null))?,
        workspaces: args.workspaces.as_deref(),
        target: args.target.as_deref(),
    };
    // What is embedded may use a param that nobody declares (Tekton, "propagated parameters").
    if let (Some(name), Some(spec)) = (pipeline_name(&run), &pipeline) {
        params::check_declared(&wanted.params, name, spec)?;
    }
    build::ask(&mut run, &wanted);
    if !folders.is_empty() {
        build::name(&mut run);
    }
    // Whoever wraps it says so before anything is stored, and what would be refused is.
    let wrapped = cluster.create(PIPELINE_RUN, &run, true)?;
    let stored = StoredRun::new(&wrapped).map_err(|_| PluginError::NoWebhook)?;
    if let Some(folder) = folders.iter().find(|folder| !stored.workspaces().contains(&folder.workspace.as_str())) {
        return Err(PluginError::Argument(format!(
            "--base: the run has no wrapped workspace {:?}: it has {}",
            folder.workspace,
            stored.workspaces().join(", ")
        )));
    }
    if args.dry_run {
        return output::object(&wrapped, args.output.unwrap_or(Form::Yaml), out);
    }
    if let Some(first) = folders.first() {
        let base = folder::save(&folders, &stored, &first.workspace, !args.no_ignore, args.target.is_some())?;
        build::set_base(&mut run, &base);
    }
    let created = cluster.create(PIPELINE_RUN, &run, false)?;
    match args.output {
        Some(form) => output::object(&created, form, out)?,
        None => writeln!(out, "{} created", output::name(&created)).map_err(PluginError::Output)?,
    }
    out.flush().map_err(PluginError::Output)?;
    if args.showlog { follow::follow(&cluster, &created, out) } else { Ok(()) }
}

/// The run that the arguments name, and the spec of its pipeline if it is at hand.
fn given(cluster: &UserCluster, args: &Args) -> Result<(Value, Option<Value>), PluginError> {
    if let Some(file) = &args.file {
        let text = read(file).map_err(workspace::Error::file(file.display(), "can't be read"))?;
        let unusable =
            |problem: &dyn std::fmt::Display| PluginError::Argument(format!("{}: {problem}", file.display()));
        let documents = yaml::parse(&text).map_err(|e| unusable(&e))?;
        let run = build::of_documents(documents).map_err(|e| unusable(&e))?;
        let pipeline = match (Run::new(&run).pipeline_spec(), pipeline_name(&run)) {
            (Some(spec), _) => Some(spec.clone()),
            (None, Some(name)) => cluster.find(PIPELINE, name)?.map(|found| found["spec"].clone()),
            (None, None) => None,
        };
        return Ok((run, pipeline));
    }
    let name = args.pipeline.as_deref().unwrap_or_default();
    let found = cluster.find(PIPELINE, name)?.ok_or_else(|| PluginError::NotFound {
        kind: PIPELINE.name,
        name: name.to_owned(),
        namespace: cluster.namespace.clone(),
        hint: "",
    })?;
    Ok((build::of_pipeline(name), Some(found["spec"].clone())))
}

/// The name of the Pipeline of a run that has it from the cluster.
fn pipeline_name(run: &Value) -> Option<&str> {
    Run::new(run).pipeline_ref()?.get("name")?.as_str()
}

fn read(file: &std::path::Path) -> io::Result<String> {
    if file.as_os_str() == "-" { io::read_to_string(io::stdin()) } else { std::fs::read_to_string(file) }
}
