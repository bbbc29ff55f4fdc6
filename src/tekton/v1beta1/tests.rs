//! Each field of v1beta1 in its v1 form, or why it has none.

use super::*;

fn object(kind: &str, spec: Value) -> Value {
    json!({"apiVersion": "tekton.dev/v1beta1", "kind": kind, "metadata": {"name": "o"}, "spec": spec})
}

#[test]
fn converted() {
    let task = json!({
        "params": [{"name": "p", "default": "d"}],
        "stepTemplate": {"name": "x", "tty": true, "resources": {"limits": {"cpu": "1"}}, "env": []},
        "steps": [
            {"name": "s", "image": "i", "resources": {"requests": {"cpu": "1"}}, "script": "x", "ports": [], "lifecycle": {},
             "livenessProbe": {}, "readinessProbe": {}, "startupProbe": {}, "terminationMessagePath": "/x",
             "terminationMessagePolicy": "File", "stdin": true, "stdinOnce": true, "tty": true, "future": 1},
            {"ref": {"name": "action"}, "params": [], "onError": "continue"},
        ],
        "sidecars": [{"name": "c", "image": "i", "Resources": {}, "readinessProbe": {"exec": {}}, "ports": [1]}],
        "workspaces": [{"name": "w", "readOnly": true}],
    });
    let task_v1 = json!({
        "params": [{"name": "p", "default": "d"}],
        "stepTemplate": {"computeResources": {"limits": {"cpu": "1"}}, "env": []},
        "steps": [
            {"name": "s", "image": "i", "computeResources": {"requests": {"cpu": "1"}}, "script": "x", "future": 1},
            {"ref": {"name": "action"}, "params": [], "onError": "continue"},
        ],
        "sidecars": [{"name": "c", "image": "i", "computeResources": {}, "readinessProbe": {"exec": {}}, "ports": [1]}],
        "workspaces": [{"name": "w", "readOnly": true}],
    });
    let when = json!([{"input": "a", "operator": "in", "values": ["a"]}]);
    let pipeline = |task: &Value| {
        json!({
            "tasks": [
                {"name": "a", "taskSpec": task, "when": when, "timeout": "1h", "matrix": {"params": []}},
                {"name": "b", "taskRef": {"resolver": "git", "params": []}, "runAfter": ["a"], "bundle": ""},
                {"name": "c", "taskSpec": {"apiVersion": "x/v1", "kind": "K", "spec": {"resources": 1}, "steps": [{"resources": 1}]}},
            ],
            "finally": [{"name": "d", "taskSpec": task}],
            "results": [{"name": "r", "value": "v"}],
        })
    };
    for (kind, before, after) in [
        ("Task", task.clone(), task_v1.clone()),
        ("Pipeline", pipeline(&task), pipeline(&task_v1)),
        (
            "PipelineRun",
            json!({
                "pipelineSpec": pipeline(&task), "serviceAccountName": "sa", "podTemplate": {"nodeSelector": {}},
                "timeout": "2h", "workspaces": [{"name": "w", "emptyDir": {}}],
                "taskRunSpecs": [{
                    "pipelineTaskName": "a", "taskServiceAccountName": "t", "taskPodTemplate": {},
                    "stepOverrides": [{"name": "s", "resources": {}}], "sidecarOverrides": [{"name": "c", "resources": {}}],
                    "metadata": {}, "computeResources": {"requests": {}}, "timeout": "1m",
                }],
            }),
            json!({
                "pipelineSpec": pipeline(&task_v1), "workspaces": [{"name": "w", "emptyDir": {}}],
                "taskRunSpecs": [{
                    "pipelineTaskName": "a", "serviceAccountName": "t", "podTemplate": {},
                    "stepSpecs": [{"name": "s", "computeResources": {}}], "sidecarSpecs": [{"name": "c", "computeResources": {}}],
                    "metadata": {}, "computeResources": {"requests": {}}, "timeout": "1m",
                }],
                "timeouts": {"pipeline": "2h"},
                "taskRunTemplate": {"serviceAccountName": "sa", "podTemplate": {"nodeSelector": {}}},
            }),
        ),
    ] {
        let converted = to_v1(object(kind, before)).unwrap();
        assert_eq!(converted["apiVersion"], "tekton.dev/v1");
        assert_eq!(converted["spec"], after, "{kind}");
    }
    // A null field has no meaning, and v1 does not know it.
    for (kind, before, after) in [
        ("Task", json!({"resources": null, "steps": null}), json!({"steps": null})),
        ("Task", json!({"steps": [{"resources": null, "name": "s"}]}), json!({"steps": [{"name": "s"}]})),
        (
            "Task",
            json!({"steps": [{"Resources": {"limits": {}}, "resources": null}]}),
            json!({"steps": [{"computeResources": {"limits": {}}}]}),
        ),
        (
            "Pipeline",
            json!({"resources": null, "tasks": [{"taskRef": {"name": "t", "bundle": ""}, "resources": null}]}),
            json!({"tasks": [{"taskRef": {"name": "t"}}]}),
        ),
        (
            "PipelineRun",
            json!({"timeout": null, "podTemplate": null, "serviceAccountName": null, "timeouts": {"tasks": "1h"}}),
            json!({"timeouts": {"tasks": "1h"}}),
        ),
        (
            "PipelineRun",
            json!({"timeout": "1h", "timeouts": null, "pipelineRef": {"name": "p", "bundle": null}}),
            json!({"pipelineRef": {"name": "p"}, "timeouts": {"pipeline": "1h"}}),
        ),
        // A kind alone makes no custom task.
        (
            "Pipeline",
            json!({"tasks": [{"taskSpec": {"kind": "Task", "steps": [{"resources": {}}]}}]}),
            json!({"tasks": [{"taskSpec": {"kind": "Task", "steps": [{"computeResources": {}}]}}]}),
        ),
    ] {
        assert_eq!(to_v1(object(kind, before)).unwrap()["spec"], after);
    }
    // The order of fields stays.
    let step = json!({"image": "i", "resources": {}, "script": "x"});
    let converted = to_v1(object("Task", json!({"steps": [step]}))).unwrap();
    assert_eq!(converted["spec"]["steps"][0].to_string(), r#"{"image":"i","computeResources":{},"script":"x"}"#);
}

#[test]
fn refused() {
    for (kind, spec, why) in [
        ("Task", json!({"resources": {"inputs": []}}), "spec has resources, which Tekton no longer accepts: remove it"),
        ("Task", json!({"inputs": {}}), "spec has inputs, which Tekton no longer accepts: remove it"),
        (
            "Task",
            json!({"steps": [{"computeResources": {}}]}),
            "spec.steps[0] has computeResources, which v1beta1 calls resources: rename it, or write the object as tekton.dev/v1",
        ),
        ("Pipeline", json!({"resources": []}), "spec has resources, which Tekton no longer accepts: remove it"),
        (
            "Pipeline",
            json!({"tasks": [{}, {"resources": {}}]}),
            "spec.tasks[1] has resources, which Tekton no longer accepts: remove it",
        ),
        (
            "Pipeline",
            json!({"finally": [{"taskRef": {"name": "t", "bundle": "b"}}]}),
            "spec.finally[0].taskRef has bundle, which Tekton no longer accepts: remove it",
        ),
        (
            "PipelineRun",
            json!({"pipelineRef": {"name": "t", "bundle": "b"}}),
            "spec.pipelineRef has bundle, which Tekton no longer accepts: remove it",
        ),
        (
            "PipelineRun",
            json!({"timeout": "1h", "timeouts": {"tasks": "1h"}}),
            "spec has timeout beside timeouts: keep timeouts",
        ),
        (
            "PipelineRun",
            json!({"serviceAccountName": "a", "taskRunTemplate": {"serviceAccountName": "b"}}),
            "spec has taskRunTemplate, which v1beta1 calls serviceAccountName and podTemplate: rename it, or write the object as tekton.dev/v1",
        ),
        (
            "PipelineRun",
            json!({"taskRunSpecs": [{"stepSpecs": [], "stepOverrides": []}]}),
            "spec.taskRunSpecs[0] has stepSpecs, which v1beta1 calls stepOverrides: rename it, or write the object as tekton.dev/v1",
        ),
        (
            "PipelineRun",
            json!({"taskRunSpecs": [{"podTemplate": {}}]}),
            "spec.taskRunSpecs[0] has podTemplate, which v1beta1 calls taskPodTemplate: rename it, or write the object as tekton.dev/v1",
        ),
        (
            "PipelineRun",
            json!({"managedBy": "x/y"}),
            "spec has managedBy, which Tekton loses on the way from v1beta1 to v1: write the object as tekton.dev/v1",
        ),
        (
            "Pipeline",
            json!({"tasks": [{"name": "a", "pipelineSpec": {"tasks": []}}]}),
            "spec.tasks[0] has pipelineSpec, which Tekton loses on the way from v1beta1 to v1: write the object as tekton.dev/v1",
        ),
        (
            "Pipeline",
            json!({"tasks": [{"taskSpec": {"Resources": {}}}]}),
            "spec.tasks[0].taskSpec has resources, which Tekton no longer accepts: remove it",
        ),
        ("StepAction", json!({}), r#"a "StepAction" can't be converted from tekton.dev/v1beta1"#),
    ] {
        assert_eq!(to_v1(object(kind, spec)).unwrap_err().to_string(), why);
    }
}
