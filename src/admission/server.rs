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
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::seats::{Seat, Seats};

/// A pause after an accept that failed, for example because the process is out of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// The most of a request that is buffered before it is read, in bytes: its head must fit.
const MAX_BUFFER: usize = 32 << 10;

/// What is answered.
pub type Response = http::Response<Full<Bytes>>;

/// What is behind a listener.
pub trait Handler: Send + Sync + 'static {
    /// Answers a request. A panic becomes status 500.
    fn handle(&self, request: http::Request<Incoming>) -> impl Future<Output = Response> + Send;
}

/// Where the server is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
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
    Tls(TlsAcceptor),
}

/// What a client may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Open connections. A further one takes the place of an idle one, or waits until one is closed.
    pub connections: usize,
    /// Time from accepting a connection to the whole head of its first request, handshake included.
    pub first_request: Duration,
    /// Time from an answer to the whole head of the next request.
    pub idle: Duration,
    /// Time for requests in flight once the server is stopping.
    pub drain: Duration,
}

impl Limits {
    /// Those of probes and collectors of metrics.
    pub fn of_admin() -> Self {
        let few = Duration::from_secs(5);
        Self { connections: 512, first_request: few, idle: Duration::from_secs(60), drain: few }
    }
}

impl Default for Limits {
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

/// Serves what connects to `listener` until the phase is [`Phase::Stopping`] and the requests in flight are answered.
pub async fn serve<H: Handler>(
    listener: TcpListener,
    transport: Transport,
    limits: Limits,
    mut phase: watch::Receiver<Phase>,
    handler: Arc<H>,
) {
    let seats = Seats::new(limits.connections);
    let transport = Arc::new(transport);
    loop {
        let accepted = tokio::select! {
            _ = phase.wait_for(|p| *p == Phase::Stopping) => break,
            accepted = accept(&listener, &seats) => accepted,
        };
        match accepted {
            Ok((stream, seat)) => {
                let (transport, phase, handler) = (transport.clone(), phase.clone(), handler.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = secure(stream, &transport, limits, phase, &*handler, &seat) => {}
                        () = seat.taken() => tracing::debug!("an idle connection made place for a new one"),
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection can't be accepted");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    if timeout(limits.drain, seats.all_free(limits.connections)).await.is_err() {
        tracing::warn!("requests in flight are cut off: they took too long");
    }
}

async fn accept(listener: &TcpListener, seats: &Seats) -> io::Result<(TcpStream, Seat)> {
    let (stream, _) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, seats.take().await))
}

async fn secure<H: Handler>(
    stream: TcpStream,
    transport: &Transport,
    limits: Limits,
    phase: watch::Receiver<Phase>,
    handler: &H,
    seat: &Seat,
) {
    let deadline = Instant::now() + limits.first_request;
    match transport {
        Transport::Plain => converse(stream, limits, deadline, phase, handler, seat).await,
        Transport::Tls(acceptor) => match tokio::time::timeout_at(deadline, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => converse(stream, limits, deadline, phase, handler, seat).await,
            Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        },
    }
}

/// All requests of one connection.
async fn converse<H: Handler>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    limits: Limits,
    first_request: Instant,
    mut phase: watch::Receiver<Phase>,
    handler: &H,
    seat: &Seat,
) {
    let draining = phase.clone();
    let asked = AtomicBool::new(false);
    let service = service_fn(|request| {
        asked.store(true, Relaxed);
        seat.set_busy();
        async {
            let mut response = unless_panicked(handler.handle(request)).await;
            seat.set_idle();
            if *draining.borrow() != Phase::Serving {
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
            .serve_connection(TokioIo::new(stream), service)
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
            _ = phase.wait_for(|p| *p == Phase::Stopping), if !stopping => {
                stopping = true;
                http.as_mut().graceful_shutdown();
            }
        }
    }
}

async fn unless_panicked(handler: impl Future<Output = Response>) -> Response {
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
pub fn text(status: StatusCode, sentence: impl Into<Bytes>) -> Response {
    let mut response = Response::new(Full::new(sentence.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}
