//! The injected steps.

use serde_json::{Map, Value, json};

use super::{
    plan::TaskPlan,
    refusal::{Refusal, TaskProblem},
    request::Request,
    resources, security,
    settings::Settings,
    task_spec::name_steps,
};
use crate::{
    step::{ENV, MatrixStep, PROGRAM, ROOT, STATE_DIR, StepConfig, WorkspaceStep},
    tekton::{
        fields::{field, field_mut, items, items_mut, text},
        run::Run,
        workspaces::{Use, mount_path},
    },
};

/// With this annotation Tekton takes the network from every step that has no variable of the second name
/// (Tekton: pkg/pod/pod.go, cmd/entrypoint/runner.go).
const HERMETIC: (&str, &str) = ("experimental.tekton.dev/execution-mode", "TEKTON_RESOURCE_NAME");

/// Puts the restore step in front and the save step at the end, each only where there is something for it to do.
pub fn inject(
    pipeline_task: &mut Value,
    plan: &TaskPlan,
    used: &[Use],
    run: Run<'_>,
    request: &Request,
    settings: &Settings,
) -> Result<(), Refusal> {
    let Some(step) = plan.restore.first().or(plan.save.first()) else { return Ok(()) };
    let task = text(pipeline_task, "name").to_owned();
    let Some(spec) = field_mut(pipeline_task, "taskSpec") else { return Ok(()) };
    if let Some(path) = mounted_over(spec) {
        let problem = TaskProblem::MountPath { path, root: ROOT };
        return Err(Refusal::Task { task, workspace: step.name.clone(), problem });
    }
    let security = security::context(spec, &security::pod_context(run, &task));
    let own_spec = spec.clone();
    let Some(spec) = spec.as_object_mut() else { return Ok(()) };
    let state = (!plan.restore.is_empty() && !plan.save.is_empty()).then(|| add_state_volume(spec, run));
    let context = Context {
        task: &task,
        spec: &own_spec,
        plan,
        used,
        run,
        request,
        settings,
        state: state.as_deref(),
        security,
        hermetic: is_hermetic(run, &task, &own_spec),
    };
    let Some(steps) = items_mut(spec, "steps") else { return Ok(()) };
    let restore = (!plan.restore.is_empty()).then(|| context.step("restore", &plan.restore, steps));
    let save = (!plan.save.is_empty()).then(|| context.step("save", &plan.save, steps));
    if let Some(restore) = restore {
        name_steps(steps);
        steps.insert(0, restore);
    }
    steps.extend(save);
    Ok(())
}

/// What both steps of a task share.
struct Context<'a> {
    task: &'a str,
    /// The task's spec without them.
    spec: &'a Value,
    plan: &'a TaskPlan,
    used: &'a [Use],
    run: Run<'a>,
    request: &'a Request,
    settings: &'a Settings,
    state: Option<&'a str>,
    security: Option<Value>,
    hermetic: bool,
}

impl Context<'_> {
    /// A step that runs our program. Whatever a stepTemplate could give it is set here (Tekton: v1/merge.go).
    fn step(&self, verb: &str, workspaces: &[WorkspaceStep], others: &[Value]) -> Value {
        let config = StepConfig {
            run: "$(context.pipelineRun.uid)".to_owned(),
            task: self.task.to_owned(),
            order: self.plan.order,
            matrix: self.plan.numbered.map(|(least, most)| MatrixStep {
                task_run: "$(context.taskRun.name)".to_owned(),
                single: (least < 2).then(|| format!("$(context.pipelineRun.name)-{}", self.task)),
                most,
            }),
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
        if self.hermetic
            && let Some(Value::Array(env)) = step.get_mut("env")
        {
            env.push(json!({"name": HERMETIC.1, "value": PROGRAM}));
        }
        let in_memory = workspaces.iter().any(|step| resources::in_memory(self.run, &step.name));
        resources::set(&mut step, self.spec, in_memory);
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

/// Whether an annotation of the run or of its task takes the network from the task's steps; that of the injected ones is
/// left to them.
fn is_hermetic(run: Run<'_>, task: &str, spec: &Value) -> bool {
    let annotations = |object| field(field(object, "metadata")?, "annotations");
    run.task_run_spec(task)
        .into_iter()
        .chain([run.object(), spec])
        .filter_map(annotations)
        .any(|annotations| annotations.get(HERMETIC.0).is_some())
}

/// Adds the volume that only injected steps mount; gives its name. The volumes of the pod templates are in the same pod.
fn add_state_volume(spec: &mut Map<String, Value>, run: Run<'_>) -> String {
    let of_pods: Vec<Value> = run.pod_templates().flat_map(|template| items(template, "volumes")).cloned().collect();
    let Some(volumes) = items_mut(spec, "volumes") else { return String::new() };
    let others: Vec<Value> = volumes.iter().cloned().chain(of_pods).collect();
    let name = free_name("tekton-wrap-state", &others);
    volumes.push(json!({"name": name, "emptyDir": {}}));
    name
}

/// A path that all steps mount and that would hide what the injected ones need.
fn mounted_over(spec: &Value) -> Option<String> {
    let workspaces = items(spec, "workspaces").iter().map(mount_path);
    let template = field(spec, "stepTemplate").map_or(&[][..], |template| items(template, "volumeMounts"));
    let mounts = template.iter().map(|mount| text(mount, "mountPath").to_owned());
    workspaces.chain(mounts).find(|path| {
        let path = path.trim_end_matches('/');
        path.strip_prefix(ROOT).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// `wanted`, or with a number behind it where one of `others` is already called so.
fn free_name(wanted: &str, others: &[Value]) -> String {
    let taken = |name: &str| others.iter().any(|other| text(other, "name") == name);
    let numbered = (1..).map(|number| format!("{wanted}-{number}"));
    std::iter::once(wanted.to_owned()).chain(numbered).find(|name| !taken(name)).unwrap_or_default()
}
