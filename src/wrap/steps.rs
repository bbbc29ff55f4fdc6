//! The injected steps.

use serde_json::{Map, Value, json};

use super::{
    plan::TaskPlan,
    refusal::{Refusal, TaskProblem},
    request::{Access, Request},
    resources, security,
    settings::Settings,
    task_spec::name_steps,
    template,
    volumes::{Volumes, free_name, mounted_over},
};
use crate::{
    step::{CA_DIR, CREDENTIALS_DIR, MatrixStep, PROGRAM, STATE_DIR, StepConfig, WorkspaceStep},
    tekton::{
        fields::{field, field_mut, items_mut, text},
        run::Run,
        scope::Scope,
        workspaces::Use,
    },
};

/// With this annotation Tekton runs the steps without network (Tekton: pkg/pod/pod.go, cmd/entrypoint/runner.go)…
const HERMETIC_ANNOTATION: &str = "experimental.tekton.dev/execution-mode";

/// … but not from a step that has this environment variable.
const HERMETIC_EXEMPTION: &str = "TEKTON_RESOURCE_NAME";

/// Adds the restore step in front and the save step at the end, each only if there is something for it to do.
pub fn inject(
    pipeline_task: &mut Value,
    plan: &TaskPlan,
    used: &[Use],
    run: Run<'_>,
    request: &Request,
    settings: &Settings,
    scope: &Scope<'_>,
) -> Result<(), Refusal> {
    let Some(step) = plan.restore.first().or(plan.save.first()) else { return Ok(()) };
    let task = text(pipeline_task, "name").to_owned();
    let refused = |problem| Refusal::Task { task: task.clone(), workspace: step.name.clone(), problem };
    let isolated = request.access.credentials.is_some();
    if let Some((path, root)) = mounted_over(pipeline_task, scope, isolated) {
        return Err(refused(TaskProblem::MountPath { path, root }));
    }
    let names = Volumes::new(pipeline_task, run, request, scope);
    let Some(spec) = field_mut(pipeline_task, "taskSpec") else { return Ok(()) };
    security::hand_down_rights(spec);
    if isolated {
        template::hand_down(spec).map_err(refused)?;
    }
    let security = security::context(spec, &security::pod_context(run, &task));
    let own_spec = spec.clone();
    let Some(spec) = spec.as_object_mut() else { return Ok(()) };
    let mut mounts = Vec::new();
    let mut add = |wanted: &str, volume: Value, path: &str, read_only: bool| -> Result<(), Refusal> {
        let name = names.free(wanted).map_err(refused)?;
        let mut mount = json!({"name": name, "mountPath": path});
        if read_only {
            mount["readOnly"] = json!(true);
        }
        mounts.push(mount);
        add_volume(spec, name, volume);
        Ok(())
    };
    if !plan.restore.is_empty() && !plan.save.is_empty() {
        add("tekton-wrap-state", json!({"emptyDir": {}}), STATE_DIR, false)?;
    }
    // Optional, so that the step can say what is absent, where the kubelet would wait for it in silence.
    if let Some(secret) = &request.access.credentials {
        let volume = json!({"secret": {"secretName": secret, "optional": true}});
        add("tekton-wrap-credentials", volume, CREDENTIALS_DIR, true)?;
    }
    if let Some(map) = &request.access.ca {
        add("tekton-wrap-ca", json!({"configMap": {"name": map, "optional": true}}), CA_DIR, true)?;
    }
    let context = Context {
        task: &task,
        spec: &own_spec,
        plan,
        used,
        run,
        request,
        settings,
        mounts,
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

/// What the two steps of a task have in common.
struct Context<'a> {
    task: &'a str,
    /// The task's spec without them.
    spec: &'a Value,
    plan: &'a TaskPlan,
    used: &'a [Use],
    run: Run<'a>,
    request: &'a Request,
    settings: &'a Settings,
    /// Mounts of volumes that only injected steps have.
    mounts: Vec<Value>,
    security: Option<Value>,
    hermetic: bool,
}

impl Context<'_> {
    /// A step that runs our program. Every field that it could inherit from a stepTemplate is set here (Tekton: v1/merge.go).
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
            conflict_rules: self.request.conflict_rules.clone(),
            compression: self.request.compression,
            expires: self.request.expires.clone(),
            workspaces: workspaces.to_vec(),
        };
        let mut env = vec![
            json!({"name": "HOME", "value": "/"}),
            json!({"name": "TEKTON_WRAP_CREDENTIALS", "value": "$(credentials.path)"}),
        ];
        env.extend(access_variables(&self.request.access));
        env.extend(config.to_env().into_iter().map(|(name, value)| json!({"name": name, "value": value})));
        if self.hermetic {
            env.push(json!({"name": HERMETIC_EXEMPTION, "value": PROGRAM}));
        }
        // The whole volume, writable even if the task mounts it readOnly (Tekton: docs/workspaces.md).
        let mut mounts: Vec<Value> = workspaces.iter().map(|step| self.mount(step)).collect();
        mounts.extend(self.mounts.iter().cloned());
        let others: Vec<&str> = others.iter().map(|step| text(step, "name")).collect();
        let mut step = json!({
            "name": free_name(&format!("tekton-wrap-{verb}"), &others),
            "image": self.settings.image,
            "command": [PROGRAM],
            "args": [verb],
            "workingDir": "/",
            "env": env,
            "volumeMounts": mounts,
        });
        let in_memory = workspaces.iter().any(|step| resources::in_memory(self.run, &step.name));
        resources::set(&mut step, self.spec, in_memory);
        if verb == "restore" || self.plan.restore.is_empty() {
            let sizes = workspaces.iter().filter(|step| !resources::in_memory(self.run, &step.name));
            let sizes = sizes.filter_map(|step| self.request.sizes.of(&step.name, self.run.binding(&step.name)));
            resources::request_room(&mut step, sizes);
        }
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

/// Whether an annotation of the run or of its task takes the network from the task's steps; the injected ones keep it.
fn is_hermetic(run: Run<'_>, task: &str, spec: &Value) -> bool {
    let annotations = |object| field(field(object, "metadata")?, "annotations");
    run.task_run_spec(task)
        .into_iter()
        .chain([run.object(), spec])
        .filter_map(annotations)
        .any(|annotations| annotations.get(HERMETIC_ANNOTATION).is_some())
}

/// How to reach registries, in the words of the steps' own flags (see [`crate::store`]).
fn access_variables(access: &Access) -> impl Iterator<Item = Value> {
    let set = |name: &'static str, value: Option<&str>| value.map(|value| json!({"name": name, "value": value}));
    let variables = [
        set("TEKTON_WRAP_REGISTRY_SECRET", access.credentials.as_ref().map(|_| CREDENTIALS_DIR)),
        set("TEKTON_WRAP_CA", access.ca.as_ref().map(|_| CA_DIR)),
        set("TEKTON_WRAP_MIRROR", access.mirror.as_deref()),
        set("TEKTON_WRAP_INSECURE", access.insecure.as_deref()),
        set("TEKTON_WRAP_RETRY_FOR", access.retry_for.as_deref()),
    ];
    variables.into_iter().flatten()
}

/// Adds a volume that only injected steps mount.
fn add_volume(spec: &mut Map<String, Value>, name: String, mut volume: Value) {
    let mut named = Map::from_iter([("name".to_owned(), json!(name))]);
    named.extend(volume.as_object_mut().map(std::mem::take).unwrap_or_default());
    items_mut(spec, "volumes").into_iter().for_each(|volumes| volumes.push(Value::Object(named.clone())));
}
