use std::{
    io::{BufReader, Read, Write},
    net::TcpListener,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use serde_json::Value;
use support::{
    collector::{Collector, attribute},
    http::Head,
};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// Whatever takes longer has gone wrong.
const FOREVER: Duration = Duration::from_secs(60);

fn sent_to(collector_url: &str) -> TraceSettings {
    let args = TraceArgs { otlp_endpoint: Some(collector(collector_url).unwrap()), trace_fraction: None };
    args.settings(|_| None)
}

async fn until(is_so: impl Fn() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(FOREVER, wait).await.expect("spans arrive");
}

/// What a review does.
async fn reviewed(traceparent: &str) {
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, traceparent.parse().unwrap());
    let span = review(&headers);
    async {
        let found = within(read("/apis/x"), async {
            let mut request = http::Request::get("/").body(()).unwrap();
            pass_on(&mut request);
            Ok::<_, String>(request.headers().get(TRACEPARENT).cloned())
        });
        assert_eq!(found.await.unwrap().is_some(), !Span::current().is_disabled());
        let failed = within(rewrite(), async { Err::<(), _>("it can't be wrapped") });
        assert!(failed.await.is_err());
        about(&"u".repeat(1 << 20), "ci", "build-");
    }
    .instrument(span.clone())
    .await;
    ended(&span, "refused", "UnsupportedTask");
}

#[tokio::test]
async fn a_review_with_what_it_did_is_sent() {
    let collector = Collector::start(&[]);
    let (layer, traces) = sent_to(&collector.url).start("webhook-1").unwrap();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    reviewed(CALLER).await;
    // Outside of any review, as the probe of the API.
    drop(read("/version"));
    drop(guard);
    traces.finish();
    // The first request may take longer than a process waits at its end: authorities are read before.
    until(|| !collector.requests().is_empty()).await;

    let resource = collector.requests()[0]["resourceSpans"][0]["resource"].clone();
    assert_eq!(attribute(&resource, "service.name"), Some("tekton-wrap"));
    assert_eq!(attribute(&resource, "service.instance.id"), Some("webhook-1"));
    let spans = collector.spans();
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["read", "rewrite", "review"]);
    let (read, rewrite, review) = (&spans[0], &spans[1], &spans[2]);
    assert!(spans.iter().all(|span| span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"));
    assert_eq!(review["parentSpanId"], "00f067aa0ba902b7");
    assert!([read, rewrite].iter().all(|span| span["parentSpanId"] == review["spanId"]));
    assert_eq!([&read["kind"], &rewrite["kind"], &review["kind"]], [3, 1, 2]);
    assert_eq!(rewrite["status"], serde_json::json!({"code": 2, "message": "it can't be wrapped"}));
    assert_eq!((read.get("status"), attribute(read, "url.path")), (None, Some("/apis/x")));
    assert_eq!(attribute(review, "tekton_wrap.run"), Some("build-"));
    assert_eq!(attribute(review, "tekton_wrap.uid"), Some("u".repeat(300).as_str()));
    assert_eq!(attribute(review, "tekton_wrap.reason"), Some("UnsupportedTask"));
    let time = |span: &Value, name: &str| span[name].as_str().unwrap().parse::<u64>().unwrap();
    let (start, end) = ("startTimeUnixNano", "endTimeUnixNano");
    assert!(time(review, start) <= time(read, start) && time(read, end) <= time(review, end) + 1_000_000);
}

#[tokio::test]
async fn what_the_apiserver_does_not_trace_is_not_sent() {
    let collector = Collector::start(&[]);
    let (layer, traces) = sent_to(&collector.url).start("").unwrap();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    let mut headers = HeaderMap::new();
    headers.insert(TRACEPARENT, CALLER.replace("-01", "-00").parse().unwrap());
    let span = review(&headers);
    within(rewrite(), async { Ok::<_, String>(()) }).instrument(span).await.unwrap();
    drop(guard);
    traces.finish();
    assert!(collector.requests().is_empty());
}

#[test]
fn without_a_collector_nothing_is_started() {
    assert!(sent_to("").start("").is_none());
}

#[tokio::test]
async fn a_collector_that_is_away_is_asked_again() {
    let collector = Collector::start(&[503]);
    let (layer, traces) = sent_to(&collector.url).start("").unwrap();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    drop(review(&HeaderMap::new()));
    drop(guard);
    until(|| collector.requests().len() == 2).await;
    let requests = collector.requests().clone();
    assert_eq!(requests[0], requests[1]);
    traces.finish();
}

#[tokio::test]
async fn a_connection_is_used_again() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (connections, requests) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (connected, requested) = (connections.clone(), requests.clone());
    thread::spawn(move || {
        for stream in listener.incoming() {
            connected.fetch_add(1, SeqCst);
            let requested = requested.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream.unwrap());
                while let Ok(Some(head)) = Head::read(&mut stream) {
                    let mut body = vec![0; head.header("content-length").unwrap().parse().unwrap()];
                    stream.read_exact(&mut body).unwrap();
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").unwrap();
                    requested.fetch_add(1, SeqCst);
                }
            });
        }
    });
    let (layer, traces) = sent_to(&url).start("").unwrap();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    for batch in 1..=3 {
        drop(review(&HeaderMap::new()));
        until(|| requests.load(SeqCst) == batch).await;
    }
    drop(guard);
    traces.finish();
    assert_eq!(connections.load(SeqCst), 1);
}

