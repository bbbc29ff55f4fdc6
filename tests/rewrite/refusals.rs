//! Every refusal is one sentence that names the offending thing: a run that works, changed in one place.

use serde_json::{Value, json};
use tekton_wrap::{
    render::FileObjects,
    resolve::wrap_run,
    source::Creation,
    wrap::{Refusal, Rewrite, Settings},
};

/// A run with a pipeline of two tasks, the second one a reference.
const WORKS: &str = r#"
- apiVersion: tekton.dev/v1
  kind: PipelineRun
  metadata: {generateName: r-}
  spec:
    params: [{name: tag, value: v1}]
    pipelineRef:
      resolver: wrap
      params:
      - {name: pipelineref, value: p}
      - {name: workspaces, value: w}
      - {name: target, value: "quay.io/me/{{workspace}}:$(params.tag)"}
- apiVersion: tekton.dev/v1
  kind: Pipeline
  metadata: {name: p}
  spec:
    workspaces: [{name: w}, {name: v}]
    tasks:
    - name: one
      workspaces: [{name: w}]
      taskSpec: {workspaces: [{name: w}], steps: [{name: s, image: i}]}
    - name: two
      runAfter: [one]
      workspaces: [{name: w}]
      taskRef: {name: t}
- apiVersion: tekton.dev/v1
  kind: Task
  metadata: {name: t}
  spec: {workspaces: [{name: w}], steps: [{name: s, image: i}]}
"#;

pub const RUN: usize = 0;
pub const PIPELINE: usize = 1;
pub const TASK: usize = 2;

/// The objects, with `value` put at `pointer` of one of them (removed where it is null).
fn wrap(changes: &[(usize, &str, Value)]) -> Result<Option<Rewrite>, Refusal> {
    wrap_in("ns".into(), changes)
}

/// The same for this creation.
pub fn wrap_in(creation: Creation<'_>, changes: &[(usize, &str, Value)]) -> Result<Option<Rewrite>, Refusal> {
    let Value::Array(mut objects) = tekton_wrap::yaml::parse(WORKS).unwrap().remove(0) else { unreachable!() };
    for (object, pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        let parent = objects[*object].pointer_mut(parent).unwrap_or_else(|| panic!("{pointer}"));
        match parent {
            Value::Object(map) if value.is_null() => drop(map.remove(key)),
            Value::Object(map) => drop(map.insert(key.to_owned(), value.clone())),
            Value::Array(items) if key == "-" => items.push(value.clone()),
            Value::Array(items) if value.is_null() => drop(items.remove(key.parse().unwrap())),
            Value::Array(items) => items[key.parse::<usize>().unwrap()] = value.clone(),
            _ => panic!("{pointer}"),
        }
    }
    let mut all = FileObjects::default();
    all.add(&json!({"kind": "List", "items": objects}).to_string()).unwrap();
    wrap_objects(creation, &all, &Settings::new("i"))
}

fn wrap_objects(creation: Creation<'_>, all: &FileObjects, settings: &Settings) -> Result<Option<Rewrite>, Refusal> {
    let run = all.runs().next().unwrap();
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(wrap_run(all, run, creation, settings))
}

