//! The second listener: `/livez`, `/readyz` and `/metrics`, without TLS.

use std::{io, net, sync::Arc, thread};

use http::{HeaderValue, Method, StatusCode, header};
use hyper::body::Incoming;
use tokio::{
    net::TcpListener,
    runtime::Builder,
    sync::{oneshot, watch},
};

use super::server::{ConnectionLimits, ConnectionPolicy, Handler, HttpResponse, Lifecycle, Transport, serve, text};
use crate::{
    health::{Condition, Health},
    metrics::{Metrics, TextFormat},
};

/// Answers probes and collectors of metrics.
pub struct Admin {
    /// The phase of the server's life.
    pub lifecycle: watch::Receiver<Lifecycle>,
    /// What is shown.
    pub metrics: Arc<Metrics>,
    /// Whether the server is ready.
    pub health: Arc<Health>,
}

impl Admin {
    /// Serves at `socket` on a thread and a runtime of its own, so that nothing that reviews do delays a probe. The receiver
    /// that it returns completes when serving ends.
    pub fn start(self, socket: net::TcpListener, limits: ConnectionLimits) -> io::Result<oneshot::Receiver<()>> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (ended, end) = oneshot::channel();
        thread::Builder::new().name("admin".to_owned()).spawn(move || {
            runtime.block_on(async {
                match TcpListener::from_std(socket) {
                    Ok(socket) => {
                        let (lifecycle, metrics) = (self.lifecycle.clone(), self.metrics.clone());
                        let transport = Transport::Plain;
                        let policy = ConnectionPolicy { listener: "admin", transport, limits, metrics };
                        serve(socket, policy, lifecycle, Arc::new(self)).await;
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
    async fn handle(&self, request: http::Request<Incoming>) -> HttpResponse {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is answered here");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        match request.uri().path() {
            "/livez" => text(StatusCode::OK, "ok"),
            "/readyz" => self.readyz(request.uri().query()),
            "/metrics" => self.metrics(request.headers().get(header::ACCEPT)),
            _ => text(StatusCode::NOT_FOUND, "only /livez, /readyz and /metrics are answered here"),
        }
    }
}

impl Admin {
    /// `/readyz`, and with `?verbose` a line for each condition, as kube-apiserver answers it.
    fn readyz(&self, query: Option<&str>) -> HttpResponse {
        let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word == "verbose"));
        if !self.health.is_ready() {
            text(StatusCode::SERVICE_UNAVAILABLE, self.health.report())
        } else if is_verbose {
            text(StatusCode::OK, self.health.report())
        } else {
            text(StatusCode::OK, "ok")
        }
    }

    fn metrics(&self, accept: Option<&HeaderValue>) -> HttpResponse {
        for condition in Condition::ALL {
            self.metrics.set_ready(condition, self.health.failure(condition).is_none());
        }
        let format = TextFormat::negotiated(accept.and_then(|accept| accept.to_str().ok()).unwrap_or_default());
        match self.metrics.text(format) {
            Ok(metrics) => {
                let mut response = text(StatusCode::OK, metrics);
                let content_type = HeaderValue::from_static(format.content_type());
                response.headers_mut().insert(header::CONTENT_TYPE, content_type);
                response
            }
            Err(_) => text(StatusCode::INTERNAL_SERVER_ERROR, "the metrics can't be written"),
        }
    }
}
