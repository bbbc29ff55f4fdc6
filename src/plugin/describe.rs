//! `describe`: one wrapped run, from the cluster and from the registry.

use std::io::Write;

use serde_json::{Value, json};

use super::{
    Error,
    cluster::{Cluster, ClusterArgs, created},
    output::{self, Form},
    stored::{self, StoredRun},
};
use crate::{
    inspect::{report::Report, source::InspectedImage},
    quote::Line,
    tekton::{
        fields::{field, items, text},
        run::Run,
        status::{self, Skip, State},
    },
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
    /// How to write it; default: for people
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// How a task ended.
struct Task {
    name: String,
    status: String,
    duration: String,
    /// Why it failed.
    failure: Option<String>,
}

/// Describes a run.
pub fn describe(args: &Args, out: &mut dyn Write) -> Result<(), Error> {
    let cluster = Cluster::open(&args.cluster)?;
    let run = cluster.run(&args.run)?;
    let stored = StoredRun::new(&run)?;
    let children = stored::children(&cluster, &run)?;
    let tasks = tasks(&cluster, &run, &children);
    let mut reports = Vec::new();
    for name in stored.workspaces() {
        let target = stored.target(name)?;
        // What is not there yet, or not any more, is no failure of the description.
        let report = InspectedImage::open(&target.to_string()).and_then(|image| Report::new(&image));
        reports.push((name, target, report));
    }
    let object = json!({
        "name": args.run,
        "namespace": cluster.namespace,
        "status": stored::word(&run),
        "tasks": tasks.iter().map(Task::json).collect::<Vec<_>>(),
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
        Some(Form::Json) => format!("{object:#}\n"),
        Some(Form::Yaml) => yaml::to_string(&object),
        Some(Form::Name) => format!("{}\n", output::name(&run)),
        None => {
            let age = output::age(created(&run), &units::now());
            let head =
                format!("{} in namespace {}: {}, created {age} ago\n", args.run, cluster.namespace, stored::word(&run));
            out.write_all(head.as_bytes()).map_err(Error::Output)?;
            for task in &tasks {
                if let Some(failure) = &task.failure {
                    writeln!(out, "task {} failed: {}", task.name, Line(failure)).map_err(Error::Output)?;
                }
            }
            writeln!(out).map_err(Error::Output)?;
            let heads = ["TASK", "STATUS", "DURATION"].map(str::to_owned).to_vec();
            let rows = tasks.iter().map(|task| vec![task.name.clone(), task.status.clone(), task.duration.clone()]);
            output::table(&std::iter::once(heads).chain(rows).collect::<Vec<_>>(), out)?;
            let described = |(name, target, report): &(&str, _, Result<Report, _>)| match report {
                Ok(report) => format!("\nworkspace {name}:\n{report}"),
                Err(problem) => {
                    format!("\nworkspace {name}: {target}\n{}\n", Line(&crate::workspace::Error::to_string(problem)))
                }
            };
            reports.iter().map(described).collect()
        }
    };
    out.write_all(text.as_bytes()).map_err(Error::Output)
}

/// The tasks of a run, each TaskRun of a matrix apart.
fn tasks(cluster: &Cluster, run: &Value, children: &[Value]) -> Vec<Task> {
    let spec = Run::new(run).pipeline_spec().unwrap_or(&Value::Null);
    let references = status::children(run);
    let mut tasks = Vec::new();
    for task in items(spec, "tasks").iter().chain(items(spec, "finally")) {
        let name = text(task, "name");
        let own: Vec<_> = references.iter().filter(|child| child.task == name).collect();
        if own.is_empty() {
            let status = match status::skipped(run, name) {
                Some(Skip::Own) => "Skipped (when)",
                Some(Skip::Parent) => "Skipped (a task before it)",
                Some(Skip::Ended) => "Not started",
                None if status::state(run) == State::Running => "Pending",
                None => "Not started",
            };
            let (name, status) = (name.to_owned(), status.to_owned());
            tasks.push(Task { name, status, duration: "-".to_owned(), failure: None });
        }
        for (number, reference) in own.iter().enumerate() {
            let is = |child: &&Value| child["kind"] == reference.kind && child["metadata"]["name"] == reference.name;
            let name = if own.len() > 1 { format!("{name}[{number}]") } else { name.to_owned() };
            tasks.push(match children.iter().find(is) {
                Some(child) => Task::new(cluster, name, child),
                None => Task { name, status: "Deleted".to_owned(), duration: "-".to_owned(), failure: None },
            });
        }
    }
    tasks
}

impl Task {
    fn new(cluster: &Cluster, name: String, child: &Value) -> Self {
        let (start, end) = (stored::time(child, "startTime"), stored::time(child, "completionTime"));
        let now = units::now();
        let duration = output::age(start, if end.is_empty() { &now } else { end });
        let failure = (status::state(child) == State::Failed).then(|| sentence(cluster, child));
        Self { name, status: stored::word(child).to_owned(), duration, failure }
    }

    fn json(&self) -> Value {
        let Self { name, status, failure, .. } = self;
        match failure {
            Some(failure) => json!({"task": name, "status": status, "failure": failure}),
            None => json!({"task": name, "status": status}),
        }
    }
}

/// Why a TaskRun failed: what our step said last, where it was ours and its log is still there; else what Tekton says.
fn sentence(cluster: &Cluster, child: &Value) -> String {
    let status = field(child, "status").unwrap_or(&Value::Null);
    let failed = items(status, "steps").iter().find(|step| {
        let code = field(step, "terminated").and_then(|end| field(end, "exitCode")).and_then(Value::as_i64);
        text(step, "name").starts_with("tekton-wrap-") && code.is_some_and(|code| code != 0)
    });
    let said = failed.and_then(|step| cluster.log(text(status, "podName"), text(step, "container"), Some(1)));
    let said = said.and_then(|log| log.lines().last().map(str::to_owned));
    said.unwrap_or_else(|| {
        let message = status::condition(child).map_or("", |condition| text(condition, "message"));
        if message.is_empty() { "it says no reason".to_owned() } else { message.to_owned() }
    })
}
