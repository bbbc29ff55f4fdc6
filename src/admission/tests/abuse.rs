//! What was measured to take a replica down, or would ask more than it may.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::Barrier, time::timeout};

use super::{
    super::{
        capacity::MAX_BODY,
        tls::{Tls, TlsSettings},
    },
    support::*,
};

/// The reason and the sentence of a refusal.
fn refusal(answer: &HttpAnswer) -> (String, String) {
    let response = answer.response();
    assert_eq!(response["allowed"], false, "{response}");
    let text = |field: &str| response["status"][field].as_str().unwrap().to_owned();
    (text("reason"), text("message"))
}

/// A run whose param `p` is `value`.
fn with_param(value: Value) -> Value {
    let mut run = run("chain");
    run["spec"]["params"] = json!([{"name": "p", "value": value}]);
    run
}

#[tokio::test]
async fn a_run_with_too_many_values_is_refused_before_it_is_built() {
    let server = Running::start(Stage::Panics).await;
    let mut client = server.client().await;
    for (value, sentence) in [
        (json!(vec![0; 70_000]), "the run with its Pipeline and Tasks has 700"),
        (json!(vec![0; 1_400_000]), "the PipelineRun has 2800"),
        (json!("x".repeat(2 << 20)), "the PipelineRun has 2097"),
    ] {
        let answer = client.review(&creation(&with_param(value)).to_string()).await.unwrap();
        let (reason, message) = refusal(&answer);
        assert_eq!(reason, "LimitExceeded");
        assert!(message.starts_with(sentence), "{message}");
    }
    // One that does not ask to be wrapped is none of our business.
    let mut other = with_param(json!(vec![0; 70_000]));
    other["spec"]["pipelineRef"] = json!({"name": "chain"});
    let answer = client.review(&creation(&other).to_string()).await.unwrap();
    assert_eq!(answer.response()["allowed"], true);
}

#[tokio::test]
async fn what_a_value_is_made_of_is_bounded() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    let mut run = with_param(json!("x".repeat(1000)));
    let param = |run: &mut Value, index: usize, value: Value| {
        run["spec"]["pipelineRef"]["params"][index]["value"] = value;
    };
    for (index, value, sentence) in [
        (
            2,
            json!("$(params.p)".repeat(10_000)),
            "param \"target\" of resolver wrap has 10110000 bytes, more than the 8192",
        ),
        (1, json!((0..20_000).map(|number| format!("w{number}")).collect::<Vec<_>>()), "has 20000 items"),
        (
            0,
            json!(format!("a: &a {}\nb: [{}]", "x".repeat(60_000), vec!["*a"; 1000].join(","))),
            "the aliases stand for too much",
        ),
        (0, json!("y".repeat(113 << 10)), "has 115712 bytes, more than the 65536"),
    ] {
        let before = run.clone();
        param(&mut run, index, value);
        let answer = client.review(&creation(&run).to_string()).await.unwrap();
        let (_, message) = refusal(&answer);
        assert!(message.contains(sentence), "{message}");
        run = before;
    }
}

/// It would become a part of URLs.
#[tokio::test]
async fn a_namespace_that_can_not_exist_is_never_asked_for() {
    let server = Running::start(Stage::Panics).await;
    let mut client = server.client().await;
    for namespace in ["../../namespaces/kube-system", "", "a/b", "A", "a?b"] {
        let mut review = creation(&run("chain"));
        review["request"]["namespace"] = json!(namespace);
        let answer = client.review(&review.to_string()).await.unwrap();
        assert_eq!(answer.status, 400, "{namespace}");
        assert!(answer.body.ends_with("its request has a namespace that can't exist"), "{}", answer.body);
    }
}

/// Whoever may send no runs sees nothing of what was sent in the answer or the log.
#[tokio::test]
async fn an_unreadable_review_is_not_quoted() {
    let server = Running::start(Stage::Panics).await;
    let mut client = server.client().await;
    for body in [r#"{"kind": "s3cret", "apiVersion": "s3cret"}"#, r#"{"apiVersion": 7, "s3cret"}"#, r#""s3cret""#] {
        let answer = client.review(body).await.unwrap();
        assert!(answer.status == 400 && !answer.body.contains("s3cret"), "{}", answer.body);
    }
}

#[tokio::test]
async fn slow_large_bodies_keep_nobody_out() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    let mut slow = join_all((0..30).map(|_| server.client())).await;
    let begun = head("POST", "/wrap?timeout=2s", "application/json", MAX_BODY) + &" ".repeat(10_000);
    join_all(slow.iter_mut().map(|client| client.send(begun.as_bytes()))).await;
    let answer = client.review(&creation(&run("chain")).to_string()).await.unwrap();
    assert_eq!(answer.response()["allowed"], true);
    // Four at a time have their turn, and do not arrive; the others wait for theirs no longer than leaves time for an answer.
    let mut busy = 0;
    for mut client in slow {
        let answer = client.answer().await.unwrap();
        assert!([408, 503].contains(&answer.status), "{}", answer.status);
        busy += usize::from(answer.status == 503);
    }
    assert!((1..=26).contains(&busy), "{busy}");
}

