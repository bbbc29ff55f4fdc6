//! `ref` of a step: what a StepAction gives it (Tekton: taskrun/resources/taskspec.go, resolveStepRef).

use serde_json::Value;

use super::{
    Runner,
    json::{canonical, items, name},
    replace,
    vars::Vars,
};

/// What a StepAction says of a step; all else the step says itself.
const FIELDS: [&str; 9] =
    ["image", "command", "args", "script", "env", "results", "workingDir", "securityContext", "volumeMounts"];

/// Replaces the `ref` of `step` by the StepAction's fields. Its params are those that the step passes, in which `task` is
/// replaced, or its own defaults; the task's are not known in it.
pub fn resolve(runner: &Runner, task: &Vars, step: &mut Value) -> Result<(), String> {
    let mut action = runner.object("StepAction", name(&step["ref"]))?["spec"].clone();
    canonical(&mut action);
    // Tekton: stepaction_validation.go, validateNoParamSubstitutionsInScript
    if action["script"].as_str().is_some_and(|script| script.contains("$(params")) {
        return Err(format!("the script of StepAction {:?} has params, which Tekton refuses", name(&step["ref"])));
    }
    let mut params = Vars::default();
    for declared in items(&action, "params") {
        let passed = items(step, "params").iter().find(|param| name(param) == name(declared));
        if let Some(default) = declared.get("default") {
            params.define_param(name(declared), default);
        }
        match passed {
            Some(passed) => params.define_param(name(declared), &task.value(&passed["value"])),
            None if declared.get("default").is_some() => {}
            None => return Err(format!("step {:?} does not pass the param {:?}", name(step), name(declared))),
        }
    }
    replace::in_container(&params, &mut action);
    for field in FIELDS {
        if let Some(value) = action.get(field) {
            step[field] = value.clone();
        }
    }
    let step = step.as_object_mut().expect("a step");
    step.shift_remove("ref");
    step.shift_remove("params");
    Ok(())
}
