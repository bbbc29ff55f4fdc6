//! A step that works in a directory below a wrapped workspace enters it after restore has made it.
//!
//! All containers of a pod start together, and the runtime makes a missing workingDir at once, as root, in the still empty
//! volume: where the task mounts the workspace readOnly that fails and the run hangs; where it does not run as root, restore
//! may not give the directory the mode and owner that it has to have. So a script changes directory itself.

use serde_json::{Value, json};

use super::refusal::{Refusal, TaskProblem};
use crate::tekton::{
    fields::{field, field_mut, items, set, text},
    workspaces::{Use, is_read_only, mount_path},
};

/// Shells that understand what is put in front of a script.
const SHELLS: [&str; 6] = ["sh", "bash", "dash", "ash", "ksh", "zsh"];

/// Rewrites the steps of `task`, which has a restore step for the workspaces `restored`. `non_root` tells that the run keeps
/// it from running as root.
pub fn enter_later(task: &mut Value, restored: &[&Use], non_root: bool) -> Result<(), Refusal> {
    let name = text(task, "name").to_owned();
    let Some(spec) = field_mut(task, "taskSpec") else { return Ok(()) };
    let places: Vec<Place> = restored.iter().map(|used| Place::new(spec, used)).collect();
    let inherited = field(spec, "stepTemplate").map_or("", |template| text(template, "workingDir")).to_owned();
    let Some(Value::Array(steps)) = field_mut(spec, "steps") else { return Ok(()) };
    for step in steps {
        let own = text(step, "workingDir");
        let dir = if own.is_empty() { inherited.clone() } else { own.to_owned() };
        let seen = places.iter().filter_map(|place| Some((place, place.path_in(step)?)));
        let Some((place, path)) = seen.into_iter().find(|(place, path)| place.holds(&dir, path)) else { continue };
        match entered(text(step, "script"), &dir) {
            Some(script) => {
                let Some(step) = step.as_object_mut() else { continue };
                set(step, "script", json!(script));
                set(step, "workingDir", json!(path));
            }
            // Root can still give the directory what it has to have.
            None if !non_root && !place.read_only => {}
            None => {
                let why = if place.read_only { "it mounts it readOnly" } else { "it does not run as root" };
                let (step, dir) = (text(step, "name").to_owned(), dir.clone());
                let problem = TaskProblem::WorkingDir { step, dir, why };
                return Err(Refusal::Task { task: name, workspace: place.workspace.clone(), problem });
            }
        }
    }
    Ok(())
}

/// Where a task sees a wrapped workspace.
struct Place {
    workspace: String,
    name: String,
    path: String,
    read_only: bool,
    /// Whether only the steps mount it that list it.
    isolated: bool,
}

impl Place {
    fn new(task_spec: &Value, used: &Use) -> Self {
        let declared = items(task_spec, "workspaces").iter().find(|declared| text(declared, "name") == used.task);
        let path = declared.map_or_else(|| format!("/workspace/{}", used.task), mount_path);
        let containers = items(task_spec, "steps").iter().chain(items(task_spec, "sidecars"));
        let isolated =
            containers.flat_map(|container| items(container, "workspaces")).any(|own| text(own, "name") == used.task);
        Self {
            workspace: used.pipeline.clone(),
            name: used.task.clone(),
            isolated,
            path: path.trim_end_matches('/').to_owned(),
            read_only: is_read_only(task_spec, &used.task),
        }
    }

    /// Where `step` sees it; none where it does not (Tekton: pkg/workspace/apply.go `mountAsIsolatedWorkspace`).
    fn path_in(&self, step: &Value) -> Option<String> {
        let own = items(step, "workspaces").iter().find(|own| text(own, "name") == self.name);
        match own.map(|own| text(own, "mountPath")) {
            None if self.isolated => None,
            None | Some("") => Some(self.path.clone()),
            Some(path) => Some(path.trim_end_matches('/').to_owned()),
        }
    }

