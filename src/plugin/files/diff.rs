//! `diff`

use std::io::Write;

use serde_json::{Value, json};

use super::{
    super::{
        PluginError,
        cluster::{ClusterArgs, UserCluster},
        output::DescriptionForm,
        stored::StoredRun,
    },
    opened_of,
};
use crate::{
    inspect::{Output, changes::ChangeKind, listed, listing, source::InspectedImage},
    quote::{Line, Quoted},
    workspace, yaml,
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap diff build-x7k2p compile test    # what is different after task test
  tkn wrap diff build-x7k2p build-k3m9q     # two runs
  tkn wrap diff build-x7k2p compile test -o json | jq '.workspaces[].summary'";

/// What to compare.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A run
    run: String,
    /// A task of it with another one, or another run
    #[arg(num_args = 1..=2, required = true, value_name = "TASK TASK | RUN")]
    with: Vec<String>,
    /// Only this workspace; default: all that are wrapped, of two tasks all that both save
    #[arg(short, long, value_name = "NAME")]
    workspace: Option<String>,
    /// How to write it; wide has what was there before and what is there now, name only paths
    #[arg(short, long, value_enum, default_value = "text")]
    output: DescriptionForm,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Lists what differs.
pub fn diff(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let first = cluster.run(&args.run)?;
    let stored = StoredRun::new(&first)?;
    let names = match &args.workspace {
        Some(name) => vec![name.as_str()],
        None => saved_by_all(&stored, &args.with),
    };
    let other = match &args.with[..] {
        [other] => Some(cluster.run(other)?),
        _ => None,
    };
    let mut objects = Vec::new();
    for name in &names {
        let (a, b) = match (&args.with[..], &other) {
            ([one, two], _) => {
                (opened_of(&stored, Some(one), name, listed)?, opened_of(&stored, Some(two), name, listed)?)
            }
            (_, Some(other)) => {
                (opened_of(&stored, None, name, listed)?, opened_of(&StoredRun::new(other)?, None, name, listed)?)
            }
            _ => continue,
        };
        let is_text = matches!(args.output, DescriptionForm::Text | DescriptionForm::Wide);
        if names.len() > 1 && is_text {
            writeln!(out, "workspace {}:", Line(name)).map_err(PluginError::Output)?;
        }
        match args.output {
            DescriptionForm::Text => listing::diff(&a, &b, Output::Text, out)?,
            DescriptionForm::Wide => lines(&a, &b, true, out)?,
            DescriptionForm::Name => lines(&a, &b, false, out)?,
            DescriptionForm::Json | DescriptionForm::Yaml => objects.push(object(name, &a, &b)?),
        }
    }
    let all = || json!({"workspaces": objects});
    match args.output {
        DescriptionForm::Json => writeln!(out, "{:#}", all()).map_err(PluginError::Output),
        DescriptionForm::Yaml => out.write_all(yaml::to_string(&all()).as_bytes()).map_err(PluginError::Output),
        _ => Ok(()),
    }
}

/// The workspaces of `run` to compare: of two tasks those that both save, all if there are none, so that the reason is told.
fn saved_by_all<'a>(run: &'a StoredRun<'_>, with: &[String]) -> Vec<&'a str> {
    let all = run.workspaces();
    let tasks = if let [_, _] = with { with } else { &[] };
    let saved = |name: &&str| tasks.iter().all(|task| run.snapshot(task, name).is_ok());
    let saved: Vec<&str> = all.iter().copied().filter(saved).collect();
    if saved.is_empty() { all } else { saved }
}

/// The paths that differ; if `wide`, with what was there before (`-`) and what is there now (`+`).
fn lines(a: &InspectedImage, b: &InspectedImage, wide: bool, out: &mut dyn Write) -> Result<(), PluginError> {
    a.compare(b, &mut |before, after| {
        let change = ChangeKind::between(before.as_ref(), after.as_ref());
        let (Some(change), Some(shown)) = (change, after.as_ref().or(before.as_ref())) else { return Ok(()) };
        let path = Quoted(shown.path.as_bytes());
        let written = if wide {
            let sides = [("-", &before), ("+", &after)];
            let sides = sides.into_iter().filter_map(|(sign, entry)| Some((sign, entry.as_ref()?)));
            let sides: Vec<String> = sides
                .map(|(sign, entry)| format!("  {sign} {} {}\n", listing::time(entry.mtime), listing::EntryLine(entry)))
                .collect();
            write!(out, "{} {path}\n{}", change.letter(), sides.concat())
        } else {
            writeln!(out, "{path}")
        };
        written.map_err(workspace::Error::file("the standard output", "can't be written"))
    })?;
    Ok(())
}

/// What `inspect --diff -o json` says, with the workspace.
fn object(workspace: &str, a: &InspectedImage, b: &InspectedImage) -> Result<Value, PluginError> {
    let mut text = Vec::new();
    listing::diff(a, b, Output::Json, &mut text)?;
    let mut object = json!({"workspace": workspace});
    // It is this program that wrote it.
    if let (Some(object), Ok(Value::Object(told))) = (object.as_object_mut(), serde_json::from_slice(&text)) {
        object.extend(told);
    }
    Ok(object)
}
