//! The webhook's Service and its certificate in a cluster without cert-manager: `certs/make`.

use std::{env, fs, path::Path, process::Command};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::{
    assets,
    cluster::Cluster,
    kubectl::{kubectl, run},
    manifests,
};

/// The registration of `webhook-config/`.
pub const CONFIGURATION: &str = "mutatingwebhookconfiguration/tekton-wrap";

/// `certs/make` with these arguments.
pub fn script(cluster: &Cluster, args: &[&str]) -> Command {
    let mut command = Command::new(super::repository("certs/make"));
    let tools = assets::path("kubectl").parent().expect("a folder").to_owned();
    let path = env::join_paths([tools].into_iter().chain(env::split_paths(&env::var_os("PATH").expect("a PATH"))));
    command.args(args).env("PATH", path.expect("a PATH"));
    for (name, value) in cluster.kubectl().get_envs() {
        command.env(name, value.expect("a value"));
    }
    command
}

/// Runs it; what it prints.
pub fn make(cluster: &Cluster, args: &[&str]) -> String {
    run(&mut script(cluster, args))
}

/// Writes the certificate into `dir`, as the kubelet does with a Secret.
pub fn copy_certificate(cluster: &Cluster, dir: &Path) {
    let get = ["-n", "tekton-wrap", "get", "secret", "tekton-wrap-webhook-tls", "-o", "json"];
    let secret: Value = serde_json::from_str(&kubectl(cluster, &get)).expect("JSON");
    assert_eq!(secret["type"], "kubernetes.io/tls");
    fs::create_dir_all(dir).expect("the folder");
    for name in ["tls.key", "tls.crt"] {
        let content = BASE64_STANDARD.decode(secret["data"][name].as_str().expect("a file")).expect("base64");
        fs::write(dir.join(name), content).expect("it is written");
    }
}

/// Makes the webhook's Service one that leads to this port of this machine.
pub async fn lead_to(cluster: &Cluster, port: u16) {
    kubectl(cluster, &["-n", "tekton-wrap", "delete", "service", "tekton-wrap-webhook"]);
    let client = cluster.admin().await;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "tekton-wrap-webhook", "namespace": "tekton-wrap"},
        "spec": {"type": "ExternalName", "externalName": "localhost"}});
    manifests::apply(&client, &service).await.expect("accepted");
    let patch = json!([{"op": "replace", "path": "/webhooks/0/clientConfig/service/port", "value": port}]);
    kubectl(cluster, &["patch", CONFIGURATION, "--type=json", "-p", &patch.to_string()]);
}
