use std::net::SocketAddr;

use kube::Config;
use serde_json::json;
use tokio::{io::AsyncReadExt, net::TcpListener};

use super::*;
use crate::source::Kind;

#[test]
fn what_panicked_is_no_flight() {
    let (sender, outcome) = channel::channel(None);
    let flight = Flight { start: Instant::now(), outcome, missed: Arc::default() };
    assert!(flight.is_alive());
    drop(sender);
    assert!(!flight.is_alive());
    let (sender, outcome) = channel::channel(None);
    let flight = Flight { start: Instant::now(), outcome, missed: Arc::default() };
    sender.send_replace(Some(Err(SourceError { reason: "R", message: String::new() })));
    drop(sender);
    assert!(flight.is_alive());
}

fn requests(api: SocketAddr) -> Requests {
    // Whether or not another test was first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::try_from(Config::new(format!("http://{api}").parse().unwrap())).unwrap();
    Requests::new(client, Duration::from_secs(5), Arc::default())
}

fn query(namespace: &str, number: usize) -> ResolverQuery {
    let params = vec![json!({"name": "n", "value": number.to_string()})];
    ResolverQuery { kind: Kind::Task, namespace: namespace.to_owned(), resolver: "git".to_owned(), params }
}

/// An API that takes connections and says nothing.
async fn silent() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

#[tokio::test]
async fn while_the_watch_is_down_a_run_is_refused_at_once() {
    let (_listener, address) = silent().await;
    let requests = requests(address);
    requests.shared.board.set_watch_error(Some("it is down".to_owned()));
    let error = requests.resolve(&query("team", 0), None).await.unwrap_err();
    assert_eq!(error.reason, SourceError::UNAVAILABLE);
    assert!(error.message.ends_with("since ResolutionRequests can't be watched: it is down"), "{error}");
    assert!(requests.shared.flights().is_empty());
}

#[tokio::test]
async fn a_namespace_that_leads_elsewhere_is_never_asked_for() {
    let (_listener, address) = silent().await;
    let requests = requests(address);
    for namespace in ["../../namespaces/kube-system", "", "a/b"] {
        let error = requests.resolve(&query(namespace, 0), None).await.unwrap_err();
        assert!(error.message.ends_with("no namespace can have this name"), "{error}");
    }
    assert!(requests.shared.flights().is_empty());
}

#[tokio::test]
async fn requests_in_flight_are_bounded() {
    let (_listener, address) = silent().await;
    let requests = requests(address);
    let begin = |namespace: &str, number| requests.shared.flight(&query(namespace, number)).map(|_| ());
    (0..MAX_FLIGHTS_OF_NAMESPACE).for_each(|number| begin("team", number).unwrap());
    let error = begin("team", MAX_FLIGHTS_OF_NAMESPACE).unwrap_err();
    assert_eq!(error.reason, SourceError::UNAVAILABLE);
    // What is asked for already can be shared.
    begin("team", 0).unwrap();
    (0..MAX_FLIGHTS - MAX_FLIGHTS_OF_NAMESPACE).for_each(|number| begin(&format!("n{number}"), 0).unwrap());
    assert!(begin("other", 0).is_err());
}

/// Without a resource version an etcd without progress notifications ends every watch.
#[tokio::test]
async fn the_watch_starts_from_the_cache() {
    let (listener, address) = silent().await;
    let mut requests = requests(address);
    requests.start(Arc::default());
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(stream.read_buf(&mut head).await.unwrap(), 0);
    }
    let head = String::from_utf8(head).unwrap();
    assert!(
        head.starts_with("GET /apis/resolution.tekton.dev/v1beta1/resolutionrequests?watch=true&resourceVersion=0&"),
        "{head}"
    );
}
