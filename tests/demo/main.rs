//! The demo behind `./demo`: what happens to a wrapped PipelineRun from `kubectl create` to the image that it leaves.
//!
//! A test target without the test harness, because Cargo gives the product's program and the tests' support code to tests only.
//! It stands on real parts: a kube-apiserver with the webhook of this repository registered, a registry, and the steps of the
//! run as processes. With `--no-cluster` the webhook's place is taken by `render`, with `--no-registry` the registry's by a
//! folder.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
};

use kube::api::PostParams;
use serde_json::Value;
use support::{
    cluster::Cluster,
    manifests,
    registry::{Registry, crane},
    render::render,
    runner::{self, Runner},
    webhook::{IMAGE, Webhook},
};
use tekton_wrap::yaml;

/// How many lines are shown at both ends of a long listing.
const SHOWN: usize = 12;

type Result<T> = std::result::Result<T, String>;

fn main() -> ExitCode {
    let without = |what: &str| env::args().any(|argument| argument == format!("--no-{what}"));
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(show(!without("cluster"), !without("registry"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("\n{problem}");
            ExitCode::FAILURE
        }
    }
}

async fn show(with_cluster: bool, with_registry: bool) -> Result<()> {
    runner::check()?;
    let folder = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut runner = Runner { program: env!("CARGO_BIN_EXE_tekton-wrap").into(), echo: true, ..Runner::default() };
    let registry = if with_registry {
        title("A registry on this machine");
        let registry = Registry::start().await;
        println!("listens at {}", registry.address);
        Some(registry)
    } else {
        runner.shared.push(folder.path().to_owned());
        None
    };
    let place = match &registry {
        Some(registry) => format!("{}/demo/", registry.address),
        None => format!("dir://{}/", folder.path().display()),
    };

    let text = fs::read_to_string("examples/files.yaml").map_err(|e| format!("examples/files.yaml: {e}"))?;
    let text = text.replace("quay.io/me/", &place);
    let objects = manifests::parse(&text);
    let run = objects.iter().find(|object| object["kind"] == "PipelineRun").ok_or("the example has no PipelineRun")?;
    let stored = if with_cluster { create(&objects, run).await? } else { print_rendered(&text, run)? };

    title("Its tasks, played");
    println!(
        "Each step is a process with the paths that it has in a pod, each task has an empty directory of its own.\n"
    );
    let outcome = runner.play(&stored);
    println!();
    for task in &outcome.tasks {
        println!("{:10} {:?}", task.task, task.status);
    }
    if let Some(failure) = outcome.failure {
        return Err(format!("The run failed: {failure}"));
    }

    let target = run["spec"]["pipelineRef"]["params"].as_array().into_iter().flatten().find(|p| p["name"] == "target");
    let target = target.and_then(|p| p["value"].as_str()).ok_or("the example has no target")?;
    let target = target.replace("$(context.pipelineRun.name)", &outcome.name).replace("{{workspace}}", "sources");
    let listing = if registry.is_some() { export(&target)? } else { restore(&target, folder.path())? };
    shorten(&listing);
    check(&listing)
}

/// Whether the image holds what the last task saw.
fn check(listing: &[String]) -> Result<()> {
    let has = |name: &str| listing.iter().any(|line| line.contains(name));
    if has("obsolete.txt") {
        return Err("The image has obsolete.txt, which was deleted".to_owned());
    }
    let wanted =
        ["src/gamma/100.txt", "private/key", "first -> src/alpha/1.txt", "reports/test.txt", "reports/contents.txt"];
    match wanted.into_iter().find(|name| !has(name)) {
        Some(name) => Err(format!("The image lacks {name}")),
        None => Ok(()),
    }
}

/// Creates what the example names and then its run, as `kubectl create` would; what the apiserver stored of the run.
async fn create(objects: &[Value], run: &Value) -> Result<Value> {
    title("A kube-apiserver with Tekton's CRDs, and the webhook registered with it over TLS");
    let cluster = Cluster::shared().await;
    let webhook = Webhook::start(cluster).await;
    let namespace = cluster.namespace().await;
    webhook.register(&namespace, false).await;
    println!("webhook-config/ is applied, the webhook runs with its ServiceAccount's token");
    for object in objects.iter().filter(|object| object["kind"] != "PipelineRun") {
        namespace.create(object).await.map_err(|e| e.to_string())?;
        println!("created {} {}", text(&object["kind"]), text(&object["metadata"]["name"]));
    }

    title("A run that can't be wrapped is refused");
    let mut wrong = run.clone();
    wrong["spec"]["pipelineRef"]["params"][1]["value"] = "source".into();
    let refused = namespace.create_with(&wrong, &PostParams::default()).await;
    match refused {
        Err(kube::Error::Api(status)) => println!("With workspaces: source the apiserver says\n  {}", status.message),
        other => return Err(format!("A run that names an unknown workspace was not refused: {other:?}")),
    }

    title("The run, as it is created");
    print!("{}", yaml::to_string(run));
    let created = namespace.create(run).await.map_err(|e| e.to_string())?;
    title("The same run, as the apiserver stored it");
    let name = text(&created["metadata"]["name"]).to_owned();
    let stored = namespace.api(run).get(&name).await.map_err(|e| e.to_string())?;
    let mut stored = serde_json::to_value(stored).map_err(|e| e.to_string())?;
    if let Some(metadata) = stored["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    print!("{}", yaml::to_string(&stored));
    Ok(stored)
}

/// Prints what `render` makes of the run.
fn print_rendered(text: &str, run: &Value) -> Result<Value> {
    title("The run, as it is written");
    print!("{}", yaml::to_string(run));
    title("The same run, as tekton-wrap render prints it");
    let rendered = render(text, IMAGE)?;
    print!("{}", yaml::to_string(&rendered));
    Ok(rendered)
}

/// `crane export TARGET - | tar tv`
fn export(target: &str) -> Result<Vec<String>> {
    title("The image that the run leaves");
    println!("crane export {target} - | tar tv\n");
    let mut export = crane().args(["export", target, "-"]).stdout(Stdio::piped()).spawn().map_err(|e| e.to_string())?;
    let stdout = export.stdout.take().ok_or("crane has no output")?;
    let listing = lines(Command::new("tar").arg("tv").stdin(stdout))?;
    let exported = export.wait().map_err(|e| e.to_string())?;
    if exported.success() { Ok(listing) } else { Err(format!("crane export {target} failed")) }
}

/// The same for a folder: what `tekton-wrap restore` makes of it.
fn restore(target: &str, folder: &Path) -> Result<Vec<String>> {
    title("The image that the run leaves");
    let dir: PathBuf = folder.join("restored");
    println!("tekton-wrap restore {target} {0}; tar c -C {0} . | tar tv | sort -k 6\n", dir.display());
    let mut restore = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    lines(restore.args(["restore", target]).arg(&dir))?;
    let mut tar = Command::new("sh");
    lines(tar.args(["-ec", "tar c -C \"$1\" . | tar tv | LC_ALL=C sort -k 6", "sh"]).arg(&dir))
}

fn lines(command: &mut Command) -> Result<Vec<String>> {
    let output = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}

fn shorten(lines: &[String]) {
    if lines.len() <= 2 * SHOWN {
        lines.iter().for_each(|line| println!("{line}"));
        return;
    }
    lines[..SHOWN].iter().for_each(|line| println!("{line}"));
    println!("… {} more …", lines.len() - 2 * SHOWN);
    lines[lines.len() - SHOWN..].iter().for_each(|line| println!("{line}"));
}

fn title(text: &str) {
    println!("\n==> {text}\n");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
