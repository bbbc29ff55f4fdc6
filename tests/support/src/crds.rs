//! Custom resource definitions: Tekton's and cert-manager's.

use std::{env, fs, path::Path, time::Duration};

use kube::{Api, Client, api::ListParams};
use serde_json::{Value, json};

use super::{assets, manifests};

/// Tekton's CRDs: with their full schemas where a folder of them is at hand, else `tests/crds/tekton.yaml`.
///
/// The folder is the value of the environment variable `TEKTON_CRDS`, or `shared/tekton/crds` beside the repository.
pub async fn apply_tekton(client: &Client) {
    let beside = super::repository("../shared/tekton/crds");
    let folder = env::var_os("TEKTON_CRDS").map_or(beside, Into::into);
    if folder.is_dir() {
        println!("Tekton's CRDs: {}", folder.display());
        apply_folder(client, &folder).await;
    } else {
        println!("Tekton's CRDs: without schemas, from tests/crds/tekton.yaml");
        apply(client, manifests::parse(include_str!("../../crds/tekton.yaml"))).await;
    }
}

/// cert-manager's CRDs `certificates` and `issuers`.
pub async fn apply_cert_manager(client: &Client) {
    apply_folder(client, &assets::path("cert-manager-crds")).await;
}

async fn apply_folder(client: &Client, folder: &Path) {
    let mut objects = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder of CRDs") {
        let text = fs::read_to_string(entry.expect("an entry").path()).expect("a CRD");
        objects.extend(manifests::parse(&text));
    }
    apply(client, objects).await;
}

/// Applies the CRDs among `objects` and waits until they are served.
async fn apply(client: &Client, mut objects: Vec<Value>) {
    objects.retain(|object| object["kind"] == "CustomResourceDefinition");
    for crd in &mut objects {
        // No webhook of Tekton runs that could convert.
        crd["spec"]["conversion"] = json!({"strategy": "None"});
        manifests::apply(client, crd).await.expect("the CRD is accepted");
    }
    for crd in &objects {
        for version in crd["spec"]["versions"].as_array().expect("versions").iter().filter(|v| v["served"] == true) {
            let api_version = format!("{}/{}", text(&crd["spec"]["group"]), text(&version["name"]));
            let like = json!({"apiVersion": api_version, "kind": crd["spec"]["names"]["kind"]});
            let api: Api<kube::api::DynamicObject> = Api::all_with(client.clone(), &manifests::resource(&like));
            let served = async {
                while api.list(&ListParams::default()).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), served).await.expect("the CRD is served");
        }
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}