/// A value and what stands behind it may be a variable together.
#[test]
fn no_variable_is_put_together() {
    let params = json!([{"name": "tag", "value": "$"}]);
    let target = json!("quay.io/me/x:$(params.tag)(tasks.one.results.r)");
    let refusal =
        wrap(&[(RUN, "/spec/params", params), (RUN, "/spec/pipelineRef/params/2/value", target)]).unwrap_err();
    assert!(refusal.to_string().contains(r#"has "$(tasks.one.results.r)" in it"#), "{refusal}");
}

/// Whoever gives a param its value, such as the name of a branch, adds no rule, path, size, workspace or host.
#[test]
fn no_value_becomes_an_item_of_a_list() {
    let with = |name: &str, list: &str, value: &str| {
        wrap(&[
            (RUN, "/spec/params/-", json!({"name": "p", "value": value})),
            (RUN, "/spec/pipelineRef/params/-", json!({"name": name, "value": list})),
        ])
    };
    for (name, list, value, sentence) in [
        ("size", "w=$(params.p)", "1Gi,w=9Gi", r#""1Gi,w=9Gi" is not a size"#),
        ("conflict", "fail, docs/$(params.p)", "x=last,**", "stands behind the word for all other paths"),
        ("insecure", "a.$(params.p)", "io,evil.io", r#""a.io,evil.io" is one item and has a comma in it"#),
    ] {
        let refusal = with(name, list, value).unwrap_err().to_string();
        assert!(refusal.contains(sentence), "{name}: {list}: {refusal}");
    }
    for (name, list, value, told) in [
        ("paths", "two=src/$(params.p)", "x,one=none", json!([["src/x,one=none"], null])),
        (
            "conflict",
            "docs/$(params.p)/**=last, fail",
            "x=last,**",
            json!([null, [{"paths": "docs/x=last,**/**", "then": "last"}]]),
        ),
        // As it always was: the whole item comes from the run.
        ("paths", "two=a, $(params.p)", "b,c", json!([["a", "b", "c"], null])),
    ] {
        let changes = [
            (RUN, "/spec/params/-", json!({"name": "p", "value": value})),
            (RUN, "/spec/pipelineRef/params/-", json!({"name": name, "value": list})),
        ];
        let run = wrap(&changes).unwrap().unwrap().run;
        let restore = &run["spec"]["pipelineSpec"]["tasks"][1]["taskSpec"]["steps"][0];
        let variable =
            restore["env"].as_array().unwrap().iter().find(|variable| variable["name"] == "TEKTON_WRAP_STEP");
        let config: Value = serde_json::from_str(variable.unwrap()["value"].as_str().unwrap()).unwrap();
        assert_eq!(json!([config["workspaces"][0]["paths"], config["conflictRules"]]), told, "{name}: {list}");
    }
}

/// A tag may be as long as the names in it make it, a repository's name may not.
#[test]
fn long_names_of_runs() {
    let target = |target: &str, prefix: usize| {
        let metadata = json!({"generateName": "r".repeat(prefix)});
        wrap(&[(RUN, "/spec/pipelineRef/params/2/value", json!(target)), (RUN, "/metadata", metadata)])
    };
    assert!(
        target("quay.io/me/x:$(context.pipelineRun.uid)-$(context.pipelineRun.uid)-$(context.pipelineRun.name)", 60)
            .is_ok()
    );
    let path = "p".repeat(190);
    assert!(target(&format!("quay.io/{path}/$(context.pipelineRun.name)"), 58).is_ok());
    let error = target(&format!("quay.io/{path}/p/$(context.pipelineRun.name)"), 253).unwrap_err().to_string();
    assert!(error.contains("has 256 characters, more than the 255"), "{error}");
    // A uid has 36 characters, whatever the namespace's name is.
    let path = "p".repeat(218);
    assert!(target(&format!("quay.io/{path}/$(context.pipelineRun.uid)"), 1).is_ok());
    let error = target(&format!("quay.io/{path}p/$(context.pipelineRun.uid)"), 1).unwrap_err().to_string();
    assert!(error.contains("has 256 characters, more than the 255"), "{error}");
}

/// What only the rewrite may say about where a run came from is not taken over from anyone else.
#[test]
fn forged_provenance_is_replaced() {
    let forged = json!({"annotations": {
        "tekton-wrap.dev/pipeline": "other", "tekton-wrap.dev/pipeline-source": "other",
        "tekton-wrap.dev/task-ref": "other", "tekton-wrap.dev/task-source": "other",
    }});
    let named = |name: &str| {
        let mut metadata = forged.clone();
        metadata["name"] = json!(name);
        metadata
    };
    let changes = [
        (RUN, "/metadata", forged.clone()),
        (PIPELINE, "/metadata", named("p")),
        (PIPELINE, "/spec/tasks/0/taskSpec/metadata", forged.clone()),
        (TASK, "/metadata", named("t")),
    ];
    let run = wrap(&changes).unwrap().unwrap().run;
    assert_eq!(run["metadata"]["annotations"]["tekton-wrap.dev/pipeline"], "p");
    assert!(!run.to_string().contains("other"), "{run:#}");
}

#[test]
fn the_run_without_a_change_is_wrapped() {
    assert!(wrap(&[]).unwrap().is_some());
}

#[test]
fn other_runs_are_left_alone() {
    for (pointer, value) in [
        ("/spec/pipelineRef", Value::Null),
        ("/spec/pipelineRef", json!({"name": "p"})),
        ("/spec/pipelineRef/resolver", json!("git")),
        ("/spec/pipelineRef/resolver", json!("wrapper")),
        ("/spec/pipelineRef/resolver", json!("Wrap")),
    ] {
        assert!(wrap(&[(RUN, pointer, value)]).unwrap().is_none(), "{pointer}");
    }
}

/// What is near to something that is refused.
#[test]
fn wrapped_all_the_same() {
    let two = |fields: Value| {
        let mut task = json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}]});
        task.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        (PIPELINE, "/spec/tasks/1", task)
    };
    let matrix = |first: usize, second: usize| {
        let params =
            [("a", first), ("b", second)].map(|(name, count)| json!({"name": name, "value": vec!["v"; count]}));
        let spec = json!({"params": [{"name": "a"}, {"name": "b"}], "workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i"}]});
        two(json!({"matrix": {"params": params}, "taskSpec": spec}))
    };
    let step = json!({"name": "s", "image": "i", "command": ["make"], "workingDir": "$(workspaces.w.path)/src"});
    for (case, change) in [
        ("a param that is blank", (RUN, "/spec/pipelineRef/params/-", json!({"name": "expires", "value": " "}))),
        (
            "a resolver with Tekton's own version",
            two(
                json!({"taskRef": {"apiVersion": "tekton.dev/v1", "resolver": "hub", "params": [{"name": "name", "value": "t"}]}}),
            ),
        ),
        (
            "root, who can still change a directory's owner",
            two(json!({"taskSpec": {"workspaces": [{"name": "w"}], "steps": [step]}})),
        ),
        ("as many TaskRuns as may be", matrix(99, 101)),
    ] {
        if let Err(refusal) = wrap(std::slice::from_ref(&change)) {
            panic!("{case}: {refusal}");
        }
    }
    let refusal = wrap(&[matrix(100, 100)]).unwrap_err().to_string();
    assert!(refusal.contains("makes 10001 TaskRuns, more than the 10000"), "{refusal}");
}

/// Wherever the time runs out, the rewrite ends.
#[test]
fn out_of_time() {
    use std::{cell::Cell, collections::HashMap};
    use tekton_wrap::{
        source::{Found, OptInBy},
        tekton::{reference::Reference, run::Run},
        wrap::{self, OptIn},
    };
    let objects = tekton_wrap::yaml::parse(WORKS).unwrap().remove(0);
    let run = Run::new(&objects[RUN]);
    let request = OptIn::read(run, "ns", OptInBy::Run).unwrap().unwrap().request(&[], &objects[PIPELINE]).unwrap();
    let tasks = HashMap::from([(Reference::Name("t".to_owned()), Found::by_name(objects[TASK].clone()))]);
    let pipeline = Found::by_name(objects[PIPELINE].clone());
    // Asked so often, it says once that it is late.
    let rewrite = |late_at: usize| {
        let asked = Cell::new(0);
        let is_late = || asked.replace(asked.get() + 1) == late_at;
        let result =
            wrap::rewrite(run, "ns", request.as_ref().unwrap(), &pipeline, &tasks, &Settings::new("i"), &is_late);
        (result.map(drop), asked.get())
    };
    let (result, asked) = rewrite(usize::MAX);
    result.unwrap();
    // Twice for each of the two tasks, at least.
    assert!(asked >= 4, "{asked}");
    for late_at in 0..asked {
        assert_eq!(rewrite(late_at).0.unwrap_err().reason(), "RewriteTooLong", "asked {late_at} times before");
    }
}

