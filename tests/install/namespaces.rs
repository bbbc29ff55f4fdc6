//! An installation in other namespaces.

use std::{fs, path::Path};

use serde_json::{Value, json};

use super::kubectl::{find, kustomize, overlay};

/// Everything that can be installed, elsewhere.
const ALL: &str = "
resources: [settings.yaml, ROOT/base, ROOT/../certs, ROOT/network-policies, ROOT/strict]
components:
- ROOT/components/monitoring
- ROOT/components/priority
- ROOT/components/autoscaling
- ROOT/components/flow-schema
- ROOT/components/registry
- ROOT/components/namespace-mode
- ROOT/components/namespace
";

#[test]
fn all_that_names_the_namespace_moves() {
    let folder = overlay(ALL);
    fs::write(folder.path().join("settings.yaml"), settings("build-farm", "openshift-pipelines"))
        .expect("settings.yaml");
    let objects = kustomize(folder.path());

    for object in &objects {
        let (kind, metadata) = (&object["kind"], &object["metadata"]);
        let expected = match (kind.as_str(), metadata["namespace"].as_str()) {
            (_, None) => continue,
            // Read in Tekton's namespace, by the account in the webhook's.
            (Some("Role" | "RoleBinding"), Some("openshift-pipelines")) => continue,
            (_, Some(namespace)) => namespace,
        };
        assert_eq!(expected, "build-farm", "{kind} {}", metadata["name"]);
    }
    let in_tekton = |object: &&Value| object["metadata"]["namespace"] == "openshift-pipelines";
    assert_eq!(objects.iter().filter(in_tekton).count(), 2, "the Role that reads feature-flags, and its binding");
    find(&objects, "Namespace", "build-farm");
    let bindings = objects.iter().filter(|object| object.get("subjects").is_some());
    assert_eq!(
        bindings.map(|object| assert_eq!(object["subjects"][0]["namespace"], "build-farm", "{object}")).count(),
        3
    );
    let registration = find(&objects, "MutatingWebhookConfiguration", "tekton-wrap");
    assert_eq!(
        registration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        "build-farm/tekton-wrap-webhook"
    );
    for webhook in registration["webhooks"].as_array().expect("webhooks") {
        assert_eq!(webhook["clientConfig"]["service"]["namespace"], "build-farm");
    }
    let certificate = find(&objects, "Certificate", "tekton-wrap-webhook");
    assert_eq!(certificate["spec"]["dnsNames"], json!(["tekton-wrap-webhook.build-farm.svc"]));
    let deployment = find(&objects, "Deployment", "tekton-wrap-webhook");
    let env = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().expect("variables");
    assert!(env.contains(&json!({"name": "TEKTON_NAMESPACE", "value": "openshift-pipelines"})), "{env:?}");
    let defaults = &find(&objects, "ConfigMap", "tekton-wrap-defaults")["data"]["target"];
    assert!(defaults.as_str().is_some_and(|target| target.starts_with("registry.build-farm.svc.cluster.local:5000/")));
    let subject = &find(&objects, "FlowSchema", "tekton-wrap-webhook")["spec"]["rules"][0]["subjects"][0];
    assert_eq!(subject["serviceAccount"]["namespace"], "build-farm");

    // And nothing else names the old ones.
    for object in &objects {
        each_string(object, &mut |text| {
            let old = ["tekton-wrap/", "tekton-wrap.svc", "tekton-pipelines"].iter().any(|old| text.contains(old));
            let link = text.contains("github.com/tekton-wrap/");
            assert!(!old || link || text.starts_with('{'), "{} {}: {text}", object["kind"], object["metadata"]["name"]);
        });
    }
}

/// As docs/install.md has it for OpenShift, where Tekton is elsewhere and cert-manager is not needed.
#[test]
fn with_the_overlay_for_openshift() {
    let folder =
        overlay("resources: [settings.yaml, ROOT/overlays/openshift]\ncomponents: [ROOT/components/namespace]\n");
    fs::write(folder.path().join("settings.yaml"), settings("tekton-wrap", "openshift-pipelines"))
        .expect("settings.yaml");
    let objects = kustomize(folder.path());
    let role = objects.iter().find(|object| object["kind"] == "Role").expect("a Role");
    assert_eq!(role["metadata"]["namespace"], "openshift-pipelines");
    let deployment = &find(&objects, "Deployment", "tekton-wrap-webhook")["spec"]["template"]["spec"];
    assert_eq!(deployment["securityContext"].get("runAsUser"), None);
    let registration = find(&objects, "MutatingWebhookConfiguration", "tekton-wrap");
    let annotations = json!({"service.beta.openshift.io/inject-cabundle": "true"});
    assert_eq!(registration["metadata"]["annotations"], annotations);
    let service = find(&objects, "Service", "tekton-wrap-webhook");
    let secret = &service["metadata"]["annotations"]["service.beta.openshift.io/serving-cert-secret-name"];
    assert_eq!(*secret, deployment["volumes"][0]["secret"]["secretName"]);
}

/// Two Roles of one name would be in one place: kustomize says so, and no half of it is applied.
#[test]
fn a_plain_namespace_is_refused() {
    let folder = overlay("namespace: build-farm\nresources: [ROOT]\n");
    let output = support::assets::command("kubectl").arg("kustomize").arg(folder.path()).output().expect("it starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && stderr.contains("namespace transformation produces ID conflict"), "{stderr}");
}

#[test]
fn the_example_is_what_it_says() {
    let objects = kustomize(Path::new("webhook-config/overlays/other-namespace"));
    find(&objects, "Namespace", "ci-system");
    assert!(objects.iter().all(|object| object["metadata"]["name"] != "tekton-wrap-settings"));
}

fn settings(namespace: &str, tekton: &str) -> String {
    let annotations = json!({"config.kubernetes.io/local-config": "true"});
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tekton-wrap-settings", "annotations": annotations},
        "data": {"namespace": namespace, "tekton-namespace": tekton}})
    .to_string()
}

fn each_string(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_string(item, visit)),
        Value::Object(fields) => fields.values().for_each(|field| each_string(field, visit)),
        _ => {}
    }
}
