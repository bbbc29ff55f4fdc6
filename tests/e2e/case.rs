//! One case: its text and what is expected of it (`tests/e2e/cases/README.md`).

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;

use support::{
    manifests,
    render::render,
    runner::{Outcome, Status},
};

/// A case, its placeholders not yet replaced.
pub struct Case {
    /// The file's name without its ending.
    pub name: String,
    /// What is expected and how it is played.
    pub head: Head,
    text: String,
}

/// The first document of a case.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// What is expected of a run.
    pub expect: Expect,
    /// What is expected of further runs, each created after the end of the one before.
    #[serde(default)]
    pub later: Vec<Expect>,
    /// Where it is played.
    #[serde(default = "Head::registry")]
    pub stores: BTreeSet<Store>,
    /// How many runs start at the same moment.
    #[serde(default = "Head::once")]
    pub times: usize,
}

/// What is expected of a run.
#[derive(Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Expect {
    fails: bool,
    tasks: BTreeMap<String, String>,
    says: BTreeMap<String, Vec<String>>,
    /// By workspace.
    pub image: BTreeMap<String, Image>,
}

/// What a target is expected to hold.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Image {
    /// Exactly what this task listed.
    Equals(String),
    /// At least these paths.
    Holds(Vec<String>),
}

/// Where snapshots are kept.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "lowercase")]
pub enum Store {
    /// A registry.
    Registry,
    /// A folder.
    Dir,
}

/// What the placeholders stand for.
pub struct Values<'a> {
    /// `${TARGET}`
    pub target: &'a str,
    /// `${IMAGE}`
    pub image: &'a str,
    /// `${BASE}`
    pub base: &'a str,
    /// The image of the injected steps.
    pub steps: &'a str,
}

/// A case ready to be played.
pub struct Rendered {
    /// The wrapped run.
    pub run: Value,
    /// All objects of the case: the run as it was, the Pipeline, and what they name.
    pub objects: Vec<Value>,
    /// The param `target` as the user wrote it.
    pub target: String,
}

impl Case {
    /// Reads a case.
    pub fn load(name: &str) -> Self {
        let text = fs::read_to_string(folder().join(format!("{name}.yaml"))).expect("the case is there");
        let (head, text) = text.split_once("\n---\n").expect("a case has a head");
        let head = serde_saphyr::from_str(head).unwrap_or_else(|e| panic!("{name}: {e}"));
        let common = fs::read_to_string(folder().join("common/list.yaml")).expect("the common Task is there");
        Self { name: name.to_owned(), head, text: format!("{text}---\n{common}") }
    }

    /// The same case with more objects.
    pub fn with_objects(&self, objects: &[Value]) -> Self {
        let more: String = objects.iter().map(|object| format!("\n---\n{object}")).collect();
        Self { name: self.name.clone(), head: self.head.clone(), text: format!("{}{more}\n", self.text) }
    }

    /// The case as it is for the first run and each later one: `${RUN}` is the run's number.
    pub fn runs(&self) -> Vec<Self> {
        let expected = [&self.head.expect].into_iter().chain(&self.head.later);
        let run = |(number, expect): (usize, &Expect)| Self {
            name: self.name.clone(),
            head: Head { expect: expect.clone(), later: Vec::new(), ..self.head.clone() },
            text: self.text.replace("${RUN}", &number.to_string()),
        };
        (1..).zip(expected).map(run).collect()
    }

    /// The names of all cases.
    pub fn names() -> BTreeSet<String> {
        let entries = fs::read_dir(folder()).expect("tests/e2e/cases").map(|e| e.unwrap().path());
        let cases = entries.filter(|path| path.extension().is_some_and(|e| e == "yaml"));
        cases.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    }

    /// The run as the webhook would store it.
    pub fn render(&self, values: &Values<'_>) -> Rendered {
        let text = self.text.replace("${TARGET}", values.target);
        let text = text.replace("${IMAGE}", values.image).replace("${BASE}", values.base);
        let run = render(&text, values.steps).unwrap_or_else(|problem| panic!("{}: {problem}", self.name));
        let objects = manifests::parse(&text);
        let params = objects[0]["spec"]["pipelineRef"]["params"].as_array().into_iter().flatten();
        let param = params.filter(|p| p["name"] == "target").find_map(|p| p["value"].as_str());
        let annotation = objects[0]["metadata"]["annotations"]["tekton-wrap.dev/target"].as_str();
        let target = param.or(annotation).expect("a target").to_owned();
        Rendered { run, objects, target }
    }

    /// Compares how a run ended with what is expected.
    pub fn check(&self, outcome: &Outcome) {
        let context = || format!("{}: {:?}\n{}", self.name, outcome.failure, outcome.full_log());
        let expect = &self.head.expect;
        for task in &outcome.tasks {
            let wanted = expect.tasks.get(&task.task).map_or("Succeeded", String::as_str);
            let found = match task.status {
                Status::Succeeded => "Succeeded",
                Status::Failed(_) => "Failed",
                Status::Skipped(_) => "Skipped",
            };
            assert_eq!(found, wanted, "task {} of {}", task.task, context());
        }
        assert_eq!(outcome.failure.is_some(), expect.fails, "{}", context());
        for (place, texts) in &expect.says {
            let (task, step) =
                place.split_once(" : ").map_or((place.as_str(), None), |(task, step)| (task, Some(step)));
            let log = outcome.log_of(task, step);
            for text in texts {
                assert!(log.contains(text), "{place} does not say {text:?}: {}", context());
            }
        }
    }
}

impl Head {
    fn registry() -> BTreeSet<Store> {
        [Store::Registry].into()
    }

    fn once() -> usize {
        1
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/cases")
}
