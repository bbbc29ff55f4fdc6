//! `version`: what each user may know of the webhook.

use std::process::Command;

use serde_json::{Value, json};
use support::{cluster::Cluster, manifests};

use crate::stand::{Stand, call};

#[tokio::test(flavor = "multi_thread")]
async fn of_the_webhook() {
    let tokens = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(tokens.path(), "admin-token,admin,admin,system:masters\nuser-token,user,user\n").unwrap();
    let cluster = Cluster::start_with(&[format!("--token-auth-file={}", tokens.path().display())]).await;
    support::crds::apply_tekton(&cluster.admin().await).await;
    let stand = Stand::on(&cluster).await;
    let client = stand.prints(&["version", "--client"]);
    assert_eq!(
        client.lines().map(|line| line.split("  ").next().unwrap()).collect::<Vec<_>>(),
        ["client", "snapshot format", "step contract"]
    );
    let absent = stand.prints(&["version"]);
    assert!(
        absent.contains("webhook          no Deployment of the cluster has the label app.kubernetes.io/name=tekton-wrap: it is not installed, or runs elsewhere\n"),
        "{absent}"
    );

    cluster.install().await;
    let of_admin: Value = serde_json::from_str(&stand.prints(&["version", "-o", "json"])).unwrap();
    assert_eq!(of_admin["client"]["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(of_admin["webhook"], json!({"image": "tekton-wrap:latest", "namespace": "tekton-wrap"}));
    assert!(
        stand.prints(&["version"]).ends_with("webhook          image tekton-wrap:latest, in namespace tekton-wrap\n")
    );

    // Who may not see Deployments, but runs: the image that was injected.
    let role = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": "runs"},
        "rules": [{"apiGroups": ["tekton.dev"], "resources": ["pipelineruns"], "verbs": ["list"]}]});
    let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": "runs"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "runs"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "user"}]});
    std::fs::write(stand.path("user"), cluster.kubeconfig("user-token").to_string()).unwrap();
    let as_user = || {
        let mut command = Command::new(support::program());
        let done = call(command.args(["version", "-n", &stand.namespace.name, "--kubeconfig"]).arg(stand.path("user")));
        assert!(done.succeeded, "{done:?}");
        done.out
    };
    assert!(as_user().contains("webhook          it can't be read: "), "{}", as_user());
    manifests::create(&stand.namespace.client, Some(&stand.namespace.name), &role, &Default::default()).await.unwrap();
    manifests::create(&stand.namespace.client, Some(&stand.namespace.name), &binding, &Default::default())
        .await
        .unwrap();
    let run = support::render::render(RUN, "tekton-wrap:v7").unwrap();
    stand.namespace.accepts(&run).await;
    let told = loop {
        let told = as_user();
        // Rights take effect a moment after they are stored.
        if !told.contains("it can't be read") {
            break told;
        }
    };
    assert!(
        told.contains("injects image tekton-wrap:v7, as run r in namespace ")
            && told.contains("its Deployment can't be read: "),
        "{told}"
    );
}

/// Without a cluster the rest is still true.
#[test]
fn without_a_cluster() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(support::program());
    command.arg("version").env("HOME", folder.path()).env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
    let done = call(&mut command);
    assert!(
        done.succeeded && done.out.contains("webhook          it can't be read: no cluster is configured ("),
        "{done:?}"
    );
}

const RUN: &str = r#"
apiVersion: tekton.dev/v1
kind: PipelineRun
metadata: {name: r, annotations: {tekton-wrap.dev/wrap: w, tekton-wrap.dev/target: quay.io/me/x}}
spec:
  pipelineSpec:
    workspaces: [{name: w}]
    tasks:
    - name: one
      workspaces: [{name: w}]
      taskSpec: {workspaces: [{name: w}], steps: [{name: s, image: sh}]}
"#;
