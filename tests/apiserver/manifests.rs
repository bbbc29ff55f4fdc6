//! The manifests of `webhook-config/` and `certs/` are accepted, fit together and give no right too many.

use std::collections::BTreeSet;

use k8s_openapi::api::{
    authorization::v1::{SelfSubjectRulesReview, SelfSubjectRulesReviewSpec},
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client,
    api::{DynamicObject, PostParams},
};
use serde_json::json;

use support::{
    cluster::Cluster,
    crds, manifests,
    webhook::{account_token, registration},
};

/// Applied twice: the second time nothing may change, or a GitOps tool would never come to rest.
#[tokio::test]
async fn webhook_config_is_accepted_and_stable() {
    let cluster = Cluster::shared().await;
    cluster.install().await;
    let client = cluster.admin().await;
    for object in manifests::webhook_config() {
        if object["kind"] == "MutatingWebhookConfiguration" {
            // Registered it would refuse the wrapped runs of the other tests. Its fields are checked below.
            continue;
        }
        let first = manifests::apply(&client, &object).await.expect("accepted");
        let second = manifests::apply(&client, &object).await.expect("accepted");
        assert_eq!(first.metadata.resource_version, second.metadata.resource_version, "{object:#}");
    }
}

/// Accepted as they are, for the pods of the Deployment, and with nobody let in by accident.
#[tokio::test]
async fn network_policies_fit_the_deployment() {
    let cluster = Cluster::shared().await;
    cluster.install().await;
    let client = cluster.admin().await;
    let webhook_config = manifests::webhook_config();
    let deployment = webhook_config.iter().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    let pod = &deployment["spec"]["template"];
    let mut ports = BTreeSet::new();
    for policy in manifests::build("webhook-config/network-policies") {
        manifests::apply(&client, &policy).await.expect("accepted");
        assert_eq!(policy["spec"]["podSelector"]["matchLabels"], pod["metadata"]["labels"]);
        for rule in policy["spec"]["ingress"].as_array().expect("rules") {
            assert!(rule["from"].as_array().is_some_and(|from| !from.is_empty()), "{rule}");
            ports.extend(rule["ports"].as_array().expect("ports").iter().map(|port| port["port"].to_string()));
        }
    }
    let container = pod["spec"]["containers"][0]["ports"].as_array().expect("ports");
    assert_eq!(ports, container.iter().map(|port| port["containerPort"].to_string()).collect());
}

#[tokio::test]
async fn registration_spells_out_every_default() {
    let cluster = Cluster::shared().await;
    let mut registration = registration();
    assert!(registration["metadata"]["name"].as_str() < Some("webhook.pipeline.tekton.dev"), "called before Tekton's");
    // Other tests register it under its own name.
    registration["metadata"]["name"] = json!("dry-run");
    let params = PostParams { dry_run: true, ..PostParams::default() };
    let created = manifests::create(&cluster.admin().await, None, &registration, &params).await.expect("accepted");
    assert_eq!(created.data["webhooks"], registration["webhooks"]);
}

#[tokio::test]
async fn pods_of_the_deployment_pass_restricted_pod_security() {
    let cluster = Cluster::shared().await;
    cluster.install().await;
    let client = cluster.admin().await;
    let mut objects = manifests::webhook_config();
    let deployment = objects.iter_mut().find(|object| object["kind"] == "Deployment").expect("a Deployment");
    let mut pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "webhook"}});
    pod["spec"] = deployment["spec"]["template"]["spec"].take();
    let params = PostParams { dry_run: true, ..PostParams::default() };
    manifests::create(&client, Some("tekton-wrap"), &pod, &params).await.expect("the pod is admitted");

    pod["spec"]["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = json!(true);
    let refused = manifests::create(&client, Some("tekton-wrap"), &pod, &params).await;
    assert_forbidden(refused.map(|_| ()), "violates PodSecurity \"restricted:latest\"");
}

#[tokio::test]
async fn certs_are_accepted_and_fit_the_webhook() {
    let cluster = Cluster::shared().await;
    cluster.install().await;
    let client = cluster.admin().await;
    crds::apply_cert_manager(&client).await;
    let objects = manifests::build("certs");
    for object in &objects {
        manifests::apply(&client, object).await.expect("certs/ is accepted");
    }

    // Names that two folders have to agree on.
    let leaf =
        objects.iter().find(|object| object["metadata"]["name"] == "tekton-wrap-webhook").expect("a Certificate");
    let webhook_config = manifests::webhook_config();
    let of_kind = |kind: &str| webhook_config.iter().find(|object| object["kind"] == kind).expect("it is there");
    let deployment = of_kind("Deployment");
    assert_eq!(
        leaf["spec"]["secretName"],
        deployment["spec"]["template"]["spec"]["volumes"][0]["secret"]["secretName"]
    );
    let configuration = of_kind("MutatingWebhookConfiguration");
    let service = &configuration["webhooks"][0]["clientConfig"]["service"];
    assert_eq!(service["name"], of_kind("Service")["metadata"]["name"]);
    let host = format!("{}.{}.svc", service["name"].as_str().unwrap(), service["namespace"].as_str().unwrap());
    assert_eq!(leaf["spec"]["dnsNames"][0], json!(host));
    assert_eq!(
        configuration["metadata"]["annotations"]["cert-manager.io/inject-ca-from"],
        json!(format!("{}/tekton-wrap-webhook", leaf["metadata"]["namespace"].as_str().unwrap()))
    );
}