#[test]
fn refused_with_a_sentence() {
    let param = |name: &str, value: Value| json!({"name": name, "value": value});
    let params = "/spec/pipelineRef/params";
    let add = "/spec/pipelineRef/params/-";
    let target = "/spec/pipelineRef/params/2/value";
    let workspaces = "/spec/pipelineRef/params/1/value";
    let pipelineref = "/spec/pipelineRef/params/0/value";
    let two = "/spec/tasks/1";
    for (object, pointer, value, sentence) in [
        // Params.
        (
            RUN,
            params,
            json!([{"name": "pipelineref", "value": "p"}]),
            r#"param "target" of resolver wrap is missing: name where the workspaces go, for example quay.io/me/ci:$(context.pipelineRun.name)-{{workspace}}"#,
        ),
        (
            RUN,
            "/spec/pipelineRef/params/0",
            Value::Null,
            r#"param "pipelineref" of resolver wrap is missing: name the pipeline to run"#,
        ),
        (
            RUN,
            "/spec/pipelineRef/params/1",
            Value::Null,
            r#"param "workspaces" of resolver wrap is missing: name the pipeline's workspaces to wrap, separated by commas"#,
        ),
        (
            RUN,
            workspaces,
            json!(" , "),
            r#"param "workspaces" of resolver wrap is missing: name the pipeline's workspaces to wrap, separated by commas"#,
        ),
        (
            RUN,
            workspaces,
            json!("w,w$"),
            r#"param "target" of resolver wrap: "quay.io/me/w$:v1" is not an image reference: the repository "me/w$" may hold only lower-case letters and digits, separated by '.', '_', '-' or '/'"#,
        ),
        (RUN, add, param("targt", json!("x")), r#"resolver wrap has no param "targt": did you mean "target"?"#),
        (
            RUN,
            add,
            param("pipelineRef", json!("x")),
            r#"resolver wrap has no param "pipelineRef": did you mean "pipelineref"?"#,
        ),
        (
            RUN,
            add,
            param("url", json!("x")),
            r#"resolver wrap has no param "url": it has "pipelineref", "workspaces", "target", "base", "wrapper", "conflict", "failed", "expires", "target-expires", "keep", "compression", "size", "paths", "cache", "credentials", "mirror", "insecure", "ca", "retry-for", "endpoint", "region""#,
        ),
        (
            RUN,
            add,
            param("region", json!("eu.evil.example/#")),
            r#"param "region" of resolver wrap: "eu.evil.example/#" is not a region such as eu-west-1"#,
        ),
        (
            RUN,
            add,
            param("mirror", json!("https://user:pw@mirror.tools.svc")),
            r#"param "mirror" of resolver wrap: "https://***@mirror.tools.svc": it has to be [http://]host[:port][/prefix]"#,
        ),
        (
            RUN,
            add,
            param("retry-for", json!("5 minutes")),
            r#"param "retry-for" of resolver wrap: it has to be a number with s, m, h, d or w behind it, for example 90s, 5m or 7d"#,
        ),
        (RUN, add, param("target", json!("x")), r#"param "target" of resolver wrap is given twice: keep one"#),
        (RUN, add, param("base", json!(["x"])), r#"param "base" of resolver wrap: it must be a string"#),
        (
            RUN,
            add,
            param("conflict", json!("first")),
            r#"param "conflict" of resolver wrap: "first" is not one of "fail", "last", nor a rule such as **/*.log=last"#,
        ),
        (
            RUN,
            add,
            param("compression", json!("xz")),
            r#"param "compression" of resolver wrap: "xz" is not one of "zstd", "gzip", "none""#,
        ),
        (
            RUN,
            add,
            param("failed", json!("keep")),
            r#"param "failed" of resolver wrap: "keep" is not one of "discard", "save""#,
        ),
        (
            RUN,
            add,
            param("paths", json!("src/**, one=*.toml")),
            r#"param "paths" of resolver wrap: "src/**" is of no task: write TASK=src/**"#,
        ),
        (
            RUN,
            add,
            param("paths", json!("one=src/**, three=*.toml")),
            r#"param "paths" of resolver wrap: "three" is not a task of the pipeline"#,
        ),
        (
            RUN,
            add,
            param("paths", json!(["one/v=src/**"])),
            r#"param "paths" of resolver wrap: "v" is not a workspace that is wrapped"#,
        ),
        (
            RUN,
            add,
            param("paths", json!("one=!src/**")),
            r#"param "paths" of resolver wrap: "!src/**" is not a pattern as in .gitignore: one that begins with ! takes others back, and there are none"#,
        ),
        (
            TASK,
            "/metadata",
            json!({"name": "t", "annotations": {"tekton-wrap.dev/paths": "src/**,#"}}),
            r##"task "two" uses the wrapped workspace "w", but its annotation "tekton-wrap.dev/paths" can't be used: "#" is not a pattern as in .gitignore: it is empty or a comment"##,
        ),
        (
            RUN,
            add,
            param("expires", json!("soon")),
            r#"param "expires" of resolver wrap: "soon" is not a duration such as 12h, 7d or 2w"#,
        ),
        (
            RUN,
            add,
            param("target-expires", json!("7 d")),
            r#"param "target-expires" of resolver wrap: "7 d" is not a duration such as 12h, 7d or 2w"#,
        ),
        (
            RUN,
            add,
            param("keep", json!("snapshots")),
            r#"param "keep" of resolver wrap: "snapshots" is not one of "target", "all", "none""#,
        ),
        (
            RUN,
            add,
            param("wrapper", json!("s3")),
            r#"param "wrapper" of resolver wrap: "s3" does not agree with the target "quay.io/me/{{workspace}}:v1", which is of kind "oci""#,
        ),
        (
            RUN,
            "/spec/pipelineRef/resolver",
            json!("wrap.cache"),
            r#"resolver "wrap.cache" is not supported: use resolver wrap with param "cache", such as "w=SOURCES/**/go.sum", where SOURCES is the workspace that has the files, and wrap that one too"#,
        ),
        (
            RUN,
            add,
            param("wrapper", json!("cache")),
            r#"param "wrapper" of resolver wrap: there is no kind "cache": use resolver wrap with param "cache""#,
        ),
        (
            RUN,
            add,
            param("files", json!("**/go.sum")),
            r#"resolver wrap has no param "files": the files of a cache are in param "cache", such as cache=sources/**/go.sum"#,
        ),
        (
            RUN,
            "/spec/pipelineRef/resolver",
            json!("wrap.rsync"),
            r#"param "wrapper" of resolver wrap: "rsync" does not agree with the target "quay.io/me/{{workspace}}:v1", which is of kind "oci""#,
        ),
        (
            RUN,
            add,
            param("base", json!("Quay.io/Me")),
            r#"param "base" of resolver wrap: "Quay.io/Me" is not an image reference: the repository "Me" may hold only lower-case letters and digits, separated by '.', '_', '-' or '/'"#,
        ),
        (
            RUN,
            target,
            json!("not an image"),
            r#"param "target" of resolver wrap: "not an image" is not an image reference: the repository "not an image" may hold only lower-case letters and digits, separated by '.', '_', '-' or '/'"#,
        ),
        (
            RUN,
            target,
            json!("azblob://container/x"),
            r#"param "target" of resolver wrap: "azblob://container/x" has the scheme azblob://, which is not supported; use a registry (quay.io/me/image:tag), s3://bucket/prefix, gs://bucket/prefix, rsync://host/module/path, rsync+ssh://user@host/path or dir:///path"#,
        ),
        (
            RUN,
            target,
            json!("rsync://host/ci/x"),
            "rsync:// and rsync+ssh:// take an image of the injected steps with the program rsync, and the one of this cluster has none: its operator has to install one that images/build --with rsync made",
        ),
        (
            RUN,
            add,
            param("base", json!("rsync://host/ci/x")),
            "rsync:// and rsync+ssh:// take an image of the injected steps with the program rsync, and the one of this cluster has none: its operator has to install one that images/build --with rsync made",
        ),
        (
            RUN,
            target,
            json!("rsync+ssh://me@host/ci/x"),
            r#"param "credentials" of resolver wrap is missing: rsync+ssh:// takes a Secret with a private key and known_hosts, name it"#,
        ),
        (
            RUN,
            target,
            json!("rsync://host"),
            r#"param "target" of resolver wrap: "rsync://host" is not a place for rsync: it names no module: write rsync://host/module/path:tag"#,
        ),
        (
            RUN,
            target,
            json!("rsync://-e/ci/x"),
            r#"param "target" of resolver wrap: "rsync://-e/ci/x" is not a place for rsync: "-e" is not a host's name"#,
        ),
        (
            RUN,
            target,
            json!("rsync+ssh://me:secret@host/ci/x"),
            r#"param "target" of resolver wrap: "rsync+ssh://***@host/ci/x" is not a place for rsync: a password has no place in it: it belongs into the Secret of the param "credentials""#,
        ),
        (
            RUN,
            target,
            json!("s3://Bucket/x"),
            r#"param "target" of resolver wrap: "s3://Bucket/x" is not a place in a bucket: the bucket "Bucket" may hold only lower-case letters, digits, '.', '_' and '-', 3 to 63 of them, with a letter or digit at both ends"#,
        ),
        (
            RUN,
            target,
            json!("s3://bucket/a//x"),
            r#"param "target" of resolver wrap: "s3://bucket/a//x" is not a place in a bucket: the prefix "a//x" may hold only letters, digits and !-_.*'()=+,@ in parts that are separated by one '/' and are neither '.' nor '..'"#,
        ),
        (
            RUN,
            target,
            json!("s3://bucket/x?region=eu-west-1"),
            r#"param "target" of resolver wrap: "s3://bucket/x?***" is not a place in a bucket: it has a query; the region and the endpoint are params"#,
        ),
        (
            RUN,
            target,
            json!("quay.io/me/x:$(params.none)"),
            r#"param "target" of resolver wrap: $(params.none) is not a param that the run gives as a string; $(params.x) of the run and $(context.pipelineRun.name|namespace|uid) can be used"#,
        ),
        (
            RUN,
            target,
            json!("quay.io/me/x:$(tasks.one.results.r)"),
            r#"param "target" of resolver wrap: $(tasks.one.results.r) is not a param that the run gives as a string; $(params.x) of the run and $(context.pipelineRun.name|namespace|uid) can be used"#,
        ),
        (
            RUN,
            pipelineref,
            json!("$(context.pipelineRun.name)"),
            r#"param "pipelineref" of resolver wrap: $(context.pipelineRun.name) has no value when the run is created: only the run's own params and its namespace have"#,
        ),
        (
            RUN,
            pipelineref,
            json!("a b"),
            r#"param "pipelineref" of resolver wrap: "a b" is not the name of a pipeline"#,
        ),
        (
            RUN,
            "/spec/pipelineRef/name",
            json!("p"),
            r#"pipelineRef has a name ("p") beside its resolver wrap: name the pipeline in param "pipelineref" alone"#,
        ),
        (RUN, pipelineref, json!(" "), r#"param "pipelineref" of resolver wrap is missing: name the pipeline to run"#),
        (RUN, pipelineref, json!("{a"), r#"param "pipelineref" of resolver wrap: "{a" is not the name of a pipeline"#),
        (
            RUN,
            pipelineref,
            json!("name: p\nresolver: ["),
            r#"param "pipelineref" of resolver wrap: it is neither a name nor YAML: line 2: unclosed bracket '['"#,
        ),
        (
            RUN,
            pipelineref,
            json!("name: p\n---\nname: q"),
            r#"param "pipelineref" of resolver wrap: it has several YAML documents: keep one"#,
        ),
        (
            RUN,
            add,
            param("expires", json!("$(context.pipelineRun.name)")),
            r#"param "expires" of resolver wrap: $(context.pipelineRun.name) is not known when a run is created, only in target, base and cache"#,
        ),
        (
            RUN,
            target,
            json!(format!("quay.io/{}", "x".repeat(8200))),
            r#"param "target" of resolver wrap has 8208 bytes, more than the 8192 that can be wrapped: make it smaller, or split the pipeline"#,
        ),
        (
            RUN,
            add,
            param("size", json!("x=5Gi")),
            r#"param "size" of resolver wrap: "x" is not a workspace that is wrapped"#,
        ),
        // What the heads of `paths` may be.
        (
            RUN,
            add,
            param("paths", json!("t-1=src/**")),
            r#"param "paths" of resolver wrap: "t-1" is not a task of the pipeline"#,
        ),
        (
            RUN,
            add,
            param("paths", json!("=src/**")),
            r#"param "paths" of resolver wrap: "=src/**" is of no task: write TASK==src/**"#,
        ),
        (
            RUN,
            add,
            param("paths", json!("One=src/**")),
            r#"param "paths" of resolver wrap: "One=src/**" is of no task: write TASK=One=src/**"#,
        ),
        (
            RUN,
            add,
            param("paths", json!("one/=src/**")),
            r#"param "paths" of resolver wrap: "one/=src/**" is of no task: write TASK=one/=src/**"#,
        ),
        (
            RUN,
            "/spec/workspaces",
            json!([{"name": "w", "volumeClaimTemplate": {"spec": {}}}]),
            r#"workspace "w" is wrapped, but the run binds it to volumeClaimTemplate: remove the binding (or bind emptyDir), or leave "w" out of those to wrap"#,
        ),
        // What the params name.
        (
            RUN,
            pipelineref,
            json!("nope"),
            r#"pipeline "nope" was not found in namespace "ns": create it first, or correct param "pipelineref""#,
        ),
        (
            RUN,
            workspaces,
            json!("x"),
            r#"workspace "x", which the run asks to wrap, is not declared by pipeline "p", which declares "w", "v""#,
        ),
        (
            PIPELINE,
            "/spec/workspaces",
            Value::Null,
            r#"workspace "w", which the run asks to wrap, is not declared by pipeline "p", which declares none"#,
        ),
        (PIPELINE, "/spec/tasks", Value::Null, r#"pipeline "p" has no tasks: it can't be run"#),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef/name",
            json!("gone"),
            r#"task "gone", which pipeline "p" refers to, was not found in namespace "ns": create it first"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/0/runAfter",
            json!(["two"]),
            r#"pipeline "p" can't be run: cycle detected; task "one" depends on "two""#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/runAfter",
            json!(["three"]),
            r#"pipeline "p" can't be run: task two depends on three but three wasn't present in Pipeline"#,
        ),
        (TASK, "/spec/steps", json!([]), r#"task "two" has no steps: it can't be run"#),
        (
            RUN,
            "/spec/workspaces",
            json!([{"name": "w", "persistentVolumeClaim": {"claimName": "c"}}]),
            r#"workspace "w" is wrapped, but the run binds it to persistentVolumeClaim: remove the binding (or bind emptyDir), or leave "w" out of those to wrap"#,
        ),
        // Tasks that can't use a wrapped workspace.
        (
            PIPELINE,
            two,
            json!({"name": "two", "workspaces": [{"name": "w"}], "taskRef": {"apiVersion": "example.dev/v1", "kind": "Wait", "name": "x"}}),
            r#"task "two" uses the wrapped workspace "w", but it refers to "example.dev/v1" kind "Wait", a custom task, which has no steps: remove the workspace from it"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"apiVersion": "tekton.dev/v1", "kind": "Task", "name": "two"}),
            r#"task "two" uses the wrapped workspace "w", but its taskRef has the apiVersion "tekton.dev/v1", which makes it a custom task for Tekton (tektoncd/pipeline#6457): leave it out"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"apiVersion": "tekton.dev/v1beta1", "name": "two"}),
            r#"task "two" uses the wrapped workspace "w", but its taskRef has the apiVersion "tekton.dev/v1beta1", which makes it a custom task for Tekton (tektoncd/pipeline#6457): leave it out"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"kind": "ClusterTask", "name": "two"}),
            r#"task "two" uses the wrapped workspace "w", but its taskRef has the kind "ClusterTask", which Tekton no longer has: use the resolver "cluster""#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"kind": "Job", "name": "two"}),
            r#"task "two" uses the wrapped workspace "w", but its taskRef has the kind "Job", which Tekton does not know: leave it out"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "workspaces": [{"name": "w"}], "pipelineSpec": {}}),
            r#"task "two" uses the wrapped workspace "w", but it is a pipeline in a pipeline, whose run gets a volume of its own: wrap the inner pipeline instead"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}], "taskSpec": {
                "workspaces": [{"name": "w", "readOnly": true}],
                "steps": [{"name": "s", "image": "i", "command": ["make"], "workingDir": "$(workspaces.w.path)/src"}],
            }}),
            r#"task "two" uses the wrapped workspace "w", but step "s" has the workingDir "$(workspaces.w.path)/src" below it, which can't be created before the files are restored, because the task mounts it readOnly: change directory in a shell script instead"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}], "taskSpec": {
                "stepTemplate": {"workingDir": "w/src", "securityContext": {"runAsNonRoot": true}},
                "workspaces": [{"name": "w"}],
                "steps": [{"name": "s", "image": "i", "command": ["make"]}],
            }}),
            r#"task "two" uses the wrapped workspace "w", but step "s" has the workingDir "w/src" below it, which can't be created before the files are restored, because the task does not run as root: change directory in a shell script instead"#,
        ),
        (
            TASK,
            "/spec/workspaces/0/mountPath",
            json!("/tekton-wrap/"),
            r#"task "two" uses the wrapped workspace "w", but it mounts "/tekton-wrap/", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            TASK,
            "/spec/stepTemplate",
            json!({"volumeMounts": [{"name": "v", "mountPath": "/tekton-wrap2"}, {"name": "v", "mountpath": "/tekton-wrap/bin"}]}),
            r#"task "two" uses the wrapped workspace "w", but it mounts "/tekton-wrap/bin", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}], "taskSpec": {
                "workspaces": [{"name": "w"}],
                "steps": [
                    {"name": "a", "image": "i", "workspaces": [{"name": "w", "mountPath": "/own"}], "securityContext": {"runAsUser": 5},
                     "command": ["make"], "workingDir": "/own/src"},
                ],
            }}),
            r#"task "two" uses the wrapped workspace "w", but step "a" has the workingDir "/own/src" below it, which can't be created before the files are restored, because the task does not run as root: change directory in a shell script instead"#,
        ),
        (
            TASK,
            "/spec/steps/0/script",
            json!("#!win powershell.exe"),
            r#"task "two" uses the wrapped workspace "w", but it runs on Windows, where the injected steps can't run: remove the workspace from it"#,
        ),
        (
            RUN,
            "/spec/taskRunTemplate",
            json!({"podTemplate": {"nodeSelector": {"kubernetes.io/os": "windows"}}}),
            r#"task "one" uses the wrapped workspace "w", but it runs on Windows, where the injected steps can't run: remove the workspace from it"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "workspaces": [{"name": "w"}]}),
            r#"task "two" uses the wrapped workspace "w", but it has neither taskRef nor taskSpec: add one"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef/name",
            json!("A b"),
            r#"task "two" uses the wrapped workspace "w", but its taskRef names "A b", which is not the name of a Task"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"name": "t", "apiVersion": "example.dev/v1", "kind": "Task"}),
            r#"task "two" uses the wrapped workspace "w", but it refers to "example.dev/v1" kind "Task", a custom task, which has no steps: remove the workspace from it"#,
        ),
        // What would give a value more meaning than a value has.
        (
            RUN,
            "/spec/params",
            json!([{"name": "tag", "value": "x/$(tasks.one.results.r)"}]),
            r#"param "target" of resolver wrap: the value "quay.io/me/{{workspace}}:x/$(tasks.one.results.r)" has "$(tasks.one.results.r)" in it, which would be taken for a variable: change the run's param"#,
        ),
        (
            RUN,
            "/spec/params",
            json!([{"name": "tag", "value": "$(context.pipelineRun.labels)"}]),
            r#"param "target" of resolver wrap: the value "quay.io/me/{{workspace}}:$(context.pipelineRun.labels)" has "$(context.pipelineRun.labels)" in it, which would be taken for a variable: change the run's param"#,
        ),
        (
            RUN,
            "/spec/params",
            json!([{"name": "tag", "value": "$(context.run.name)"}]),
            r#"param "target" of resolver wrap: the value "quay.io/me/{{workspace}}:$(context.run.name)" has "$(context.run.name)" in it, which would be taken for a variable: change the run's param"#,
        ),
        (
            RUN,
            "/spec/pipelineSpec",
            json!({"tasks": []}),
            "spec has a pipelineSpec beside the pipelineRef with resolver wrap: keep one of them",
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}], "taskSpec": {
                "workspaces": [{"name": "w", "mountPath": "//tekton-wrap/x/.."}], "steps": [{"name": "s", "image": "i"}],
            }}),
            r#"task "two" uses the wrapped workspace "w", but it mounts "//tekton-wrap/x/..", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "params": [{"name": "m", "value": "/x/../tekton-wrap/state"}],
                "taskSpec": {"params": [{"name": "m"}], "workspaces": [{"name": "w", "mountPath": "$(params.m)"}],
                    "steps": [{"name": "s", "image": "i"}]},
            }),
            r#"task "two" uses the wrapped workspace "w", but it mounts "$(params.m)", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"workspaces": [{"name": "w"}], "steps": [
                    {"name": "s", "image": "i", "volumeMounts": [{"name": "$(tasks.one.results.r)", "mountPath": "/m"}]},
                ]},
            }),
            r#"task "two" uses the wrapped workspace "w", but it mounts the volume "$(tasks.one.results.r)", whose name has no value when the run is created: write the name, or use a param"#,
        ),
        // Names and paths in the older spelling of params, and of what only the run decides.
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"params": [{"name": "m", "default": "/tekton-wrap"}],
                    "workspaces": [{"name": "w", "mountPath": "$(inputs.params.m)"}], "steps": [{"name": "s", "image": "i"}]},
            }),
            r#"task "two" uses the wrapped workspace "w", but it mounts "$(inputs.params.m)", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"workspaces": [{"name": "w"}],
                    "stepTemplate": {"volumeMounts": [{"name": "v", "mountPath": "/$(context.taskRun.name)/bin"}]},
                    "steps": [{"name": "s", "image": "i"}]},
            }),
            r#"task "two" uses the wrapped workspace "w", but it mounts "/$(context.taskRun.name)/bin", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"workspaces": [{"name": "w"}],
                    "stepTemplate": {"volumeMounts": [{"name": "v", "mountPath": "/"}]},
                    "steps": [{"name": "s", "image": "i"}]},
            }),
            r#"task "two" uses the wrapped workspace "w", but it mounts "/", and the injected steps need /tekton-wrap: choose another mountPath"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"workspaces": [{"name": "w"}], "steps": [
                    {"name": "s", "image": "i", "volumeMounts": [{"name": "tekton-$(context.taskRun.name)", "mountPath": "/m"}]},
                ]},
            }),
            r#"task "two" uses the wrapped workspace "w", but it mounts the volume "tekton-$(context.taskRun.name)", whose name has no value when the run is created: write the name, or use a param"#,
        ),
        // What Tekton reads differently than it is written.
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"workspaces": [{"name": "w"}], "steps": [
                    {"name": "s", "image": "i", "volumeMounts": [{"name": "tekton-wrap-state", "mountPath": "/m"}], "VolumeMounts": []},
                ]},
            }),
            r#"pipeline "p" has the field "volumeMounts" in several spellings, or with letters that Tekton takes for others: write each field once, as Tekton's documentation has it"#,
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "taskSpec": {"workspaces": [{"name": "w"}], "\u{17f}tepTemplate": {"securityContext": {"privileged": true}},
                    "steps": [{"name": "s", "image": "i"}]},
            }),
            "pipeline \"p\" has the field \"\u{17f}tepTemplate\" in several spellings, or with letters that Tekton takes for others: write each field once, as Tekton's documentation has it",
        ),
        (
            TASK,
            "/spec/wor\u{212a}spaces",
            json!([]),
            "task \"two\", with Task \"t\", has the field \"wor\u{212a}spaces\" in several spellings, or with letters that Tekton takes for others: write each field once, as Tekton's documentation has it",
        ),
        (
            PIPELINE,
            two,
            json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}],
                "matrix": {"params": (0..5).map(|p| json!({"name": format!("p{p}"), "value": vec!["v"; 100]})).collect::<Vec<_>>()},
                "taskSpec": {"workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i"}]},
            }),
            r#"pipeline "p" makes 4294967296 TaskRuns, more than the 10000 that can be wrapped: make its matrices smaller"#,
        ),
        // References through resolvers.
        (
            RUN,
            pipelineref,
            json!("{resolver: wrap, params: []}"),
            r#"param "pipelineref" of resolver wrap: it names the resolver wrap itself: name the pipeline, or the resolver that brings it"#,
        ),
        (
            RUN,
            pipelineref,
            json!("name: p\nbundle: quay.io/me/b"),
            r#"param "pipelineref" of resolver wrap: it has a bundle, which Tekton no longer has: use the resolver "bundles""#,
        ),
        (
            RUN,
            pipelineref,
            json!("{name: p, kind: Pipeline}"),
            r#"param "pipelineref" of resolver wrap: it has a field "kind", which Tekton does not know: it takes name, or resolver and params"#,
        ),
        (
            RUN,
            pipelineref,
            json!("{resolver: git, params: [{name: url, value: $(params.no)}]}"),
            r#"param "pipelineref" of resolver wrap: $(params.no) has no value when the run is created: only the run's own params and its namespace have"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"resolver": "git", "params": [{"name": "url", "value": "$(tasks.one.results.url)"}]}),
            r#"task "two" uses the wrapped workspace "w", but its taskRef needs $(tasks.one.results.url), which has no value when the run is created: write the value, or use a param"#,
        ),
        (
            PIPELINE,
            "/spec/tasks/1/taskRef",
            json!({"resolver": "git", "name": "t"}),
            r#"task "two" uses the wrapped workspace "w", but its taskRef has a name ("t") beside the resolver "git": keep one of them"#,
        ),
    ] {
        match wrap(&[(object, pointer, value.clone())]) {
            Err(refusal) => assert_eq!(refusal.to_string(), sentence, "{pointer} = {value}"),
            Ok(_) => panic!("not refused: {pointer} = {value}"),
        }
    }
}

