use std::{sync::Arc, time::Duration};

use tokio::{net::TcpStream, sync::Semaphore, task::JoinSet};

use super::support::*;

/// Clients as the apiserver is one: they keep connections, and go on for a while after the server was told to stop.
#[tokio::test]
async fn no_request_is_lost_under_load() {
    let server = Running::with(Stage::Found, |server| server.shutdown_delay = Duration::from_secs(2)).await;
    let review: Arc<str> = creation(&run("chain")).to_string().into();
    let mut clients = JoinSet::new();
    for _ in 0..8 {
        let (config, address, review) = (server.authority.client_config(), server.address, review.clone());
        clients.spawn(async move {
            let (mut before, mut after) = (0, 0);
            while after < 5 {
                let mut client = Authority::connect_with(config.clone(), address).await.unwrap();
                loop {
                    let answer = client.review(&review).await.unwrap();
                    assert_eq!(answer.response()["allowed"], true);
                    if answer.closes() {
                        after += 1;
                        break;
                    }
                    assert_eq!(after, 0, "an answer without Connection: close");
                    before += 1;
                }
            }
            before
        });
    }
    let wrapped = r#"tekton_wrap_admission_requests_total{operation="CREATE",outcome="wrapped",reason=""}"#;
    while server.metric(wrapped).await.and_then(|count| count.parse().ok()).unwrap_or(0) < 100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(server.admin("/readyz").await.status, 200);
    server.signals.send(()).await.unwrap();
    while server.admin("/readyz").await.status != 503 {
        tokio::task::yield_now().await;
    }
    let answered = clients.join_all().await;
    assert!(answered.iter().sum::<u32>() >= 100);
    server.end().await;
}

#[tokio::test]
async fn requests_in_flight_are_answered() {
    let permits = Arc::new(Semaphore::new(0));
    let server = Running::with(Stage::Waits(permits.clone()), |server| {
        // Only the end of the server closes the idle connection.
        server.limits.first_request = 100 * FOREVER;
    })
    .await;
    let mut idle = server.client().await;
    let mut waiting = server.client().await;
    let asked = tokio::spawn(async move { waiting.review(&creation(&run("chain")).to_string()).await });
    while server.metric("tekton_wrap_admission_in_flight").await.as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }

    server.signals.send(()).await.unwrap();
    assert!(idle.is_cut().await);
    while TcpStream::connect(server.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    assert!(!server.ended.is_finished());

    permits.add_permits(1000);
    let answer = asked.await.unwrap().unwrap();
    assert!(answer.closes());
    assert_eq!(answer.response()["allowed"], true);
    server.end().await;
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_server() {
    let server = Running::with(Stage::Hangs, |server| server.limits.drain = Duration::from_millis(100)).await;
    let mut client = server.client().await;
    let review = creation(&run("chain")).to_string();
    client.send((head("POST", "/wrap?timeout=30s", "application/json", review.len()) + &review).as_bytes()).await;
    while server.metric("tekton_wrap_admission_in_flight").await.as_deref() != Some("1") {
        tokio::task::yield_now().await;
    }
    server.signals.send(()).await.unwrap();
    server.end().await;
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    for shutdown_delay in [Duration::ZERO, 100 * FOREVER] {
        let server = Running::with(Stage::Hangs, |server| {
            server.shutdown_delay = shutdown_delay;
            server.limits.drain = 100 * FOREVER;
        })
        .await;
        let mut client = server.client().await;
        let review = creation(&run("chain")).to_string();
        client.send((head("POST", "/wrap?timeout=30s", "application/json", review.len()) + &review).as_bytes()).await;
        while server.metric("tekton_wrap_admission_in_flight").await.as_deref() != Some("1") {
            tokio::task::yield_now().await;
        }
        server.signals.send(()).await.unwrap();
        server.signals.send(()).await.unwrap();
        server.end().await;
    }
}
