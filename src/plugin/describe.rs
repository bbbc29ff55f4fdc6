//! `describe`: one wrapped run, from the cluster and from the registry.

#![allow(clippy::indexing_slicing, reason = "fields of objects that are made here")]

use std::io::Write;

use serde_json::{Value, json};

use super::{
    PluginError,
    cluster::{ClusterArgs, UserCluster, created},
    outcome::{TaskOutcome, outcomes},
    output::{self, DescriptionForm},
    stored::{self, StoredRun},
};
use crate::{
    inspect::{report::Report, source::InspectedImage},
    quote::Line,
    target::Target,
    units, yaml,
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap describe build-x7k2p
  tkn wrap describe build-x7k2p -o json | jq '.workspaces[].total'";

/// Which run, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A wrapped PipelineRun
    run: String,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "text")]
    output: DescriptionForm,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Describes a run.
pub fn describe(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let run = cluster.run(&args.run)?;
    let stored = StoredRun::new(&run)?;
    let children = stored::children(&cluster, &run)?;
    let tasks = outcomes(&cluster, &run, &children);
    let mut reports = Vec::new();
    for name in stored.workspaces() {
        let target = stored.named_target(name)?;
        // What is not there yet, or not any more, is no failure of the description.
        let report = stored.target(name).and_then(|target| {
            let image = InspectedImage::open(&target.to_string())?;
            Ok(Report::new(&image)?)
        });
        reports.push((name, target, report));
    }
    let object = json!({
        "name": args.run,
        "namespace": cluster.namespace,
        "status": stored::word(&run),
        "tasks": tasks.iter().map(json).collect::<Vec<_>>(),
        "workspaces": reports.iter().map(|(name, target, report)| {
            let mut known = report.as_ref().ok().and_then(|report| serde_json::to_value(report).ok()).unwrap_or(json!({}));
            known["workspace"] = json!(name);
            known["image"] = json!(target.to_string());
            if let Err(problem) = report {
                known["note"] = json!(problem.to_string());
            }
            known
        }).collect::<Vec<_>>(),
    });
    let text = match args.output {
        DescriptionForm::Json => format!("{object:#}\n"),
        DescriptionForm::Yaml => yaml::to_string(&object),
        DescriptionForm::Name => format!("{}\n", output::name(&run)),
        DescriptionForm::Text | DescriptionForm::Wide => {
            let now = units::now();
            let (age, word) = (output::age(created(&run), &now), Line(stored::word(&run)));
            let head = format!("{} in namespace {}: {word}, created {age} ago\n", args.run, cluster.namespace);
            out.write_all(head.as_bytes()).map_err(PluginError::Output)?;
            for task in &tasks {
                if let Some(failure) = &task.failure {
                    writeln!(out, "task {} failed: {}", Line(&task.name), Line(failure))
                        .map_err(PluginError::Output)?;
                }
            }
            writeln!(out).map_err(PluginError::Output)?;
            let wide = args.output == DescriptionForm::Wide;
            let heads = ["TASK", "STATUS", "DURATION", "RESTORE", "SAVE", "POD"];
            let heads = heads.iter().take(if wide { 6 } else { 3 }).map(|&head| head.to_owned()).collect();
            let rows = tasks.iter().map(|task| row(task, wide, &now));
            output::table(&std::iter::once(heads).chain(rows).collect::<Vec<_>>(), out)?;
            let described = |(name, target, report): &(&str, Target, Result<Report, PluginError>)| match report {
                Ok(report) => format!("\nworkspace {}:\n{report}", Line(name)),
                Err(problem) => {
                    let (target, problem) = (target.to_string(), problem.to_string());
                    format!("\nworkspace {}: {}\n{}\n", Line(name), Line(&target), Line(&problem))
                }
            };
            reports.iter().map(described).collect()
        }
    };
    out.write_all(text.as_bytes()).map_err(PluginError::Output)
}

/// A row of the table; with `wide` what the injected steps took, and the pod.
fn row(task: &TaskOutcome, wide: bool, now: &str) -> Vec<String> {
    let between = |(from, to): &(String, String)| output::age(from, if to.is_empty() { now } else { to });
    let mut row = vec![task.name.clone(), task.word.clone(), between(&task.times)];
    if wide {
        let injected = task.injected.iter().map(|times| times.as_ref().map_or("-".to_owned(), between));
        row.extend(injected);
        row.push(if task.pod.is_empty() { "-".to_owned() } else { task.pod.clone() });
    }
    row
}

fn json(task: &TaskOutcome) -> Value {
    let mut object = json!({"task": task.name, "status": task.word});
    if let Some(failure) = &task.failure {
        object["failure"] = json!(failure);
    }
    object
}
