//! The injected steps.

use serde_json::{Map, Value, json};

use super::{Request, Settings, inline::name_steps, plan::TaskPlan};
use crate::{
    step::{ENV, PROGRAM, STATE_DIR, StepConfig, WorkspaceStep},
    tekton::{
        fields::{field, field_mut, items, items_mut, text},
        workspaces::Use,
    },
};

/// Puts the restore step in front and the save step at the end, each only where there is something for it to do.
pub fn inject(pipeline_task: &mut Value, plan: &TaskPlan, used: &[Use], request: &Request, settings: &Settings) {
    if plan.restore.is_empty() && plan.save.is_empty() {
        return;
    }
    let task = text(pipeline_task, "name").to_owned();
    let Some(spec) = field_mut(pipeline_task, "taskSpec").and_then(Value::as_object_mut) else { return };
    let state = (!plan.restore.is_empty() && !plan.save.is_empty()).then(|| add_state_volume(spec));
    let context = Context {
        task: &task,
        order: plan.order,
        used,
        request,
        settings,
        state: state.as_deref(),
        security: security_context(spec),
    };
    let Some(steps) = items_mut(spec, "steps") else { return };
    let restore = (!plan.restore.is_empty()).then(|| context.step("restore", &plan.restore, steps));
    let save = (!plan.save.is_empty()).then(|| context.step("save", &plan.save, steps));
    if let Some(restore) = restore {
        name_steps(steps);
        steps.insert(0, restore);
    }
    steps.extend(save);
}

/// What both steps of a task share.
struct Context<'a> {
    task: &'a str,
    order: u32,
    used: &'a [Use],
    request: &'a Request,
    settings: &'a Settings,
    state: Option<&'a str>,
    security: Option<Value>,
}

impl Context<'_> {
    /// A step that runs our program. Whatever a stepTemplate could give it is set here (Tekton: v1/merge.go).
    fn step(&self, verb: &str, workspaces: &[WorkspaceStep], others: &[Value]) -> Value {
        let config = StepConfig {
            run: "$(context.pipelineRun.uid)".to_owned(),
            task: self.task.to_owned(),
            order: self.order,
            conflict: self.request.conflict,
            compression: self.request.compression,
            expires: self.request.expires.clone(),
            workspaces: workspaces.to_vec(),
        };
        let config = serde_json::to_string(&config).unwrap_or_default();
        // The whole volume, writable whatever the task's own mount is (Tekton: docs/workspaces.md).
        let mut mounts: Vec<Value> = workspaces.iter().map(|step| self.mount(step)).collect();
        if let Some(state) = self.state {
            mounts.push(json!({"name": state, "mountPath": STATE_DIR}));
        }
        let mut step = json!({
            "name": free_name(&format!("tekton-wrap-{verb}"), others),
            "image": self.settings.image,
            "command": [PROGRAM],
            "args": [verb],
            "workingDir": "/",
            "env": [
                {"name": "HOME", "value": "/"},
                {"name": "TEKTON_WRAP_CREDENTIALS", "value": "$(credentials.path)"},
                {"name": ENV, "value": config},
            ],
            "volumeMounts": mounts,
            "computeResources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        });
        if let (Some(security), Some(map)) = (&self.security, step.as_object_mut()) {
            map.insert("securityContext".to_owned(), security.clone());
        }
        step
    }

    fn mount(&self, step: &WorkspaceStep) -> Value {
        let used = self.used.iter().find(|used| used.pipeline == step.name);
        let task_name = used.map_or(step.name.as_str(), |used| &used.task);
        json!({"name": format!("$(workspaces.{task_name}.volume)"), "mountPath": step.path})
    }
}

/// Adds the volume that only injected steps mount; gives its name.
fn add_state_volume(spec: &mut Map<String, Value>) -> String {
    let Some(volumes) = items_mut(spec, "volumes") else { return String::new() };
    let name = free_name("tekton-wrap-state", volumes);
    volumes.push(json!({"name": name, "emptyDir": {}}));
    name
}

/// The security context of the user's steps, where they all have the same: who reads what they wrote must run as they do.
fn security_context(spec: &Map<String, Value>) -> Option<Value> {
    let spec = Value::Object(spec.clone());
    let mut contexts = items(&spec, "steps").iter().map(|step| field(step, "securityContext"));
    let first = contexts.next()?;
    contexts.all(|context| context == first).then(|| first.cloned()).flatten()
}

/// `wanted`, or with a number behind it where one of `others` is already called so.
fn free_name(wanted: &str, others: &[Value]) -> String {
    let taken = |name: &str| others.iter().any(|other| text(other, "name") == name);
    let numbered = (1..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}
