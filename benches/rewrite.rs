//! The rewrite alone, without a cluster: `cargo bench --bench rewrite` prints a table. Times are CPU times, the medians of
//! many runs: what else the machine does hardly counts.

use std::{
    collections::HashMap,
    hint::black_box,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use tekton_wrap::{
    source::{Found, OptInBy},
    tekton::{reference::Reference, run::Run},
    wrap::{self, OptIn, Settings},
};

/// Each size is measured for so long.
const TIME: Duration = Duration::from_secs(1);

/// Of which tasks the task at an index waits.
type Shape = fn(usize) -> Vec<usize>;

const SHAPES: [(&str, Shape); 3] = [
    ("chain", |task| task.checked_sub(1).into_iter().collect()),
    // Each layer of ten waits for all of the layer before it.
    ("layers", |task| (task / 10 * 10).checked_sub(10).map_or(vec![], |first| (first..first + 10).collect())),
    ("parallel", |_| vec![]),
];

fn main() {
    println!("{:>8}  {:>5}  {:>9}  {:>10}  {:>9}  {:>13}", "graph", "tasks", "stored", "time", "per task", "30 to 300");
    for (name, shape) in SHAPES {
        let mut at_30 = Duration::ZERO;
        for tasks in [10, 30, 100, 300] {
            let (run, pipeline, referenced) = objects(tasks, shape);
            let Some(wrapped) = rewrite(&run, &pipeline, &referenced) else {
                println!("{name:>8}  {tasks:>5}  too large to be stored");
                continue;
            };
            let time = median(|| drop(black_box(rewrite(black_box(&run), &pipeline, &referenced))));
            let ratio = match tasks {
                30 => {
                    at_30 = time;
                    String::new()
                }
                300 => format!("x {:.1}", time.as_secs_f64() / at_30.as_secs_f64()),
                _ => String::new(),
            };
            let (stored, each) = (wrapped.to_string().len() / 1024, time / tasks as u32);
            println!("{name:>8}  {tasks:>5}  {stored:>5} KiB  {time:>10.1?}  {each:>9.2?}  {ratio:>13}");
        }
    }
    println!("\n{:>24}  {:>6}  {:>10}  {:>13}", "one task with", "count", "time", "ten times");
    for (name, large) in [("params that are shadowed", many_params as Large), ("variables in a script", many_variables)]
    {
        let mut before = None;
        for count in [200, 2000] {
            let (run, pipeline, referenced) = large(count);
            rewrite(&run, &pipeline, &referenced).expect("small enough to be stored");
            let time = median(|| drop(black_box(rewrite(black_box(&run), &pipeline, &referenced))));
            let ratio = before.map(|before: Duration| format!("x {:.1}", time.as_secs_f64() / before.as_secs_f64()));
            println!("{name:>24}  {count:>6}  {time:>10.1?}  {:>13}", ratio.unwrap_or_default());
            before = Some(time);
        }
    }
}

/// A run with so much of something in one task.
type Large = fn(usize) -> (Value, Found, HashMap<Reference, Found>);

/// A Task with params that the Pipeline has too, each used once.
fn many_params(count: usize) -> (Value, Found, HashMap<Reference, Found>) {
    let params: Vec<Value> = (0..count).map(|index| json!({"name": format!("p{index}"), "default": "d"})).collect();
    let script: String = (0..count).map(|index| format!("echo $(params.p{index})\n")).collect();
    single(
        json!(params),
        json!({"params": params, "workspaces": [{"name": "source"}],
        "steps": [{"name": "s", "image": "i", "script": script}]}),
    )
}

/// A Task with a script in which one param is used again and again.
fn many_variables(count: usize) -> (Value, Found, HashMap<Reference, Found>) {
    let params = json!([{"name": "p", "default": "d"}]);
    let script = "echo $(params.p) $HOME $(date)\n".repeat(count);
    let spec = json!({"params": params, "workspaces": [{"name": "source"}],
        "steps": [{"name": "s", "image": "i", "script": script}]});
    single(params, spec)
}

/// A pipeline with these params and one task, which refers to a Task with this spec.
fn single(params: Value, spec: Value) -> (Value, Found, HashMap<Reference, Found>) {
    let (run, mut pipeline, _) = objects(1, |_| vec![]);
    let task = json!({"name": "t", "taskRef": {"name": "large"}, "workspaces": [{"name": "source"}]});
    pipeline.object["spec"] = json!({"params": params, "workspaces": [{"name": "source"}], "tasks": [task]});
    let object = json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": "large"}, "spec": spec});
    (run, pipeline, HashMap::from([(Reference::Name("large".to_owned()), Found::by_name(object))]))
}

/// None where the run would be too large.
fn rewrite(run: &Value, pipeline: &Found, tasks: &HashMap<Reference, Found>) -> Option<Value> {
    let settings = Settings::new("quay.io/me/tekton-wrap:v1");
    let opt_in =
        OptIn::read(Run::new(run), "ci", OptInBy::Run).expect("a valid request").expect("a run for the resolver wrap");
    let request = opt_in.request(&[], &pipeline.object).expect("a valid request").expect("a request");
    wrap::tasks_to_inline(Run::new(run), "ci", &request, &pipeline.object).expect("a pipeline that can be wrapped");
    match wrap::rewrite(Run::new(run), "ci", &request, pipeline, tasks, &settings, &|| false) {
        Ok(rewrite) => Some(rewrite.run),
        Err(wrap::Refusal::TooLarge { .. }) => None,
        Err(other) => panic!("a pipeline that can be wrapped: {other}"),
    }
}

/// A run, its pipeline and the Tasks that it refers to. Every third task embeds its spec, one in ten uses no workspace.
fn objects(count: usize, shape: Shape) -> (Value, Found, HashMap<Reference, Found>) {
    let run = json!({
        "apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": "bench-", "namespace": "ci"},
        "spec": {
            "params": [{"name": "revision", "value": "main"}],
            "pipelineRef": {"resolver": "wrap", "params": [
                {"name": "pipelineref", "value": "bench"},
                {"name": "workspaces", "value": "source"},
                {"name": "target", "value": "quay.io/me/bench-$(context.pipelineRun.name):latest"},
            ]},
            "workspaces": [{"name": "token", "secret": {"secretName": "s"}}],
        },
    });
    let task = |index: usize| {
        let after: Vec<String> = shape(index).into_iter().map(|on| format!("task-{on}")).collect();
        let mut task = json!({
            "name": format!("task-{index}"), "runAfter": after,
            "params": [{"name": "revision", "value": "$(params.revision)"}, {"name": "flags", "value": ["-v", "-race"]}],
            "workspaces": [{"name": "input", "workspace": "source"}, {"name": "token"}],
        });
        match index % 3 {
            _ if index % 10 == 9 => task["workspaces"] = json!([]),
            0 => task["taskSpec"] = spec(),
            _ => {}
        }
        if task.get("taskSpec").is_none() {
            task["taskRef"] = json!({"name": format!("build-{}", index % 7)});
        }
        task
    };
    let pipeline = json!({
        "apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "bench", "namespace": "ci"},
        "spec": {
            "params": [{"name": "revision"}, {"name": "image", "default": "golang:1"}],
            "workspaces": [{"name": "source"}, {"name": "token"}],
            "tasks": (0..count).map(task).collect::<Vec<_>>(),
        },
    });
    let referenced = (0..7).map(|index| {
        let name = format!("build-{index}");
        let object = json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "metadata": {"name": name}, "spec": spec()});
        (Reference::Name(name), Found::by_name(object))
    });
    (run, Found::by_name(pipeline), referenced.collect())
}

/// A Task of two steps, one of them a script of a few lines.
fn spec() -> Value {
    json!({
        "params": [{"name": "revision"}, {"name": "flags", "type": "array"}, {"name": "image", "default": "golang:1.25"}],
        "workspaces": [{"name": "input"}, {"name": "token", "optional": true}],
        "steps": [
            {"name": "build", "image": "$(params.image)", "workingDir": "$(workspaces.input.path)", "script":
                "set -eu\ngit checkout \"$(params.revision)\"\ncp \"$(workspaces.token.path)/netrc\" ~/.netrc\ngo build ./...\n"},
            {"name": "test", "image": "$(params.image)", "command": ["go", "test"], "args": ["$(params.flags[*])"]},
        ],
    })
}

fn median(mut work: impl FnMut()) -> Duration {
    let (start, mut times) = (Instant::now(), Vec::new());
    while start.elapsed() < TIME {
        let begin = cpu_time();
        let mut runs = 0;
        while cpu_time() - begin < Duration::from_millis(5) {
            (0..5).for_each(|_| work());
            runs += 5;
        }
        times.push((cpu_time() - begin) / runs);
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// For how long this thread has run. What /proc says of it is as coarse as the kernel's tick.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().expect("it does not run backwards")
}
