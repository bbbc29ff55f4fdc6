use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

/// An API that gives every request the same answer: status and body, or none at all. It counts the requests.
async fn api(answer: Option<(&'static str, &'static str)>) -> (Cluster, Arc<AtomicUsize>) {
    // Whether or not another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                assert_ne!(stream.read_buf(&mut request).await.unwrap(), 0);
            }
            assert!(request.starts_with(b"GET /apis/tekton.dev/v1/namespaces/team/pipelines/chain HTTP/1.1\r\n"));
            count.fetch_add(1, Relaxed);
            if let Some((status, body)) = answer {
                let length = body.len();
                let text = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(text.as_bytes()).await.unwrap();
            } else {
                open.push(stream);
            }
        }
    });
    let client = Client::try_from(Config::new(uri)).unwrap();
    (
        Cluster::new(
            client,
            Duration::from_millis(300),
            ClusterOptions::default(),
            Work::Here,
            &Arc::default(),
            &Arc::default(),
        ),
        asked,
    )
}

#[tokio::test]
async fn an_object_keeps_its_order_and_all_fields() {
    let text = r#"{"kind":"Pipeline","spec":{"z":1,"a":{"unknown":null,"b":1.50}},"apiVersion":"tekton.dev/v1"}"#;
    let (cluster, _) = api(Some(("200 OK", text))).await;
    let object =
        cluster.get(Kind::Pipeline, &Reference::Name("chain".to_owned()), &"team".into()).await.unwrap().unwrap();
    assert_eq!(object.object.to_string(), text.replace("1.50", "1.5"));
}

#[tokio::test]
async fn absent_or_unreadable() {
    let status = |code: &str, reason: &str, details: &str| {
        let text = format!(
            r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"no: {reason}","reason":"{reason}","details":{details},"code":{code}}}"#
        );
        &*text.leak()
    };
    let chain = r#"{"name":"chain","group":"tekton.dev","kind":"pipelines"}"#;
    for (answer, expected) in [
        (Some(("404 Not Found", status("404", "NotFound", chain))), None),
        (Some(("404 Not Found", "404 page not found")), Some("does not serve tekton.dev/v1")),
        (Some(("404 Not Found", status("404", "NotFound", "{}"))), Some("does not serve tekton.dev/v1")),
        (Some(("403 Forbidden", status("403", "Forbidden", chain))), Some("forbidden by RBAC to get pipelines")),
        (Some(("401 Unauthorized", status("401", "Unauthorized", "{}"))), Some("answered 401 no: Unauthorized")),
        (Some(("500 Oops", "a\nb")), Some("answered 500 a b")),
        (Some(("200 OK", "{")), Some("EOF while parsing")),
        (None, Some("no answer within 0.3 s")),
    ] {
        let (cluster, asked) = api(answer).await;
        let got = cluster.get(Kind::Pipeline, &Reference::Name("chain".to_owned()), &"team".into()).await;
        assert!(asked.load(Relaxed) > 0);
        let Some(expected) = expected else {
            assert!(got.unwrap().is_none());
            continue;
        };
        let error = got.unwrap_err().to_string();
        assert!(error.starts_with(r#"pipeline "chain" in namespace "team" can't be read: "#), "{error}");
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn an_unreachable_api_is_said_so() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = Client::try_from(Config::new(format!("http://{closed}").parse().unwrap())).unwrap();
    let error =
        Cluster::new(client, REQUEST_TIMEOUT, ClusterOptions::default(), Work::Here, &Arc::default(), &Arc::default())
            .get(Kind::Task, &Reference::Name("build".to_owned()), &"team".into())
            .await
            .unwrap_err()
            .to_string();
    assert!(error.starts_with(r#"task "build" in namespace "team" can't be read: "#), "{error}");
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn a_name_never_leads_out_of_its_namespace() {
    let (cluster, asked) = api(Some(("200 OK", "{}"))).await;
    for (namespace, name) in [("team", "../../other/pipelines/x"), ("team", "x?y"), ("../team", "x"), ("", "x")] {
        assert_eq!(cluster.named(Kind::Pipeline, name, &namespace.into()).await.unwrap(), None);
    }
    assert_eq!(asked.load(Relaxed), 0);
}

#[tokio::test]
async fn configurations() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("kubeconfig");
    let error = async || {
        Cluster::connect(Some(&file), ClusterOptions::default(), Work::Here, &Arc::default(), &Arc::default())
            .await
            .err()
            .unwrap()
            .to_string()
    };
    assert!(error().await.starts_with(&format!("--kubeconfig {}: ", file.display())));
    std::fs::write(&file, "clusters: 7").unwrap();
    assert!(error().await.starts_with(&format!("--kubeconfig {}: ", file.display())));
}
