//! Whole reruns, from a pipeline that is wrapped as the webhook wraps it.

use serde_json::{Value, json};

use super::{Rerun, RerunRefusal, RerunScope, plan};
use crate::{
    render::FileObjects,
    resolve::wrap_run,
    step::{ENV, StepConfig},
    wrap::Settings,
};

/// A wrapped run of a pipeline with this spec, named `r`.
fn wrapped(pipeline: Value, target: &str) -> Value {
    let run = json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun",
        "metadata": {"name": "r", "uid": "u1", "namespace": "ns", "annotations": {
            "tekton-wrap.dev/wrap": "w", "tekton-wrap.dev/target": target, "mine": "kept",
            "chains.tekton.dev/signed": "true", "kubectl.kubernetes.io/last-applied-configuration": "{}",
        }},
        "spec": {"pipelineRef": {"name": "p"}, "params": [{"name": "greeting", "value": "hello"}],
            "taskRunSpecs": [{"pipelineTaskName": "a", "timeout": "1m"}, {"pipelineTaskName": "c", "timeout": "1m"}]}});
    let pipeline =
        json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": pipeline});
    let mut objects = FileObjects::default();
    objects.add(&pipeline.to_string()).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let settings = Settings::new("i");
    let rewrite = runtime.block_on(wrap_run(&objects, &run, "ns", &settings)).unwrap();
    let mut run = rewrite.unwrap().run;
    // Tekton does so.
    run["metadata"]["labels"]["tekton.dev/pipeline"] = json!("r");
    run
}

/// A task that uses workspace `w`, with `more`.
fn task(name: &str, after: &[&str], more: Value) -> Value {
    let mut task = json!({"name": name, "workspaces": [{"name": "w"}],
        "taskSpec": {"workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i", "script": "true"}]}});
    if !after.is_empty() {
        task["runAfter"] = json!(after);
    }
    for (key, value) in more.as_object().unwrap() {
        task[key] = value.clone();
    }
    task
}

fn pipeline(tasks: Vec<Value>) -> Value {
    json!({"workspaces": [{"name": "w"}], "tasks": tasks,
        "params": [{"name": "greeting"}, {"name": "polite", "default": "$(params.greeting), please"}, {"name": "other", "default": "x"}]})
}

/// How a run ended: its TaskRuns and its status.
struct End(Vec<Value>);

impl End {
    fn task(mut self, name: &str, succeeded: bool, results: Value) -> Self {
        let number = self.0.iter().filter(|run| run["task"] == name).count();
        let results: Vec<Value> =
            results.as_object().unwrap().iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let status = if succeeded { "True" } else { "False" };
        let condition = json!([{"type": "Succeeded", "status": status, "reason": "Completed"}]);
        self.0.push(json!({"kind": "TaskRun", "task": name, "metadata": {"name": format!("r-{name}-{number}")},
            "status": {"conditions": condition, "results": results}}));
        self
    }

    fn of(&self, run: &Value, skipped: Value) -> Value {
        let mut run = run.clone();
        let reference = |child: &Value| json!({"kind": "TaskRun", "name": child["metadata"]["name"], "pipelineTaskName": child["task"]});
        run["status"] = json!({"conditions": [{"type": "Succeeded", "status": "False"}], "skippedTasks": skipped,
            "childReferences": self.0.iter().map(reference).collect::<Vec<_>>()});
        run
    }
}

fn named<'a>(rerun: &'a Rerun, name: &str) -> &'a Value {
    let spec = &rerun.run["spec"]["pipelineSpec"];
    let mut all = ["tasks", "finally"].into_iter().filter_map(|list| spec[list].as_array()).flatten();
    all.find(|task| task["name"] == name).unwrap_or_else(|| panic!("no task {name} in {spec:#}"))
}

fn names(rerun: &Rerun, list: &str) -> Vec<String> {
    let tasks = rerun.run["spec"]["pipelineSpec"][list].as_array().cloned().unwrap_or_default();
    tasks.iter().map(|task| task["name"].as_str().unwrap().to_owned()).collect()
}

