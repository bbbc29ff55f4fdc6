//! The injected steps of a run as it is stored: their configurations, with variables in them.

use serde_json::Value;

use super::{ENV, InvalidStepConfig, PROGRAM, StepConfig};
use crate::tekton::{
    fields::{field, items, text},
    tasks::all_tasks,
    variables::substitute,
};

/// An injected step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Injected {
    /// Whether it saves; else it restores.
    pub saves: bool,
    /// What it is told.
    pub config: StepConfig,
}

/// The values of the variables of a stored run.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// `$(context.pipelineRun.name)`
    pub name: &'a str,
    /// `$(context.pipelineRun.uid)`
    pub uid: &'a str,
    /// `$(context.pipelineRun.namespace)`
    pub namespace: &'a str,
}

/// Whether a Pipeline's spec has injected steps in it, of whatever version.
pub fn is_wrapped(spec: &Value) -> bool {
    let tasks = all_tasks(spec);
    let specs = tasks.filter_map(|task| field(task, "taskSpec"));
    specs.flat_map(|spec| items(spec, "steps")).any(is_injected)
}

/// Whether the step is an injected one, whatever it is told.
pub fn is_injected(step: &Value) -> bool {
    items(step, "command").first().is_some_and(|program| program == PROGRAM)
}

/// What an injected step is told, in the variable [`ENV`]; none if it is not told anything.
pub fn told(step: &Value) -> Result<Option<&str>, InvalidStepConfig> {
    let mut variables = items(step, "env").iter().filter(|variable| text(variable, "name") == ENV);
    let first = variables.next();
    // Kubelets hand both on: which one a step gets is up to the container runtime.
    match variables.next() {
        Some(_) => Err(InvalidStepConfig::Several),
        None => Ok(first.map(|variable| text(variable, "value"))),
    }
}

/// The injected steps of a pipeline's task.
pub fn injected(task: &Value) -> Result<Vec<Injected>, InvalidStepConfig> {
    let steps = field(task, "taskSpec").map_or(&[][..], |spec| items(spec, "steps"));
    let found = steps.iter().filter(|step| is_injected(step)).filter_map(|step| {
        let saves = items(step, "args").iter().any(|verb| verb == "save");
        let read = |told| Ok(Injected { saves, config: serde_json::from_str(told)? });
        told(step).transpose().map(|told| told.and_then(read))
    });
    found.collect()
}

impl<'a> Identity<'a> {
    /// Those of `run`.
    pub fn of(run: &'a Value) -> Self {
        let metadata = field(run, "metadata").unwrap_or(&Value::Null);
        Self { name: text(metadata, "name"), uid: text(metadata, "uid"), namespace: text(metadata, "namespace") }
    }

    /// `text` with these variables replaced.
    pub fn resolved(&self, text: &str) -> String {
        let value = |reference: &str| match reference {
            "context.pipelineRun.name" => Some(self.name.to_owned()),
            "context.pipelineRun.uid" => Some(self.uid.to_owned()),
            "context.pipelineRun.namespace" => Some(self.namespace.to_owned()),
            _ => None,
        };
        substitute(text, value).unwrap_or_else(|| text.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn injected_steps_among_the_users() {
        let config =
            json!({"run": "$(context.pipelineRun.uid)", "task": "t", "order": 0, "workspaces": []}).to_string();
        let step = |verb: &str| {
            let env = json!([{"name": "OTHER", "value": "{}"}, {"name": ENV, "value": config}]);
            json!({"command": [PROGRAM], "args": [verb], "env": env})
        };
        let users = json!({"command": ["sh", PROGRAM], "args": ["save"], "env": [{"name": "OTHER", "value": "{}"}]});
        let task = json!({"taskSpec": {"steps": [step("restore"), users.clone(), step("save")]}});
        let found = injected(&task).unwrap();
        assert_eq!(found.iter().map(|step| step.saves).collect::<Vec<_>>(), [false, true]);
        assert_eq!(found[1].config.run, "$(context.pipelineRun.uid)");
        let told_nonsense = |program: &str| json!({"taskSpec": {"steps": [{"command": [program], "env": [{"name": ENV, "value": "{"}]}]}});
        assert!(injected(&told_nonsense(PROGRAM)).is_err());
        let variable = json!({"name": ENV, "value": config});
        let twice = json!({"taskSpec": {"steps": [{"command": [PROGRAM], "env": [variable, variable]}]}});
        assert!(matches!(injected(&twice), Err(InvalidStepConfig::Several)), "which one counts is not said");
        assert_eq!(injected(&told_nonsense("sh")).unwrap(), []);
        assert_eq!(injected(&json!({"taskRef": {"name": "t"}})).unwrap(), []);

        for (step, wrapped) in [(step("restore"), true), (users, false), (json!({"args": [PROGRAM]}), false)] {
            assert_eq!(is_wrapped(&json!({"tasks": [{"taskSpec": {"steps": [step]}}]})), wrapped, "{step}");
            assert_eq!(is_wrapped(&json!({"finally": [{"taskSpec": {"steps": [step]}}]})), wrapped, "{step}");
        }
    }

    #[test]
    fn variables_of_a_stored_run() {
        let run = json!({"metadata": {"name": "n", "uid": "u", "namespace": "ns"}});
        for (text, resolved) in [
            ("$(context.pipelineRun.name)", "n"),
            ("$(context.pipelineRun.uid)", "u"),
            ("a/$(context.pipelineRun.namespace):b", "a/ns:b"),
            ("$(params.x)", "$(params.x)"),
            ("plain", "plain"),
        ] {
            assert_eq!(Identity::of(&run).resolved(text), resolved);
        }
    }
}
