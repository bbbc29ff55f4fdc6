//! One TaskRun: the task's spec with its variables replaced, its attempts, its results (Tekton: taskrun/taskrun.go,
//! taskrun/resources/apply.go).

use std::{path::Path, time::Instant};

use serde_json::{Value, json};

use super::{
    Log, Runner, Status, TaskRun,
    json::{canonical, items, items_mut, name, text},
    matrix,
    pod::{CREDENTIALS, Pod, duration},
    replace, step_action, template,
    vars::{self, Vars},
    volume::Places,
};

/// What a TaskRun has of its PipelineRun.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    /// What the test gave.
    pub runner: &'a Runner,
    /// Where the steps' lines go.
    pub log: &'a Log,
    /// The PipelineRun's name.
    pub name: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// The PipelineRun's own spec.
    pub spec: &'a Value,
    /// Its workspace bindings.
    pub workspaces: &'a [Value],
    /// A folder for its claims and pods.
    pub dir: &'a Path,
}

/// A workspace of a TaskRun.
pub struct Binding {
    name: String,
    /// What the run binds: `emptyDir`, `secret` and so on.
    pub source: Value,
    /// Below the volume.
    pub sub_path: String,
    /// Name of the volume in the pod.
    pub volume: String,
    /// Whether the task declared it so.
    pub read_only: bool,
    path: String,
}

/// Plays the pipeline's task `task`, in which all variables of the pipeline are replaced.
pub fn play(run: Run<'_>, task: &Value, deadline: Instant) -> TaskRun {
    let mut done =
        TaskRun { task: name(task).to_owned(), status: Status::Succeeded, results: Default::default(), attempts: 0 };
    let result = match matrix::fan_out(task) {
        None => attempts(run, task, &child_name(run.name, name(task)), deadline, &mut done),
        Some(all) => combinations(run, &all, deadline, &mut done),
    };
    if let Err(problem) = result {
        done.status = Status::Failed(problem);
    }
    done
}

/// All combinations of a matrix at once, each a TaskRun; of each result a list.
fn combinations(run: Run<'_>, all: &[Value], deadline: Instant, done: &mut TaskRun) -> Result<(), String> {
    let task = done.task.clone();
    let play = |(number, combination): (usize, &Value)| {
        let child = match all.len() {
            1 => child_name(run.name, &task),
            count => combination_name(run.name, &task, number, count),
        };
        let mut own =
            TaskRun { task: task.clone(), status: Status::Succeeded, results: Default::default(), attempts: 0 };
        let result = attempts(run, combination, &child, deadline, &mut own);
        (result, own)
    };
    let ended: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = all.iter().enumerate().map(|one| scope.spawn(move || play(one))).collect();
        threads.into_iter().map(|thread| thread.join().expect("a combination is played")).collect()
    });
    for (_, own) in &ended {
        done.attempts = done.attempts.max(own.attempts);
        for (name, value) in &own.results {
            let all = done.results.entry(name.clone()).or_insert_with(|| json!([]));
            all.as_array_mut().expect("a list").push(value.clone());
        }
    }
    ended.into_iter().try_for_each(|(result, _)| result)
}

fn attempts(run: Run<'_>, task: &Value, name: &str, deadline: Instant, done: &mut TaskRun) -> Result<(), String> {
    let (task_name, spec) = task_spec(run.runner, task)?;
    let names = Names { task: task_name.as_deref().unwrap_or(name), name, uid: &super::pipeline::new_uid() };
    let limit = duration(text(task, "timeout").unwrap_or("1h"))?;
    let retries = task["retries"].as_u64().unwrap_or(0);
    loop {
        let (spec, bindings) = resolve(run, task, spec.clone(), names, done.attempts)?;
        let dir = run.dir.join(format!("{name}-{}", done.attempts));
        let metadata = metadata(run, &done.task, names);
        let pod = Pod {
            runner: run.runner,
            log: run.log,
            task: &done.task,
            spec: &spec,
            bindings: &bindings,
            metadata: &metadata,
            places: Places { run: run.dir, pod: &dir },
            deadline: deadline.min(Instant::now() + limit),
        };
        let result = pod.run();
        let results = pod.results();
        super::remove_all(&dir);
        done.attempts += 1;
        done.results = results;
        if result.is_ok() || u64::from(done.attempts) > retries || Instant::now() >= deadline {
            return result;
        }
    }
}