#[test]
fn two_workspaces_need_the_placeholder() {
    let changes = [
        (RUN, "/spec/pipelineRef/params/1/value", json!("w,v")),
        (RUN, "/spec/pipelineRef/params/2/value", json!("quay.io/me/x")),
    ];
    let message = wrap(&changes).unwrap_err().to_string();
    assert_eq!(
        message,
        r#"param "target" of resolver wrap: "quay.io/me/x" must contain {{workspace}}, since more than one workspace is wrapped"#
    );
}

#[test]
fn a_run_that_etcd_would_not_take() {
    let script = "x".repeat(700 * 1024);
    for pointer in [(TASK, "/spec/steps/0/script"), (PIPELINE, "/spec/tasks/0/taskSpec/steps/0/script")] {
        let message = wrap(&[(pointer.0, pointer.1, json!(script))]).unwrap_err().to_string();
        assert!(message.starts_with(r#"the wrapped form of pipeline "p" has 7"#), "{message}");
    }
}

/// Each wrapped workspace that has no use, and whatever came through a resolver.
#[test]
fn warnings() {
    let warned = |changes: &[(usize, &str, Value)]| wrap(changes).unwrap().unwrap().warnings;
    assert_eq!(warned(&[]), [""; 0]);
    let both = (RUN, "/spec/pipelineRef/params/1/value", json!("w,v"));
    assert_eq!(warned(&[both]), [r#"workspace "v" is wrapped, but no task uses it"#]);
    let hub = |name: &str| json!({"resolver": "hub", "params": [{"name": "name", "value": name}]});
    let through = [
        (PIPELINE, "/spec/tasks/1/taskRef", hub("t")),
        (RUN, "/spec/pipelineRef/params/0/value", json!(hub("p").to_string())),
    ];
    assert_eq!(
        warned(&through),
        [
            r#"spec.pipelineSpec has the pipeline through resolver "hub" (name=p) in it"#,
            r#"spec.pipelineSpec has the task through resolver "hub" (name=t) in it"#,
        ]
    );
}

/// What `render -o mermaid` and the like draw.
#[test]
fn notes_name_what_a_task_waits_for() {
    let last = json!([{"name": "end", "workspaces": [{"name": "w"}], "taskRef": {"name": "t"}}]);
    let notes = wrap(&[(PIPELINE, "/spec/finally", last)]).unwrap().unwrap().explanation.notes();
    let waits: Vec<_> = notes.iter().map(|note| (&*note.task, note.dependencies.join(","), note.finally)).collect();
    assert_eq!(waits, [("one", String::new(), false), ("two", "one".to_owned(), false), ("end", String::new(), true)]);
}

/// Of a workspace that a task uses only in a text the injected steps need a mount: it is declared, once.
#[test]
fn what_is_used_in_a_text_alone_is_declared() {
    for declared in [json!([]), json!([{"name": "w"}]), json!([{"name": "other", "optional": true}])] {
        let spec = json!({"workspaces": declared, "steps": [{"name": "s", "image": "i", "script": "ls $(workspaces.w.path)"}]});
        let two = json!({"name": "two", "runAfter": ["one"], "taskSpec": spec});
        let run = wrap(&[(PIPELINE, "/spec/tasks/1", two)]).unwrap().unwrap().run;
        let task = &run["spec"]["pipelineSpec"]["tasks"][1];
        assert_eq!(task["workspaces"], json!([{"name": "w"}]));
        let names = task["taskSpec"]["workspaces"].as_array().unwrap().iter().map(|one| one["name"].as_str().unwrap());
        assert_eq!(names.filter(|name| *name == "w").count(), 1, "{declared}");
    }
}

/// Of two params with one name the later one is renamed, but not in `finally`, of which Tekton's admission makes no copy.
#[test]
fn a_finally_task_keeps_its_params() {
    let task = |name: &str, kind: &str| {
        let spec = json!({"params": [{"name": "x", "type": kind}], "workspaces": [{"name": "w"}], "steps": [{"name": "s", "image": "i"}]});
        let value = if kind == "array" { json!(["a"]) } else { json!("a") };
        json!({"name": name, "workspaces": [{"name": "w"}], "params": [{"name": "x", "value": value}], "taskSpec": spec})
    };
    let changes = [
        (PIPELINE, "/spec/tasks", json!([task("one", "array"), task("two", "string")])),
        (PIPELINE, "/spec/finally", json!([task("end", "string")])),
    ];
    let run = wrap(&changes).unwrap().unwrap().run;
    let param = |list: &str, place: usize| &run["spec"]["pipelineSpec"][list][place]["taskSpec"]["params"][0]["name"];
    assert_eq!(param("tasks", 0), "x");
    assert_ne!(param("tasks", 1), "x");
    assert_eq!(param("finally", 0), "x");
}

/// With an image that has it, and with the Secret where it needs one.
#[test]
fn rsync_where_the_image_has_it() {
    let settings = Settings { has_rsync: true, ..Settings::new("i") };
    for (target, wrapper, credentials) in
        [("rsync://host/ci/x", "wrap", None), ("rsync+ssh://me@host/ci/x", "wrap.rsync", Some("s"))]
    {
        let mut objects = tekton_wrap::yaml::parse(WORKS).unwrap().remove(0);
        let reference = &mut objects[RUN]["spec"]["pipelineRef"];
        reference["resolver"] = json!(wrapper);
        reference["params"][2]["value"] = json!(target);
        let params = reference["params"].as_array_mut().unwrap();
        params.extend(credentials.map(|secret| json!({"name": "credentials", "value": secret})));
        let mut all = FileObjects::default();
        all.add(&json!({"kind": "List", "items": objects}).to_string()).unwrap();
        let wrapped = wrap_objects("ns".into(), &all, &settings).unwrap().unwrap().run;
        // The first task restores nothing, and has a folder for files on their way all the same.
        let spec = &wrapped["spec"]["pipelineSpec"]["tasks"][0]["taskSpec"];
        let volumes: Vec<_> = spec["volumes"].as_array().unwrap().iter().map(|volume| &volume["name"]).collect();
        assert_eq!(volumes[0], "tekton-wrap-state");
        let save = &spec["steps"][1];
        let env = save["env"].as_array().unwrap();
        assert!(env.contains(&json!({"name": "TMPDIR", "value": tekton_wrap::step::STATE_DIR})), "{env:?}");
        assert!(save["volumeMounts"].to_string().contains(tekton_wrap::step::STATE_DIR));
    }
}

/// The example with resolvers: its pipeline stands for the one in the repository, what only a cluster has is named.
#[test]
fn files_have_no_resolvers() {
    let wrap = |text: &str| {
        let mut objects = FileObjects::default();
        objects.add(text).unwrap();
        let run = objects.runs().next().unwrap().clone();
        let settings = Settings::new("tekton-wrap:v1");
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(wrap_run(&objects, &run, "default", &settings)).map(Option::unwrap)
    };
    let text = std::fs::read_to_string("examples/resolvers.yaml").unwrap();
    assert_eq!(
        wrap(&text).unwrap_err().to_string(),
        r#"the task through resolver "hub" (type=artifact, kind=task, name=git-clone, version=0.9.0) can only be read in a cluster: add it to the files, under the name that the resolver is asked for"#
    );
    let start = text.find("      value: |").unwrap();
    let end = text.find("    - name: workspaces").unwrap();
    let named = format!("{}      value: build\n{}", &text[..start], &text[end..]);
    assert_eq!(
        wrap(&named).unwrap_err().to_string(),
        r#"the task through resolver "hub" (type=artifact, kind=task, name=git-clone, version=0.9.0) can only be read in a cluster: add it to the files, under the name that the resolver is asked for"#
    );
}
