//! The injected steps.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    failure::{self, Failures},
    growth::Growth,
    plan::TaskPlan,
    refusal::{Refusal, TaskProblem},
    request::{RegistryAccess, Request},
    resources, security,
    settings::Settings,
    task_spec::name_steps,
    template,
    volumes::{VolumeNames, free_name, mounted_over},
};
use crate::{
    step::{AfterFailure, CA_DIR, CREDENTIALS_DIR, MatrixStep, PROGRAM, STATE_DIR, StepConfig, WorkspaceStep},
    tekton::{
        fields::{field, field_mut, items, items_mut, text},
        run::Run,
        scope::Scope,
        workspaces::Use,
    },
};

/// With this annotation Tekton runs the steps without network (Tekton: pkg/pod/pod.go, cmd/entrypoint/runner.go).
const HERMETIC_ANNOTATION: &str = "experimental.tekton.dev/execution-mode";

/// A step with this environment variable keeps the network.
const HERMETIC_EXEMPTION: &str = "TEKTON_RESOURCE_NAME";

/// What all tasks of a run are injected with.
#[derive(Clone, Copy)]
pub struct Injection<'a> {
    /// The run.
    pub run: Run<'a>,
    /// What it asks for.
    pub request: &'a Request,
    /// What the operator decided.
    pub settings: &'a Settings,
    /// The values of the pipeline's variables.
    pub scope: &'a Scope<'a>,
    /// How much is added.
    pub growth: &'a Growth,
}

/// Adds the restore step in front and the save step at the end, each only if there is something for it to do. Returns which
/// failures of the task's own steps the save step saves.
pub fn inject(
    pipeline_task: &mut Value,
    plan: &TaskPlan,
    used: &[Use],
    injection: Injection<'_>,
) -> Result<Failures, Refusal> {
    let Injection { run, request, settings, scope, growth } = injection;
    let Some(step) = plan.restore.first().or(plan.save.first()) else { return Ok(Failures::default()) };
    let task = text(pipeline_task, "name").to_owned();
    let refused = |problem| Refusal::Task { task: task.clone(), workspace: step.name.clone(), problem };
    let isolated = request.access.credentials.is_some();
    if let Some((path, root)) = mounted_over(pipeline_task, scope, isolated) {
        return Err(refused(TaskProblem::MountPath { path, root }));
    }
    let volumes = own_volumes(plan, request, &VolumeNames::new(pipeline_task, run, request, scope)).map_err(refused)?;
    let failures = if request.saves_failed && !plan.save.is_empty() {
        failure::continue_after(pipeline_task, scope, growth)
    } else {
        Failures::default()
    };
    let retries = field(pipeline_task, "retries").and_then(Value::as_u64).unwrap_or_default();
    let Some(spec) = field_mut(pipeline_task, "taskSpec") else { return Ok(failures) };
    security::hand_down_rights(spec, growth);
    if isolated {
        template::hand_down(spec, growth).map_err(refused)?;
    }
    let context = Context {
        task: &task,
        spec,
        plan,
        used,
        run,
        request,
        settings,
        volumes: &volumes,
        security: security::context(spec, &security::pod_context(run, &task)),
        hermetic: is_hermetic(run, &task, spec),
        after_failure: (!failures.saved.is_empty()).then(|| AfterFailure {
            steps: failure::own_steps(&failures.saved),
            retries: u32::try_from(retries).unwrap_or(u32::MAX),
            retry: "$(context.task.retry-count)".to_owned(),
        }),
    };
    let restore = (!plan.restore.is_empty()).then(|| context.step("restore", &plan.restore));
    let save = (!plan.save.is_empty()).then(|| context.step("save", &plan.save));
    for step in restore.iter().chain(&save) {
        let _ = growth.fits_times(step, 1);
    }
    let Some(spec) = spec.as_object_mut() else { return Ok(failures) };
    if !volumes.is_empty() {
        items_mut(spec, "volumes").into_iter().for_each(|all| all.extend(volumes.iter().map(Volume::declaration)));
    }
    let Some(steps) = items_mut(spec, "steps") else { return Ok(failures) };
    if let Some(restore) = restore {
        name_steps(steps);
        steps.insert(0, restore);
    }
    steps.extend(save);
    Ok(failures)
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
    /// Those that only injected steps mount.
    volumes: &'a [Volume],
    security: Option<Value>,
    hermetic: bool,
    after_failure: Option<AfterFailure>,
}