/// The spec as the pod gets it, and its workspaces: everything replaced in Tekton's order, stepTemplate merged.
fn resolve(
    run: Run<'_>,
    task: &Value,
    mut spec: Value,
    names: Names<'_>,
    retry: u32,
) -> Result<(Value, Vec<Binding>), String> {
    let own = params(&spec, task);
    for step in items_mut(&mut spec, "steps").filter(|step| step["ref"].is_object()) {
        step_action::resolve(run.runner, &own, step)?;
    }
    let mut pod_env = pod_env(run.spec, name(task));
    own.deep(&mut pod_env);
    for vars in [own, context(run, names, retry), result_paths(&spec)] {
        replace::in_task(&vars, &mut spec);
    }
    let bindings = bind(run, task, &spec)?;
    let whole_task = workspaces(&spec, &bindings);
    let template = spec["stepTemplate"].take();
    for step in items_mut(&mut spec, "steps") {
        template::inherit(step, &template);
        replace::in_container(&of_step(step, &bindings), step);
        step["env"] = items(step, "env").iter().chain(pod_env.as_array().into_iter().flatten()).cloned().collect();
    }
    replace::in_task(&whole_task, &mut spec);
    Ok((spec, bindings))
}

/// The task's name (that of the TaskRun where it is embedded: none) and its spec.
fn task_spec(runner: &Runner, task: &Value) -> Result<(Option<String>, Value), String> {
    let (task_name, mut spec) = match (text(&task["taskRef"], "name"), &task["taskSpec"]) {
        (_, spec @ Value::Object(_)) => (None, spec.clone()),
        (Some(reference), _) => (Some(reference.to_owned()), runner.object("Task", reference)?["spec"].clone()),
        _ => return Err(format!("the runner can't play task {:?}: it names no Task", name(task))),
    };
    canonical(&mut spec);
    let cant = [
        ("resolvers", items(&spec, "steps").iter().any(|s| s["ref"]["resolver"].is_string())),
        (
            "custom tasks",
            text(&spec, "apiVersion").is_some()
                || text(&task["taskRef"], "apiVersion").is_some_and(|v| !v.starts_with("tekton.dev/")),
        ),
    ];
    if let Some((what, _)) = cant.iter().find(|(_, found)| *found) {
        return Err(format!("the runner can't play task {:?}: it can't play {what}", name(task)));
    }
    for (list, prefix) in [("steps", "unnamed"), ("sidecars", "sidecar")] {
        for (i, step) in items_mut(&mut spec, list).enumerate().filter(|(_, step)| text(step, "name").is_none()) {
            step["name"] = json!(format!("{prefix}-{i}"));
        }
    }
    Ok((task_name, spec))
}