fn configs(task: &Value) -> Vec<StepConfig> {
    let steps = task["taskSpec"]["steps"].as_array().unwrap().iter();
    let text = |step: &Value| {
        let env = step["env"].as_array()?.iter().find(|variable| variable["name"] == ENV)?;
        Some(env["value"].as_str().unwrap().to_owned())
    };
    steps.filter_map(text).map(|text| serde_json::from_str(&text).unwrap()).collect()
}

const TARGET: &str = "quay.io/me/$(context.pipelineRun.name):$(context.pipelineRun.name)";

#[test]
fn values_stand_for_what_is_left_out() {
    let mut spec = pipeline(vec![
        task("a", &[], json!({})),
        task("m", &["a"], json!({"matrix": {"params": [{"name": "x", "value": ["0", "1"]}]}})),
        task(
            "c",
            &["m"],
            json!({
                "params": [
                    {"name": "one", "value": "[$(tasks.a.results.string)] $(params.greeting)"},
                    {"name": "array", "value": "$(tasks.a.results.array[*])"},
                    {"name": "spliced", "value": ["first", "$(tasks.a.results.array[*])", "$(tasks.a.results.array[1])"]},
                    {"name": "object", "value": "$(tasks.a.results.object[*])"},
                    {"name": "key", "value": "$(tasks.a.results.object.key)"},
                    {"name": "combinations", "value": "$(tasks.m.results.string[*])"},
                    {"name": "count", "value": "$(tasks.m.matrix.length)"},
                ],
                "when": [{"input": "$(tasks.a.results.string)", "operator": "in", "values": ["$(tasks.a.results.array[*])"]}],
            }),
        ),
        task(
            "d",
            &["c"],
            json!({"params": [{"name": "p", "value": "$(tasks.c.results.string) $(tasks.a.results.string)"}]}),
        ),
    ]);
    spec["tasks"][3]["taskSpec"]["steps"][0]["script"] = json!("echo $(tasks.a.results.string)");
    spec["finally"] = json!([
        task(
            "f",
            &[],
            json!({"params": [{"name": "p", "value": "$(tasks.a.status) $(tasks.a.reason) $(tasks.c.status) $(tasks.status)"}]})
        ),
        task("g", &[], json!({"params": [{"name": "p", "value": "$(tasks.a.results.absent)"}]})),
    ]);
    spec["results"] = json!([
        {"name": "known", "value": "<$(tasks.a.results.string)>"},
        {"name": "list", "type": "array", "value": "$(tasks.a.results.array[*])"},
        {"name": "object", "type": "object", "value": "$(tasks.a.results.object[*])"},
        {"name": "mixed", "value": "$(tasks.a.results.string) $(tasks.c.results.string)"},
        {"name": "later", "value": "$(tasks.d.results.string)"},
        {"name": "absent", "value": "$(tasks.a.results.absent)"},
    ]);
    let run = wrapped(spec, TARGET);
    let end = End(vec![])
        .task("a", true, json!({"string": "s $1", "array": ["x", "s $1"], "object": {"key": "v"}}))
        .task("m", true, json!({"string": "zero"}))
        .task("m", true, json!({"string": "one"}))
        .task("c", false, json!({}));
    let stored = end.of(&run, json!([{"name": "d", "reason": "PipelineRun was stopping"}]));
    let rerun = plan(&stored, &end.0, &RerunScope::Failed, &[]).unwrap();

    assert_eq!(
        (rerun.left_out.clone(), names(&rerun, "tasks"), names(&rerun, "finally")),
        (vec!["a".to_owned(), "m".to_owned()], vec!["c".to_owned(), "d".to_owned()], vec!["f".to_owned()],)
    );
    let c = named(&rerun, "c");
    let values: Vec<&Value> = c["params"].as_array().unwrap().iter().map(|param| &param["value"]).collect();
    assert_eq!(
        json!(values),
        json!([
            "[s $1] $(params.greeting)", ["x", "s $1"], ["first", "x", "s $1", "s $1"], {"key": "v"}, "v", ["zero", "one"], "2",
        ])
    );
    assert_eq!(c["when"], json!([{"input": "s $1", "operator": "in", "values": ["x", "s $1"]}]));
    assert_eq!(c.get("runAfter"), None);
    let d = named(&rerun, "d");
    assert_eq!(d["params"][0]["value"], "$(tasks.c.results.string) s $1");
    assert_eq!(d["runAfter"], json!(["c"]));
    assert!(d["taskSpec"]["steps"].to_string().contains("echo s $1"));
    assert_eq!(named(&rerun, "f")["params"][0]["value"], "Succeeded Completed $(tasks.c.status) $(tasks.status)");

    // Tekton takes no plain values as results of a pipeline: a step of d gives them, since c may be skipped.
    let results = &rerun.run["spec"]["pipelineSpec"]["results"];
    assert_eq!(
        *results,
        json!([
            {"name": "known", "value": "$(tasks.d.results.tekton-wrap-result-0)"},
            {"name": "list", "type": "array", "value": "$(tasks.d.results.tekton-wrap-result-1[*])"},
            {"name": "object", "type": "object", "value": "$(tasks.d.results.tekton-wrap-result-2[*])"},
            {"name": "mixed", "value": "s $1 $(tasks.c.results.string)"},
            {"name": "later", "value": "$(tasks.d.results.string)"},
        ])
    );
    assert_eq!(
        d["taskSpec"]["results"],
        json!([
            {"name": "tekton-wrap-result-0", "type": "string"}, {"name": "tekton-wrap-result-1", "type": "array"},
            {"name": "tekton-wrap-result-2", "type": "object", "properties": {"key": {"type": "string"}}},
        ])
    );
    let given = json!({"tekton-wrap-result-0": "<s $1>", "tekton-wrap-result-1": ["x", "s $1"], "tekton-wrap-result-2": {"key": "v"}});
    let told = configs(d);
    assert_eq!(json!(told[0].results), given);
    assert!(told[1].results.is_empty() && configs(c).iter().all(|config| config.results.is_empty()));
    assert_eq!(rerun.notes.len(), 2, "{:?}", rerun.notes);

    let metadata = &rerun.run["metadata"];
    assert_eq!((&metadata["generateName"], &metadata["namespace"]), (&json!("r-rerun-"), &json!("ns")));
    assert_eq!(
        metadata["annotations"],
        json!({"mine": "kept", "tekton-wrap.dev/pipeline": "p",
        "tekton-wrap.dev/workspaces": "w", "tekton-wrap.dev/rerun-of": "r"})
    );
    assert_eq!(metadata["labels"], json!({"tekton.dev/pipeline": "p", "tekton-wrap.dev/wrapped": "true"}));
    assert_eq!(rerun.run["spec"]["taskRunSpecs"], json!([{"pipelineTaskName": "c", "timeout": "1m"}]));
    assert_eq!(rerun.run.get("status"), None);
}

