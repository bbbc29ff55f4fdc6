//! `tekton-wrap render` as people use it: files as they lie around, several runs, some of them wrong.

use std::{
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: RUN}
spec:
  pipelineRef:
    resolver: wrap
    params:
    - {name: pipelineref, value: PIPELINE}
    - {name: workspaces, value: w}
    - {name: target, value: quay.io/me/x}
"#;

const PIPELINE: &str = r#"
apiVersion: tekton.dev/v1
kind: Pipeline
metadata: {name: p}
spec:
  workspaces: [{name: w}]
  tasks:
  - name: one
    workspaces: [{name: w}]
    taskRef: TASKREF
"#;

const TASK: &str = r#"
apiVersion: tekton.dev/v1
kind: Task
metadata: {name: git-clone}
spec:
  workspaces: [{name: w}]
  steps: [{name: clone, image: i, script: git clone}]
"#;

/// What was printed, what was said, and whether it went well.
struct Outcome {
    text: String,
    said: String,
    succeeded: bool,
}

fn run(name: &str, pipeline: &str) -> String {
    RUN.replace("RUN", name).replace("PIPELINE", pipeline)
}

fn pipeline(task_ref: &str) -> String {
    PIPELINE.replace("TASKREF", task_ref)
}

/// `render` with `args` in a folder with these files.
fn render(files: &[(&str, String)], args: &[&str], input: &str) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    render_in(folder.path(), args, input)
}

fn render_in(folder: &Path, args: &[&str], input: &str) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    command.arg("render").args(args).current_dir(folder).env_remove("RUST_LOG");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Outcome { text: text(output.stdout), said: text(output.stderr), succeeded: output.status.success() }
}

fn all(texts: &[String]) -> Vec<(&'static str, String)> {
    vec![("all.yaml", texts.join("\n---\n"))]
}

#[test]
fn a_refused_run_leaves_the_others() {
    let files = all(&[run("bad", "none"), run("good", "p"), pipeline("{name: git-clone}"), TASK.to_owned()]);
    let Outcome { text, said, succeeded } = render(&files, &["-f", "all.yaml"], "");
    assert!(text.contains("name: good") && !text.contains("name: bad"), "{text}");
    assert!(said.contains("bad: pipeline \"none\" was not found in namespace \"default\""), "{said}");
    assert!(!succeeded);
}

#[test]
fn folders_patterns_and_streams() {
    let files = [
        ("d/run.yml", run("good", "p")),
        ("d/pipeline.yaml", pipeline("{name: git-clone}")),
        ("d/task.json", serde_json::to_string(&tekton_wrap::yaml::parse(TASK).unwrap()[0]).unwrap()),
        ("d/notes.txt", "no: [yaml".to_owned()),
    ];
    for args in
        [&["-f", "d"][..], &["-f", "d/run.yml", "d/pipeline.yaml", "d/task.json"], &["-f", "d/run.yml", "-f", "d"]]
    {
        let outcome = render(&files, args, "");
        assert!(outcome.succeeded && outcome.text.contains("tekton-wrap-save"), "{args:?}: {}", outcome.said);
    }
    let json = |text: &str| format!("{:#}\n", tekton_wrap::yaml::parse(text).unwrap()[0]);
    let stream: String = [&run("good", "p"), &pipeline("{name: git-clone}"), TASK].map(json).concat();
    let outcome = render(&[], &["-f", "-"], &stream);
    assert!(outcome.succeeded && outcome.text.contains("tekton-wrap-save"), "{}", outcome.said);
}

#[test]
fn the_runs_own_namespace_counts() {
    let in_ci = |text: String| text.replace("metadata: {", "metadata: {namespace: ci, ");
    let files = all(&[in_ci(run("good", "p")), in_ci(pipeline("{name: git-clone}")), TASK.to_owned()]);
    assert!(render(&files, &["-f", "all.yaml"], "").succeeded);
    let outcome = render(&files, &["-f", "all.yaml", "-n", "other"], "");
    let says = "was not found in namespace \"other\": create it first, or correct param \"pipelineref\" (the files have it in namespace \"ci\": give -n ci)";
    assert!(!outcome.succeeded && outcome.said.contains(says), "{}", outcome.said);
}

