//! `tekton-wrap render`: the webhook's rewrite over files, without a cluster.

mod diff;
mod graphs;
mod objects;

use std::{
    io::{self, Read},
    path::{Path, PathBuf},
};

use serde_json::Value;

pub use self::objects::FileObjects;
use self::objects::metadata;
use crate::{
    arguments::{self, ImageProgram},
    resolve::wrap_run,
    source::Kind,
    wrap::{Refusal, Rewrite, Settings, explain},
    yaml,
};

/// Where runs are created that name no namespace.
const DEFAULT_NAMESPACE: &str = "default";

/// Prints the wrapped form of PipelineRuns, from the same code as the webhook's.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Files with PipelineRuns, Pipelines and Tasks, any number of documents each; a folder stands for its *.yaml, *.yml and
    /// *.json, `-` for the standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,
    /// The namespace that the runs are created in [default: the run's own, or "default"]
    #[arg(short, long, value_parser = arguments::namespace)]
    namespace: Option<String>,
    /// The image of the injected steps
    #[arg(long, value_name = "REF", value_parser = arguments::image, default_value = concat!("tekton-wrap:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// What that image has beside the program, several with commas
    #[arg(long, value_enum, value_name = "PROGRAM", value_delimiter = ',')]
    image_has: Vec<ImageProgram>,
    /// What to print of each PipelineRun
    #[arg(short, long, value_enum, default_value_t = RenderOutput::Yaml)]
    output: RenderOutput,
    /// Print a table of the tasks instead: what each one waits for, restores and saves, or why it is left as it is; with
    /// -o mermaid, dot or html their graph
    #[arg(long)]
    explain: bool,
}

/// The forms that `render` prints.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenderOutput {
    /// The wrapped PipelineRun as YAML
    Yaml,
    /// The wrapped PipelineRun as JSON
    Json,
    /// The webhook's JSON patch
    Patch,
    /// The lines that change; of a Pipeline and Tasks by name, against these
    Diff,
    /// The graph of the tasks with what each one restores and saves, for Mermaid
    Mermaid,
    /// The same for Graphviz
    Dot,
    /// The same as an HTML page, which needs nothing beside it
    Html,
}

/// Why nothing can be printed at all.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A file can't be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Its path.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is not YAML.
    #[error("{}: {source}", file.display())]
    Yaml {
        /// Its path.
        file: PathBuf,
        /// Where and why.
        source: yaml::YamlError,
    },
    /// There is nothing to render.
    #[error("no PipelineRun in the files: give one with -f")]
    NoRun,
}

/// Why one run is not printed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It has no v1 form.
    #[error("{run}: {problem}")]
    Version {
        /// Name or generateName of the run.
        run: String,
        /// What is in the way.
        problem: String,
    },
    /// The webhook would refuse it.
    #[error("{run}: {source}{hint}")]
    Refused {
        /// Name or generateName of the run.
        run: String,
        /// The webhook's own sentence.
        source: Refusal,
        /// Where else the files have what was not found, or nothing.
        hint: String,
    },
}

/// What `render` prints.
#[derive(Debug, Default)]
pub struct Rendered {
    /// All runs that can be wrapped, and those that are not for the webhook.
    pub text: String,
    /// What to know about them, a line each.
    pub warnings: Vec<String>,
    /// The runs that can't be wrapped.
    pub refused: Vec<RunError>,
}

/// Renders all PipelineRuns of the files, each for itself: one that is refused leaves the others as they are.
pub async fn render(args: &Args) -> Result<Rendered, RenderError> {
    let objects = read_all(&args.files)?;
    let has_rsync = args.image_has.contains(&ImageProgram::Rsync);
    let settings = Settings { image: args.image.clone(), has_rsync };
    let (mut rendered, mut printed, mut drawn) = (Rendered::default(), Vec::new(), Vec::new());
    let mut used = Vec::new();
    for run in objects.all_runs() {
        let run = match run {
            Ok(run) => run,
            Err((run, problem)) => {
                rendered.refused.push(RunError::Version { run: run_name(run), problem: problem.to_owned() });
                continue;
            }
        };
        let own = Some(metadata(run, "namespace")).filter(|namespace| !namespace.is_empty());
        let namespace = args.namespace.as_deref().or(own).unwrap_or(DEFAULT_NAMESPACE);
        let rewrite = wrap_run(&objects, run, namespace, &settings).await;
        let lookups = objects.take_lookups();
        used.extend(lookups.found.iter().map(|(_, object)| metadata(object, "name").to_owned()));
        let told = |warning: &String| format!("{}: {warning}", run_name(run));
        rendered.warnings.extend(lookups.notes.iter().map(told));
        match rewrite {
            Ok(None) => {
                let note = "its pipelineRef is not for the resolver wrap, nothing changes".to_owned();
                rendered.warnings.push(told(&note));
                printed.push(print(run, run, &Value::Array(Vec::new()), args.output));
            }
            Ok(Some(rewrite)) => {
                rendered.warnings.extend(rewrite.warnings.iter().map(told));
                printed.push(print_wrapped(args, run, &rewrite, &lookups.found));
                drawn.push(graphs::drawn(run_name(run), namespace, &rewrite.explanation.notes()));
            }
            Err(source) => {
                let hint = elsewhere(&objects, &source);
                rendered.refused.push(RunError::Refused { run: run_name(run), source, hint });
            }
        }
    }
    if printed.is_empty() && rendered.refused.is_empty() {
        return Err(RenderError::NoRun);
    }
    let unused = objects.left_out().filter(|(name, _)| !used.iter().any(|used| used == name));
    rendered.warnings.extend(unused.map(|(_, sentence)| sentence));
    if args.output == RenderOutput::Html {
        rendered.text = graphs::page(drawn);
        return Ok(rendered);
    }
    let separator = match args.output {
        _ if args.explain => "\n",
        RenderOutput::Yaml => "---\n",
        _ => "",
    };
    rendered.text = printed.join(separator);
    Ok(rendered)
}