/// The workspaces that the pipeline's task binds, and those that an embedded task only names in its text
/// (Tekton: pipelinerun.go, propagateWorkspaces).
fn bind(run: Run<'_>, task: &Value, spec: &Value) -> Result<Vec<Binding>, String> {
    let mut wanted: Vec<(String, String, String)> = Vec::new();
    for workspace in items(task, "workspaces") {
        let own = name(workspace);
        let of_run = text(workspace, "workspace").unwrap_or(own);
        wanted.push((own.to_owned(), of_run.to_owned(), text(workspace, "subPath").unwrap_or_default().to_owned()));
    }
    if task["taskSpec"].is_object() {
        for named in named_workspaces(spec) {
            let known = wanted.iter().any(|(own, ..)| *own == named);
            if !known && run.workspaces.iter().any(|w| name(w) == named) {
                wanted.push((named.clone(), named, String::new()));
            }
        }
    }
    let mut bindings = Vec::new();
    for (own, of_run, sub_path) in wanted {
        let declared = items(spec, "workspaces").iter().find(|w| name(w) == own);
        let optional = declared.is_some_and(|d| d["optional"] == true);
        let Some(source) = run.workspaces.iter().find(|w| name(w) == of_run) else {
            match optional {
                true => continue,
                false => return Err(format!("the run does not bind the workspace {of_run:?}")),
            }
        };
        let parts = [text(source, "subPath").unwrap_or_default(), &sub_path];
        let sub_path = parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/");
        let path = declared.and_then(|d| text(d, "mountPath")).map(str::to_owned);
        bindings.push(Binding {
            volume: format!("ws-{}", &hash(&own)[..10]),
            path: path.unwrap_or_else(|| format!("/workspace/{own}")),
            read_only: declared.is_some_and(|d| d["readOnly"] == true),
            source: source.clone(),
            name: own,
            sub_path,
        });
    }
    let unbound = |w: &&Value| w["optional"] != true && bindings.iter().all(|b| b.name != name(w));
    match items(spec, "workspaces").iter().find(unbound) {
        Some(workspace) => Err(format!("task {:?} is not given its workspace {:?}", name(task), name(workspace))),
        None => Ok(bindings),
    }
}

/// The workspaces in `$(workspaces.X.…)` in steps, sidecars and stepTemplate.
fn named_workspaces(spec: &Value) -> Vec<String> {
    let text = ["steps", "sidecars", "stepTemplate"].map(|key| spec[key].to_string()).concat();
    let of_variable = |name: &str| Some(name.strip_prefix("workspaces.")?.split('.').next()?.to_owned());
    let mut names: Vec<_> = vars::names(&text).filter_map(of_variable).collect();
    names.sort();
    names.dedup();
    names
}

/// The names of a TaskRun.
#[derive(Clone, Copy)]
struct Names<'a> {
    /// Of the Task, or of the TaskRun where the task is embedded (Tekton: taskrun/resources/taskspec.go).
    task: &'a str,
    name: &'a str,
    uid: &'a str,
}

/// Labels of a TaskRun's pod (Tekton: pipelinerun.go, getTaskrunLabels; pkg/pod/pod.go).
fn metadata(run: Run<'_>, task: &str, names: Names<'_>) -> Value {
    let labels = json!({
        "tekton.dev/pipelineRun": run.name, "tekton.dev/pipelineRunUID": run.uid, "tekton.dev/pipelineTask": task,
        "tekton.dev/taskRun": names.name, "tekton.dev/taskRunUID": names.uid,
    });
    json!({"name": format!("{}-pod", names.name), "namespace": run.namespace, "labels": labels})
}

/// `env` of the task's pod template, which all its steps get behind their own (Tekton: pkg/pod/pod.go; pod/template.go,
/// MergePodTemplateWithDefault).
fn pod_env(run: &Value, task: &str) -> Value {
    let own = items(run, "taskRunSpecs").iter().find(|own| own["pipelineTaskName"] == task);
    let own = own.map_or(&[][..], |own| items(&own["podTemplate"], "env"));
    let shared = items(&run["taskRunTemplate"]["podTemplate"], "env").iter();
    shared.filter(|shared| own.iter().all(|own| name(own) != name(shared))).chain(own).cloned().collect()
}

fn params(spec: &Value, task: &Value) -> Vars {
    let mut vars = Vars::default();
    let defaults = items(spec, "params").iter().filter_map(|p| Some((name(p), p.get("default")?)));
    for (param, value) in defaults.chain(items(task, "params").iter().map(|p| (name(p), &p["value"]))) {
        vars.define_param(param, value);
        vars.define(&format!("inputs.params.{param}"), value);
    }
    vars
}

fn context(run: Run<'_>, names: Names<'_>, retry: u32) -> Vars {
    let mut vars = Vars::default();
    vars.set("context.taskRun.name", names.name);
    vars.set("context.taskRun.namespace", run.namespace);
    vars.set("context.taskRun.uid", names.uid);
    vars.set("context.task.name", names.task);
    vars.set("context.task.retry-count", retry.to_string());
    vars
}