/// Nobody gets an answer before the fifth has come, and only four large bodies are held at a time.
#[tokio::test]
async fn no_large_body_is_held_while_a_resolver_is_waited_for() {
    let server = Running::start(Stage::Meets(Barrier::new(5))).await;
    let review = creation(&run("chain")).to_string() + &" ".repeat(300 << 10);
    let one = async || server.client().await.review(&review).await.unwrap();
    for answer in join_all((0..5).map(|_| one())).await {
        assert_eq!(answer.response()["allowed"], true);
    }
}

/// The apiserver asks only once: those that come at the same moment wait for each other.
#[tokio::test]
async fn large_reviews_take_turns() {
    let server = Running::start(Stage::Found).await;
    let mut run = run("chain");
    run["metadata"]["annotations"]["note"] = json!("x".repeat(300 << 10));
    let review = creation(&run).to_string();
    let one = async || server.client().await.post("/wrap?timeout=30s", &review).await.unwrap();
    for answer in join_all((0..20).map(|_| one())).await {
        assert_eq!(answer.response()["allowed"], true, "{}", answer.body.chars().take(300).collect::<String>());
    }
}

#[tokio::test]
async fn probes_are_answered_whoever_else_connects() {
    let server = Running::start(Stage::Found).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(TcpStream::connect(server.admin).await.unwrap());
    }
    let livez = timeout(Duration::from_secs(30), server.admin("/livez")).await.expect("an answer");
    assert_eq!(livez.status, 200);
    drop(open);
}

#[tokio::test]
async fn only_clients_with_the_right_certificate_are_served() {
    let (authority, next) = (Authority::new(), Authority::new());
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.crt");
    std::fs::write(&file, authority.pem()).unwrap();
    let server = Running::with(Stage::Found, |server| {
        let settings = server.tls.settings().clone();
        let names = vec!["apiserver".to_owned()];
        server.tls = Tls::load(TlsSettings { client_ca: Some(file.clone()), client_names: names, ..settings }).unwrap();
    })
    .await;
    let client = async |pair: Option<Pair>| {
        let config = match pair {
            Some(pair) => server.authority.client_config_with(&pair),
            None => server.authority.client_config(),
        };
        // In TLS 1.3 a client learns only from the first read that the server did not accept its certificate.
        let mut client = Authority::connect_with(config, server.address).await.ok()?;
        client.review(&creation(&run("chain")).to_string()).await.ok()
    };
    assert_eq!(client(Some(authority.client_pair("apiserver"))).await.unwrap().status, 200);
    for refused in [None, Some(authority.client_pair("someone")), Some(next.client_pair("apiserver"))] {
        assert!(client(refused).await.is_none());
    }
    let refused = r#"tekton_wrap_tls_handshake_failures_total{reason="client_certificate"}"#;
    assert_eq!(server.metric(refused).await.as_deref(), Some("3"));

    // The file is read again when it changes.
    std::fs::write(&file, next.pem()).unwrap();
    let changed = async {
        while client(Some(next.client_pair("apiserver"))).await.is_none() {
            tokio::task::yield_now().await;
        }
    };
    timeout(FOREVER, changed).await.expect("the new authority is accepted");
    assert!(client(Some(authority.client_pair("apiserver"))).await.is_none());
    let absent = TlsSettings { client_ca: Some(dir.path().join("absent")), ..settings(server.mount.dir.path()) };
    assert!(Tls::load(absent).is_err());
}

/// What it says goes to a terminal, and into the log as one line: the names in it are those of whoever wrote the Pipeline.
#[tokio::test]
async fn no_name_writes_to_the_terminal_or_forges_a_line_of_the_log() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    let evil = "x\u{1b}[2J\r\n2026-01-01 INFO forged\u{202e}";
    let mut run = run("chain");
    run["metadata"]["annotations"] = json!({"tekton-wrap.dev/wrap": evil, "tekton-wrap.dev/target": "quay.io/me/x"});
    for tasks in
        [json!([{"name": evil}, {"name": evil}]), json!([{"name": "a", "runAfter": [evil]}]), json!([{"name": "a"}])]
    {
        run["spec"] = json!({"pipelineSpec": {"workspaces": [{"name": evil}], "tasks": tasks}});
        let answer = client.review(&creation(&run).to_string()).await.unwrap();
        let response = answer.response();
        let sentence = response["status"]["message"].as_str().or(response["warnings"][0].as_str()).unwrap();
        assert!(sentence.contains("forged"), "{response}");
        assert!(!sentence.chars().any(|c| c.is_control() || c == '\u{202e}'), "{sentence:?}");
    }
}