#[tokio::test]
async fn the_webhooks_account_reads_pipelines_and_tasks_and_nothing_else() {
    let cluster = Cluster::shared().await;
    let namespace = cluster.namespace().await;
    for kind in ["Pipeline", "Task"] {
        let object = json!({"apiVersion": "tekton.dev/v1", "kind": kind, "metadata": {"name": "a"}, "spec": {
            (if kind == "Pipeline" { "tasks" } else { "steps" }): [{"name": "a", "image": "a"}]}});
        namespace.accepts(&object).await;
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}});
    namespace.accepts(&secret).await;

    let account = cluster.client(&account_token(cluster).await).await;
    for kind in ["Pipeline", "Task"] {
        let like = json!({"apiVersion": "tekton.dev/v1", "kind": kind});
        let api: Api<DynamicObject> =
            Api::namespaced_with(account.clone(), &namespace.name, &manifests::resource(&like));
        api.get("a").await.expect("the account may read it");
        assert_forbidden(api.list(&Default::default()).await.map(|_| ()), "cannot list resource");
    }
    let secrets: Api<Secret> = Api::namespaced(account.clone(), &namespace.name);
    assert_forbidden(secrets.get("a").await.map(|_| ()), "cannot get resource \"secrets\"");

    // And all that it may do, as the apiserver sees it, beyond what every account may: ask about itself.
    let rights = rights(&account, &namespace.name).await;
    let expected = [
        "create resolution.tekton.dev/resolutionrequests",
        "delete resolution.tekton.dev/resolutionrequests",
        "get /configmaps tekton-wrap",
        "get tekton.dev/pipelines",
        "get tekton.dev/tasks",
        "list tekton.dev/verificationpolicies",
        "watch resolution.tekton.dev/resolutionrequests",
    ];
    assert_eq!(rights, expected.map(str::to_owned).into());
    // In Tekton's namespace one ConfigMap more.
    let here: BTreeSet<_> = self::rights(&account, "tekton-pipelines").await;
    let more: Vec<_> = here.difference(&expected.map(str::to_owned).into()).cloned().collect();
    assert_eq!(more, ["get /configmaps feature-flags"]);
    // In its own the defaults of the cluster, and its own pod.
    let here = self::rights(&account, "tekton-wrap").await;
    let more: Vec<_> = here.difference(&expected.map(str::to_owned).into()).cloned().collect();
    assert_eq!(more, ["get /configmaps tekton-wrap-defaults", "get /pods"]);
    let maps: Api<ConfigMap> = Api::namespaced(account.clone(), "tekton-pipelines");
    assert_forbidden(maps.get("config-defaults").await.map(|_| ()), "cannot get resource \"configmaps\"");
}

/// What an account may do in a namespace, as `verb group/resource`, with the names of objects where only some are meant.
async fn rights(account: &Client, namespace: &str) -> BTreeSet<String> {
    let review = SelfSubjectRulesReview {
        spec: SelfSubjectRulesReviewSpec { namespace: Some(namespace.to_owned()) },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectRulesReview> = Api::all(account.clone());
    let answer = reviews.create(&PostParams::default(), &review).await.expect("an answer");
    let mut rights = BTreeSet::new();
    for rule in answer.status.expect("a status").resource_rules {
        for group in rule.api_groups.iter().flatten().filter(|group| !group.ends_with(".k8s.io")) {
            for resource in rule.resources.iter().flatten() {
                let names =
                    rule.resource_names.as_ref().map(|names| format!(" {}", names.join(","))).unwrap_or_default();
                rights.extend(rule.verbs.iter().map(|verb| format!("{verb} {group}/{resource}{names}")));
            }
        }
    }
    rights
}

fn assert_forbidden(result: Result<(), kube::Error>, why: &str) {
    match result {
        Err(kube::Error::Api(status)) if status.code == 403 && status.message.contains(why) => {}
        other => panic!("expected 403 with {why:?}, got {other:?}"),
    }
}
