//! Param `failed`: the save step runs after a failure of one of the task's own steps too, and then fails as that one did.
//!
//! Tekton starts no step after one that failed, unless that one has `onError: continue` (Tekton: cmd/entrypoint/waiter.go,
//! pkg/entrypoint/entrypointer.go). So a step gets that if all steps after it can be kept from doing anything: if they are shell
//! scripts, which then begin with a look at the exit codes of the steps before them.

use serde_json::{Value, json};

use super::{growth::Growth, known::TaskValues, script::with_commands_before, task_spec::name_steps};
use crate::{
    step::OwnStep,
    tekton::{
        fields::{field, field_mut, items, set, text},
        scope::Scope,
    },
};

/// Where Tekton writes the exit codes of a task's steps (Tekton: pkg/apis/pipeline/paths.go `StepsDir`).
const STEPS_DIR: &str = "/tekton/steps";

/// The steps of a task by what their failure does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Failures {
    /// Names of those after which files are saved.
    pub saved: Vec<String>,
    /// Names of those after which they are not.
    pub unsaved: Vec<String>,
}

/// What a step's `onError` says.
#[derive(Clone, Copy, PartialEq, Eq)]
enum OnError {
    Stop,
    Continue,
    /// A variable without a value when the run is created.
    Unknown,
}

/// Lets the save step of `task` run after a failure of as many of its steps as possible. `scope` has the values of the
/// pipeline's variables.
pub fn continue_after(task: &mut Value, scope: &Scope<'_>, growth: &Growth) -> Failures {
    let all_on_errors = on_errors(task, scope);
    let mut failures = Failures::default();
    let steps = field_mut(task, "taskSpec").and_then(|spec| field_mut(spec, "steps"));
    let Some(steps) = steps.and_then(Value::as_array_mut) else { return failures };
    name_steps(steps);
    let not_scripts = steps.iter().rposition(|step| with_commands_before(text(step, "script"), "").is_none());
    for (index, (step, on_error)) in steps.iter_mut().zip(all_on_errors).enumerate() {
        let name = text(step, "name").to_owned();
        if !failures.saved.is_empty() && growth.fits(guard_bytes(&failures.saved)) {
            skip_after(&failures.saved, step);
        }
        let Some(step) = step.as_object_mut() else { continue };
        match on_error {
            OnError::Stop if not_scripts.is_none_or(|last| last <= index) => {
                set(step, "onError", json!("continue"));
                failures.saved.push(name);
            }
            OnError::Continue => {}
            OnError::Stop | OnError::Unknown => failures.unsaved.push(name),
        }
    }
    failures
}

/// What a save step has to look at after failures of the steps `names`.
pub fn own_steps(names: &[String]) -> Vec<OwnStep> {
    let own_step = |name: &String| OwnStep { name: name.clone(), exit_code: exit_code(name) };
    names.iter().map(own_step).collect()
}

/// A warning about each task after whose failure files may be lost; `failures` are those of the tasks with these `names`.
pub fn warnings(names: &[String], failures: &[Failures]) -> impl Iterator<Item = String> {
    let lossy = names.iter().zip(failures).filter(|(_, failures)| !failures.unsaved.is_empty());
    lossy.map(|(task, failures)| {
        let steps: Vec<String> = failures.unsaved.iter().map(|name| format!("{name:?}")).collect();
        format!(
            "param \"failed\": the files of task {task:?} are not saved if step {} fails: only those of the last step are, and of steps that only shell scripts follow",
            steps.join(" or ")
        )
    })
}

fn on_errors(task: &Value, scope: &Scope<'_>) -> Vec<OnError> {
    let values = TaskValues::new(task, scope);
    let on_error = |step: &Value| match values.text(text(step, "onError")).whole() {
        Some("" | "stopAndFail") => OnError::Stop,
        Some("continue") => OnError::Continue,
        _ => OnError::Unknown,
    };
    let steps = field(task, "taskSpec").map_or(&[][..], |spec| items(spec, "steps"));
    steps.iter().map(on_error).collect()
}

/// Makes the shell script of `step` end at once if one of the steps `before` failed. Their names are DNS labels.
fn skip_after(before: &[String], step: &mut Value) {
    let before = before.join(" ");
    let commands = format!(
        "for TEKTON_WRAP_STEP in {before}; do\n  \
           read -r TEKTON_WRAP_CODE < \"{}\" || :\n  \
           if [ \"${{TEKTON_WRAP_CODE:-0}}\" != 0 ]; then echo \"skipped: step $TEKTON_WRAP_STEP failed\"; exit 0; fi\n\
         done\n",
        exit_code("$TEKTON_WRAP_STEP")
    );
    let script = with_commands_before(text(step, "script"), &commands);
    if let (Some(script), Some(step)) = (script, step.as_object_mut()) {
        set(step, "script", json!(script));
    }
}

