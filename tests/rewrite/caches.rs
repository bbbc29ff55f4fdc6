//! Param `cache`: what is refused, and which tasks restore and save a cache.

use serde_json::{Value, json};
use tekton_wrap::wrap::explain::TaskNote;

use crate::refusals::{PIPELINE, RUN, wrap_in};

const ADD: &str = "/spec/pipelineRef/params/-";
const TARGET: &str = "/spec/pipelineRef/params/2/value";

/// The changes of a run with the param `cache`, and a target in one repository for all runs.
fn with_cache(cache: Value) -> Vec<(usize, &'static str, Value)> {
    vec![
        (RUN, ADD, json!({"name": "cache", "value": cache})),
        (RUN, TARGET, json!("quay.io/me/ci:$(context.pipelineRun.name)-{{workspace}}")),
        (RUN, "/spec/pipelineRef/params/1/value", json!("w,v")),
    ]
}

/// So many, each of a folder of its own.
fn caches(count: usize) -> String {
    (0..count).map(|place| format!("w/{place}=v/lock")).collect::<Vec<_>>().join(", ")
}

#[test]
fn taken() {
    // A key that is empty is none.
    for cache in
        [caches(16), "w/a=v/lock, w/b=v/lock, w/ab=v/lock".into(), "{path: w/a, key: '', files: v/lock}".into()]
    {
        let mut changes = with_cache(json!(cache));
        changes.push((
            PIPELINE,
            "/spec/tasks",
            json!([task("only", &[], &["w", "v"]), task("next", &["only"], &["w", "v"])]),
        ));
        wrap_in("ns".into(), &changes).unwrap();
    }
}