    /// Whether `dir` lies below it where it is seen at `path`. A relative one begins at /workspace
    /// (Tekton: pkg/pod/workingdir_init.go).
    fn holds(&self, dir: &str, path: &str) -> bool {
        let below = |dir: &str, start: &str| {
            dir.strip_prefix(start).is_some_and(|rest| rest.starts_with('/') && !rest.trim_matches('/').is_empty())
        };
        let relative = !dir.is_empty() && !dir.starts_with(['/', '$']);
        let absolute = if relative { format!("/workspace/{dir}") } else { dir.to_owned() };
        below(dir, &format!("$(workspaces.{}.path)", self.name)) || below(&absolute, path)
    }
}

/// `script` with a change to `dir` first; none where it is no script of a shell.
fn entered(script: &str, dir: &str) -> Option<String> {
    if script.is_empty() || dir.contains('\'') {
        return None;
    }
    let dir = if dir.starts_with(['/', '$']) { dir.to_owned() } else { format!("/workspace/{dir}") };
    let enter = format!("mkdir -p -- '{dir}' && cd -- '{dir}' || exit 1\n");
    let Some(shebang) = script.strip_prefix("#!") else { return Some(enter + script) };
    let (line, rest) = shebang.split_once('\n').unwrap_or((shebang, ""));
    let mut words = line.split_whitespace().filter(|word| !word.starts_with('-'));
    let base = |word: &str| word.rsplit('/').next().unwrap_or_default().to_owned();
    let program = match base(words.next()?).as_str() {
        "env" => base(words.next()?),
        program => program.to_owned(),
    };
    SHELLS.contains(&program.as_str()).then(|| format!("#!{line}\n{enter}{rest}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts() {
        let enter = "mkdir -p -- '/d' && cd -- '/d' || exit 1\n";
        for (script, expected) in [
            ("echo\n", Some(format!("{enter}echo\n"))),
            ("#!/bin/sh\necho\n", Some(format!("#!/bin/sh\n{enter}echo\n"))),
            ("#!/usr/bin/env bash\nset -e\n", Some(format!("#!/usr/bin/env bash\n{enter}set -e\n"))),
            ("#!/usr/bin/env -S bash -e\n", Some(format!("#!/usr/bin/env -S bash -e\n{enter}"))),
            ("#!/bin/bash", Some(format!("#!/bin/bash\n{enter}"))),
            ("#!/usr/bin/python3\nprint()\n", None),
            ("#!/usr/bin/env node\n", None),
            ("", None),
        ] {
            assert_eq!(entered(script, "/d"), expected, "{script:?}");
        }
    }

    #[test]
    fn below_a_workspace() {
        let spec = json!({"workspaces": [{"name": "in", "mountPath": "/custom/"}, {"name": "w"}]});
        let used = |name: &str| Use { pipeline: name.to_owned(), task: name.to_owned(), bound: true };
        let (custom, plain) = (Place::new(&spec, &used("in")), Place::new(&spec, &used("w")));
        let holds = |place: &Place, dir: &str| place.holds(dir, &place.path);
        for dir in ["$(workspaces.in.path)/a", "/custom/a/b"] {
            assert!(holds(&custom, dir) && !holds(&plain, dir), "{dir}");
        }
        for dir in ["/workspace/w/a", "w/a", "$(workspaces.w.path)/$(params.x)"] {
            assert!(holds(&plain, dir), "{dir}");
        }
        for dir in ["", "/", "/custom", "/custom/", "/customs/a", "$(workspaces.in.path)", "w", "/workspace/w2/a"] {
            assert!(!holds(&custom, dir) && !holds(&plain, dir), "{dir}");
        }
    }

    #[test]
    fn seen_by_the_steps_that_list_it() {
        let listing = json!({"workspaces": [{"name": "w", "mountpath": "/own/"}]});
        let spec = json!({"workspaces": [{"name": "w"}], "steps": [listing, {}]});
        let place = Place::new(&spec, &Use { pipeline: "w".to_owned(), task: "w".to_owned(), bound: true });
        assert_eq!(place.path_in(&listing).as_deref(), Some("/own"));
        assert_eq!(place.path_in(&json!({"workspaces": [{"name": "w"}]})).as_deref(), Some("/workspace/w"));
        assert_eq!(place.path_in(&json!({})), None);
        assert!(place.holds("/own/a", "/own") && !place.holds("/workspace/w/a", "/own"));
    }
}
