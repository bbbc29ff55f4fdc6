//! The second listener: `/livez`, `/readyz` and `/metrics`, without TLS.

use std::{io, net, sync::Arc, thread};

use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::{oneshot, watch},
};

use super::server::{Handler, Limits, Phase, Response, Transport, serve, text};
use crate::metrics::Metrics;

/// Answers probes and the collector of metrics.
pub struct Admin {
    /// Where the server is in its life.
    pub phase: watch::Receiver<Phase>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
}

impl Admin {
    /// Serves at `listener` on a thread and a runtime of its own, so that nothing that reviews do keeps a probe waiting. What
    /// it gives ends when that does.
    pub fn start(self, listener: net::TcpListener, limits: Limits) -> io::Result<oneshot::Receiver<()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(listener) {
                    Ok(listener) => {
                        let phases = self.phase.clone();
                        serve(listener, Transport::Plain, limits, phases, Arc::new(self)).await;
                    }
                    Err(error) => tracing::error!(%error, "probes can't be answered"),
                }
            });
            // Nobody waits any more after a second signal.
            let _ = ended.send(());
        })?;
        Ok(end)
    }
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
                Phase::Draining | Phase::Stopping => text(StatusCode::SERVICE_UNAVAILABLE, "shutting down"),
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
