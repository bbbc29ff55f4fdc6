//! `version`: of this program, and of what runs in the cluster as far as the user may know it.

use std::io::Write;

use serde_json::{Map, Value, json};

use super::{
    PluginError,
    cluster::{ClusterArgs, UserCluster},
};
use crate::{
    metrics::COMMIT,
    quote::Line,
    step::{self, stored::is_injected},
    tekton::{
        fields::{field, items, text},
        run::Run,
        tasks::all_tasks,
    },
    workspace::snapshot::image,
    yaml,
};

/// For `--help`.
pub const EXAMPLES: &str = "Examples:
  tkn wrap version
  tkn wrap version --client      # without a cluster
  tkn wrap version -o json";

/// What to ask for, and how to write it.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Only of this program: no cluster is asked
    #[arg(long)]
    client: bool,
    /// How to write it
    #[arg(short, long, value_enum, default_value = "text")]
    output: VersionForm,
    #[command(flatten)]
    cluster: ClusterArgs,
}

/// Forms of the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum VersionForm {
    /// A line each
    Text,
    /// JSON
    Json,
    /// YAML
    Yaml,
}

/// The labels of the webhook's Deployment.
const WEBHOOK: &str = "app.kubernetes.io/name=tekton-wrap";

/// Where the manifests put it.
const NAMESPACE: &str = "tekton-wrap";

/// Prints the versions. What can't be known of the cluster is said, and is no failure.
pub fn version(args: &Args, out: &mut dyn Write) -> Result<(), PluginError> {
    let mut versions = Map::new();
    versions.insert("client".to_owned(), json!({"version": env!("CARGO_PKG_VERSION"), "commit": COMMIT}));
    versions.insert("snapshotFormat".to_owned(), json!(image::FORMAT));
    versions.insert("stepContract".to_owned(), json!(step::CONTRACT));
    if !args.client {
        versions.insert("webhook".to_owned(), in_cluster(&args.cluster));
    }
    let versions = Value::Object(versions);
    let text = match args.output {
        VersionForm::Json => format!("{versions:#}\n"),
        VersionForm::Yaml => yaml::to_string(&versions),
        VersionForm::Text => as_text(&versions),
    };
    out.write_all(text.as_bytes()).map_err(PluginError::Output)
}

fn as_text(versions: &Value) -> String {
    let client = &versions["client"];
    let mut text = format!("client           {} (commit {})\n", text(client, "version"), text(client, "commit"));
    text +=
        &format!("snapshot format  {}\nstep contract    {}\n", versions["snapshotFormat"], versions["stepContract"]);
    let Some(webhook) = versions.get("webhook") else { return text };
    text + &format!("webhook          {}\n", Line(&told(webhook)))
}

/// What is known of the webhook, in words.
fn told(webhook: &Value) -> String {
    let of = |name: &str| text(webhook, name);
    match (of("version"), of("image"), of("run")) {
        ("", "", _) => of("note").to_owned(),
        ("", image, "") => format!("image {image}, in namespace {}", of("namespace")),
        (version, image, "") => format!("{version}, image {image}, in namespace {}", of("namespace")),
        (_, image, run) => {
            format!("injects image {image}, as run {run} in namespace {} has it; {}", of("namespace"), of("note"))
        }
    }
}

/// What runs in the cluster: by the webhook's Deployment; who may not see that sees which image the last wrapped run has.
fn in_cluster(args: &ClusterArgs) -> Value {
    let found = UserCluster::open(args).and_then(|cluster| {
        let everywhere = format!("/apis/apps/v1/deployments?labelSelector={WEBHOOK}");
        let usual = format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments?labelSelector={WEBHOOK}");
        let deployments = match cluster.list(&everywhere) {
            Err(PluginError::Forbidden(_)) => cluster.list(&usual),
            other => other,
        };
        match deployments {
            Ok(found) => match found.iter().find_map(webhook) {
                Some(webhook) => Ok(webhook),
                None => {
                    let note = format!("no Deployment of the cluster has the label {WEBHOOK}");
                    let nothing = json!({"note": format!("{note}: it is not installed, or runs elsewhere")});
                    Ok(of_last_run(&cluster, &note)?.unwrap_or(nothing))
                }
            },
            Err(PluginError::Forbidden(problem)) => {
                let note = format!("its Deployment can't be read: {problem}");
                Ok(of_last_run(&cluster, &note)?.unwrap_or(json!({"note": note})))
            }
            Err(other) => Err(other),
        }
    });
    found.unwrap_or_else(|problem| json!({"note": format!("it can't be read: {problem}")}))
}

/// The webhook's version and image, if that is what `deployment` is.
#[allow(clippy::indexing_slicing, reason = "of an object that is made here")]
fn webhook(deployment: &Value) -> Option<Value> {
    let pod = field(field(field(deployment, "spec")?, "template")?, "spec")?;
    let is_ours = |container: &&Value| items(container, "args").first().is_some_and(|verb| verb == "webhook");
    let container = items(pod, "containers").iter().find(is_ours)?;
    let metadata = field(deployment, "metadata")?;
    let mut found = json!({"image": text(container, "image"), "namespace": text(metadata, "namespace")});
    let labels = field(metadata, "labels").unwrap_or(&Value::Null);
    let version = text(labels, "app.kubernetes.io/version");
    if !version.is_empty() {
        found["version"] = json!(version);
    }
    Some(found)
}

/// The image of the injected steps of the last wrapped run.
fn of_last_run(cluster: &UserCluster, note: &str) -> Result<Option<Value>, PluginError> {
    let runs = cluster.wrapped_runs(false)?;
    let Some(run) = runs.last() else { return Ok(None) };
    let spec = Run::new(run).pipeline_spec().unwrap_or(&Value::Null);
    let tasks = all_tasks(spec);
    let mut steps = tasks.filter_map(|task| field(task, "taskSpec")).flat_map(|spec| items(spec, "steps"));
    let image = steps.find(|step| is_injected(step)).map(|step| text(step, "image"));
    Ok(image.map(|image| {
        json!({"image": image, "run": text(&run["metadata"], "name"), "namespace": cluster.namespace, "note": note})
    }))
}
