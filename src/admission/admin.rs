//! The second listener: `/livez`, `/readyz` and `/metrics`, without TLS.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use tokio::sync::watch;

use super::server::{Handler, Phase, Response, text};
use crate::metrics::Metrics;

/// Answers probes and the collector of metrics.
pub struct Admin {
    /// Where the server is in its life.
    pub phase: watch::Receiver<Phase>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
}

impl Handler for Admin {
    async fn handle(&self, request: http::Request<Incoming>) -> Response {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok"),
            "/readyz" => match *self.phase.borrow() {
                Phase::Serving => text(StatusCode::OK, "ok"),
                Phase::Leaving | Phase::Stopping => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
            },
            "/metrics" => self.metrics(),
            _ => text(StatusCode::NOT_FOUND, "only /livez, /readyz and /metrics are answered here"),
        }
    }
}

impl Admin {
    fn metrics(&self) -> Response {
        const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
        match self.metrics.text() {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(OPEN_METRICS));
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written"),
        }
    }
}
