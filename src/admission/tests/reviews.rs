use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::sync::Barrier;

use super::support::*;

#[tokio::test]
async fn a_run_is_wrapped() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    let mut answers = Vec::new();
    for dry_run in [false, true] {
        let mut review = creation(&run("chain"));
        review["request"]["dryRun"] = json!(dry_run);
        answers.push(client.review(&review.to_string()).await.unwrap().body);
    }
    assert_eq!(answers[0], answers[1]);

    let response = &serde_json::from_str::<Value>(&answers[0]).unwrap()["response"];
    assert_eq!(response["allowed"], true, "{response}");
    assert_eq!(response["patchType"], "JSONPatch");
    let patch = STANDARD.decode(response["patch"].as_str().unwrap()).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    let mut wrapped = run("chain");
    json_patch::patch(&mut wrapped, &patch).unwrap();
    assert_eq!(wrapped["spec"].get("pipelineRef"), None);
    assert_eq!(wrapped["spec"]["pipelineSpec"]["tasks"][1]["runAfter"], json!(["first"]));

    let wrapped = r#"tekton_wrap_admission_requests_total{operation="CREATE",outcome="wrapped",reason=""}"#;
    assert_eq!(server.metric(wrapped).await.as_deref(), Some("2"));
    assert_eq!(server.metric("tekton_wrap_admission_in_flight").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn what_is_not_for_us_is_untouched() {
    // A source that panics: it must not even be asked.
    let server = Running::start(Stage::Panics).await;
    let mut client = server.client().await;
    let bomb = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let with = |change: fn(&mut Value)| {
        let mut review = creation(&run("chain"));
        change(&mut review);
        review.to_string()
    };
    for review in [
        with(|r| r["request"]["operation"] = json!("UPDATE")),
        with(|r| r["request"]["operation"] = json!("CONNECT")),
        with(|r| {
            r["request"]["operation"] = json!("DELETE");
            r["request"]["object"] = Value::Null;
        }),
        with(|r| r["request"]["subResource"] = json!("status")),
        with(|r| r["request"]["resource"]["resource"] = json!("taskruns")),
        with(|r| r["request"]["resource"] = json!({"group": "", "version": "v1", "resource": "pods"})),
        with(|r| r["request"]["resource"]["group"] = json!("tekton.dev.example.com")),
        with(|r| r["request"]["object"]["spec"]["pipelineRef"]["resolver"] = json!("git")),
        with(|r| r["request"]["object"]["spec"]["pipelineRef"]["resolver"] = json!("wrapper")),
        with(|r| r["request"]["object"]["spec"]["pipelineRef"] = json!({"name": "chain"})),
        with(|r| r["request"]["object"]["spec"] = json!({"pipelineSpec": {"tasks": []}})),
        with(|r| r["request"]["object"] = json!({})),
        with(|r| r["request"]["object"] = json!("no object at all")),
        // What is not read may hold anything.
        with(|r| r["request"]["operation"] = json!("UPDATE")).replace("null", &bomb),
    ] {
        let answer = client.review(&review).await.unwrap();
        let untouched = concat!(
            r#"{"apiVersion":"admission.k8s.io/v1","kind":"AdmissionReview","#,
            r#""response":{"uid":"705ab4f5-6393-11e8-b7cc-42010a800002","allowed":true}}"#
        );
        assert_eq!((answer.status, answer.body.as_str()), (200, untouched), "{}", &review[..review.len().min(2000)]);
    }
}

#[tokio::test]
async fn refusals() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    let mut v1beta1 = creation(&run("chain"));
    v1beta1["request"]["resource"]["version"] = json!("v1beta1");
    for (review, code, names) in [(creation(&run("absent")), 400, "absent"), (v1beta1, 400, "v1beta1")] {
        let response = client.review(&review.to_string()).await.unwrap().response();
        assert_eq!(response["allowed"], false);
        assert_eq!(response["uid"], review["request"]["uid"]);
        assert_eq!(response["status"]["code"], code);
        assert_eq!((response.get("patch"), response.get("patchType")), (None, None));
        let message = response["status"]["message"].as_str().unwrap();
        assert!(message.contains(names), "{message}");
    }
}

