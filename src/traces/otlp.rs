//! OTLP in JSON (opentelemetry-proto: trace/v1/trace.proto, and docs/specification.md, "JSON Protobuf Encoding"): numbers of traces
//! and spans as hexadecimal digits, 64-bit integers as strings, enums as numbers.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::layer::EndedSpan;

/// ExportTraceServiceRequest: `spans` of the process that `instance` names.
pub fn request(instance: &str, spans: &[EndedSpan]) -> Value {
    let version = env!("CARGO_PKG_VERSION");
    let mut resource = vec![attribute("service.name", "tekton-wrap"), attribute("service.version", version)];
    if !instance.is_empty() {
        resource.extend([attribute("service.instance.id", instance), attribute("k8s.pod.name", instance)]);
    }
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": resource},
        "scopeSpans": [{"scope": {"name": "tekton-wrap", "version": version}, "spans": spans}],
    }]})
}

#[allow(clippy::indexing_slicing, reason = "of an object that is made here")]
fn span(span: &EndedSpan) -> Value {
    let EndedSpan { name, place, parent, began, ended, fields } = span;
    let kind = match fields.kind.as_str() {
        "server" => 2,
        "client" => 3,
        _ => 1,
    };
    let mut json = json!({
        "traceId": format!("{:032x}", place.trace),
        "spanId": format!("{:016x}", place.span),
        "name": name,
        "kind": kind,
        "startTimeUnixNano": nanoseconds(*began),
        "endTimeUnixNano": nanoseconds(*ended),
        "attributes": fields.others.iter().map(|(name, value)| attribute(name, value)).collect::<Vec<_>>(),
    });
    if let Some(parent) = parent {
        json["parentSpanId"] = json!(format!("{parent:016x}"));
    }
    if let Some(error) = &fields.error {
        json["status"] = json!({"code": 2, "message": error});
    }
    json
}

fn attribute(name: &str, value: &str) -> Value {
    json!({"key": name, "value": {"stringValue": value}})
}

fn nanoseconds(time: SystemTime) -> String {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}