/// A volume that only injected steps mount.
struct Volume {
    name: String,
    /// The field of its kind and the value of that.
    source: (&'static str, Value),
    path: &'static str,
    read_only: bool,
}

impl Context<'_> {
    /// A step that runs our program. Every field that it could inherit from a stepTemplate is set here (Tekton: v1/merge.go).
    fn step(&self, verb: &str, workspaces: &[WorkspaceStep]) -> Value {
        let config = StepConfig {
            run: "$(context.pipelineRun.uid)".to_owned(),
            task: self.task.to_owned(),
            order: self.plan.order,
            matrix: self.plan.matrix.map(|fan| MatrixStep {
                task_run: "$(context.taskRun.name)".to_owned(),
                single: (fan.least < 2).then(|| format!("$(context.pipelineRun.name)-{}", self.task)),
                most: fan.most,
            }),
            conflict: self.request.conflict,
            conflict_rules: self.request.conflict_rules.clone(),
            compression: self.request.compression,
            expires: self.request.retention.expires.clone(),
            target_expires: self.request.retention.target_expires.clone(),
            earlier: Vec::new(),
            results: BTreeMap::new(),
            keep: self.request.retention.keep,
            after_failure: self.after_failure.clone().filter(|_| verb == "save"),
            workspaces: workspaces.to_vec(),
        };
        let mut env = vec![
            json!({"name": "HOME", "value": "/"}),
            json!({"name": "TEKTON_WRAP_CREDENTIALS", "value": "$(credentials.path)"}),
        ];
        env.extend(access_variables(&self.request.access));
        if self.request.uses_rsync() {
            // Files on their way; not every container has a folder of its own that it may write to.
            env.push(json!({"name": "TMPDIR", "value": STATE_DIR}));
        }
        env.extend(config.to_env().into_iter().map(|(name, value)| json!({"name": name, "value": value})));
        if self.hermetic {
            env.push(json!({"name": HERMETIC_EXEMPTION, "value": PROGRAM}));
        }
        // The whole volume, writable even if the task mounts it readOnly (Tekton: docs/workspaces.md).
        let mut mounts: Vec<Value> = workspaces.iter().map(|step| self.mount(step)).collect();
        mounts.extend(self.volumes.iter().map(Volume::mount));
        let others: Vec<&str> = items(self.spec, "steps").iter().map(|step| text(step, "name")).collect();
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
fn access_variables(access: &RegistryAccess) -> impl Iterator<Item = Value> {
    let set = |name: &'static str, value: Option<&str>| value.map(|value| json!({"name": name, "value": value}));
    let variables = [
        set("TEKTON_WRAP_REGISTRY_SECRET", access.credentials.as_ref().map(|_| CREDENTIALS_DIR)),
        set("TEKTON_WRAP_CA", access.ca.as_ref().map(|_| CA_DIR)),
        set("TEKTON_WRAP_MIRROR", access.mirror.as_deref()),
        set("TEKTON_WRAP_INSECURE", access.insecure.as_deref()),
        set("TEKTON_WRAP_RETRY_FOR", access.retry_for.as_deref()),
        set("AWS_ENDPOINT_URL_S3", access.endpoint.as_deref()),
        set("AWS_REGION", access.region.as_deref()),
    ];
    variables.into_iter().flatten()
}

/// The volumes that the injected steps of a task need. They have names that no other volume of the pod has.
fn own_volumes(plan: &TaskPlan, request: &Request, names: &VolumeNames) -> Result<Vec<Volume>, TaskProblem> {
    let volume = |name: &str, source: &'static str, value: Value, path: &'static str, read_only: bool| {
        Ok(Volume { name: names.free(name)?, source: (source, value), path, read_only })
    };
    let state = (request.uses_rsync() || !plan.restore.is_empty() && !plan.save.is_empty())
        .then(|| volume("tekton-wrap-state", "emptyDir", json!({}), STATE_DIR, false));
    // Optional, so that the step can say what is absent, where the kubelet would wait for it in silence.
    let credentials = request.access.credentials.as_ref().map(|secret| {
        let secret = json!({"secretName": secret, "optional": true});
        volume("tekton-wrap-credentials", "secret", secret, CREDENTIALS_DIR, true)
    });
    let ca = request.access.ca.as_ref().map(|map| {
        let map = json!({"name": map, "optional": true});
        volume("tekton-wrap-ca", "configMap", map, CA_DIR, true)
    });
    state.into_iter().chain(credentials).chain(ca).collect()
}

impl Volume {
    /// The item of `volumes`.
    fn declaration(&self) -> Value {
        let (source, value) = &self.source;
        json!({"name": self.name, *source: value})
    }

    /// The item of `volumeMounts`.
    #[allow(clippy::indexing_slicing, reason = "of an object that is made here")]
    fn mount(&self) -> Value {
        let mut mount = json!({"name": self.name, "mountPath": self.path});
        if self.read_only {
            mount["readOnly"] = json!(true);
        }
        mount
    }
}
