//! What the containers of a task mount below its wrapped workspaces: a file of a ConfigMap, another volume, another workspace.
//!
//! The container runtime makes the mount points in the workspace's volume, and they are not the task's files; a restore must not
//! replace them (see [`crate::workspace::files::mounts`]). Paths whose value is known only when the task runs are not seen.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    growth::Growth,
    known::{KnownPath, TaskValues},
    place::Place,
    plan::TaskPlan,
};
use crate::tekton::{
    fields::{field, items, text},
    scope::Scope,
    workspaces::Use,
};

/// Notes in `plan`, that of the pipeline's `task`, where something is mounted below each workspace. `run_sub_path` gives the
/// subPath with which the run binds a workspace.
pub fn note(
    task: &Value,
    plan: &mut TaskPlan,
    used: &[Use],
    run_sub_path: &dyn Fn(&str) -> String,
    scope: &Scope<'_>,
    growth: &Growth,
) {
    let Some(spec) = field(task, "taskSpec") else { return };
    if plan.restore.is_empty() && plan.save.is_empty() {
        return;
    }
    let values = TaskValues::new(task, scope);
    let containers = containers(spec, &values);
    for step in plan.restore.iter_mut().chain(&mut plan.save) {
        let Some(used) = used.iter().find(|used| used.pipeline == step.name) else { continue };
        let binding = items(task, "workspaces").iter().find(|binding| text(binding, "name") == used.task);
        let sub_path = binding.map_or("", |binding| text(binding, "subPath"));
        let sub_path = values.outer_path(&format!("/{}/{sub_path}", run_sub_path(&used.pipeline)));
        step.mounts = below(&Place::new(spec, used), &containers, &values, &sub_path, growth);
    }
}

/// A step or a sidecar with all that it mounts.
struct Container<'a> {
    container: &'a Value,
    mounts: Vec<KnownPath>,
}

fn containers<'a>(spec: &'a Value, values: &TaskValues<'_>) -> Vec<Container<'a>> {
    let declared = || items(spec, "workspaces").iter().map(|declared| text(declared, "name").to_owned());
    let workspaces: Vec<Place> =
        declared().map(|name| Place::new(spec, &Use { pipeline: name.clone(), task: name, bound: true })).collect();
    let template = field(spec, "stepTemplate").map_or(&[][..], |template| items(template, "volumeMounts"));
    let with_mounts = |container: &'a Value, inherited: &'a [Value]| {
        let volumes = inherited.iter().chain(items(container, "volumeMounts"));
        let volumes = volumes.map(|mount| values.path(text(mount, "mountPath")));
        let workspaces = workspaces.iter().filter_map(|place| place.path_in(container));
        let mounts = volumes.chain(workspaces.map(|path| values.path(&path))).collect();
        Container { container, mounts }
    };
    let steps = items(spec, "steps").iter().map(|step| with_mounts(step, template));
    steps.chain(items(spec, "sidecars").iter().map(|sidecar| with_mounts(sidecar, &[]))).collect()
}

/// The paths below `place`, from the root of its volume on.
fn below(
    place: &Place,
    containers: &[Container<'_>],
    values: &TaskValues<'_>,
    sub_path: &KnownPath,
    growth: &Growth,
) -> Vec<String> {
    let mut found = BTreeSet::new();
    let root = values.outer_path("/");
    let Some(outer) = (if *sub_path == root { Some(&[][..]) } else { sub_path.names_below(&root) }) else {
        return Vec::new();
    };
    for Container { container, mounts } in containers {
        let Some(path) = place.path_in(container) else { continue };
        let path = values.path(&path);
        let names = mounts.iter().filter_map(|mount| mount.names_below(&path));
        for names in names {
            let all = outer.iter().chain(names);
            if !growth.fits(all.map(|name| name.len().saturating_add(1)).sum()) {
                return Vec::new();
            }
            found.insert([outer, names].concat().join("/"));
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::{step::WorkspaceStep, tekton::run::Run};

    #[test]
    fn whatever_is_mounted_below_the_workspace() {
        let task = json!({
            "name": "t",
            "params": [{"name": "file", "value": "conf/app.json"}, {"name": "late", "value": "$(tasks.a.results.r)"}],
            "workspaces": [{"name": "code", "workspace": "sources", "subPath": "$(params.part)"}, {"name": "cache"}],
            "taskSpec": {
                "params": [{"name": "file"}, {"name": "late"}],
                "workspaces": [{"name": "code"}, {"name": "cache", "mountPath": "$(workspaces.code.path)/.cache"}],
                "stepTemplate": {"volumeMounts": [{"name": "a", "mountPath": "/workspace/code/all"}]},
                "steps": [
                    {"volumeMounts": [
                        {"name": "b", "mountPath": "/workspace/code/$(params.file)"},
                        {"name": "b", "mountPath": "/workspace/code/$(params.late)"},
                        {"name": "c", "mountPath": "/workspace/other"}, {"name": "c", "mountPath": "/workspace/code/"},
                    ]},
                    {"volumeMounts": [{"name": "d", "mountpath": "/workspace/code/./x/../second"}]},
                ],
                "sidecars": [{"volumeMounts": [{"name": "e", "mountPath": "/workspace/code/sidecar"}]}],
            },
        });
        let run = json!({"spec": {"params": [{"name": "part", "value": "sub/dir"}]}});
        let scope = Scope::of_run(Run::new(&run), "ns");
        let step = |name: &str| -> WorkspaceStep {
            serde_json::from_value(json!({"name": name, "path": "/p", "target": "t"})).unwrap()
        };
        let mut plan = TaskPlan { save: vec![step("sources"), step("cache")], ..TaskPlan::default() };
        let used = [("sources", "code"), ("cache", "cache")];
        let used =
            used.map(|(pipeline, task)| Use { pipeline: pipeline.to_owned(), task: task.to_owned(), bound: true });
        note(
            &task,
            &mut plan,
            &used,
            &|name| if name == "sources" { "outer".to_owned() } else { String::new() },
            &scope,
            &Growth::default(),
        );
        let expected = ["", ".cache", "all", "conf/app.json", "second", "sidecar"];
        let expected: Vec<String> = expected[1..].iter().map(|path| format!("outer/sub/dir/{path}")).collect();
        assert_eq!(plan.save[0].mounts, expected);
        assert_eq!(plan.save[1].mounts, [] as [&str; 0]);
    }
}
