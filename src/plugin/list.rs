//! `list`: wrapped runs.

use std::io::Write;

use serde_json::{Value, json};

use super::{
    PluginError,
    cluster::{ClusterArgs, UserCluster, created},
    output::{self, TableForm},
    stored::{self, StoredRun},
};
use crate::{
    tekton::fields::{field, text},
    units, yaml,
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap list
  tkn wrap list -A -o wide     # of all namespaces, with the images
  tkn wrap list -o name | tail -1";

/// Which runs, and how.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Those of all namespaces
    #[arg(short = 'A', long)]
    all_namespaces: bool,
    /// How to write them
    #[arg(short, long, value_enum, default_value = "table")]
    output: TableForm,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Lists wrapped runs, the newest last.
pub fn list(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let cluster = UserCluster::open(&args.cluster)?;
    let runs = cluster.wrapped_runs(args.all_namespaces)?;
    let text = match args.output {
        TableForm::Table | TableForm::Wide => {
            if runs.is_empty() {
                tracing::info!(
                    "no wrapped runs in namespace {:?}: -A lists those of all namespaces",
                    cluster.namespace
                );
                return Ok(());
            }
            return output::table(&rows(args, &runs, &units::now()), out);
        }
        TableForm::Json => format!("{:#}\n", as_list(runs)),
        TableForm::Yaml => yaml::to_string(&as_list(runs)),
        TableForm::Name => runs.iter().map(|run| output::name(run) + "\n").collect(),
    };
    out.write_all(text.as_bytes()).map_err(PluginError::Output)
}

fn as_list(runs: Vec<Value>) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": runs})
}

fn rows(args: &Args, runs: &[Value], now: &str) -> Vec<Vec<String>> {
    let mut heads = vec!["NAME", "STATUS", "AGE", "DURATION", "WORKSPACES"];
    if args.all_namespaces {
        heads.insert(0, "NAMESPACE");
    }
    let wide = args.output == TableForm::Wide;
    heads.extend(wide.then_some("TARGETS"));
    let mut rows = vec![heads.into_iter().map(str::to_owned).collect()];
    for run in runs {
        let metadata = field(run, "metadata").unwrap_or(&Value::Null);
        let (start, end) = (stored::time(run, "startTime"), stored::time(run, "completionTime"));
        let (workspaces, targets) = match StoredRun::new(run) {
            Ok(stored) => {
                let names = stored.workspaces();
                let targets =
                    names.iter().filter_map(|name| stored.named_target(name).ok()).map(|target| target.to_string());
                (names.join(","), targets.collect::<Vec<_>>().join(","))
            }
            Err(_) => ("-".to_owned(), "-".to_owned()),
        };
        let mut row = vec![
            text(metadata, "name").to_owned(),
            stored::word(run).to_owned(),
            output::age(created(run), now),
            output::age(start, if end.is_empty() { now } else { end }),
            workspaces,
        ];
        if args.all_namespaces {
            row.insert(0, text(metadata, "namespace").to_owned());
        }
        row.extend(wide.then_some(targets));
        rows.push(row);
    }
    rows
}
