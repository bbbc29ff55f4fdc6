//! A step with a workingDir below a wrapped workspace enters it once restore has created it.
//!
//! All containers of a pod start together, and the runtime creates a missing workingDir at once, as root, in the still empty
//! volume: if the task mounts the workspace readOnly, that fails and the run hangs; if it does not run as root, restore may
//! not set the directory's mode and owner. So a script changes directory itself.

use serde_json::{Value, json};

use super::{
    growth::Growth,
    known::TaskValues,
    place::Place,
    refusal::{Refusal, TaskProblem},
    script::with_commands_before,
    template,
};
use crate::tekton::{
    fields::{field, field_mut, items, items_mut, set, text},
    scope::Scope,
    workspaces::Use,
};

/// The environment variable of a step that holds the directory: there a value stays a value, in a script it would be code.
const ENV: &str = "TEKTON_WRAP_WORKING_DIR";

/// Rewrites the steps of `task`, which has a restore step for the workspaces `restored`. `non_root` tells that the run keeps
/// it from running as root, `scope` has the values of the pipeline's variables.
pub fn enter_later(
    task: &mut Value,
    restored: &[&Use],
    non_root: bool,
    scope: &Scope<'_>,
    growth: &Growth,
) -> Result<(), Refusal> {
    let entries = entries(task, restored, non_root, scope, growth)?;
    let Some(spec) = field_mut(task, "taskSpec") else { return Ok(()) };
    // Behind other variables the kubelet would replace `$(NAME)` in its value, which may be anybody's, by the value of one of them
    // (Kubernetes: core/v1 EnvVar), and a secret would become the name of a folder.
    if entries.iter().flatten().any(|entry| entry.dir.contains("$(")) {
        template::hand_down_env(spec, growth);
    }
    let Some(Value::Array(steps)) = field_mut(spec, "steps") else { return Ok(()) };
    for (step, entry) in steps.iter_mut().zip(entries) {
        if let (Some(step), Some(DelayedEntry { script, dir, from })) = (step.as_object_mut(), entry) {
            set(step, "script", json!(script));
            set(step, "workingDir", json!(from));
            if let Some(env) = items_mut(step, "env") {
                env.retain(|variable| text(variable, "name") != ENV);
                env.insert(0, json!({"name": ENV, "value": dir}));
            }
        }
    }
    Ok(())
}

/// How a step enters its working directory.
struct DelayedEntry {
    script: String,
    dir: String,
    /// Where the runtime starts it.
    from: String,
}

/// One for each step; none for a step that starts in its workingDir as it is.
fn entries(
    task: &Value,
    restored: &[&Use],
    non_root: bool,
    scope: &Scope<'_>,
    growth: &Growth,
) -> Result<Vec<Option<DelayedEntry>>, Refusal> {
    let Some(spec) = field(task, "taskSpec") else { return Ok(Vec::new()) };
    let values = TaskValues::new(task, scope);
    let places: Vec<Place> = restored.iter().map(|used| Place::new(spec, used)).collect();
    let inherited = field(spec, "stepTemplate").map_or("", |template| text(template, "workingDir"));
    let entry = |step: &Value| {
        let own = text(step, "workingDir");
        let dir = if own.is_empty() { inherited } else { own };
        // One of the stepTemplate is that of every step.
        if dir.is_empty() || !growth.fits(dir.len()) {
            return Ok(None);
        }
        let known = values.path(dir);
        let mut seen = places.iter().filter_map(|place| Some((place, place.path_in(step)?)));
        let Some((place, from)) = seen.find(|(_, path)| known.is_below(&values.path(path))) else { return Ok(None) };
        match entered(text(step, "script"), dir) {
            Some(script) => Ok(Some(DelayedEntry { script, dir: dir.to_owned(), from })),
            // Root can still set the directory's mode and owner.
            None if !non_root && !place.read_only => Ok(None),
            None => {
                let why = if place.read_only { "the task mounts it readOnly" } else { "the task does not run as root" };
                let (step, dir) = (text(step, "name").to_owned(), dir.to_owned());
                let problem = TaskProblem::WorkingDir { step, dir, why };
                Err(Refusal::Task { task: text(task, "name").to_owned(), workspace: place.workspace.clone(), problem })
            }
        }
    };
    items(spec, "steps").iter().map(entry).collect()
}

