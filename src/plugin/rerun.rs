//! `rerun`: a run again, from the task that failed.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use std::io::Write;

use serde_json::Value;

use super::{
    PluginError,
    cluster::{ClusterArgs, PIPELINE, PIPELINE_RUN, UserCluster},
    output::{self, Form},
    params, snapshots, stored,
};
use crate::{
    annotations,
    quote::Line,
    rerun::{self, Rerun, RerunScope},
    tekton::fields::{field, items, text},
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap rerun build-x7k2p --failed                    # what failed, and what comes after it
  tkn wrap rerun build-x7k2p --from test -p retries=3    # from task test on, with another param
  tkn wrap rerun build-x7k2p --failed --dry-run -o yaml  # the PipelineRun that would be created";

/// What is to run again.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A wrapped PipelineRun that is over
    run: String,
    /// Leave out what succeeded, unless it comes after a task that did not
    #[arg(long, conflicts_with = "from")]
    failed: bool,
    /// Start at this task: leave out what succeeded and does not come after it
    #[arg(long, value_name = "TASK")]
    from: Option<String>,
    /// Another value of a param; the tasks that use it run again. An array is a,b,c and an object key:value,key:value
    #[arg(short, long = "param", value_name = "NAME=VALUE")]
    params: Vec<String>,
    /// Take the pipeline as it was, though it was changed since
    #[arg(long)]
    as_stored: bool,
    /// Check everything and print the PipelineRun, but don't create it
    #[arg(long)]
    dry_run: bool,
    /// How to print the PipelineRun; default: a sentence about it, with --dry-run yaml
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Plans the rerun, checks that all it needs is there, and creates it.
pub fn rerun(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let run = cluster.run(&args.run)?;
    let scope = match (&args.from, args.failed) {
        (Some(task), _) => RerunScope::From(task.clone()),
        (None, true) => RerunScope::Failed,
        (None, false) => RerunScope::All,
    };
    let children = if scope == RerunScope::All { Vec::new() } else { stored::children(&cluster, &run)? };
    let params = params::parse(&args.params, &run["spec"]["pipelineSpec"])?;
    let rerun = rerun::plan(&run, &children, &scope, &params)?;
    if !args.as_stored {
        check_pipeline(&cluster, &run)?;
    }
    snapshots::check(&args.run, &rerun.needs)?;
    rerun.notes.iter().for_each(|note| tracing::warn!("{note}"));
    if args.dry_run {
        return output::object(&rerun.run, args.output.unwrap_or(Form::Yaml), out);
    }
    let created = cluster.create(PIPELINE_RUN, &rerun.run, false)?;
    match args.output {
        Some(form) => output::object(&created, form, out),
        None => writeln!(out, "{} created: {}", output::name(&created), told(&rerun)).map_err(PluginError::Output),
    }
}

/// What runs, in words.
fn told(rerun: &Rerun) -> String {
    let pipeline = &rerun.run["spec"]["pipelineSpec"];
    let name = |task: &Value| Line(text(task, "name")).to_string();
    let names = |list: &str| items(pipeline, list).iter().map(name).collect::<Vec<_>>().join(", ");
    let mut told = format!("it runs {}", names("tasks"));
    if !names("finally").is_empty() {
        told = format!("{told}, then {}", names("finally"));
    }
    match rerun.left_out.len() {
        0 => told,
        _ => format!("{told}; left out, as they succeeded: {}", Line(&rerun.left_out.join(", "))),
    }
}

/// Refuses where the Pipeline by name that `run` was made from is not what it was. One that can't be read (any more) tells
/// nothing.
fn check_pipeline(cluster: &UserCluster, run: &Value) -> Result<(), PluginError> {
    let metadata = &run["metadata"];
    let annotation = |name: &str| field(metadata, "annotations").map_or("", |all| text(all, name));
    let pipeline = annotation(annotations::PIPELINE);
    if pipeline.is_empty() || !annotation(annotations::PIPELINE_REF).is_empty() {
        return Ok(());
    }
    let Ok(Some(found)) = cluster.find(PIPELINE, pipeline) else { return Ok(()) };
    // Both are RFC 3339 in UTC, to the second.
    let created = text(metadata, "creationTimestamp");
    match last_change(&found["metadata"]) {
        changed if changed > created => Err(PluginError::PipelineChanged {
            pipeline: pipeline.to_owned(),
            changed: changed.to_owned(),
            run: text(metadata, "name").to_owned(),
        }),
        _ => Ok(()),
    }
}

/// When an object was last changed.
fn last_change(metadata: &Value) -> &str {
    let managed = items(metadata, "managedFields").iter().map(|fields| text(fields, "time"));
    managed.chain([text(metadata, "creationTimestamp")]).max().unwrap_or_default()
}
