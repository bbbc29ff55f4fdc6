//! The injected steps.

use serde_json::{Map, Value, json};

use super::{Request, Settings, inline::name_steps, plan::TaskPlan, security};
use crate::{
    step::{ENV, PROGRAM, STATE_DIR, StepConfig, WorkspaceStep},
    tekton::{
        fields::{field, field_mut, items_mut, text},
        workspaces::Use,
    },
};

/// Puts the restore step in front and the save step at the end, each only where there is something for it to do.
pub fn inject(
    pipeline_task: &mut Value,
    plan: &TaskPlan,
    used: &[Use],
    run: &Value,
    request: &Request,
    settings: &Settings,
) {
    if plan.restore.is_empty() && plan.save.is_empty() {
        return;
    }
    let task = text(pipeline_task, "name").to_owned();
    let Some(spec) = field_mut(pipeline_task, "taskSpec") else { return };
    let security = security::context(spec, &security::pod_context(run, &task));
    let template = field(spec, "stepTemplate").cloned();
    let Some(spec) = spec.as_object_mut() else { return };
    let state = (!plan.restore.is_empty() && !plan.save.is_empty()).then(|| add_state_volume(spec));
    let context = Context { task: &task, plan, used, request, settings, state: state.as_deref(), template, security };
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
    plan: &'a TaskPlan,
    used: &'a [Use],
    request: &'a Request,
    settings: &'a Settings,
    state: Option<&'a str>,
    template: Option<Value>,
    security: Option<Value>,
}

impl Context<'_> {
    /// A step that runs our program. Whatever a stepTemplate could give it is set here (Tekton: v1/merge.go).
    fn step(&self, verb: &str, workspaces: &[WorkspaceStep], others: &[Value]) -> Value {
        let config = StepConfig {
            run: "$(context.pipelineRun.uid)".to_owned(),
            task: self.task.to_owned(),
            order: self.plan.order,
            task_run: self.plan.numbered.then(|| "$(context.taskRun.name)".to_owned()),
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
        });
        set_resources(&mut step, self.template.as_ref());
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

/// Requests that fit any node, and where the template sets limits or a pull policy, values that fit our program.
fn set_resources(step: &mut Value, template: Option<&Value>) {
    step["computeResources"] = json!({"requests": {"cpu": "50m", "memory": "64Mi"}});
    let Some(template) = template else { return };
    if field(template, "computeResources").is_some_and(|resources| field(resources, "limits").is_some()) {
        step["computeResources"]["limits"] = json!({"cpu": "2", "memory": "512Mi"});
    }
    if !text(template, "imagePullPolicy").is_empty() {
        step["imagePullPolicy"] = json!("IfNotPresent");
    }
}

/// `wanted`, or with a number behind it where one of `others` is already called so.
fn free_name(wanted: &str, others: &[Value]) -> String {
    let taken = |name: &str| others.iter().any(|other| text(other, "name") == name);
    let numbered = (1..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}