#[test]
fn old_objects_count_only_where_they_are_used() {
    let old = TASK.replace("tekton.dev/v1", "tekton.dev/v1alpha1");
    let unrelated = old.replace("git-clone", "somebody-elses");
    let files = all(&[run("good", "p"), pipeline("{name: git-clone}"), TASK.to_owned(), unrelated]);
    let Outcome { said, succeeded, .. } = render(&files, &["-f", "all.yaml"], "");
    assert!(succeeded, "{said}");
    assert!(said.contains("Task \"somebody-elses\" is left out: its apiVersion is \"tekton.dev/v1alpha1\""), "{said}");

    let files = all(&[run("bad", "p"), pipeline("{name: git-clone}"), old]);
    let Outcome { said, succeeded, .. } = render(&files, &["-f", "all.yaml"], "");
    assert!(
        !succeeded && said.contains("bad: task \"git-clone\": its apiVersion is \"tekton.dev/v1alpha1\""),
        "{said}"
    );

    let old_run =
        run("old", "p").replace("tekton.dev/v1", "tekton.dev/v1beta1").replace("spec:", "spec:\n  taskRunTemplate: {}");
    let Outcome { said, succeeded, .. } = render(&all(&[old_run]), &["-f", "all.yaml"], "");
    assert!(
        !succeeded && said.contains("old: spec has taskRunTemplate, which v1beta1 calls serviceAccountName"),
        "{said}"
    );
    let beta = TASK
        .replace("tekton.dev/v1", "tekton.dev/v1beta1")
        .replace("image: i,", "image: i, resources: {limits: {cpu: 1}},");
    let files = all(&[run("good", "p"), pipeline("{name: git-clone}"), beta]);
    assert!(render(&files, &["-f", "all.yaml"], "").text.contains("computeResources:"));
}

#[test]
fn files_stand_in_for_resolvers() {
    for task_ref in [
        "{resolver: bundles, params: [{name: name, value: git-clone}, {name: bundle, value: quay.io/x}]}",
        "{resolver: git, params: [{name: url, value: https://example.com/x}, {name: pathInRepo, value: tasks/git-clone.yaml}]}",
        "{resolver: http, params: [{name: url, value: https://example.com/x/git-clone.yml}]}",
    ] {
        let files = all(&[run("good", "p"), pipeline(task_ref), TASK.to_owned()]);
        let Outcome { text, said, succeeded } = render(&files, &["-f", "all.yaml"], "");
        assert!(succeeded && text.contains("git clone"), "{said}");
        assert!(said.contains("is taken to be the task \"git-clone\" in the files"), "{said}");
    }
    let nothing = all(&[run("bad", "p"), pipeline("{resolver: git, params: [{name: url, value: u}]}")]);
    let said = render(&nothing, &["-f", "all.yaml"], "").said;
    assert!(said.contains("can only be read in a cluster: add it to the files"), "{said}");
}

#[test]
fn a_diff_shows_what_wrapping_changes() {
    let files = all(&[run("good", "p"), pipeline("{name: git-clone}"), TASK.to_owned()]);
    let diff = render(&files, &["-f", "all.yaml", "-o", "diff"], "").text;
    let changed = |sign: char, text: &str| diff.lines().any(|line| line.starts_with(sign) && line.contains(text));
    assert!(
        changed('+', "tekton-wrap-save") && !changed('+', "script: git clone") && !changed('-', "git clone"),
        "{diff}"
    );
}

