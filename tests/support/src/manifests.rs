//! Manifests as they are in the repository, and objects of any kind.

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams, ValidationDirective},
    core::GroupVersionKind,
};
use serde_json::Value;

use super::assets;

/// The objects of `webhook-config/`, as `kustomize build` gives them.
pub fn webhook_config() -> Vec<Value> {
    build("webhook-config")
}

/// What `kustomize build` makes of a folder of the repository.
pub fn build(folder: &str) -> Vec<Value> {
    let folder = super::repository(folder);
    let output = assets::command("kustomize").arg("build").arg(&folder).output().expect("kustomize starts");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && stderr.is_empty(), "kustomize build {}: {stderr}", folder.display());
    parse(&String::from_utf8(output.stdout).expect("UTF-8"))
}

/// The objects of a YAML text.
pub fn parse(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).expect("valid YAML")
}

/// The resource that `object` is of. Its plural is guessed from its kind, which works for all that the tests
/// use but one.
pub fn resource(object: &Value) -> ApiResource {
    let text = |key: &str| object[key].as_str().unwrap_or_else(|| panic!("{key} is missing:\n{object:#}"));
    let (group, version) = text("apiVersion").split_once('/').unwrap_or(("", text("apiVersion")));
    let gvk = GroupVersionKind::gvk(group, version, text("kind"));
    match text("kind") {
        "VerificationPolicy" => ApiResource::from_gvk_with_plural(&gvk, "verificationpolicies"),
        _ => ApiResource::from_gvk(&gvk),
    }
}

/// Applies `object` on the server's side. Unknown fields and deprecated values are errors.
pub async fn apply(client: &Client, object: &Value) -> Result<DynamicObject, kube::Error> {
    let params =
        PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::apply("test").force() };
    let name = object["metadata"]["name"].as_str().expect("a name");
    let namespace = object["metadata"]["namespace"].as_str();
    api(client, namespace, object).patch(name, &params, &Patch::Apply(object)).await
}

/// Creates `object`.
pub async fn create(
    client: &Client,
    namespace: Option<&str>,
    object: &Value,
    params: &PostParams,
) -> Result<DynamicObject, kube::Error> {
    let typed = serde_json::from_value(object.clone()).expect("a Kubernetes object");
    api(client, namespace, object).create(params, &typed).await
}

fn api(client: &Client, namespace: Option<&str>, like: &Value) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource(like)),
        None => Api::all_with(client.clone(), &resource(like)),
    }
}