fn result_paths(spec: &Value) -> Vars {
    let mut vars = Vars::default();
    for result in items(spec, "results").iter().map(name) {
        for variable in [format!("results.{result}"), format!("results['{result}']"), format!("results[\"{result}\"]")]
        {
            vars.set(format!("{variable}.path"), format!("/tekton/results/{result}"));
        }
    }
    for step in items(spec, "steps").iter().map(name) {
        vars.set(format!("steps.step-{step}.exitCode.path"), format!("/tekton/steps/step-{step}/exitCode"));
    }
    vars
}

/// What is the same in all steps: the declared workspaces that are not bound are empty.
fn workspaces(spec: &Value, bindings: &[Binding]) -> Vars {
    let mut vars = Vars::default();
    vars.set("credentials.path", CREDENTIALS);
    let mut set = |name: &str, path: &str, volume: &str, bound: &str| {
        for (field, value) in [("path", path), ("volume", volume), ("claim", ""), ("bound", bound)] {
            vars.set(format!("workspaces.{name}.{field}"), value);
        }
    };
    items(spec, "workspaces").iter().for_each(|w| set(name(w), "", "", "false"));
    bindings.iter().for_each(|b| set(&b.name, &b.path, &b.volume, "true"));
    vars
}

/// What differs from step to step.
fn of_step(step: &Value, bindings: &[Binding]) -> Vars {
    let mut vars = Vars::default();
    for result in items(step, "results").iter().map(name) {
        vars.set(format!("step.results.{result}.path"), format!("/tekton/steps/step-{}/results/{result}", name(step)));
    }
    for binding in bindings {
        vars.set(format!("workspaces.{}.path", binding.name), binding.path_in(step));
    }
    vars
}

/// Name of a TaskRun. Of a name that is too long the middle is hashed (knative.dev/pkg/kmeta, ChildName, which uses MD5).
fn child_name(run: &str, task: &str) -> String {
    let suffix = format!("-{task}");
    let hash = |text: &str| hash(text)[..32].to_owned();
    let cut = |text: &str, length: usize| text[..text.len().min(length)].to_owned();
    match 31usize.checked_sub(suffix.len()) {
        _ if run.len() + suffix.len() <= 63 => format!("{run}{suffix}"),
        Some(room @ 1..) => format!("{}{}{suffix}", &run[..room], hash(run)),
        _ => {
            let name = cut(run, 31) + &hash(&format!("{run}{suffix}"));
            let name = format!("{name}{}", cut(&suffix, 63 - name.len()));
            name.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
        }
    }
}

/// Name of one of several combinations, which it ends with (Tekton: pipelinerunresolution.go, getNewRunNames).
fn combination_name(run: &str, task: &str, number: usize, count: usize) -> String {
    let name = child_name(run, &format!("{task}-{number}"));
    if name.ends_with(&format!("-{number}")) {
        return name;
    }
    let plain = child_name(run, task);
    format!("{}-{number}", &plain[..plain.len().min(63 - format!("-{count}").len())])
}

impl Binding {
    /// Where `step` sees the workspace (a step may have a mountPath of its own for it).
    pub fn path_in<'a>(&'a self, step: &'a Value) -> &'a str {
        let own = items(step, "workspaces").iter().find(|w| name(w) == self.name);
        own.and_then(|w| text(w, "mountPath")).unwrap_or(&self.path)
    }

    /// A workspace that any step or sidecar lists is mounted only in those that list it
    /// (Tekton: pkg/workspace/apply.go).
    pub fn is_mounted_in(&self, spec: &Value, step: &Value) -> bool {
        let lists = |container: &Value| items(container, "workspaces").iter().any(|w| name(w) == self.name);
        let isolated = ["steps", "sidecars"].iter().any(|key| items(spec, key).iter().any(lists));
        !isolated || lists(step)
    }
}

/// The SHA-256 of a text, in hexadecimal digits.
fn hash(text: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