#[test]
fn values_of_flags() {
    for (value, expected) in [
        ("", Some(None)),
        ("http://otel:4318", Some(Some("http://otel:4318/v1/traces"))),
        ("https://otel.example.com/in/", Some(Some("https://otel.example.com/in/v1/traces"))),
        ("otel:4317", None),
        ("grpc://otel:4317", None),
        ("http://otel:4318/?a=b", None),
        ("http://me:s3cret@otel:4318", None),
        ("http://me@otel:4318", None),
    ] {
        let found = collector(value).ok().map(|CollectorAddress(uri)| uri.map(|uri| uri.to_string()));
        assert_eq!(found, expected.map(|address| address.map(str::to_owned)), "{value}");
    }
    for (value, good) in
        [("", false), ("0", true), ("0.25", true), ("1", true), ("1.1", false), ("-1", false), ("NaN", false)]
    {
        assert_eq!(fraction(value).is_ok(), good, "{value}");
    }
}

#[test]
fn values_of_the_environment() {
    let endpoint = "http://otel:4318";
    let none = TraceArgs { otlp_endpoint: None, trace_fraction: None };
    let flags = TraceArgs { otlp_endpoint: Some(collector("http://flag:1").unwrap()), trace_fraction: Some(0.5) };
    for (args, variables, address, fraction, warnings) in [
        (&none, ["", ""], None, 1.0, 0),
        (&none, [endpoint, ""], Some("http://otel:4318/v1/traces"), 1.0, 0),
        (&none, [endpoint, " 0.1 "], Some("http://otel:4318/v1/traces"), 0.1, 0),
        (&none, [endpoint, "endpoint=http://x"], Some("http://otel:4318/v1/traces"), 1.0, 1),
        (&none, ["otel:4317", "endpoint=http://x"], None, 1.0, 1),
        (&none, ["http://me:s3cret@otel:4318", ""], None, 1.0, 1),
        (&flags, ["otel:4317", "x"], Some("http://flag:1/v1/traces"), 0.5, 0),
    ] {
        let set = |name: &str| Some(variables[usize::from(name == SAMPLER_ARG)].to_owned());
        let found = args.settings(set);
        assert_eq!(found.address.map(|address| address.to_string()).as_deref(), address, "{variables:?}");
        assert!((found.fraction - fraction).abs() < f64::EPSILON, "{variables:?}");
        assert_eq!(found.warnings.len(), warnings, "{:?}", found.warnings);
        assert!(!found.warnings.concat().contains("s3cret"), "{:?}", found.warnings);
        assert!(none.settings(|_| None).warnings.is_empty());
    }
}