#[test]
fn refused() {
    for (cache, sentence) in [
        (json!("w"), r#""w" is not of the form PATH=FILES, such as source/node_modules=source/package-lock.json"#),
        (json!("- w\n- v"), r#""w" is not a cache: write its fields, at least path"#),
        (json!("- {path: [w"), "it is not YAML: "),
        (json!("- {key: k}"), "a cache needs a path: a workspace, or a folder in one, such as source/node_modules"),
        (
            json!("- {path: w, keys: k}"),
            r#"a cache has no field "keys": it has path, key, files, restore-keys, scope, default-scope, target, task, mtime, expires"#,
        ),
        (json!("- {path: w, key: [k]}"), r#"the field "key" of a cache must be a string"#),
        (
            json!("- {path: w, key: k, task: [1]}"),
            r#"the field "task" of a cache must be a string or a list of strings"#,
        ),
        (json!("- {path: x, key: k}"), r#"cache "x": "x" is not a workspace that is wrapped"#),
        (json!("w/a=x/lock"), r#"cache "w/a": "x" is not a workspace that is wrapped"#),
        (
            json!("- {path: w/../v, key: k}"),
            r#"path "w/../v" is not of the form WORKSPACE or WORKSPACE/folder, without . and .."#,
        ),
        (
            json!("- {path: w}"),
            r#"cache "w" needs a key, or files whose content is the key, such as files: source/go.sum"#,
        ),
        (json!("- {path: w, key: \"k-{{hash}}\"}"), r#"cache "w": its key has {{hash}} in it, but it has no files"#),
        (json!("- {path: w, key: k, files: v/lock}"), r#"cache "w": it has files, but its key has no {{hash}} in it"#),
        (
            json!("- {path: w, key: \"k-{{checksum}}\"}"),
            r#"it has "{{checksum}}" in it: a template that its tool has not rendered"#,
        ),
        (
            json!("- {path: w, key: k-$(params.other)}"),
            "$(params.other) is not a param that the run gives as a string; $(params.x) of the run and $(context.pipelineRun.name|namespace|uid) can be used",
        ),
        (
            json!("w=w/lock"),
            r#"cache "w": its files lie in what it restores: cache a folder of the workspace, or take files of another one"#,
        ),
        (json!("w/a=v"), r#"cache "w/a": file "v" is not of the form WORKSPACE/PATTERN"#),
        (
            json!("w/a=v/!x"),
            r#"cache "w/a": "!/x" is not a pattern as in .gitignore: one that begins with ! takes others back, and there are none"#,
        ),
        (json!("w/a=v/lock, w/a/b=v/lock"), r#"caches "w/a" and "w/a/b" lie in each other: keep one"#),
        (json!("w/a=v/lock, w/a=v/other"), r#"caches "w/a" and "w/a" lie in each other: keep one"#),
        (json!("w=v/lock, w/a=v/lock"), r#"caches "w" and "w/a" lie in each other: keep one"#),
        (json!("w/a=v/lock, w=v/lock"), r#"caches "w/a" and "w" lie in each other: keep one"#),
        (json!("*a=v/lock"), r#"cache "*a": "*a" is not a workspace that is wrapped"#),
        (json!(caches(17)), "it has 17 caches, more than the 16 that a run may have"),
        (json!("w/a=v/lock, v/b=w/lock"), r#"the caches of the workspaces "w", "v" have their files in each other"#),
        (
            json!("- {path: w, key: k, default-scope: main}"),
            r#"cache "w": default-scope needs a scope, such as $(params.branch)"#,
        ),
        (
            json!("- {path: w, key: k, mtime: skip}"),
            r#"cache "w": mtime is "skip", which is not one of "keep", "ignore""#,
        ),
        (json!("- {path: w, key: k, expires: soon}"), r#""soon" is not a duration such as 12h, 7d or 2w"#),
        (json!("- {path: w, key: k, task: three}"), r#"cache "w": "three" is not a task of the pipeline"#),
        (
            json!("- {path: w, key: k, target: \"quay.io/me/caches:v1\"}"),
            r#"cache "w": its target "quay.io/me/caches:v1" is an image: name a repository, without a tag"#,
        ),
        (
            json!("- {path: w, key: k, target: \"quay.io/me/$(context.pipelineRun.name)\"}"),
            r#"cache "w" would be in "quay.io/me/$(context.pipelineRun.name)", a repository of this run alone, where no other run looks for it: give it a target, such as quay.io/me/caches, or move the run's name into the tag"#,
        ),
    ] {
        let error = wrap_in("ns".into(), &with_cache(cache.clone())).unwrap_err();
        assert_eq!(error.reason(), "InvalidParam", "{cache}");
        let (expected, found) = (format!(r#"param "cache" of resolver wrap: {sentence}"#), error.to_string());
        assert!(if sentence.ends_with(": ") { found.starts_with(&expected) } else { found == expected }, "{found}");
    }
}

#[test]
fn no_value_becomes_a_field() {
    let evil = "x, target: evil.example/x}\n- {path: v, key: k";
    let mut changes = with_cache(json!("- {path: w, key: $(params.tag)}"));
    changes.push((RUN, "/spec/params", json!([{"name": "tag", "value": evil}])));
    changes.push((RUN, TARGET, json!("quay.io/me/ci:{{workspace}}")));
    let run = wrap_in("ns".into(), &changes).unwrap().unwrap().run;
    let step = run["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"]["steps"][0].clone();
    let config = step["env"].as_array().unwrap().iter().find(|env| env["name"] == "TEKTON_WRAP_STEP").unwrap();
    let config: Value = serde_json::from_str(config["value"].as_str().unwrap()).unwrap();
    let caches = &config["workspaces"][0]["caches"];
    assert_eq!(*caches, json!([{"target": "quay.io/me/ci:w", "key": evil, "order": 0}]));
}

#[test]
fn refused_because_of_the_tasks() {
    for (cache, sentence) in [
        (json!("- {path: v, key: k}"), r#"cache "v": no task uses the workspace "v": remove the cache"#),
        (
            json!("w/a=v/lock"),
            r#"cache "w/a": no task that uses the workspace "w" begins with the files of its key, which an earlier task must leave in the workspace "v": name a task in its field task, or take other files"#,
        ),
        (
            json!("- {path: v, key: k, task: one}"),
            r#"cache "v": task "one" does not use the workspace "v": name another task"#,
        ),
    ] {
        let error = wrap_in("ns".into(), &with_cache(cache)).unwrap_err();
        assert_eq!((error.reason(), error.to_string().as_str()), ("CacheWithoutTask", sentence));
    }
}

/// A task that is not skipped, of these two workspaces.
fn task(name: &str, after: &[&str], workspaces: &[&str]) -> Value {
    let workspaces: Vec<Value> = workspaces.iter().map(|name| json!({"name": name})).collect();
    let spec = json!({"workspaces": workspaces, "steps": [{"name": "s", "image": "i"}]});
    json!({"name": name, "runAfter": after, "workspaces": workspaces, "taskSpec": spec})
}

/// The tasks that restore a cache, with what they restore, and those that save one.
fn who(cache: Value, tasks: &[Value]) -> (Vec<String>, Vec<String>) {
    let mut changes = with_cache(cache);
    changes.push((PIPELINE, "/spec/tasks", json!(tasks)));
    changes.push((PIPELINE, "/spec/finally", json!([task("end", &[], &["w", "v"])])));
    let notes = wrap_in("ns".into(), &changes).unwrap().unwrap().explanation.notes();
    let names = |cell: fn(&TaskNote) -> &String| {
        notes.iter().filter(|note| cell(note).contains("cache ")).map(|note| note.task.clone()).collect()
    };
    (names(|note| &note.restores), names(|note| &note.saves))
}

#[test]
fn the_first_tasks_that_can() {
    let when = |mut task: Value| {
        task["when"] = json!([{"input": "a", "operator": "in", "values": ["b"]}]);
        task
    };
    let read_only = |mut task: Value| {
        task["taskSpec"]["workspaces"][0]["readOnly"] = json!(true);
        task
    };
    let chain =
        [task("clone", &[], &["w"]), task("build", &["clone"], &["w", "v"]), task("test", &["build"], &["w", "v"])];
    let skipped = [chain[0].clone(), when(chain[1].clone()), chain[2].clone()];
    let reads = [task("look", &[], &["v"]), task("fill", &["look"], &["v"])];
    let reads = [read_only(reads[0].clone()), reads[1].clone()];
    let parallel = [
        chain[0].clone(),
        task("a", &["clone"], &["w", "v"]),
        task("b", &["clone"], &["w", "v"]),
        task("c", &["a", "b"], &["w", "v"]),
    ];
    let single = [task("only", &[], &["w", "v"])];
    for (case, cache, tasks, restore, save) in [
        ("a workspace", "{path: v, key: k}", &chain[..], &["build"][..], &["build"][..]),
        ("files of another one", "v=w/go.sum", &chain, &["build"], &["build"]),
        ("a folder", "w/modules=w/lock", &chain, &["build"], &["build"]),
        ("a folder with a fixed key", "{path: w/modules, key: k}", &chain, &["build"], &["build"]),
        ("a task that is named", "{path: w/modules, key: k, task: test}", &chain, &["test"], &["test"]),
        ("one that may be skipped", "w/modules=w/lock", &skipped, &["build", "test"], &["build", "test"]),
        ("one that only reads", "{path: v, key: k}", &reads, &["look", "fill"], &["fill"]),
        ("parallel ones", "v=w/go.sum", &parallel, &["a", "b"], &["a", "b"]),
        ("nothing before it", "{path: w/modules, key: k}", &single, &["only"], &["only"]),
    ] {
        let (restoring, saving) = who(json!(cache), tasks);
        assert_eq!(
            (&restoring[..], &saving[..]),
            (
                &restore.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..],
                &save.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>()[..]
            ),
            "{case}"
        );
    }
}