/// What tasks left of the first run becomes no variable of the second.
#[test]
fn no_variable_is_put_together_from_results() {
    for (script, one, two, is_fine) in [
        ("echo $(tasks.a.results.one)$(tasks.a.results.two)", "x", "y", true),
        ("echo $(tasks.a.results.one) $(params.greeting)", "$", "(params.greeting)", true),
        ("echo $(tasks.a.results.one)", "$(params.greeting)", "", false),
        ("echo $(tasks.a.results.one)$(tasks.a.results.two)", "$(params.gree", "ting)", false),
        ("echo $(tasks.a.results.one)(params.greeting)", "$", "", false),
    ] {
        let steps = json!({"workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i", "script": script}]});
        let spec = pipeline(vec![task("a", &[], json!({})), task("b", &["a"], json!({"taskSpec": steps}))]);
        let run = wrapped(spec, TARGET);
        let end = End(vec![]).task("a", true, json!({"one": one, "two": two})).task("b", false, json!({}));
        let planned = plan(&end.of(&run, json!([])), &end.0, &RerunScope::Failed, &[]);
        match planned {
            Ok(_) => assert!(is_fine, "{script}: {one}, {two}"),
            Err(refusal) => {
                let refusal = refusal.to_string();
                assert!(
                    !is_fine && refusal.contains("has $(params.greeting) in it, which Tekton would replace"),
                    "{refusal}"
                );
            }
        }
    }
}

