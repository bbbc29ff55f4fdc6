//! Golden files of the rewrite: `tests/golden/<case>.yaml` holds a PipelineRun with the objects that it names,
//! `<case>.out.yaml` the wrapped run, `<case>.explain` what `render --explain` prints of it.
//! `UPDATE_GOLDEN=1 cargo test --test rewrite golden` writes both anew.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;
use tekton_wrap::{
    render::FileObjects,
    resolve::wrap_run,
    wrap::{Rewrite, Settings, explain},
    yaml,
};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// The cases, by name. Fails where a file belongs to none.
fn cases() -> Vec<String> {
    let names = |suffix: &str| -> BTreeSet<String> {
        let files = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        files.filter_map(|name| name.strip_suffix(suffix).map(str::to_owned)).collect()
    };
    let outputs = names(".out.yaml");
    let inputs: BTreeSet<String> = names(".yaml").into_iter().filter(|name| !name.ends_with(".out")).collect();
    if std::env::var_os("UPDATE_GOLDEN").is_none() {
        assert_eq!(inputs, outputs, "each case needs its input and its output");
    }
    assert!(inputs.len() >= 8, "golden files are missing");
    inputs.into_iter().collect()
}

fn objects(case: &str) -> FileObjects {
    let mut objects = FileObjects::default();
    objects.add(&fs::read_to_string(folder().join(format!("{case}.yaml"))).unwrap()).unwrap();
    objects
}

fn wrap(objects: &FileObjects, run: &Value) -> Option<Rewrite> {
    let settings = Settings::new("registry.example/tekton-wrap:v1");
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(wrap_run(objects, run, "default", &settings)).unwrap()
}

#[test]
fn rewrites() {
    for case in cases() {
        let objects = objects(&case);
        let run = objects.runs().next().expect("a PipelineRun");
        let rewrite = wrap(&objects, run).expect("a run for the resolver wrap");
        let text = yaml::to_string(&rewrite.run);
        for (suffix, text) in [("out.yaml", text), ("explain", explain::table(&rewrite.explanation.notes()))] {
            let file = folder().join(format!("{case}.{suffix}"));
            if std::env::var_os("UPDATE_GOLDEN").is_some() {
                fs::write(&file, &text).unwrap();
            }
            assert_eq!(fs::read_to_string(&file).unwrap(), text, "{case}");
        }
    }
}

#[test]
fn a_wrapped_run_is_left_alone() {
    for case in cases() {
        let objects = objects(&case);
        let wrapped = wrap(&objects, objects.runs().next().unwrap()).unwrap().run;
        assert!(wrap(&objects, &wrapped).is_none(), "{case}");
        // What is printed is the same run when it is read again.
        assert_eq!(yaml::parse(&yaml::to_string(&wrapped)).unwrap(), [wrapped], "{case}");
    }
}

#[test]
fn patches_give_the_run_and_touch_only_what_they_must() {
    for case in cases() {
        let objects = objects(&case);
        let run = objects.runs().next().unwrap();
        let rewrite = wrap(&objects, run).unwrap();
        let mut patched = run.clone();
        let patch: json_patch::Patch = serde_json::from_str(&rewrite.patch).unwrap();
        json_patch::patch(&mut patched, &patch).unwrap();
        assert_eq!((patched, patch.len()), (rewrite.run, rewrite.operations), "{case}");
        for operation in &patch.0 {
            let path = operation.path().to_string();
            let allowed = [
                "/metadata/labels",
                "/spec/params",
                "/spec/taskRunSpecs",
                "/metadata/annotations",
                "/spec/workspaces",
                "/spec/pipelineRef",
                "/spec/pipelineSpec",
            ];
            assert!(allowed.iter().any(|prefix| path.starts_with(prefix)), "{case}: {path}");
        }
    }
}

/// A task that uses no wrapped workspace keeps every byte.
#[test]
fn other_tasks_stay_as_they_were() {
    let mut kept = 0;
    for case in cases() {
        let objects = objects(&case);
        let run = objects.runs().next().unwrap();
        let wrapped = wrap(&objects, run).unwrap().run;
        let name = wrapped.pointer("/metadata/annotations/tekton-wrap.dev~1pipeline").unwrap();
        let pipeline = objects.all().find(|o| o["kind"] == "Pipeline" && o["metadata"]["name"] == *name).unwrap();
        for list in ["tasks", "finally"] {
            let none = Vec::new();
            let before = pipeline["spec"][list].as_array().unwrap_or(&none);
            let after = wrapped["spec"]["pipelineSpec"][list].as_array().unwrap_or(&none);
            assert_eq!(before.len(), after.len());
            for (before, after) in before.iter().zip(after) {
                if !after.to_string().contains("tekton-wrap-") && !before.to_string().contains("context.pipeline.name")
                {
                    assert_eq!(before.to_string(), after.to_string(), "{case}");
                    kept += 1;
                }
            }
        }
    }
    assert!(kept >= 2, "no case has such a task");
}