/// A client of Kubernetes tries again by itself.
#[tokio::test]
async fn an_outage_is_answered_so_that_clients_try_again() {
    let server = Running::start(Stage::Fails).await;
    let review = creation(&run("chain")).to_string();
    let response = server.client().await.post("/wrap", &review).await.unwrap().response();
    let status = &response["status"];
    assert_eq!((&status["code"], &status["reason"]), (&json!(503), &json!("Unavailable")), "{response}");
    assert_eq!(status["details"]["retryAfterSeconds"], json!(2));
}

/// Whatever becomes of the run of a namespace that opts in, it is stored.
#[tokio::test]
async fn for_a_namespace_s_sake_nothing_is_refused() {
    for stage in [Stage::Found, Stage::Fails] {
        let server = Running::start(stage).await;
        let mut client = server.client().await;
        for pipeline in ["chain", "absent"] {
            let mut run = run("chain");
            run["spec"] = json!({"pipelineRef": {"name": pipeline}});
            let answer = client.post("/wrap-namespace", &creation(&run).to_string()).await.unwrap();
            let response = answer.response();
            assert_eq!((&response["allowed"], response.get("patch")), (&json!(true), None), "{response}");
            let warning = response["warnings"][0].as_str().unwrap();
            assert!(warning.starts_with("not wrapped, as its namespace would have it: "), "{warning}");
        }
        assert_eq!(client.post("/elsewhere", "{}").await.unwrap().status, 404);
    }
}

#[tokio::test]
async fn a_source_without_an_answer_uses_up_the_budget() {
    let server = Running::start(Stage::Hangs).await;
    let review = creation(&run("chain")).to_string();
    let response = server.client().await.post("/wrap?timeout=1s", &review).await.unwrap().response();
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 504);
    assert_eq!(response["status"]["reason"], "Timeout");
}

#[tokio::test]
async fn a_panic_is_one_request_s_own() {
    let server = Running::start(Stage::Panics).await;
    let mut client = server.client().await;
    for _ in 0..2 {
        let answer = client.review(&creation(&run("chain")).to_string()).await.unwrap();
        assert_eq!(answer.status, 500);
    }
    assert_eq!(server.admin("/livez").await.status, 200);
    assert_eq!(server.metric("tekton_wrap_admission_in_flight").await.as_deref(), Some("0"));
}

#[tokio::test]
async fn a_hundred_at_once() {
    // Nobody gets an answer before the hundredth has come.
    let server = Running::start(Stage::Meets(Barrier::new(100))).await;
    let mut clients = tokio::task::JoinSet::new();
    for i in 0..100 {
        let mut client = server.client().await;
        let mut review = creation(&run("chain"));
        review["request"]["uid"] = json!(format!("uid-{i}"));
        clients.spawn(async move {
            let response = client.review(&review.to_string()).await.unwrap().response();
            assert_eq!((&response["uid"], &response["allowed"]), (&review["request"]["uid"], &json!(true)));
        });
    }
    assert_eq!(clients.join_all().await.len(), 100);
}

#[tokio::test]
async fn probes() {
    let server = Running::start(Stage::Found).await;
    for (path, status) in [("/livez", 200), ("/readyz", 200), ("/metrics", 200), ("/", 404), ("/wrap", 404)] {
        assert_eq!(server.admin(path).await.status, status, "{path}");
    }
    assert!(server.admin("/metrics").await.body.contains("\ntekton_wrap_build_info{"));
    assert!(server.admin("/readyz?verbose").await.body.ends_with("[+]shutdown ok\nreadyz check passed\n"));
}