#[test]
fn snapshots_of_earlier_runs() {
    let chain = |name, after: &[&str]| task(name, after, json!({}));
    let spec = pipeline(vec![
        chain("a", &[]),
        task("m", &["a"], json!({"matrix": {"params": [{"name": "x", "value": ["0", "1", "2"]}]}})),
        chain("b", &["a"]),
        task("w", &["b"], json!({"when": [{"input": "x", "operator": "in", "values": ["y"]}]})),
        chain("c", &["m", "w"]),
        chain("d", &["c"]),
    ]);
    let run = wrapped(spec, TARGET);
    let all = |end: End| ["a", "m", "m", "m", "b"].iter().fold(end, |end, name| end.task(name, true, json!({})));
    let end = all(End(vec![])).task("c", false, json!({}));
    let skipped = json!([{"name": "w", "reason": "When Expressions evaluated to false"}, {"name": "d", "reason": "PipelineRun was stopping"}]);
    let rerun = plan(&end.of(&run, skipped.clone()), &end.0, &RerunScope::Failed, &[]).unwrap();
    // What `when` skipped is asked again.
    assert_eq!((rerun.left_out.join(" "), names(&rerun, "tasks").join(" ")), ("a m b".to_owned(), "w c d".to_owned()));
    let restore = &configs(named(&rerun, "c"))[0];
    assert_eq!(json!(restore.earlier), json!([{"run": "u1", "tasks": [[0, 4]]}]));
    assert_eq!(restore.workspaces[0].target, "quay.io/me/r:$(context.pipelineRun.name)");
    let b = restore.workspaces[0].after.iter().find(|before| before.task == "b").unwrap();
    assert!(!b.optional);
    let needs: Vec<(&str, u32, &str)> =
        rerun.needs.iter().map(|need| (&*need.task, need.order, &*need.step.workspaces[0].target)).collect();
    let at = "quay.io/me/r:r";
    assert_eq!(needs, [("a", 0, at), ("m", 1, at), ("m", 2, at), ("m", 3, at), ("b", 4, at)]);

    // A rerun of the rerun.
    let mut second = rerun.run.clone();
    second["metadata"]["name"] = json!("r-rerun-1");
    second["metadata"]["uid"] = json!("u2");
    let end = End(vec![]).task("c", true, json!({})).task("d", false, json!({}));
    let second = end.of(&second, skipped);
    let rerun = plan(&second, &end.0, &RerunScope::Failed, &[]).unwrap();
    assert_eq!((rerun.left_out.join(" "), names(&rerun, "tasks").join(" ")), ("c".to_owned(), "w d".to_owned()));
    let restore = &configs(named(&rerun, "d"))[0];
    assert_eq!(json!(restore.earlier), json!([{"run": "u1", "tasks": [[0, 4]]}, {"run": "u2", "tasks": [[6, 6]]}]));
    assert_eq!(restore.workspaces[0].target, "quay.io/me/r:$(context.pipelineRun.name)");
    let error = plan(&second, &end.0, &RerunScope::From("a".to_owned()), &[]).unwrap_err().to_string();
    assert_eq!(
        error,
        r#"run "r-rerun-1" has no task "a": its tasks are "w", "c", "d"; it is a rerun of "r", which may have it"#
    );
    // All of it again goes on from the same snapshots.
    let rerun = plan(&second, &[], &RerunScope::All, &[]).unwrap();
    assert_eq!((rerun.left_out.len(), names(&rerun, "tasks").join(" ")), (0, "w c d".to_owned()));
    assert_eq!(json!(configs(named(&rerun, "c"))[0].earlier), json!([{"run": "u1", "tasks": [[0, 4]]}]));
}

