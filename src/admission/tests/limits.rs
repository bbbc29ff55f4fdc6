use std::{sync::Arc, time::Duration};

use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Semaphore};

use super::{super::capacity::MAX_BODY, support::*};

#[tokio::test]
async fn heads() {
    let server = Running::start(Stage::Found).await;
    let review = creation(&run("chain")).to_string();
    let json = "application/json";
    for (method, path, content_type, status, allow) in [
        ("POST", "/wrap", json, 200, None),
        ("POST", "/wrap?timeout=5s", "application/JSON; charset=utf-8", 200, None),
        ("POST", "/", json, 404, None),
        ("POST", "/wrap/", json, 404, None),
        ("GET", "/metrics", json, 404, None),
        ("GET", "/wrap", json, 405, Some("post")),
        ("PUT", "/wrap", json, 405, Some("post")),
        ("POST", "/wrap", "text/plain", 415, None),
        ("POST", "/wrap", "application/jsonp", 415, None),
        ("POST", "/wrap", "", 415, None),
    ] {
        let mut client = server.client().await;
        client.send((head(method, path, content_type, review.len()) + &review).as_bytes()).await;
        let answer = client.answer().await.unwrap();
        assert_eq!((answer.status, answer.header("allow")), (status, allow), "{method} {path} {content_type}");
        if status != 200 {
            assert!(!answer.body.is_empty() && !answer.body.contains('\n'), "{}", answer.body);
        }
    }
}

#[tokio::test]
async fn sizes() {
    let server = Running::start(Stage::Found).await;
    let padded = |size: usize| {
        let review = creation(&run("chain")).to_string();
        let padding = " ".repeat(size - review.len());
        review + &padding
    };
    let mut client = server.client().await;
    let answer = client.review(&padded(MAX_BODY)).await.unwrap();
    assert_eq!(answer.response()["allowed"], true);

    // Content-Length alone is enough.
    client.send(head("POST", "/wrap", "application/json", MAX_BODY + 1).as_bytes()).await;
    let answer = client.answer().await.unwrap();
    assert_eq!((answer.status, answer.closes()), (413, true));
    assert!(answer.body.contains("4 MiB"), "{}", answer.body);
    assert!(client.is_cut().await);

    // A client that first sends everything gets the answer all the same.
    let mut client = server.client().await;
    let answer = client.review(&padded(2 * MAX_BODY)).await.unwrap();
    assert_eq!((answer.status, answer.closes()), (413, true));

    // Without one, the bytes are counted as they come.
    let mut client = server.client().await;
    let head = "POST /wrap HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n";
    client.send(format!("{head}{:x}\r\n", MAX_BODY + 1).as_bytes()).await;
    client.send(padded(MAX_BODY + 1).as_bytes()).await;
    assert_eq!(client.answer().await.unwrap().status, 413);
}

#[tokio::test]
async fn unreadable_reviews() {
    let server = Running::start(Stage::Found).await;
    let mut client = server.client().await;
    let review = creation(&run("chain")).to_string();
    let bomb = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    for body in [
        String::new(),
        "{}".to_owned(),
        review[..review.len() - 1].to_owned(),
        bomb.clone(),
        review.replace(r#""generateName":"build-""#, &format!(r#""generateName":{bomb}"#)),
        review.replace(r#""operation":"CREATE""#, r#""operation":7"#),
        review.replace("admission.k8s.io/v1", "admission.k8s.io/v1beta1"),
    ] {
        let answer = client.review(&body).await.unwrap();
        assert_eq!(answer.status, 400, "{}", answer.body);
        assert!(answer.body.starts_with("the admission review can't be read: "), "{}", answer.body);
    }
    let unreadable = r#"tekton_wrap_admission_requests_total{operation="none",outcome="rejected",reason="Unreadable"}"#;
    assert_eq!(server.metric(unreadable).await.as_deref(), Some("7"));
}

#[tokio::test]
async fn only_http_1() {
    let server = Running::start(Stage::Found).await;
    let offer = |protocols: &[&str]| {
        let mut config = server.authority.client_config();
        config.alpn_protocols = protocols.iter().map(|p| p.as_bytes().to_vec()).collect();
        Authority::connect_with(config, server.address)
    };
    let client = offer(&["h2", "http/1.1"]).await.unwrap();
    assert_eq!(client.stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    assert!(offer(&["h2"]).await.is_err());
    assert!(offer(&[]).await.is_ok());
}

#[tokio::test]
async fn slow_clients_are_cut() {
    let short = Duration::from_millis(200);
    let server = Running::with(Stage::Found, |server| {
        server.limits.first_request = short;
        server.limits.idle = short;
    })
    .await;

    let mut mute = Client { stream: TcpStream::connect(server.address).await.unwrap() };
    assert!(mute.is_cut().await, "no handshake");

    let mut half = Client { stream: TcpStream::connect(server.address).await.unwrap() };
    half.stream.write_all(&[22, 3, 1]).await.unwrap();
    assert!(half.is_cut().await, "half a handshake");

    let mut silent = server.client().await;
    assert!(silent.is_cut().await, "no request");

    let mut drip = server.client().await;
    drip.send(b"POST /wrap HTTP/1.1\r\nhost:").await;
    assert!(drip.is_cut().await, "half a head");

    let mut idle = server.client().await;
    assert_eq!(idle.review(&creation(&run("chain")).to_string()).await.unwrap().status, 200);
    assert!(idle.is_cut().await, "no second request");

    let mut stuck = server.client().await;
    stuck.send((head("POST", "/wrap?timeout=1s", "application/json", 100) + "{").as_bytes()).await;
    let answer = stuck.answer().await.unwrap();
    assert_eq!((answer.status, answer.closes()), (408, true), "half a body");
    assert!(stuck.is_cut().await);
}

#[tokio::test]
async fn connections_beyond_the_cap_take_the_place_of_idle_ones() {
    let permits = Arc::new(Semaphore::new(0));
    let server = Running::with(Stage::Waits(permits.clone()), |server| server.limits.connections = 2).await;
    let (mut idle, mut busy) = (server.client().await, server.client().await);
    let review = creation(&run("chain")).to_string();
    let asked = tokio::spawn({
        let review = review.clone();
        async move { busy.review(&review).await }
    });
    while server.metric("tekton_wrap_admission_in_flight").await.as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }
    let mut third = server.client().await;
    assert!(idle.is_cut().await, "it asked nothing");
    let waiting = tokio::spawn(async move { third.review(&review).await });
    while server.metric("tekton_wrap_admission_in_flight").await.as_deref() != Some("2") {
        tokio::task::yield_now().await;
    }
    // Both are busy now, and neither is cut for a fourth.
    let fourth = server.authority.connect(server.address);
    permits.add_permits(1000);
    assert_eq!(asked.await.unwrap().unwrap().status, 200);
    assert_eq!(waiting.await.unwrap().unwrap().status, 200);
    fourth.await.unwrap();
}
