//! What is for the injected steps alone stays with them, whatever the author of a Task writes.

use serde_json::{Value, json};
use tekton_wrap::source::Creation;

use super::refusals::{PIPELINE, RUN, wrap_in};

/// The second task with this spec, of a run with a Secret for the injected steps; `change` is one more change.
fn task(mut spec: Value, nonce: Option<&str>, changes: &[(usize, &str, Value)]) -> Value {
    spec["workspaces"] = json!([{"name": "w"}]);
    let two = json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}], "taskSpec": spec});
    let credentials = json!({"name": "credentials", "value": "push"});
    let mut all = vec![(PIPELINE, "/spec/tasks/1", two), (RUN, "/spec/pipelineRef/params/-", credentials)];
    all.extend_from_slice(changes);
    let creation = Creation { nonce, ..Creation::from("ns") };
    wrap_in(creation, &all).unwrap().unwrap().run["spec"]["pipelineSpec"]["tasks"][1]["taskSpec"].take()
}

/// The names of the volumes that injected steps alone mount.
fn volumes(spec: &Value) -> Vec<&str> {
    spec["volumes"].as_array().unwrap().iter().map(|volume| volume["name"].as_str().unwrap()).collect()
}

/// However the name of one of our volumes comes about, the volume has another one then.
#[test]
fn no_step_of_the_user_mounts_their_volumes() {
    let ours = "tekton-wrap-credentials";
    let params = json!([{"name": "v", "default": ours}]);
    let named = [(PIPELINE, "/metadata/name", json!(ours)), (RUN, "/spec/pipelineRef/params/0/value", json!(ours))];
    for (name, changes) in
        [(ours, &[][..]), ("$(params.v)", &[]), ("$(inputs.params.v)", &[]), ("$(context.pipeline.name)", &named)]
    {
        for list in ["steps", "sidecars"] {
            let mut spec = json!({"params": params, "steps": [{"name": "s", "image": "i"}]});
            spec[list] = json!([{"name": "s", "image": "i", "volumeMounts": [{"name": name, "mountPath": "/m"}]}]);
            let wrapped = task(spec, None, changes);
            assert_eq!(volumes(&wrapped), ["tekton-wrap-state", "tekton-wrap-credentials-1"], "{list} {name}");
        }
    }
    // One that may have a value of its own is no obstacle where that can't be ours.
    let mounts = json!([{"name": "$(context.taskRun.name)-cache", "mountPath": "/m"}]);
    task(json!({"steps": [{"name": "s", "image": "i", "volumeMounts": mounts}]}), None, &[]);
}

/// What a StepAction mounts is known only when the task runs: so nobody knows the names before the run exists.
#[test]
fn no_step_action_can_name_their_volumes() {
    let action = || json!({"steps": [{"name": "s", "ref": {"name": "action"}}]});
    let (one, other) = (task(action(), Some("uid-1"), &[]), task(action(), Some("uid-2"), &[]));
    for (one, other) in volumes(&one).into_iter().zip(volumes(&other)) {
        assert_ne!(one, other);
        assert_eq!(one.len(), other.len());
        assert!(one.starts_with("tekton-wrap-") && one.len() < 63, "{one}");
    }
    let plain = task(json!({"steps": [{"name": "s", "image": "i"}]}), Some("uid-1"), &[]);
    assert_eq!(volumes(&plain), ["tekton-wrap-state", "tekton-wrap-credentials"]);
}

/// With a Secret of their own they have no environment and no mounts but ours.
#[test]
fn a_step_template_does_not_reach_them() {
    let env =
        json!([{"name": "HTTPS_PROXY", "value": "http://evil"}, {"name": "TEKTON_WRAP_INSECURE", "value": "quay.io"}]);
    let template = json!({"env": env, "envFrom": [{"configMapRef": {"name": "evil"}}],
        "volumeMounts": [{"name": "v", "mountPath": "/etc/ssl/certs"}]});
    let spec = task(json!({"stepTemplate": template, "steps": [{"name": "s", "image": "i"}]}), None, &[]);
    assert_eq!(spec["stepTemplate"], json!({}));
    assert_eq!(spec["steps"][1]["env"], env);
    assert_eq!(spec["steps"][1]["volumeMounts"], template["volumeMounts"]);
    for step in [&spec["steps"][0], &spec["steps"][2]] {
        assert!(step["name"].as_str().unwrap().starts_with("tekton-wrap-") && !step.to_string().contains("evil"));
        assert_eq!(step["envFrom"], Value::Null);
    }
}

/// Nor is anything put before what they read: there a workspace of the task would be.
#[test]
fn no_workspace_hides_what_they_read() {
    let task = |path: &str, credentials: Value| {
        let spec = json!({"workspaces": [{"name": "w", "mountPath": path}], "steps": [{"name": "s", "image": "i"}]});
        let two = json!({"name": "two", "runAfter": ["one"], "workspaces": [{"name": "w"}], "taskSpec": spec});
        let changes = [(PIPELINE, "/spec/tasks/1", two), (RUN, "/spec/pipelineRef/params/-", credentials)];
        wrap_in("ns".into(), &changes).map(drop)
    };
    let secret = || json!({"name": "credentials", "value": "push"});
    for path in ["/etc", "/etc/ssl/certs", "/x/../etc/hosts", "/usr", "/.docker", "/"] {
        let refusal = task(path, secret()).unwrap_err();
        assert_eq!(refusal.reason(), "MountPath", "{path}: {refusal}");
    }
    task("/workspace/etc", secret()).unwrap();
    // Without a Secret of their own there is nothing to get.
    task("/etc/ssl/certs", json!({"name": "expires", "value": "7d"})).unwrap();
}