/// What was skipped comes before only by way of a task that is left out.
#[test]
fn a_webhook_takes_every_rerun() {
    let when =
        |holds: bool| json!({"when": [{"input": "x", "operator": "in", "values": [if holds { "x" } else { "y" }]}]});
    let spec = pipeline(vec![
        task("a", &[], json!({})),
        task("w", &["a"], when(false)),
        task("b", &["w"], when(true)),
        task("c", &["b"], json!({})),
        task("d", &["c", "w"], json!({})),
    ]);
    let run = wrapped(spec, TARGET);
    let end =
        ["a", "b"].iter().fold(End(vec![]), |end, name| end.task(name, true, json!({}))).task("c", false, json!({}));
    let skipped = json!([{"name": "w", "reason": "When Expressions evaluated to false"}, {"name": "d", "reason": "PipelineRun was stopping"}]);
    let rerun = plan(&end.of(&run, skipped), &end.0, &RerunScope::Failed, &[]).unwrap();
    assert_eq!((rerun.left_out.join(" "), names(&rerun, "tasks").join(" ")), ("a b".to_owned(), "w c d".to_owned()));
    let after = |name: &str| -> String {
        let config = configs(named(&rerun, name)).remove(0);
        config.workspaces[0].after.iter().map(|before| before.task.clone()).collect::<Vec<_>>().join(" ")
    };
    assert!(!after("c").contains('w') && after("c").contains('b'), "{}", after("c"));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let settings = Settings::new("i");
    assert!(runtime.block_on(wrap_run(&FileObjects::default(), &rerun.run, "ns", &settings)).unwrap().is_none());
}

#[test]
fn finally_alone_becomes_the_tasks() {
    let mut spec = pipeline(vec![task("a", &[], json!({}))]);
    spec["finally"] =
        json!([task("f", &[], json!({"params": [{"name": "p", "value": "$(tasks.status) $(tasks.a.status)"}]}))]);
    spec["results"] =
        json!([{"name": "r", "value": "$(finally.f.results.r)"}, {"name": "s", "value": "$(tasks.a.results.s)"}]);
    let run = wrapped(spec, "quay.io/me/x");
    let end = End(vec![]).task("a", true, json!({"s": "v"})).task("f", false, json!({}));
    let rerun = plan(&end.of(&run, json!([])), &end.0, &RerunScope::Failed, &[]).unwrap();
    assert_eq!((names(&rerun, "tasks"), names(&rerun, "finally")), (vec!["f".to_owned()], vec![]));
    assert_eq!(named(&rerun, "f")["params"][0]["value"], "Succeeded Succeeded");
    let results = &rerun.run["spec"]["pipelineSpec"]["results"];
    assert_eq!(results[0]["value"], "$(tasks.f.results.r)");
    assert_eq!(results[1]["value"], "$(tasks.f.results.tekton-wrap-result-0)");
    assert_eq!(rerun.needs.len(), 1);
}

#[test]
fn which_tasks_run_again() {
    let uses = |param: &str| json!({"params": [{"name": "p", "value": format!("$(params.{param})")}]});
    let spec = pipeline(vec![
        task("a", &[], json!({})),
        task("b", &["a"], uses("polite")),
        task("c", &["a"], uses("other")),
        task("d", &["b"], json!({})),
        task("e", &["c", "d"], json!({"onError": "continue"})),
    ]);
    let run = wrapped(spec, "quay.io/me/x");
    let ends = |failed: &str| {
        let all = ["a", "b", "c", "d", "e"];
        all.iter().fold(End(vec![]), |end, name| end.task(name, *name != failed, json!({})))
    };
    let from = |task: &str| RerunScope::From(task.to_owned());
    let param = |name: &str, value: &str| vec![(name.to_owned(), json!(value))];
    for (scope, failed, params, left_out) in [
        (RerunScope::Failed, "e", vec![], "a b c d"),
        (RerunScope::Failed, "b", vec![], "a c"),
        (from("d"), "", vec![], "a b c"),
        (from("d"), "c", vec![], "a b"),
        (from("a"), "", vec![], ""),
        (RerunScope::All, "c", vec![], ""),
        // b's param has a default that refers to this one.
        (RerunScope::Failed, "e", param("greeting", "hi"), "a c"),
        (RerunScope::Failed, "e", param("greeting", "hello"), "a b c d"),
        (RerunScope::Failed, "e", param("other", "y"), "a b d"),
    ] {
        let end = ends(failed);
        let rerun = plan(&end.of(&run, json!([])), &end.0, &scope, &params).unwrap();
        assert_eq!(rerun.left_out.join(" "), left_out, "{scope:?} {failed} {params:?}");
        for (name, value) in &params {
            let given = rerun.run["spec"]["params"].as_array().unwrap();
            assert!(given.contains(&json!({"name": name, "value": value})), "{given:?}");
        }
    }
}

