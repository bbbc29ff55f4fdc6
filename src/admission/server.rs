//! A listener's connections: their number, their time limits, their end.

use std::{
    convert::Infallible,
    future::poll_fn,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};

use super::{
    handshake,
    linger::Lingering,
    seats::{Seat, Seats},
    tls::Tls,
};
use crate::metrics::Metrics;

/// A pause after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The most of a request that is buffered before it is read, in bytes: its head must fit.
const MAX_BUFFER: usize = 32 << 10;

/// What is answered.
pub type HttpResponse = http::Response<Full<Bytes>>;

/// What is behind a listener.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. A panic becomes status 500. An answer that is given before the whole request has been read has the
    /// header `Connection: close`.
    fn handle(&self, request: http::Request<Incoming>) -> impl Future<Output = HttpResponse> + Send;
}

/// The phases of the server's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lifecycle {
    /// Ready.
    Serving,
    /// Not ready any more, yet everything is answered, with `Connection: close`, while endpoints are removed.
    Draining,
    /// No new connections; those that are open are answered and closed.
    Stopping,
}

/// Whether connections speak TLS.
pub enum Transport {
    /// No.
    Plain,
    /// Yes.
    Tls(Arc<Tls>),
}

/// How the connections of a listener are served.
pub struct ConnectionPolicy {
    /// The listener's name in metrics: `webhook` or `admin`.
    pub listener: &'static str,
    /// How connections are secured.
    pub transport: Transport,
    /// What clients may take.
    pub limits: ConnectionLimits,
    /// Where connections are counted.
    pub metrics: Arc<Metrics>,
}

/// What clients may take.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Open connections. A further one takes the place of an idle one, or waits until one is closed.
    pub connections: usize,
    /// Time from accepting a connection to the whole head of its first request, handshake included.
    pub first_request: Duration,
    /// Time from an answer to the whole head of the next request.
    pub idle: Duration,
    /// Time for requests in flight once the server is stopping.
    pub drain: Duration,
}

impl ConnectionLimits {
    /// Those of probes and collectors of metrics.
    pub fn of_admin() -> Self {
        let few = Duration::from_secs(5);
        Self { connections: 512, first_request: few, idle: Duration::from_secs(60), drain: few }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            // Three apiservers with a hundred creations in flight each, and some idle connections.
            connections: 512,
            first_request: Duration::from_secs(10),
            // More than the 90 s after which Go's clients, the apiserver among them, close idle connections: were we
            // the first, a request could meet a connection that is just being closed.
            idle: Duration::from_secs(120),
            // The longest that a review may take; with the default of --shutdown-delay just within Kubernetes' 30 s of grace.
            drain: Duration::from_secs(24),
        }
    }
}

/// Serves what connects to `socket` until the server is [`Lifecycle::Stopping`] and the requests in flight are answered.
pub async fn serve<H: Handler>(
    socket: TcpListener,
    policy: ConnectionPolicy,
    mut lifecycle: watch::Receiver<Lifecycle>,
    handler: Arc<H>,
) {
    let limits = policy.limits;
    let seats = Seats::new(limits.connections);
    let policy = Arc::new(policy);
    loop {
        let accepted = tokio::select! {
            _ = lifecycle.wait_for(|phase| *phase == Lifecycle::Stopping) => break,
            accepted = accept(&socket, &seats) => accepted,
        };
        match accepted {
            Ok((stream, seat)) => {
                let (policy, lifecycle, handler) = (policy.clone(), lifecycle.clone(), handler.clone());
                tokio::spawn(async move {
                    let _connected = policy.metrics.connected(policy.listener);
                    tokio::select! {
                        () = policy.secure(stream, lifecycle, &*handler, &seat) => {}
                        () = seat.taken() => tracing::debug!("an idle connection was closed for a new one"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(socket);
    if timeout(limits.drain, seats.all_free(limits.connections)).await.is_err() {
        tracing::warn!("requests in flight are cut off: they took too long");
    }
}

impl ConnectionPolicy {
    async fn secure<H: Handler>(
        &self,
        stream: TcpStream,
        lifecycle: watch::Receiver<Lifecycle>,
        handler: &H,
        seat: &Seat,
    ) {
        #[allow(clippy::arithmetic_side_effects, reason = "a few seconds from now is a time")]
        let deadline = Instant::now() + self.limits.first_request;
        let Transport::Tls(tls) = &self.transport else {
            return converse(stream, self.limits, deadline, lifecycle, handler, seat).await;
        };
        match timeout_at(deadline, tls.acceptor().accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, self.limits, deadline, lifecycle, handler, seat).await,
            Ok(Err(error)) => handshake::failed(&error, &self.metrics),
            Err(_) => handshake::timed_out(&self.metrics),
        }
    }
}

async fn accept(socket: &TcpListener, seats: &Seats) -> io::Result<(TcpStream, Seat)> {
    let (stream, _) = socket.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, seats.take().await))
}

/// All requests of one connection.
async fn converse<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    limits: ConnectionLimits,
    first_request: Instant,
    mut lifecycle: watch::Receiver<Lifecycle>,
    handler: &H,
    seat: &Seat,
) {
    let draining = lifecycle.clone();
    let asked = AtomicBool::new(false);
    let unread = Arc::new(AtomicBool::new(false));
    let service = service_fn(|request| {
        asked.store(true, Relaxed);
        seat.set_busy();
        async {
            let mut response = unless_panicked(handler.handle(request)).await;
            seat.set_idle();
            if response.headers().contains_key(header::CONNECTION) {
                unread.store(true, Relaxed);
            }
            if *draining.borrow() != Lifecycle::Serving {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            Ok::<_, Infallible>(response)
        }
    });
    let mut http = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(limits.idle)
            .max_buf_size(MAX_BUFFER)
            .serve_connection(TokioIo::new(Lingering::new(stream, unread.clone())), service)
    );
    let (mut fresh, mut stopping) = (true, false);
    loop {
        tokio::select! {
            result = &mut http => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a connection ended early");
                }
                return;
            }
            _ = sleep_until(first_request), if fresh => {
                fresh = false;
                if !asked.load(Relaxed) {
                    tracing::debug!("a client connected and asked nothing");
                    return;
                }
            }
            _ = lifecycle.wait_for(|phase| *phase == Lifecycle::Stopping), if !stopping => {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn unless_panicked(handler: impl Future<Output = HttpResponse>) -> HttpResponse {
    let mut handler = pin!(handler);
    poll_fn(|context| {
        // What a panic may have left half done is dropped with this future: a handler shares nothing but counters.
        match catch_unwind(AssertUnwindSafe(|| handler.as_mut().poll(context))) {
            Ok(poll) => poll,
            Err(_) => {
                Poll::Ready(text(StatusCode::INTERNAL_SERVER_ERROR, "tekton-wrap met an error of its own; see its log"))
            }
        }
    })
    .await
}

/// A sentence as an answer.
pub fn text(status: StatusCode, sentence: impl Into<Bytes>) -> HttpResponse {
    let mut response = HttpResponse::new(Full::new(sentence.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
