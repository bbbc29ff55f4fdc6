//! A collector of traces: OTLP over HTTP, in JSON.

use std::{
    io::{self, BufReader, Read},
    net::TcpStream,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde_json::Value;

use super::http::{self, Head};

/// A running collector, which keeps what it is sent.
pub struct Collector {
    /// Its address, for `--otlp-endpoint`.
    pub url: String,
    requests: Arc<Mutex<Vec<Value>>>,
}

impl Collector {
    /// One that answers first with these statuses, and then with 200.
    pub fn start(statuses: &'static [u16]) -> Self {
        let requests = Arc::<Mutex<Vec<Value>>>::default();
        let kept = requests.clone();
        let address = http::serve(move |head, stream| {
            let (body, mut stream) = body_of(&head, stream)?;
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            kept.push(serde_json::from_slice(&body).map_err(io::Error::other)?);
            let is_right =
                head.first.starts_with("POST /v1/traces ") && head.header("content-type") == Some("application/json");
            let status = if is_right { statuses.get(kept.len() - 1).copied().unwrap_or(200) } else { 400 };
            http::answer(&mut stream, &format!("{status} x"), &[("Content-Type", "application/json")], b"{}")
        });
        Self { url: format!("http://{address}"), requests }
    }

    /// The requests so far, each an ExportTraceServiceRequest.
    pub fn requests(&self) -> MutexGuard<'_, Vec<Value>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Value> {
        let requests = self.requests();
        let list = |of: &Value, name: &str| of[name].as_array().cloned().unwrap_or_default();
        let scopes = requests.iter().flat_map(|r| list(r, "resourceSpans")).flat_map(|r| list(&r, "scopeSpans"));
        scopes.flat_map(|scope| list(&scope, "spans")).collect()
    }
}

fn body_of(head: &Head, mut stream: BufReader<TcpStream>) -> io::Result<(Vec<u8>, BufReader<TcpStream>)> {
    let length = head.header("content-length").and_then(|length| length.parse().ok());
    let mut body = vec![0; length.ok_or(io::ErrorKind::InvalidData)?];
    stream.read_exact(&mut body)?;
    Ok((body, stream))
}

/// The value of an attribute of a span or a resource.
pub fn attribute<'a>(of: &'a Value, name: &str) -> Option<&'a str> {
    let found = of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == name)?;
    found["value"]["stringValue"].as_str()
}
