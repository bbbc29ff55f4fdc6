//! What watches over the webhook asks for metrics that there are, and leads to a page that says what to do.

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use serde_json::{Value, json};
use support::{assets, cluster::Cluster, webhook::Webhook};

use super::kubectl::{find, kustomize, overlay, run};

const FOLDER: &str = "webhook-config/components/monitoring";

fn objects() -> Vec<Value> {
    kustomize(overlay("resources: [ROOT/base]\ncomponents: [ROOT/components/monitoring]\n").path())
}

/// Every query of the dashboard and of the alerts.
fn queries() -> Vec<String> {
    let objects = objects();
    let dashboard = &find(&objects, "ConfigMap", "tekton-wrap-dashboard")["data"]["tekton-wrap.json"];
    let dashboard: Value = serde_json::from_str(dashboard.as_str().expect("a string")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of_panels = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets"));
    let rules = rules();
    let queries = of_panels.chain(&rules).map(|query| query["expr"].as_str().expect("a query").to_owned());
    queries.collect()
}

fn rules() -> Vec<Value> {
    let objects = objects();
    let groups = &find(&objects, "PrometheusRule", "tekton-wrap")["spec"]["groups"];
    groups
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["rules"].as_array().expect("rules").clone())
        .collect()
}

/// The webhook's and the apiserver's own, as processes of them tell.
#[tokio::test]
async fn every_metric_exists() {
    let cluster = Cluster::shared().await;
    let webhook = Webhook::start(cluster).await;
    let namespace = cluster.namespace().await;
    webhook.register(&namespace, true).await;
    let mut text = webhook.metrics();
    let request = http::Request::get("/metrics").body(Vec::new()).expect("a request");
    text += &namespace.client.request_text(request).await.expect("the apiserver's metrics");
    let metrics: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();

    let mut asked = BTreeSet::new();
    for query in queries() {
        let names = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let metric =
            |name: &&str| ["tekton_wrap_", "process_", "apiserver_"].iter().any(|start| name.starts_with(start));
        asked.extend(names.filter(metric).map(str::to_owned));
    }
    assert!(asked.len() >= 12, "{asked:?}");
    for name in asked {
        let forms = ["", "_bucket", "_total", "_info"].map(|end| name.strip_suffix(end).unwrap_or(&name));
        assert!(forms.iter().any(|form| metrics.contains(form)), "there is no metric {name}");
    }
    // Labels that the queries choose by.
    for series in [
        r#"tekton_wrap_ready{condition="certificate"}"#,
        r#"tekton_wrap_tls_handshake_failures_total{reason="untrusted"}"#,
        r#"tekton_wrap_tls_reload_total{result="error"}"#,
        r#"tekton_wrap_resolutions_total{outcome="late"}"#,
        r#"tekton_wrap_resolutions_total{outcome="unanswered"}"#,
        r#"outcome="wrapped""#,
        r#"name="wrap.tekton-wrap.dev""#,
    ] {
        assert!(text.contains(series), "there is no {series}");
    }
}

#[test]
fn every_alert_leads_to_its_page() {
    let runbook = fs::read_to_string("docs/runbook.md").expect("the runbook");
    let described: BTreeSet<&str> = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .filter(|name| name.starts_with("TektonWrap"))
        .collect();
    let mut alerts = BTreeSet::new();
    let rules = rules();
    for rule in &rules {
        let name = rule["alert"].as_str().expect("a name");
        let link =
            format!("https://github.com/tekton-wrap/tekton-wrap/blob/main/docs/runbook.md#{}", name.to_lowercase());
        assert_eq!(rule["annotations"]["runbook_url"], link);
        assert!(["warning", "critical"].contains(&rule["labels"]["severity"].as_str().expect("a severity")));
        alerts.insert(name);
    }
    assert_eq!(alerts, described);
}

/// The reasons that an alert chooses by are those that there are.
#[test]
fn every_reason_exists() {
    let refusals = fs::read_to_string("docs/refusals.md").expect("all reasons");
    let rules = rules();
    let fails = rules.iter().find(|rule| rule["alert"] == "TektonWrapFails").expect("the alert");
    let (_, reasons) = fails["expr"].as_str().and_then(|expr| expr.split_once("reason=~\"")).expect("reasons");
    for reason in reasons.split('"').next().unwrap_or_default().split('|') {
        assert!(refusals.lines().any(|line| line.strip_prefix("### ") == Some(reason)), "there is no reason {reason}");
    }
}

#[test]
fn what_is_collected_is_what_the_pods_serve() {
    let objects = objects();
    let pods = &find(&objects, "Deployment", "tekton-wrap-webhook")["spec"]["template"];
    let monitor = &find(&objects, "PodMonitor", "tekton-wrap-webhook")["spec"];
    assert_eq!(monitor["selector"]["matchLabels"], pods["metadata"]["labels"]);
    let endpoint = &monitor["podMetricsEndpoints"][0];
    let ports = pods["spec"]["containers"][0]["ports"].as_array().expect("ports");
    assert!(ports.iter().any(|port| port["name"] == endpoint["port"]));
    assert_eq!(endpoint["relabelings"][0], json!({"targetLabel": "job", "replacement": "tekton-wrap"}));
    let memory = &pods["spec"]["containers"][0]["resources"]["limits"]["memory"];
    assert_eq!(memory, "128Mi", "the alert TektonWrapMemory says so");
}

/// As Grafana lays them out: 24 columns, nothing on top of something else.
#[test]
fn the_dashboard_has_a_place_for_everything() {
    let text = fs::read_to_string(Path::new(FOLDER).join("dashboard.json")).expect("the dashboard");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let (mut taken, mut ids) = (BTreeSet::new(), BTreeSet::new());
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(
            ids.insert(panel["id"].as_u64().expect("an id")) && !panel["title"].as_str().expect("a title").is_empty()
        );
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
        assert!(w > 0 && h > 0 && x + w <= 24, "{}", panel["title"]);
        for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
            assert!(taken.insert(cell), "{} lies on another panel", panel["title"]);
        }
    }
}

/// As Prometheus reads them, and with made-up series: which alerts fire.
#[test]
fn the_alerts_fire_when_they_should() {
    let Some(promtool) = assets::built("promtool") else {
        eprintln!("skipped: there is no promtool: tests/assets/build promtool");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let objects = objects();
    let rules = &find(&objects, "PrometheusRule", "tekton-wrap")["spec"];
    fs::write(folder.path().join("rules.yaml"), rules.to_string()).expect("it is written");
    fs::copy("tests/install/alerts.yaml", folder.path().join("alerts.yaml")).expect("it is copied");
    run(Command::new(&promtool).args(["check", "rules", "rules.yaml"]).current_dir(folder.path()));
    run(Command::new(&promtool).args(["test", "rules", "alerts.yaml"]).current_dir(folder.path()));
}