fn read_all(files: &[PathBuf]) -> Result<FileObjects, RenderError> {
    let mut objects = FileObjects::default();
    for file in files {
        let unreadable = |source| RenderError::Read { file: file.clone(), source };
        for file in expanded(file).map_err(unreadable)? {
            let text = read(&file).map_err(|source| RenderError::Read { file: file.clone(), source })?;
            objects.add(&text).map_err(|source| RenderError::Yaml { file: file.clone(), source })?;
        }
    }
    Ok(objects)
}

/// The files that `file` stands for: those in it that kubectl would read, where it is a folder.
fn expanded(file: &Path) -> io::Result<Vec<PathBuf>> {
    if !file.is_dir() {
        return Ok(vec![file.to_owned()]);
    }
    let entries = std::fs::read_dir(file)?.map(|entry| entry.map(|entry| entry.path()));
    let mut files = entries.collect::<Result<Vec<_>, _>>()?;
    files.retain(|file| file.extension().is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known)));
    files.sort();
    Ok(files)
}

fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        return io::stdin().read_to_string(&mut text).map(|_| text);
    }
    std::fs::read_to_string(file)
}

/// Where the files have a Pipeline or Task that was not found, if in another namespace.
fn elsewhere(objects: &FileObjects, refusal: &Refusal) -> String {
    let (kind, name) = match refusal {
        Refusal::PipelineNotFound { name, .. } => (Kind::Pipeline, name),
        Refusal::TaskNotFound { name, .. } => (Kind::Task, name),
        _ => return String::new(),
    };
    match objects.namespaces_of(kind, name.trim_matches('"')).first() {
        Some(namespace) => format!(" (the files have it in namespace {namespace:?}: give -n {namespace})"),
        None => String::new(),
    }
}

fn print_wrapped(args: &Args, run: &Value, rewrite: &Rewrite, found: &[(Kind, Value)]) -> String {
    match args.output {
        RenderOutput::Mermaid => return graphs::mermaid(&rewrite.explanation.notes()),
        RenderOutput::Dot => return graphs::dot(&rewrite.explanation.notes()),
        RenderOutput::Html => return String::new(),
        _ if args.explain => return explain::table(&rewrite.explanation.notes()),
        _ => {}
    }
    if args.output == RenderOutput::Diff {
        return print(&diff::unwrapped(run, &rewrite.run, found), &rewrite.run, &Value::Null, args.output);
    }
    let patch = serde_json::from_str(&rewrite.patch).unwrap_or_default();
    print(run, &rewrite.run, &patch, args.output)
}

fn print(before: &Value, after: &Value, patch: &Value, output: RenderOutput) -> String {
    match output {
        RenderOutput::Yaml => yaml::to_string(after),
        RenderOutput::Json => format!("{after:#}\n"),
        // A run that is not wrapped has no graph of ours.
        RenderOutput::Mermaid | RenderOutput::Dot | RenderOutput::Html => String::new(),
        RenderOutput::Patch => format!("{patch:#}\n"),
        RenderOutput::Diff => {
            let (before, after) = (yaml::to_string(before), yaml::to_string(after));
            similar::TextDiff::from_lines(&before, &after).unified_diff().header("created", "stored").to_string()
        }
    }
}

fn run_name(object: &Value) -> String {
    match (metadata(object, "name"), metadata(object, "generateName")) {
        ("", "") => "PipelineRun without a name".to_owned(),
        ("", generate) => generate.to_owned(),
        (name, _) => name.to_owned(),
    }
}
