//! What a registry's images hold, seen by crane and tar.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use crate::case::{Case, Image, Rendered};
use support::{manifests, registry::crane, runner::Outcome};

/// Files of the image `${BASE}`, as two layers: the second deletes a file of the first.
const BASE: &str = r#"
mkdir -p one/base two/base
echo from the base > one/base/file
ln -s file one/base/link
echo gone > one/base/deleted
printf '#!/bin/sh\n' > one/base/program
chmod 0755 one/base/program
: > two/base/.wh.deleted
tar -C one -cf one.tar base
tar -C two -cf two.tar base/.wh.deleted
"#;

/// Pushes the image `${BASE}` under `reference`.
pub fn push_base(reference: &str, credentials: Option<&Path>) {
    let dir = tempfile::tempdir().unwrap();
    run(Command::new("sh").args(["-ec", BASE]).current_dir(dir.path()));
    let layer = |name: &str| dir.path().join(name).display().to_string();
    run(crane_with(credentials).args(["append", "-t", reference, "-f", &layer("one.tar"), "-f", &layer("two.tar")]));
}

/// Compares what the targets of a run hold with what the case expects.
pub fn check(case: &Case, rendered: &Rendered, outcome: &Outcome, credentials: Option<&Path>) {
    for (workspace, expected) in &case.head.expect.image {
        let target = rendered.target.replace("{{workspace}}", workspace);
        let target = target.replace("$(context.pipelineRun.name)", &outcome.name);
        let dir = tempfile::tempdir().unwrap();
        export(&target, dir.path(), credentials);
        match expected {
            Image::Equals(task) => {
                let listed = outcome.log_of(task, Some("list"));
                assert!(!listed.is_empty(), "{}: task {task} listed nothing", case.name);
                assert_eq!(list(dir.path()), listed, "{}: {target} and what {task} saw", case.name);
            }
            Image::Holds(paths) => {
                let missing: Vec<_> = paths.iter().filter(|path| !dir.path().join(path).exists()).collect();
                assert!(missing.is_empty(), "{}: {target} lacks {missing:?}:\n{}", case.name, outcome.full_log());
            }
        }
    }
}

/// `crane export REFERENCE - | tar x`
fn export(reference: &str, dir: &Path, credentials: Option<&Path>) {
    let mut export = crane_with(credentials).args(["export", reference, "-"]).stdout(Stdio::piped()).spawn().unwrap();
    run(Command::new("tar").args(["-xp", "-C"]).arg(dir).stdin(export.stdout.take().unwrap()));
    assert!(export.wait().unwrap().success(), "crane export {reference}");
}

/// What the Task `list` prints of a folder.
fn list(dir: &Path) -> String {
    let task = manifests::parse(include_str!("cases/common/list.yaml")).remove(0);
    let script = task["spec"]["steps"][0]["script"].as_str().unwrap();
    let script = script.replace("$(workspaces.tree.path)", dir.to_str().unwrap());
    String::from_utf8(run(Command::new("sh").args(["-ec", &script]))).unwrap()
}

fn crane_with(credentials: Option<&Path>) -> Command {
    let mut crane = crane();
    if let Some(folder) = credentials {
        crane.env("DOCKER_CONFIG", folder);
    }
    crane
}

fn run(command: &mut Command) -> Vec<u8> {
    let output = command.output().expect("the program starts");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}
