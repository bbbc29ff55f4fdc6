//! Tekton's own examples, changed only in their PipelineRuns: each one that shares files between tasks is rendered, accepted
//! by a real apiserver and played, or refused for a known reason.
//!
//! The examples are not part of this repository. Their folder is the value of the environment variable `TEKTON_EXAMPLES`,
//! or `shared/tekton/examples` beside the repository; where there is none, the tests are skipped.

use std::{
    collections::BTreeSet,
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use serde_json::Value;
use support::{
    cluster::Cluster,
    manifests,
    render::render,
    runner::{Outcome, Runner},
};

mod change;

/// What becomes of an example's runs, in their order.
enum Expected {
    /// No task finds files of another one: there is nothing to wrap.
    SharesNoFiles,
    /// It is accepted and succeeds, and the steps print this.
    Plays(&'static [(&'static str, &'static str)]),
    /// It is refused with a sentence that holds this.
    Refused(&'static str),
}

use Expected::{Plays, Refused, SharesNoFiles};

const RECIPE: &str = "Bake in greased pan for 30 minutes.";

/// All examples that are known. One that is not fails the test.
const EXAMPLES: &[(&str, &[Expected])] = &[
    ("cluster-resolver", &[SharesNoFiles]),
    ("git-resolver", &[Refused("git")]),
    ("ignore-step-error", &[SharesNoFiles, Plays(&[("reader", "bar")])]),
    ("ignore-task-error", &[SharesNoFiles]),
    ("limitrange", &[SharesNoFiles]),
    ("mapping-workspaces", &[Plays(&[("print-the-recipe", RECIPE)])]),
    ("optional-workspaces", &[SharesNoFiles]),
    ("pipeline-object-param-and-result", &[SharesNoFiles]),
    ("pipelinerun-param-array-indexing", &[SharesNoFiles]),
    ("pipelinerun-taskrunspecs", &[SharesNoFiles]),
    ("pipelinerun-using-different-subpaths-of-workspace", &[Plays(&[("read-all", "bar\n")])]),
    (
        "pipelinerun-with-cel-when-expressions",
        &[Plays(&[("check-file", "yes"), ("finally-task-should-be-executed", "finally done")])],
    ),
    ("pipelinerun-with-matrix", &[SharesNoFiles]),
    ("pipelinerun-with-matrix-include", &[SharesNoFiles]),
    (
        "pipelinerun-with-when-expressions",
        &[Plays(&[("check-file", "yes"), ("finally-task-should-be-executed", "finally done")])],
    ),
    ("pipelines-in-pipelines-ref-complex", &[Refused("task \"child\" uses the wrapped workspace \"source\", but ")]),
    ("propagating-workspaces", &[Plays(&[("fetch-secure-data", "success!!!"), ("print-the-recipe", RECIPE)])]),
    ("propagating-workspaces-in-pipelines", &[Plays(&[])]),
    ("propagating_params_implicit_parameters", &[SharesNoFiles]),
    ("propagating_workspaces_with_referenced_resources", &[Plays(&[("print-the-recipe", "hi")])]),
    ("stepaction-params", &[SharesNoFiles]),
    ("using-optional-workspaces-in-when-expressions", &[SharesNoFiles]),
    ("using_context_variables", &[SharesNoFiles]),
    ("windows-node-selectors", &[SharesNoFiles]),
    ("workspace-from-volumeclaimtemplate", &[Plays(&[("reader", "bar")])]),
    ("workspaces", &[Plays(&[("print-the-recipe", RECIPE)])]),
];

/// A run of an example.
struct Example {
    name: String,
    expected: &'static Expected,
    run: Value,
    /// What else is in its file.
    others: Vec<Value>,
}

#[test]
fn every_example_is_known() {
    let Some(folder) = folder() else { return };
    let files = fs::read_dir(folder).expect("the folder of examples").map(|entry| entry.unwrap().path());
    let names: BTreeSet<String> = files.map(|file| file.file_stem().unwrap().to_str().unwrap().to_owned()).collect();
    let unknown: Vec<_> = names.iter().filter(|name| EXAMPLES.iter().all(|(known, _)| known != name)).collect();
    assert!(unknown.is_empty(), "say in EXAMPLES what becomes of {unknown:?}");
}

#[test]
fn the_apiserver_accepts_what_is_not_refused() {
    let Some(examples) = examples() else { return };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        let cluster = Cluster::shared().await;
        for example in examples {
            let namespace = cluster.namespace().await;
            let found = wrapped(&example, "quay.io/me/run-{{workspace}}");
            match (example.expected, found) {
                (SharesNoFiles, None) => {}
                (Plays(_), Some((objects, Ok(run)))) => {
                    for object in objects.iter().filter(|object| object["kind"] != "PipelineRun") {
                        namespace.create(object).await.unwrap_or_else(|e| panic!("{}: {e}", example.name));
                    }
                    namespace.accepts(&run).await;
                }
                (Refused(sentence), Some((_, Err(refusal)))) => {
                    assert!(refusal.contains(sentence), "{}: {refusal}", example.name);
                }
                (_, found) => {
                    panic!("{}: {:?}", example.name, found.map(|(_, result)| result.map(|run| run.to_string())))
                }
            }
        }
    });
}

#[test]
fn played_they_end_as_their_comments_say() {
    let Some(examples) = examples() else { return };
    for example in examples {
        let Plays(says) = example.expected else { continue };
        let dir = tempfile::tempdir().unwrap();
        let target = format!("dir://{}/{{{{workspace}}}}", dir.path().display());
        let (objects, run) = wrapped(&example, &target).expect("it shares files");
        let run = run.unwrap_or_else(|refusal| panic!("{}: {refusal}", example.name));
        let program = PathBuf::from(env!("CARGO_BIN_EXE_tekton-wrap"));
        let runner = Runner { program, objects, shared: vec![dir.path().to_owned()], ..Runner::default() };
        let outcome: Outcome = runner.play(&run);
        assert_eq!(outcome.failure, None, "{}: {}", example.name, outcome.full_log());
        for (task, text) in *says {
            let log = outcome.log_of(task, None);
            assert!(log.contains(text), "{}: {task} does not say {text:?}: {}", example.name, outcome.full_log());
        }
    }
}

/// The example's objects with its run changed for the resolver wrap, and what `render` makes of it; none where it has
/// nothing to wrap.
fn wrapped(example: &Example, target: &str) -> Option<(Vec<Value>, Result<Value, String>)> {
    let mut objects = change::to_wrap(&example.run, target)?;
    objects.extend(example.others.iter().cloned());
    let text: Vec<String> = objects.iter().map(Value::to_string).collect();
    let result = render(&text.join("\n---\n"), "tekton-wrap");
    Some((objects, result))
}

/// The runs of all examples.
fn examples() -> Option<Vec<Example>> {
    let folder = folder()?;
    let mut examples = Vec::new();
    for (name, expected) in EXAMPLES {
        let Ok(text) = fs::read_to_string(folder.join(format!("{name}.yaml"))) else { continue };
        let (runs, others): (Vec<_>, Vec<_>) =
            manifests::parse(&text).into_iter().partition(|object| object["kind"] == "PipelineRun");
        assert_eq!(runs.len(), expected.len(), "{name}: say in EXAMPLES what becomes of each run");
        for (run, expected) in runs.into_iter().zip(*expected) {
            examples.push(Example { name: (*name).to_owned(), expected, run, others: others.clone() });
        }
    }
    assert!(!examples.is_empty(), "{} has none of Tekton's examples", folder.display());
    Some(examples)
}

fn folder() -> Option<PathBuf> {
    let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/tekton/examples");
    let folder = env::var_os("TEKTON_EXAMPLES").map_or(beside, Into::into);
    if folder.is_dir() {
        return Some(folder);
    }
    // Past the test harness, which shows nothing of a test that passes.
    let mut stderr = io::stderr();
    writeln!(stderr, "skipped: Tekton's examples, because there is no folder {}", folder.display()).unwrap();
    None
}