/// How long what [`skip_after`] writes is, about.
fn guard_bytes(before: &[String]) -> usize {
    const ITSELF: usize = 250;
    before.iter().map(|name| name.len().saturating_add(1)).sum::<usize>().saturating_add(ITSELF)
}

fn exit_code(step: &str) -> String {
    format!("{STEPS_DIR}/step-{step}/exitCode")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tekton::run::Run;

    /// Which failures of a task with these steps are followed by its save step, and the steps afterwards.
    fn continued(steps: Value) -> (Failures, Value) {
        let mut task = json!({"params": [{"name": "p", "value": "$(tasks.a.results.r)"}],
            "taskSpec": {"params": [{"name": "p"}, {"name": "known", "default": "continue"}], "steps": steps}});
        let failures = continue_after(&mut task, &Scope::of_run(Run::new(&Value::Null), "ns"), &Growth::default());
        (failures, task["taskSpec"]["steps"].take())
    }

    #[test]
    fn steps_that_only_shell_scripts_follow() {
        let script = |name: &str| json!({"name": name, "script": "echo\n"});
        let command = |name: &str| json!({"name": name, "command": ["x"]});
        let on_error = |value: &str| json!({"name": "e", "script": "echo\n", "onError": value});
        for (steps, saved, unsaved) in [
            (json!([command("a")]), vec!["a"], vec![]),
            (json!([{"command": ["x"]}]), vec!["unnamed-0"], vec![]),
            (json!([command("a"), script("b")]), vec!["a", "b"], vec![]),
            (json!([script("a"), command("b")]), vec!["b"], vec!["a"]),
            (json!([script("a"), command("b"), script("c")]), vec!["b", "c"], vec!["a"]),
            (json!([script("a"), {"name": "b", "ref": {"name": "action"}}]), vec!["b"], vec!["a"]),
            (json!([script("a"), on_error("continue")]), vec!["a"], vec![]),
            (json!([script("a"), on_error("$(params.known)")]), vec!["a"], vec![]),
            (json!([script("a"), on_error("$(params.p)")]), vec!["a"], vec!["e"]),
            (json!([on_error("stopAndFail")]), vec!["e"], vec![]),
        ] {
            let (failures, after) = continued(steps.clone());
            let names = |names: Vec<&str>| names.into_iter().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(failures, Failures { saved: names(saved), unsaved: names(unsaved) }, "{steps}");
            for step in
                after.as_array().unwrap().iter().filter(|step| failures.saved.iter().any(|name| step["name"] == **name))
            {
                assert_eq!(step["onError"], "continue", "{step}");
            }
        }
    }

    #[test]
    fn later_scripts_look_at_exit_codes_first() {
        let steps = json!([{"name": "a", "script": "a\n"}, {"name": "b", "script": "#!/bin/bash\nb\n"}, {"name": "c", "script": "c\n"}]);
        let (_, after) = continued(steps);
        assert_eq!(after[0]["script"], "a\n");
        let guard = |steps: &str| {
            format!(
                "for TEKTON_WRAP_STEP in {steps}; do\n  read -r TEKTON_WRAP_CODE < \"/tekton/steps/step-$TEKTON_WRAP_STEP/exitCode\" || :\n  if [ \"${{TEKTON_WRAP_CODE:-0}}\" != 0 ]; then echo \"skipped: step $TEKTON_WRAP_STEP failed\"; exit 0; fi\ndone\n"
            )
        };
        assert_eq!(after[1]["script"], format!("#!/bin/bash\n{}b\n", guard("a")));
        assert_eq!(after[2]["script"], format!("{}c\n", guard("a b")));
        // What is counted of it, before it is made, is what it is.
        for names in [vec!["a"], vec!["a", "b"], vec!["x".repeat(63).as_str(); 256]] {
            let counted = guard_bytes(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            let made = guard(&names.join(" ")).len();
            assert!((made..made + 50).contains(&counted), "{made} {counted}");
        }
    }

    #[test]
    fn what_is_lost_is_said() {
        let failures = [
            Failures::default(),
            Failures { saved: vec!["c".to_owned()], unsaved: vec!["a".to_owned(), "b".to_owned()] },
        ];
        let names = ["one", "two"].map(str::to_owned);
        assert_eq!(
            warnings(&names, &failures).collect::<Vec<_>>(),
            [
                "param \"failed\": the files of task \"two\" are not saved if step \"a\" or \"b\" fails: only those of the last step are, and of steps that only shell scripts follow"
            ]
        );
    }
}