/// `script` that first changes to the directory in [`ENV`], whose template is `dir`; none if it is not a shell script.
fn entered(script: &str, dir: &str) -> Option<String> {
    let absolute = match dir.chars().next() {
        Some('/') => String::new(),
        // Whether the value of a variable begins with a slash is known only when the step runs.
        Some('$') => format!("case \"${ENV}\" in /*) ;; *) {ENV}=\"/workspace/${ENV}\" ;; esac\n"),
        _ => format!("{ENV}=\"/workspace/${ENV}\"\n"),
    };
    with_commands_before(script, &format!("{absolute}mkdir -p -- \"${ENV}\" && cd -- \"${ENV}\" || exit 1\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tekton::run::Run;

    #[test]
    fn relative_directories_begin_at_workspace() {
        let first = |dir: &str| entered("echo\n", dir).unwrap().lines().next().unwrap().to_owned();
        assert_eq!(first("a/b"), "TEKTON_WRAP_WORKING_DIR=\"/workspace/$TEKTON_WRAP_WORKING_DIR\"");
        assert!(first("$(params.p)").starts_with("case "), "{}", first("$(params.p)"));
        assert!(first("/a").starts_with("mkdir "), "{}", first("/a"));
    }

    #[test]
    fn below_a_workspace() {
        let task = json!({
            "params": [{"name": "late", "value": "$(tasks.a.results.r)"}, {"name": "dot", "value": "."}],
            "taskSpec": {"workspaces": [{"name": "in", "mountPath": "/custom/"}, {"name": "w"}],
                "params": [{"name": "late"}, {"name": "dot"}, {"name": "dir", "default": "$(workspaces.in.path)/d"}]},
        });
        let scope = Scope::of_run(Run::new(&Value::Null), "ns");
        let enters = |dir: &str| {
            let mut task = task.clone();
            task["taskSpec"]["steps"] = json!([{"script": "echo", "workingDir": dir}]);
            let used = ["in", "w"].map(|name| Use { pipeline: name.to_owned(), task: name.to_owned(), bound: true });
            enter_later(&mut task, &[&used[0], &used[1]], true, &scope, &Growth::default()).unwrap();
            let step = &task["taskSpec"]["steps"][0];
            (step["env"][0]["value"] == dir).then(|| text(step, "workingDir").to_owned())
        };
        for dir in ["$(workspaces.in.path)/a", "/custom/a/b", "$(params.dir)", "$(params.late)"] {
            assert_eq!(enters(dir).as_deref(), Some("/custom"), "{dir}");
        }
        for dir in ["/workspace/w/a", "w/a", "./w/a", "$(workspaces.w.path)/$(params.late)"] {
            assert_eq!(enters(dir).as_deref(), Some("/workspace/w"), "{dir}");
        }
        for dir in [
            "",
            "/",
            "/custom",
            "/custom/",
            "/customs/a",
            "$(workspaces.in.path)",
            "w",
            "/workspace/w2/a",
            "$(workspaces.w.path)/$(params.dot)",
            "/custom/../a",
        ] {
            assert_eq!(enters(dir), None, "{dir}");
        }
    }

    /// A task in `w` with this stepTemplate, whose step has this environment and this workingDir, after it was rewritten.
    fn entered_later(template: Value, env: Value, dir: &str, growth: &Growth) -> Value {
        let mut task = json!({"taskSpec": {
            "workspaces": [{"name": "w"}], "stepTemplate": template,
            "steps": [{"script": "echo", "workingDir": dir, "env": env}],
        }});
        let used = Use { pipeline: "w".to_owned(), task: "w".to_owned(), bound: true };
        let scope = Scope::of_run(Run::new(&Value::Null), "ns");
        enter_later(&mut task, &[&used], true, &scope, growth).unwrap();
        task["taskSpec"].take()
    }

    /// The kubelet replaces `$(NAME)` in a value by the value of a variable before it.
    #[test]
    fn no_variable_stands_before_the_directory() {
        let template = json!({"env": [{"name": "T", "value": "t"}], "envFrom": [{"secretRef": {"name": "s"}}]});
        let env = json!([{"name": "A", "value": "a"}, {"name": ENV, "value": "theirs"}]);
        let dir = "$(workspaces.w.path)/$(params.p)";
        let spec = entered_later(template.clone(), env.clone(), dir, &Growth::default());
        let all = json!([{"name": ENV, "value": dir}, {"name": "T", "value": "t"}, {"name": "A", "value": "a"}]);
        assert_eq!(spec["steps"][0]["env"], all);
        // What has no names of its own stays where it is.
        assert_eq!(spec["stepTemplate"], json!({"envFrom": template["envFrom"]}));
        // Without a variable in it there is nothing to replace.
        let spec = entered_later(template.clone(), env, "w/a", &Growth::default());
        assert_eq!(spec["stepTemplate"], template);
        assert_eq!(spec["steps"][0]["env"], json!([{"name": ENV, "value": "w/a"}, {"name": "A", "value": "a"}]));
    }

    #[test]
    fn nothing_is_made_that_does_not_fit() {
        let full = Growth::default();
        assert!(full.fits(crate::limits::MAX_RUN_BYTES));
        let spec = entered_later(json!({}), json!([]), "w/a", &full);
        assert_eq!(spec["steps"], json!([{"script": "echo", "workingDir": "w/a", "env": []}]));
        assert!(full.check().is_err());
    }
}
