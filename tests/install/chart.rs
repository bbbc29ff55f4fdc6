//! The chart installs what the overlays install.

use std::{fs, path::PathBuf, process::Command};

use serde_json::Value;
use support::{assets, cluster::Cluster, crds, manifests};

use super::kubectl::{kubectl, kustomize, make_tekton, overlay, run};

const CHART: &str = "charts/tekton-wrap";

/// helm, or none where it can't be built, which is said.
fn helm() -> Option<PathBuf> {
    let helm = assets::attempt("helm");
    if helm.is_none() {
        eprintln!("skipped: there is no helm, and it can't be built here");
    }
    helm
}

fn template(helm: &PathBuf, namespace: &str, values: &str) -> Command {
    let mut command = Command::new(helm);
    command.args(["template", "tekton-wrap", CHART, "--kube-version=1.34", "--namespace", namespace]);
    command.args(values.split_whitespace().flat_map(|value| ["--set", value]));
    command
}

/// Values of the chart beside a kustomization that means the same.
const SAME: [(&str, &str, &str); 6] = [
    ("tekton-wrap", "", "resources: [ROOT/overlays/cert-manager]"),
    ("tekton-wrap", "certificate.provider=openshift", "resources: [ROOT/overlays/openshift]"),
    ("tekton-wrap", "certificate.provider=none", "resources: [ROOT/overlays/no-cert-manager]"),
    ("tekton-wrap", "registry.enabled=true", "resources: [ROOT/overlays/try]"),
    (
        "tekton-wrap",
        "strict.enabled=true monitoring.enabled=true namespaceMode.enabled=true autoscaling.enabled=true priorityClass.create=true \
         flowSchema.enabled=true networkPolicies.enabled=true networkPolicies.apiservers[0].ipBlock.cidr=192.0.2.0/24",
        "resources: [ROOT/overlays/cert-manager, ROOT/strict, ROOT/network-policies]\n\
         components: [ROOT/components/monitoring, ROOT/components/namespace-mode, ROOT/components/autoscaling, ROOT/components/priority, \
         ROOT/components/flow-schema]",
    ),
    ("ci-system", "", "resources: [ROOT/overlays/other-namespace]"),
];

#[test]
fn installs_what_the_overlays_install() {
    let Some(helm) = helm() else { return };
    for (namespace, values, kustomization) in SAME {
        let image = "image.repository=quay.io/me/tekton-wrap image.tag=v7";
        let chart = manifests::parse(&run(&mut template(&helm, namespace, &format!("{image} {values}"))));
        let images = "images: [{name: tekton-wrap, newName: quay.io/me/tekton-wrap, newTag: v7}]";
        let mut kustomized = kustomize(overlay(&format!("{kustomization}\n{images}\n")).path());
        // Whoever installs a chart makes the namespace with it, or has it.
        kustomized.retain(|object| object["kind"] != "Namespace");
        assert_eq!(comparable(chart), comparable(kustomized), "{values}");
    }
}

/// By name, without what helm adds.
fn comparable(objects: Vec<Value>) -> std::collections::BTreeMap<String, Value> {
    let comparable = |mut object: Value| {
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        let labels = metadata["labels"].as_object_mut().expect("labels");
        labels.retain(|name, _| name != "app.kubernetes.io/managed-by" && name != "helm.sh/chart");
        if let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) {
            annotations.remove("helm.sh/resource-policy");
            if annotations.is_empty() {
                metadata.remove("annotations");
            }
        }
        (format!("{} {} {}", object["kind"], object["metadata"]["namespace"], object["metadata"]["name"]), object)
    };
    objects.into_iter().map(comparable).collect()
}

#[tokio::test]
async fn is_accepted_and_stable() {
    let Some(helm) = helm() else { return };
    let cluster = Cluster::start().await;
    crds::apply_cert_manager(&cluster.admin().await).await;
    make_tekton(&cluster).await;
    kubectl(&cluster, &["create", "namespace", "farm"]);
    let values = "registry.enabled=true strict.enabled=true autoscaling.enabled=true priorityClass.create=true \
        flowSchema.enabled=true extraArgs[0]=--shutdown-delay=7 extraEnv[0].name=RUST_LOG extraEnv[0].value=debug \
        imagePullSecrets[0].name=pull nodeSelector.kubernetes\\.io/arch=amd64 tolerations[0].operator=Exists \
        defaults.expires=7d podAnnotations.a=b";
    let rendered = run(&mut template(&helm, "farm", values));
    let file = tempfile::NamedTempFile::new().expect("a file");
    fs::write(file.path(), rendered).expect("it is written");
    let file = file.path().to_str().expect("UTF-8");
    kubectl(&cluster, &["apply", "-f", file, "--server-side", "--dry-run=server", "--validate=strict"]);
    kubectl(&cluster, &["apply", "-f", file]);
    assert_eq!(kubectl(&cluster, &["diff", "-f", file]), "");
    kubectl(&cluster, &["delete", "-f", file]);
}

/// The chart's files, and what they are copies of.
const FILES: [(&str, &str); 6] = [
    ("dashboard.json", "webhook-config/components/monitoring/dashboard.json"),
    ("namespace-mode.yaml", "webhook-config/components/namespace-mode/webhook.yaml"),
    ("rbac.yaml", "webhook-config/base/rbac.yaml"),
    ("rules.yaml", "webhook-config/components/monitoring/rules.yaml"),
    ("strict.yaml", "webhook-config/strict/policy.yaml"),
    ("webhook.yaml", "webhook-config/base/webhook.yaml"),
];

/// One sentence for values that can't be meant.
#[test]
fn wrong_values_are_refused() {
    let Some(helm) = helm() else { return };
    for (values, expected) in [
        ("image.tga=v7", "additional properties 'tga' not allowed"),
        ("image.digest=sha256:1", "does not match pattern"),
        ("certificate.provider=acme", "value must be one of 'cert-manager', 'openshift', 'none'"),
        ("networkPolicies.enabled=true", "networkPolicies.apiservers is empty: say where the apiservers are"),
        (
            "priorityClass.create=true priorityClassName=x",
            "priorityClass.create and priorityClassName exclude each other",
        ),
    ] {
        let output = template(&helm, "tekton-wrap", values).output().expect("helm starts");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && stderr.contains(expected), "{values}: {stderr}");
    }
    run(Command::new(&helm).args(["lint", "--strict", CHART]));
}

/// A chart can't read outside of itself: what it shares with the overlays it has as copies, which `UPDATE_GOLDEN=1` makes anew.
#[test]
fn its_files_are_those_of_the_overlays() {
    let bless = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut copies: Vec<String> = fs::read_dir(format!("{CHART}/files"))
        .expect("the chart's files")
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    copies.sort();
    assert_eq!(copies, FILES.map(|(file, _)| file), "each has an original");
    for (file, original) in FILES {
        let copy = format!("{CHART}/files/{file}");
        if bless {
            fs::copy(original, &copy).expect("it is copied");
        }
        assert!(fs::read(&copy).ok() == fs::read(original).ok(), "cp {original} {copy}");
    }
    let version = env!("CARGO_PKG_VERSION");
    let chart = fs::read_to_string(format!("{CHART}/Chart.yaml")).expect("Chart.yaml");
    for line in [format!("version: {version}"), format!("appVersion: {version}")] {
        assert!(chart.lines().any(|l| l == line), "{CHART}/Chart.yaml: {line}");
    }
}
