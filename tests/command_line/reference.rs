//! docs/reference.md is what the program says of itself: `UPDATE_GOLDEN=1 cargo test --test command_line reference` writes it.

use std::{fmt::Write, fs, process::Command};

use tekton_wrap::{
    health::Condition,
    metrics::{Metrics, TextFormat},
    wrap::{PARAMS, is_default},
};

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");

/// Commands, in the order of `tekton-wrap --help`.
const COMMANDS: [&str; 18] = [
    "webhook",
    "render",
    "restore",
    "save",
    "inspect",
    "prune",
    "start",
    "list",
    "describe",
    "report",
    "cp",
    "cat",
    "ls",
    "diff",
    "rerun",
    "version",
    "completion",
    "man",
];

#[test]
fn the_page_is_up_to_date() {
    let page = page();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(PAGE, &page).unwrap();
    }
    assert!(
        fs::read_to_string(PAGE).unwrap_or_default() == page,
        "docs/reference.md is not up to date: UPDATE_GOLDEN=1 cargo test --test command_line reference"
    );
}

/// The README says what each one means.
#[test]
fn every_param_is_explained() {
    let readme = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let explained: String = readme.lines().filter_map(|line| line.strip_prefix("| `")?.split(" | ").next()).collect();
    for param in PARAMS {
        assert!(explained.contains(&format!("{param}`")), "README.md has no row for param {param}");
    }
}

fn page() -> String {
    let mut page = "# Reference\n\n\
        This page is generated from the code: `UPDATE_GOLDEN=1 cargo test --test command_line reference`. The codes of refusals are \
        in [refusals.md](refusals.md).\n\n\
        ## Params, annotations and defaults\n\n\
        What each one means is in the [README](../README.md#params-of-the-resolver-wrap).\n\n\
        | param of the resolver `wrap` | annotation of the run | key of the ConfigMaps `tekton-wrap` and `tekton-wrap-defaults` |\n\
        |---|---|---|\n"
        .to_owned();
    for param in PARAMS {
        let annotation = match param {
            "pipelineref" => "".to_owned(),
            "workspaces" => "`tekton-wrap.dev/wrap`".to_owned(),
            param => format!("`tekton-wrap.dev/{param}`"),
        };
        let key = if is_default(param) { format!("`{param}`") } else { String::new() };
        writeln!(page, "| `{param}` | {annotation} | {key} |").unwrap();
    }
    page += "\n## Readiness\n\n\
        `/readyz` at the port of `--admin-listen` answers 200 if all conditions hold, else 503. `/readyz?verbose` lists them, and \
        after `[!]` what the operator should know all the same. The gauge `tekton_wrap_ready` has the names as its label.\n\n";
    for condition in Condition::ALL {
        writeln!(page, "- `{}`: {}", condition.name(), condition.meaning()).unwrap();
    }
    page += "\n## Metrics\n\n\
        At `/metrics`, in the text format of Prometheus or as OpenMetrics, as the header `Accept` asks.\n\n\
        | metric | type | labels | |\n|---|---|---|---|\n";
    page += &metrics();
    page += "\n## Commands\n\n\
        The environment variable `RUST_LOG` filters the log of all commands (`info` by default).\n";
    for command in COMMANDS {
        write!(page, "\n### {command}\n\n```text\n{}```\n", help(command)).unwrap();
    }
    page
}

/// A row for each metric, as OpenMetrics describes it.
fn metrics() -> String {
    let text = Metrics::default().text(TextFormat::OpenMetrics).unwrap();
    let (mut rows, mut help) = (String::new(), "");
    for line in text.lines() {
        match line.splitn(4, ' ').collect::<Vec<_>>()[..] {
            ["#", "HELP", _, sentence] => help = sentence.trim_end_matches('.'),
            ["#", "TYPE", name, kind] => {
                let suffix = match kind {
                    "counter" => "_total",
                    "info" => "_info",
                    _ => "",
                };
                let labels = labels(&text, name);
                writeln!(rows, "| `{name}{suffix}` | {kind} | {labels} | {help} |").unwrap();
            }
            _ => {}
        }
    }
    rows
}

/// The labels that the first series of the metric `name` has, but for the bounds of a histogram's buckets.
fn labels(text: &str, name: &str) -> String {
    let series =
        text.lines().find(|line| !line.starts_with('#') && line.starts_with(name) && !line.contains("_bucket"));
    let inside = series.and_then(|line| line.split_once('{')?.1.split_once('}')).map_or("", |(inside, _)| inside);
    let names = inside.split("\",").filter_map(|pair| pair.split_once('=')).map(|(name, _)| format!("`{name}`"));
    names.collect::<Vec<_>>().join(", ")
}

fn help(command: &str) -> String {
    let mut program = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    program.args([command, "--help"]).env_clear().env("COLUMNS", "120");
    let output = program.output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}