#[test]
fn an_explanation_fits_the_screen() {
    let tasks: String = (0..12)
        .map(|i| format!("  - {{name: a-task-with-a-long-name-{i}, runAfter: [{}], workspaces: [{{name: w}}], taskRef: {{name: git-clone}}}}\n",
            (0..i).map(|j| format!("a-task-with-a-long-name-{j}")).collect::<Vec<_>>().join(", ")))
        .collect();
    let pipeline = pipeline("{name: git-clone}").split("  - name: one").next().unwrap().to_owned() + &tasks;
    let text = render(&all(&[run("good", "p"), pipeline, TASK.to_owned()]), &["-f", "all.yaml", "--explain"], "").text;
    assert!(
        text.contains("a-task-with-a-long-name-11") && text.lines().all(|line| line.chars().count() <= 120),
        "{text}"
    );
}

#[test]
fn graphs_for_mermaid_and_graphviz() {
    let pipeline = PIPELINE.replace("TASKREF", "{name: git-clone}")
        + "  - {name: two, runAfter: [one], workspaces: [{name: w}], taskRef: {name: git-clone}}\n"
        + "  finally:\n  - {name: end, taskRef: {name: git-clone}, workspaces: [{name: w}]}\n";
    let files = all(&[run("good", "p"), pipeline, TASK.to_owned()]);
    let mermaid = render(&files, &["-f", "all.yaml", "-o", "mermaid"], "").text;
    let expected = r#"flowchart TD
    t0["<b>one</b><br/>restores nothing: no task before it saves<br/>saves w as &lt;run uid&gt;.0.w"]
    t1["<b>two</b><br/>restores w from one<br/>saves w as &lt;run uid&gt;.1.w"]
"#;
    assert!(mermaid.starts_with(expected), "{mermaid}");
    assert!(
        mermaid.contains("    subgraph finally\n        t2[\"<b>end</b>")
            && mermaid.ends_with("    end\n    t0 --> t1\n"),
        "{mermaid}"
    );
    let dot = render(&files, &["-f", "all.yaml", "--explain", "-o", "dot"], "").text;
    assert!(dot.starts_with("digraph run {\n  node [shape=box]\n  t0 [label=\"one\\nrestores "), "{dot}");
    assert!(dot.contains(", style=dashed]\n") && dot.ends_with("  t0 -> t1\n}\n"), "{dot}");
    // The page has one graph for each run, and what can't be wrapped is told beside it.
    let html = render(&files, &["-f", "all.yaml", "--explain", "-o", "html"], "").text;
    assert!(html.starts_with("<!doctype html>") && html.contains("<h1>good "), "{html}");
    assert_eq!(html.matches("<article class=\"task planned\"").count(), 3);
    for says in [
        "<dt>restores</dt><dd>w from one</dd>",
        "<dt>saves</dt><dd>w as &lt;run uid&gt;.1.w</dd>",
        ">finally</text>",
        ">What each task will do</h2>",
    ] {
        assert!(html.contains(says), "{says}\n{html}");
    }
}

/// Names are those of whoever wrote the Pipeline: in the table, in YAML and in messages they move no cursor and turn no line
/// round.
#[test]
fn no_name_writes_to_the_terminal() {
    let evil = r#""x\e[2J\r\u202e\n forged""#;
    let pipeline = PIPELINE.replace("name: one", &format!("name: {evil}")).replace("TASKREF", "{name: git-clone}");
    let broken = format!("{pipeline}    runAfter: [{evil}, \"other\\e[2J\"]\n");
    for pipeline in [pipeline, broken] {
        let files = [("a.yaml", [run("r", "p"), pipeline, TASK.to_owned()].join("---"))];
        for output in [&["--explain"][..], &[], &["-o", "diff"], &["-o", "mermaid"], &["-o", "dot"], &["-o", "html"]] {
            let outcome = render(&files, &[&["-f", "a.yaml"], output].concat(), "");
            let shown = outcome.text + &outcome.said;
            assert!(shown.contains("forged"), "{shown}");
            assert!(shown.chars().all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'), "{shown:?}");
            assert!(!shown.lines().any(|line| line.trim_start().starts_with("forged")), "{shown}");
        }
    }
}
