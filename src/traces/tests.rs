use serde_json::Value;
use support::collector::{Collector, attribute};
use tracing_subscriber::layer::SubscriberExt;

use super::*;

const CALLER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

fn args(collector_url: &str) -> TraceArgs {
    TraceArgs { otlp_endpoint: collector(collector_url).unwrap(), trace_fraction: 1.0 }
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
    let (layer, traces) = args(&collector.url).start("webhook-1").unwrap();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    reviewed(CALLER).await;
    // Outside of any review, as the probe of the API.
    drop(read("/version"));
    drop(guard);
    traces.finish();

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
    let (layer, traces) = args(&collector.url).start("").unwrap();
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
    assert!(args("").start("").is_none());
}

#[tokio::test]
async fn a_collector_that_is_away_is_asked_again() {
    let collector = Collector::start(&[503]);
    let (layer, traces) = args(&collector.url).start("").unwrap();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    drop(review(&HeaderMap::new()));
    drop(guard);
    while collector.requests().len() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let requests = collector.requests();
    assert_eq!(requests[0], requests[1]);
    traces.finish();
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
    ] {
        let found = collector(value).ok().map(|CollectorAddress(uri)| uri.map(|uri| uri.to_string()));
        assert_eq!(found, expected.map(|address| address.map(str::to_owned)), "{value}");
    }
    for (value, good) in [("0", true), ("0.25", true), ("1", true), ("1.1", false), ("-1", false), ("NaN", false)] {
        assert_eq!(fraction(value).is_ok(), good, "{value}");
    }
}
