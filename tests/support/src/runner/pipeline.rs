//! The PipelineRun: its variables, which task is started or skipped when, and what it ends as (Tekton: pipelinerun.go,
//! pipelinerun/resources/pipelinerunresolution.go, pipelinerunstate.go).

use std::{
    collections::HashMap,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{
    Log, Runner, Skip, Status, TaskRun, graph,
    json::{canonical, items, name, text},
    pod::duration,
    replace,
    taskrun::{self, Run},
    vars::Vars,
    when,
};

/// Tasks by name.
type Done = HashMap<String, TaskRun>;

/// Name and UID of the run: its own, or made as the apiserver would.
pub fn identity(run: &Value) -> (String, String) {
    let uid = text(&run["metadata"], "uid").map_or_else(new_uid, str::to_owned);
    let name = match (text(&run["metadata"], "name"), text(&run["metadata"], "generateName")) {
        (Some(name), _) => name.to_owned(),
        (None, prefix) => format!("{}{}", prefix.unwrap_or("run-"), &new_uid()[..5]),
    };
    (name, uid)
}

/// A random UUID.
pub fn new_uid() -> String {
    let mut bytes = [0; 16];
    ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes)
        .expect("the system has random numbers");
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// Plays the run; an error means that it could not be started.
pub fn play(
    runner: &Runner,
    run: &Value,
    run_name: &str,
    uid: &str,
    log: &Log,
) -> Result<(Option<String>, Vec<TaskRun>), String> {
    super::check()?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let mut spec = run["spec"]["pipelineSpec"].clone();
    if !spec.is_object() {
        return Err("the runner plays only runs with a pipelineSpec".to_owned());
    }
    canonical(&mut spec);
    let namespace = text(&run["metadata"], "namespace").unwrap_or("default");
    let params = params(&spec, run)?;
    let mut workspaces = run["spec"]["workspaces"].clone();
    params.deep(&mut workspaces);
    let bound = bound_workspaces(&spec, items(&run["spec"], "workspaces"))?;
    for vars in [params, context(run_name, namespace, uid), bound] {
        for list in ["tasks", "finally"] {
            super::json::items_mut(&mut spec, list).for_each(|task| replace::in_pipeline_task(&vars, task));
        }
    }
    let run_spec = &run["spec"];
    let run = Run {
        spec: run_spec,
        runner,
        log,
        name: run_name,
        uid,
        namespace,
        workspaces: workspaces.as_array().map_or(&[], Vec::as_slice),
        dir: dir.path(),
    };
    let ended = play_all(run, items(&spec, "tasks"), items(&spec, "finally"), &run_spec["timeouts"]);
    super::remove_all(dir.path());
    ended
}

/// What the pipeline declares and the run gives.
fn params(spec: &Value, run: &Value) -> Result<Vars, String> {
    let mut vars = Vars::default();
    let given = items(&run["spec"], "params");
    for declared in items(spec, "params") {
        match declared.get("default") {
            Some(default) => vars.define_param(name(declared), default),
            None if given.iter().any(|g| g["name"] == declared["name"]) => {}
            None => return Err(format!("the run does not give the param {:?}", name(declared))),
        }
    }
    given.iter().for_each(|param| vars.define_param(name(param), &param["value"]));
    Ok(vars)
}

fn context(run: &str, namespace: &str, uid: &str) -> Vars {
    let mut vars = Vars::default();
    vars.set("context.pipelineRun.name", run);
    vars.set("context.pipelineRun.namespace", namespace);
    vars.set("context.pipelineRun.uid", uid);
    // An inlined pipeline has the run's name (Tekton: pipelinespec.go).
    vars.set("context.pipeline.name", run);
    vars
}

fn bound_workspaces(spec: &Value, given: &[Value]) -> Result<Vars, String> {
    let mut vars = Vars::default();
    for declared in items(spec, "workspaces") {
        vars.set(format!("workspaces.{}.bound", name(declared)), "false");
        if declared["optional"] != true && !given.iter().any(|g| g["name"] == declared["name"]) {
            return Err(format!("the run does not bind the workspace {:?}", name(declared)));
        }
    }
    given.iter().for_each(|w| vars.set(format!("workspaces.{}.bound", name(w)), "true"));
    let optional = |list: &Value, wanted: &Value| {
        items(list, "workspaces").iter().any(|w| name(w) == *wanted && w["optional"] == true)
    };
    // Only where the binding says `workspace` (Tekton: validate_dependencies.go, ValidateOptionalWorkspaces).
    for task in items(spec, "tasks").iter().chain(items(spec, "finally")) {
        for binding in items(task, "workspaces").iter().filter(|binding| optional(spec, &binding["workspace"])) {
            if task.get("taskSpec").is_some_and(|spec| !optional(spec, &binding["name"])) {
                let workspace = &binding["workspace"];
                return Err(format!("the workspace {workspace} is optional, but task {:?} requires it", name(task)));
            }
        }
    }
    Ok(vars)
}

/// Plays the graph and then `finally`.
fn play_all(
    run: Run<'_>,
    tasks: &[Value],
    finally: &[Value],
    timeouts: &Value,
) -> Result<(Option<String>, Vec<TaskRun>), String> {
    let start = Instant::now();
    let limit = |key: &str| text(timeouts, key).map(duration).transpose();
    let whole = start + limit("pipeline")?.unwrap_or(Duration::from_secs(3600));
    let of_tasks = limit("tasks")?.map_or(whole, |l| whole.min(start + l));
    let mut done = Done::new();
    let mut problem = play_graph(run, tasks, of_tasks, &mut done);
    let of_finally = limit("finally")?.map_or(whole, |l| whole.min(Instant::now() + l));
    let of_graph = done.clone();
    let next = |task: &Value, _: &Done| next_finally(task, tasks, &of_graph);
    problem = problem.and(play_graph_with(run, finally, of_finally, &mut done, next));
    let all = || tasks.iter().chain(finally);
    let failed = |task: &Value| match &done.get(name(task))?.status {
        Status::Failed(why) if task["onError"] != "continue" => Some(format!("task {:?}: {why}", name(task))),
        _ => None,
    };
    let failures: Vec<_> = problem.err().into_iter().chain(all().filter_map(failed)).collect();
    let failure = (!failures.is_empty()).then(|| failures.join("; "));
    let tasks = all().filter_map(|task| done.get(name(task)).cloned()).collect();
    Ok((failure, tasks))
}

/// What is to be done with a task that has not been started.
enum Next {
    Wait,
    Skip(Skip),
    /// With everything replaced.
    Start(Value),
}

/// Starts each task as soon as those are done that it follows, until none is left.
fn play_graph(run: Run<'_>, tasks: &[Value], deadline: Instant, done: &mut Done) -> Result<(), String> {
    let parents: HashMap<_, _> = tasks.iter().map(|task| (name(task), graph::parents(task))).collect();
    for (task, parents) in &parents {
        if let Some(unknown) = parents.iter().find(|p| !tasks.iter().any(|t| name(t) == **p)) {
            return Err(format!("task {task:?} follows {unknown:?}, which the pipeline does not have"));
        }
    }
    play_graph_with(run, tasks, deadline, done, |task, done| next(task, &parents[name(task)], tasks, done))
}

/// Asks `next` about every task that was not started, whenever one has ended.
fn play_graph_with(
    run: Run<'_>,
    tasks: &[Value],
    deadline: Instant,
    done: &mut Done,
    next: impl Fn(&Value, &Done) -> Result<Next, String>,
) -> Result<(), String> {
    let (send, ended) = mpsc::channel();
    let mut open: Vec<&Value> = tasks.iter().collect();
    let mut running = 0;
    let mut problem = Ok(());
    thread::scope(|scope| {
        loop {
            let before = open.len();
            open.retain(|task| match next(task, done) {
                Ok(Next::Wait) => problem.is_ok(),
                Ok(Next::Skip(why)) => {
                    let status = Status::Skipped(why);
                    let skipped =
                        TaskRun { task: name(task).to_owned(), status, results: Default::default(), attempts: 0 };
                    done.insert(skipped.task.clone(), skipped);
                    false
                }
                Ok(Next::Start(task)) => {
                    let send = send.clone();
                    scope.spawn(move || send.send(taskrun::play(run, &task, deadline)));
                    running += 1;
                    false
                }
                Err(why) => {
                    problem = Err(format!("task {:?}: {why}", name(task)));
                    false
                }
            });
            if open.len() < before {
                // A skip may decide about the next one.
                continue;
            }
            if running == 0 {
                break;
            }
            let task = ended.recv().expect("a sender is alive here");
            done.insert(task.task.clone(), task);
            running -= 1;
        }
    });
    match open.first() {
        Some(task) if problem.is_ok() => Err(format!("task {:?} waits for itself", name(task))),
        _ => problem,
    }
}

/// A task of the graph (Tekton: pipelinerunresolution.go, skip).
fn next(task: &Value, parents: &[String], tasks: &[Value], done: &Done) -> Result<Next, String> {
    let stops = |t: &&Value| {
        t["onError"] != "continue" && done.get(name(t)).is_some_and(|d| matches!(d.status, Status::Failed(_)))
    };
    if tasks.iter().any(|t| stops(&t)) {
        return Ok(Next::Skip(Skip::Stopping));
    }
    let parents: Vec<_> = parents.iter().map(|p| done.get(p)).collect();
    if parents.iter().any(Option::is_none) {
        return Ok(Next::Wait);
    }
    // A task skipped by its own `when` does not skip those that only run after it.
    let skips = |p: &TaskRun| matches!(p.status, Status::Skipped(why) if why != Skip::When);
    if parents.into_iter().flatten().any(skips) {
        return Ok(Next::Skip(Skip::Parent));
    }
    match results(task, done) {
        Ok(vars) => start(task, &[vars]),
        Err(Missing { of: Some(Status::Succeeded | Status::Failed(_)), what }) => {
            Err(format!("there is no result {what}"))
        }
        Err(_) => Ok(Next::Skip(Skip::Results)),
    }
}

/// A task of `finally`: all of them start together.
fn next_finally(task: &Value, tasks: &[Value], done: &Done) -> Result<Next, String> {
    let Ok(results) = results(task, done) else { return Ok(Next::Skip(Skip::Results)) };
    let mut state = Vars::default();
    let status = |task: &Value| done.get(name(task)).map(|d| &d.status);
    for task in tasks {
        let (word, reason) = match status(task) {
            Some(Status::Succeeded) => ("Succeeded", "Succeeded"),
            Some(Status::Failed(_)) => ("Failed", "Failed"),
            _ => ("None", "None"),
        };
        state.set(format!("tasks.{}.status", name(task)), word);
        state.set(format!("tasks.{}.reason", name(task)), reason);
    }
    let any = |is: fn(&Status) -> bool| tasks.iter().filter_map(status).any(is);
    let all = match () {
        () if any(|s| matches!(s, Status::Failed(_))) => "Failed",
        () if any(|s| matches!(s, Status::Skipped(_))) => "Completed",
        () => "Succeeded",
    };
    state.set("tasks.status", all);
    let mut task = task.clone();
    replace::in_references(&state, &mut task);
    start(&task, &[results])
}

/// Replaces what is known when a task is started and looks at its `when`.
fn start(task: &Value, stages: &[Vars]) -> Result<Next, String> {
    let mut task = task.clone();
    stages.iter().for_each(|vars| replace::in_pipeline_task(vars, &mut task));
    let mut own = Vars::default();
    own.set("context.pipelineTask.retries", task["retries"].as_u64().unwrap_or(0).to_string());
    replace::in_references(&own, &mut task);
    match when::holds(items(&task, "when"))? {
        true => Ok(Next::Start(task)),
        false => Ok(Next::Skip(Skip::When)),
    }
}

/// A result that a task uses and that does not exist.
struct Missing {
    /// What became of the task that was to give it.
    of: Option<Status>,
    what: String,
}

/// The results that a task uses.
fn results(task: &Value, done: &Done) -> Result<Vars, Missing> {
    let mut vars = Vars::default();
    for (from, result) in graph::result_references(task) {
        let giver = done.get(&from);
        let value = giver.filter(|g| !matches!(g.status, Status::Skipped(_))).and_then(|g| g.results.get(&result));
        match value {
            Some(value) => vars.define_result(&from, &result, value),
            None => return Err(Missing { of: giver.map(|g| g.status.clone()), what: format!("{from}.{result}") }),
        }
    }
    Ok(vars)
}
