//! `tekton-wrap render`: the webhook's rewrite over files, without a cluster.

use std::{io::Read, path::PathBuf};

use serde_json::Value;

use crate::{
    resolve::wrap_run,
    source::{Creation, Found, Kind, Source, SourceError},
    tekton::{
        fields::{items, text},
        reference::Reference,
        v1beta1,
    },
    wrap::{Refusal, Settings, explain},
    yaml,
};

/// Prints the wrapped form of PipelineRuns, from the same code as the webhook's.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A file with PipelineRuns, Pipelines and Tasks, any number of documents; `-` is the standard input
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// The namespace that the runs are created in
    #[arg(short, long, default_value = "default")]
    namespace: String,
    /// The image of the injected steps
    #[arg(long, value_name = "REF", default_value = concat!("tekton-wrap:", env!("CARGO_PKG_VERSION")))]
    image: String,
    /// What to print of each PipelineRun
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    output: Output,
    /// Print a table of the tasks instead: what each one waits for, restores and saves, or why it is left as it is
    #[arg(long)]
    explain: bool,
}

/// The forms that `render` prints.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Output {
    /// The wrapped PipelineRun as YAML
    Yaml,
    /// The wrapped PipelineRun as JSON
    Json,
    /// The webhook's JSON patch
    Patch,
    /// The lines that change
    Diff,
}

/// Why `render` prints nothing.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A file can't be read.
    #[error("{}: {source}", file.display())]
    Read {
        /// Its path.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// A file is not YAML.
    #[error("{}: {source}", file.display())]
    Yaml {
        /// Its path.
        file: PathBuf,
        /// Where and why.
        source: yaml::YamlError,
    },
    /// A document that is not of v1 and has no form in it.
    #[error("{kind} {name:?}: {problem}")]
    Version {
        /// Its kind.
        kind: String,
        /// Its name.
        name: String,
        /// What is in the way.
        problem: String,
    },
    /// There is nothing to render.
    #[error("no PipelineRun in the files: give one with -f")]
    NoRun,
    /// The webhook would refuse the run.
    #[error("{run}: {source}")]
    Refused {
        /// Name or generateName of the run.
        run: String,
        /// The webhook's own sentence.
        source: Refusal,
    },
}

/// Objects read from files.
#[derive(Debug, Default)]
pub struct Objects(Vec<Value>);

/// What is printed for all PipelineRuns of the files, and what to warn about.
pub async fn render(args: &Args) -> Result<(String, Vec<String>), RenderError> {
    let mut objects = Objects::default();
    for file in &args.files {
        let text = read(file).map_err(|source| RenderError::Read { file: file.clone(), source })?;
        objects.add(&text).map_err(|source| RenderError::Yaml { file: file.clone(), source })?;
    }
    objects.convert()?;
    let settings = Settings { image: args.image.clone() };
    let (mut printed, mut warnings) = (Vec::new(), Vec::new());
    for run in objects.runs() {
        let refused = |source| RenderError::Refused { run: run_name(run), source };
        let rewrite = wrap_run(&objects, run, &*args.namespace, &settings).await.map_err(refused)?;
        let Some(rewrite) = rewrite else {
            warnings.push(format!("{}: its pipelineRef is not for the resolver wrap, nothing changes", run_name(run)));
            printed.push(print(run, run, &Value::Array(Vec::new()), args.output));
            continue;
        };
        warnings.extend(rewrite.warnings.iter().map(|warning| format!("{}: {warning}", run_name(run))));
        if args.explain {
            printed.push(explain::table(&rewrite.notes));
            continue;
        }
        let patch = serde_json::to_value(&rewrite.patch).unwrap_or_default();
        printed.push(print(run, &rewrite.run, &patch, args.output));
    }
    if printed.is_empty() {
        return Err(RenderError::NoRun);
    }
    let separator = match args.output {
        _ if args.explain => "\n",
        Output::Yaml => "---\n",
        _ => "",
    };
    Ok((printed.join(separator), warnings))
}

impl Objects {
    /// Adds the documents of `text`; a List gives its items.
    pub fn add(&mut self, text: &str) -> Result<(), yaml::YamlError> {
        for document in yaml::parse(text)? {
            match document.get("kind").and_then(Value::as_str) {
                Some("List") => self.0.extend(items(&document, "items").iter().cloned()),
                _ => self.0.push(document),
            }
        }
        Ok(())
    }

    /// All objects, in their order.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.0.iter()
    }

    /// The PipelineRuns, in their order.
    pub fn runs(&self) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(|object| text(object, "kind") == "PipelineRun")
    }

    /// Makes all Tekton objects v1 ones, as the API would give them.
    pub fn convert(&mut self) -> Result<(), RenderError> {
        let ours = ["PipelineRun", Kind::Pipeline.name(), Kind::Task.name()];
        for object in self.0.iter_mut().filter(|object| ours.contains(&text(object, "kind"))) {
            let converted = match text(object, "apiVersion") {
                "tekton.dev/v1" => continue,
                "tekton.dev/v1beta1" => v1beta1::to_v1(object.clone()).map_err(|error| error.to_string()),
                version => Err(format!("its apiVersion is {version:?}: write it as tekton.dev/v1")),
            };
            let (kind, name) = (text(object, "kind").to_owned(), run_name(object));
            *object = converted.map_err(|problem| RenderError::Version { kind, name, problem })?;
        }
        Ok(())
    }
}

impl Source for Objects {
    async fn get(
        &self,
        kind: Kind,
        reference: &Reference,
        creation: &Creation<'_>,
    ) -> Result<Option<Found>, SourceError> {
        let Reference::Name(name) = reference else {
            let word = kind.word();
            return Err(SourceError::unreadable(format!(
                "the {word} {reference} can only be read in a cluster: add the {word} to the files and refer to it by name to see how it would be wrapped"
            )));
        };
        let metadata = |object: &Value, field: &str| object.get("metadata").map_or("", |m| text(m, field)).to_owned();
        let found = self.0.iter().find(|object| {
            text(object, "kind") == kind.name()
                && metadata(object, "name") == *name
                && ["", creation.namespace].contains(&metadata(object, "namespace").as_str())
        });
        Ok(found.map(|object| Found { object: object.clone(), source: None }))
    }
}

fn read(file: &PathBuf) -> std::io::Result<String> {
    if file.as_os_str() == "-" {
        let mut text = String::new();
        return std::io::stdin().read_to_string(&mut text).map(|_| text);
    }
    std::fs::read_to_string(file)
}

fn print(before: &Value, after: &Value, patch: &Value, output: Output) -> String {
    match output {
        Output::Yaml => yaml::to_string(after),
        Output::Json => format!("{after:#}\n"),
        Output::Patch => format!("{patch:#}\n"),
        Output::Diff => {
            let (before, after) = (yaml::to_string(before), yaml::to_string(after));
            similar::TextDiff::from_lines(&before, &after).unified_diff().header("created", "stored").to_string()
        }
    }
}

fn run_name(object: &Value) -> String {
    let metadata = object.get("metadata").unwrap_or(&Value::Null);
    match (text(metadata, "name"), text(metadata, "generateName")) {
        ("", "") => "PipelineRun without a name".to_owned(),
        ("", generate) => generate.to_owned(),
        (name, _) => name.to_owned(),
    }
}