#[test]
fn refused() {
    let mut spec = pipeline(vec![
        task("a", &[], json!({})),
        task("b", &["a"], json!({"params": [{"name": "p", "value": "$(tasks.a.results.r)"}]})),
    ]);
    spec["workspaces"] = json!([{"name": "w"}, {"name": "volume", "optional": true}]);
    let run = wrapped(spec, "quay.io/me/x");
    let end = |results: Value| End(vec![]).task("a", true, results).task("b", false, json!({}));
    let good = end(json!({"r": "v"}));
    let stored = good.of(&run, json!([]));
    let mut running = stored.clone();
    running["status"]["conditions"][0]["status"] = json!("Unknown");
    let mut plain = stored.clone();
    plain["spec"]["pipelineSpec"] = json!({"tasks": [{"name": "a", "taskSpec": {"steps": [{"name": "s"}]}}]});
    let mut on_volume = stored.clone();
    on_volume["spec"]["workspaces"] =
        json!([{"name": "w", "emptyDir": {}}, {"name": "volume", "volumeClaimTemplate": {"spec": {}}}]);
    for task in on_volume["spec"]["pipelineSpec"]["tasks"].as_array_mut().unwrap() {
        task["workspaces"].as_array_mut().unwrap().push(json!({"name": "volume"}));
    }
    let fine = End(vec![]).task("a", true, json!({})).task("b", true, json!({}));
    for (run, children, scope, says) in [
        (
            &running,
            &good.0[..],
            RerunScope::Failed,
            r#"run "r" is still running: wait until it is over, or cancel it (tkn pipelinerun cancel r)"#,
        ),
        (&plain, &good.0, RerunScope::Failed, r#"run "r" is not a wrapped run"#),
        (&fine.of(&stored, json!([])), &fine.0, RerunScope::Failed, r#"no task of run "r" failed: give --from TASK"#),
        (&stored, &good.0, RerunScope::From("x".to_owned()), r#"run "r" has no task "x": its tasks are "a", "b""#),
        (
            &stored,
            &good.0[1..],
            RerunScope::Failed,
            r#"the TaskRun "r-a-0" of task "a" is gone, and with it how the task ended and its results: start the whole run again"#,
        ),
        (
            &stored,
            &end(json!({})).0,
            RerunScope::Failed,
            r#"task "b" uses the result "r" of task "a", which has left none: start at that task (--from a)"#,
        ),
        (
            &stored,
            &end(json!({"r": ["x"]})).0,
            RerunScope::Failed,
            r#"task "b" uses the result "r" of task "a", which has left none"#,
        ),
        (
            &stored,
            &end(json!({"r": "x $(params.greeting)"})).0,
            RerunScope::Failed,
            r#"the result "r" of task "a" has $(params.greeting) in it, which Tekton would replace in a new run: start at that task (--from a)"#,
        ),
        (
            &on_volume,
            &good.0,
            RerunScope::Failed,
            r#"task "b" shares the workspace "volume" with task "a", which would be left out; the run binds it to a volumeClaimTemplate"#,
        ),
    ] {
        let error = plan(run, children, &scope, &[]).unwrap_err().to_string();
        assert!(error.starts_with(says), "{says}\n{error}");
    }
    let unknown = plan(&stored, &good.0, &RerunScope::Failed, &[("x".to_owned(), json!("1"))]);
    assert!(matches!(unknown, Err(RerunRefusal::NoParam { .. })), "{unknown:?}");
}
