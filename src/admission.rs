//! The mutating admission webhook: HTTPS in front of [`crate::resolve::wrap_run`].
//!
//! Whatever is not the creation of a PipelineRun that asks to be wrapped is allowed untouched. `kubectl --dry-run=server`
//! gets the same answer as any other creation; only what a resolver of the cluster would have to bring is not asked for then,
//! since that takes an object: such a run passes as it is, with a warning.

mod admin;
mod client;
pub(crate) mod load;
pub(crate) mod review;
mod seats;
mod server;
mod tls;
pub(crate) mod verdict;
mod webhook;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};
use tokio_rustls::TlsAcceptor;

pub use self::tls::TlsError;
use self::{
    admin::Admin,
    client::Clients,
    load::Load,
    server::{Limits, Phase, Transport},
    tls::Certificate,
    webhook::Webhook,
};
use crate::{
    metrics::Metrics,
    resolve::{
        Work,
        cluster::{self, Cluster, ConnectError},
    },
    source::Source,
    wrap::Settings,
};

/// Connections that may wait to be accepted: where there is no room, a client tries again only after a second.
const BACKLOG: u32 = 4096;

/// The command line of `tekton-wrap webhook`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The image of the injected steps, as the cluster's nodes pull it; without it, the one that the webhook's own pod runs
    #[arg(long, value_name = "REF", required_unless_present = "pod_name")]
    pub image: Option<String>,
    /// The webhook's own pod
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The folder of tls.crt and tls.key; changes are noticed within seconds
    #[arg(long, value_name = "DIR")]
    pub tls_dir: PathBuf,
    /// Where admission reviews are answered, over HTTPS at the path /wrap
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8443")]
    pub listen: SocketAddr,
    /// Where /livez, /readyz and /metrics are answered, over plain HTTP; "none" for nowhere
    #[arg(long, value_name = "ADDR", default_value = "0.0.0.0:8081", value_parser = address_or_none)]
    pub admin_listen: AdminAddress,
    /// How to reach the cluster; inside one, its own account is used
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How things are found in it
    #[command(flatten)]
    pub cluster: cluster::Options,
    /// After SIGTERM, seconds to keep serving while endpoints are removed
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub shutdown_delay: u64,
    /// Serve only clients with a certificate of an authority in this file (PEM), as an apiserver with an AdmissionConfiguration
    /// has one; without it, anyone who reaches the port
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// The common name that such a certificate must have; several times for several names
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    pub client_cn: Vec<String>,
}

/// Where the admin listener is, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

/// Why the server can't start: one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The certificate can't be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The cluster can't be reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// An address can't be listened at.
    #[error("{flag} {address}: {source}")]
    Listen {
        /// The flag that named the address.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The listener for probes can't be started.
    #[error("the listener for probes can't be started: {0}")]
    Admin(#[source] io::Error),
    /// SIGTERM can't be waited for.
    #[error("signals can't be handled: {0}")]
    Signals(#[source] io::Error),
}

/// Serves until SIGTERM or SIGINT and the end of the requests in flight then; a second signal ends it at once.
///
/// # Errors
/// Where it can't start. The process must have a rustls crypto provider installed.
pub async fn serve(args: Args) -> Result<(), Error> {
    let signals = signals().map_err(Error::Signals)?;
    let metrics = Arc::new(Metrics::default());
    let work = Work::on_threads(load::MAX_COMPUTATIONS);
    let clients = match &args.client_ca {
        Some(file) => Some(Arc::new(Clients::load(file, args.client_cn)?)),
        None => None,
    };
    let source = Cluster::connect(args.kubeconfig.as_deref(), args.cluster, work.clone(), metrics.clone()).await?;
    let image = match (args.image, args.pod_name) {
        (Some(image), _) => image,
        (None, pod) => source.own_image(&pod.unwrap_or_default()).await?,
    };
    let server = Server {
        listener: listen("--listen", args.listen)?,
        admin: match args.admin_listen.0 {
            Some(address) => Some(listen("--admin-listen", address)?),
            None => None,
        },
        certificate: Certificate::load(&args.tls_dir)?,
        clients,
        poll: tls::POLL,
        source,
        load: Load::new(work),
        metrics,
        settings: Settings { image: image.clone() },
        limits: Limits::default(),
        shutdown_delay: Duration::from_secs(args.shutdown_delay),
    };
    let listen = shown(Some(&server.listener));
    let admin_listen = shown(server.admin.as_ref());
    tracing::info!(listen, admin_listen, image, version = env!("CARGO_PKG_VERSION"), "serving");
    server.run(signals).await
}

/// All that runs.
struct Server<S> {
    listener: TcpListener,
    admin: Option<TcpListener>,
    certificate: Certificate,
    /// Whom to serve; none for everybody.
    clients: Option<Arc<Clients>>,
    /// Time between two looks at the certificate's files.
    poll: Duration,
    source: S,
    metrics: Arc<Metrics>,
    settings: Settings,
    limits: Limits,
    /// How much is done at a time.
    load: Load,
    /// Time in [`Phase::Draining`].
    shutdown_delay: Duration,
}

impl<S: Source + Send + 'static> Server<S> {
    async fn run(self, mut signals: mpsc::Receiver<()>) -> Result<(), Error> {
        let (phase, phases) = watch::channel(Phase::Serving);
        let certificate = Arc::new(self.certificate);
        let tls = TlsAcceptor::from(Arc::new(certificate.server_config(self.clients)?));
        let webhook = Webhook {
            source: self.source,
            settings: Arc::new(self.settings),
            metrics: self.metrics.clone(),
            load: self.load,
        };
        let reviews = server::serve(self.listener, Transport::Tls(tls), self.limits, phases.clone(), Arc::new(webhook));
        let admin = Admin { phase: phases, metrics: self.metrics.clone() };
        let start = |listener: TcpListener| admin.start(listener.into_std()?, Limits::of_admin());
        let probes = self.admin.map(start).transpose().map_err(Error::Admin)?;
        let probes = async {
            if let Some(end) = probes {
                // It has ended also where the thread panicked.
                let _ = end.await;
            }
        };
        let work = async { tokio::join!(reviews, probes) };
        let life = async {
            signals.recv().await;
            tracing::info!("shutting down");
            phase.send_replace(Phase::Draining);
            tokio::select! {
                () = tokio::time::sleep(self.shutdown_delay) => {}
                _ = signals.recv() => return,
            }
            phase.send_replace(Phase::Stopping);
            signals.recv().await;
        };
        tokio::select! {
            _ = work => tracing::info!("every request is answered"),
            () = life => tracing::warn!("a second signal: requests in flight are cut off"),
            () = certificate.keep_fresh(self.poll, &self.metrics) => {}
        }
        Ok(())
    }
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, Error> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| Error::Listen { flag, address, source })
}

/// The address as it is: a flag may have left the port to the system.
fn shown(listener: Option<&TcpListener>) -> String {
    listener.and_then(|l| l.local_addr().ok()).map_or("none".to_owned(), |address| address.to_string())
}

/// A message for each SIGTERM or SIGINT.
fn signals() -> io::Result<mpsc::Receiver<()>> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let (sender, receiver) = mpsc::channel(2);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if sender.send(()).await.is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

fn address_or_none(text: &str) -> Result<AdminAddress, std::net::AddrParseError> {
    if text == "none" { Ok(AdminAddress(None)) } else { text.parse().map(|address| AdminAddress(Some(address))) }
}
