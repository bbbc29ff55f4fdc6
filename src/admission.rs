//! The mutating admission webhook: HTTPS in front of [`crate::resolve::wrap_run`].
//!
//! Whatever is not the creation of a PipelineRun that asks to be wrapped is allowed untouched. `kubectl --dry-run=server`
//! gets the same answer as any other creation; only what a resolver of the cluster would have to bring is not asked for then,
//! since that takes an object: such a run passes as it is, with a warning.

mod admin;
pub(crate) mod capacity;
mod certificate;
mod client;
mod handshake;
mod linger;
pub(crate) mod review;
mod seats;
mod server;
mod tls;
pub(crate) mod verdict;
mod webhook;

#[cfg(test)]
mod tests;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use rustls::pki_types::{InvalidDnsNameError, ServerName};
use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::{SignalKind, signal},
    sync::{mpsc, watch},
};

pub use self::tls::TlsError;
use self::{
    admin::Admin,
    capacity::Capacity,
    server::{ConnectionLimits, ConnectionPolicy, Lifecycle, Transport},
    tls::{Tls, TlsSettings},
    webhook::Webhook,
};
use crate::{
    arguments::{self, ImageProgram},
    health::{Condition, Health},
    metrics::Metrics,
    resolve::{
        Work,
        cluster::{self, Cluster, ConnectError},
    },
    source::Source,
    store,
    traces::TraceArgs,
    wrap::Settings,
};

/// Connections that may wait to be accepted. If there is no room, a client tries again only after a second.
const BACKLOG: u32 = 4096;

/// The command line of `tekton-wrap webhook`.
#[derive(Clone, Debug, clap::Args)]
pub struct WebhookArgs {
    /// The image of the injected steps, as the cluster's nodes pull it; without it, the one that the webhook's own pod runs
    #[arg(long, value_name = "REF", required_unless_present = "pod_name", value_parser = arguments::image)]
    pub image: Option<String>,
    /// What the image that --image names has beside the program, several with commas; of the own pod's image it is found out
    #[arg(long, value_enum, value_name = "PROGRAM", value_delimiter = ',')]
    pub image_has: Vec<ImageProgram>,
    /// The webhook's own pod
    #[arg(long, value_name = "NAME", env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// The folder of tls.crt and tls.key; changes are noticed within seconds
    #[arg(long, value_name = "DIR")]
    pub tls_dir: PathBuf,
    /// The name that apiservers use, SERVICE.NAMESPACE.svc: while the certificate is not valid for it, the webhook is not
    /// ready [default: the names of the certificate are not checked]
    #[arg(long, value_name = "NAME", value_parser = server_name)]
    pub server_name: Option<ServerName<'static>>,
    /// Where admission reviews are answered, over HTTPS at the path /wrap, and at /wrap-namespace those of runs in namespaces
    /// with the label tekton-wrap.dev/wrap
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
    pub cluster: cluster::ClusterOptions,
    /// After SIGTERM, seconds to keep serving while endpoints are removed
    #[arg(long, value_name = "SECONDS", default_value_t = 5)]
    pub shutdown_delay: u64,
    /// Serve only clients with a certificate of an authority in this file (PEM), as an apiserver with an AdmissionConfiguration
    /// has one; without it, anyone who reaches the port. Changes are noticed within seconds
    #[arg(long, value_name = "FILE")]
    pub client_ca: Option<PathBuf>,
    /// The common name that such a certificate must have; several times for several names
    #[arg(long, value_name = "NAME", requires = "client_ca")]
    pub client_cn: Vec<String>,
    /// Traces
    #[command(flatten)]
    pub traces: TraceArgs,
}

/// Where the admin listener is, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AdminAddress(pub Option<SocketAddr>);

/// Why the server can't start: one sentence.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
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
/// If it can't start. The process must have a rustls crypto provider installed.
pub async fn serve(args: WebhookArgs) -> Result<(), ServeError> {
    let signals = signals().map_err(ServeError::Signals)?;
    let metrics = Arc::new(Metrics::default());
    let health = Arc::new(Health::default());
    let work = Work::on_threads(capacity::MAX_COMPUTATIONS);
    let tls = TlsSettings {
        dir: args.tls_dir,
        server_name: args.server_name,
        client_ca: args.client_ca,
        client_names: args.client_cn,
    };
    let source = Cluster::connect(args.kubeconfig.as_deref(), args.cluster, work.clone(), &metrics, &health).await?;
    let said = args.image_has.contains(&ImageProgram::Rsync);
    let settings = match (args.image, args.pod_name) {
        (Some(image), _) => Settings { image, has_rsync: said },
        (None, pod) => {
            let image = source.own_image(&pod.unwrap_or_default()).await?;
            Settings { image, has_rsync: said || store::has_rsync() }
        }
    };
    let Settings { image, has_rsync } = settings.clone();
    let server = Server {
        listener: listen("--listen", args.listen)?,
        admin: match args.admin_listen.0 {
            Some(address) => Some(listen("--admin-listen", address)?),
            None => None,
        },
        tls: Tls::load(tls)?,
        poll: tls::POLL,
        source,
        capacity: Capacity::new(work),
        metrics,
        health,
        settings,
        limits: ConnectionLimits::default(),
        shutdown_delay: Duration::from_secs(args.shutdown_delay),
    };
    let listen = shown(Some(&server.listener));
    let admin_listen = shown(server.admin.as_ref());
    let (version, commit) = (env!("CARGO_PKG_VERSION"), crate::metrics::COMMIT);
    tracing::info!(listen, admin_listen, image, has_rsync, version, commit, "serving");
    server.run(signals).await
}

/// Everything that runs.
struct Server<S> {
    listener: TcpListener,
    admin: Option<TcpListener>,
    tls: Tls,
    /// Time between two looks at the files of TLS.
    poll: Duration,
    source: S,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    settings: Settings,
    limits: ConnectionLimits,
    /// How much is done at a time.
    capacity: Capacity,
    /// Time in [`Lifecycle::Draining`].
    shutdown_delay: Duration,
}

impl<S: Source + Send + 'static> Server<S> {
    async fn run(self, mut signals: mpsc::Receiver<()>) -> Result<(), ServeError> {
        let (phase, lifecycle) = watch::channel(Lifecycle::Serving);
        let (metrics, health, tls) = (self.metrics, self.health, Arc::new(self.tls));
        tls.show(&metrics, &health);
        health.set(Condition::Listening, Ok(()));
        let webhook = Webhook {
            source: self.source,
            settings: Arc::new(self.settings),
            metrics: metrics.clone(),
            capacity: self.capacity,
        };
        let transport = Transport::Tls(tls.clone());
        let policy = ConnectionPolicy { listener: "webhook", transport, limits: self.limits, metrics: metrics.clone() };
        let reviews = server::serve(self.listener, policy, lifecycle.clone(), Arc::new(webhook));
        let admin = Admin { lifecycle, metrics: metrics.clone(), health: health.clone() };
        let start = |listener: TcpListener| admin.start(listener.into_std()?, ConnectionLimits::of_admin());
        let probes = self.admin.map(start).transpose().map_err(ServeError::Admin)?;
        let probes = async {
            if let Some(end) = probes {
                // An error means that the thread panicked: that ends it too.
                let _ = end.await;
            }
        };
        let work = async { tokio::join!(reviews, probes) };
        let life = async {
            signals.recv().await;
            tracing::info!("shutting down");
            health.set(Condition::Shutdown, Err("shutting down".to_owned()));
            phase.send_replace(Lifecycle::Draining);
            tokio::select! {
                () = tokio::time::sleep(self.shutdown_delay) => {}
                _ = signals.recv() => return,
            }
            phase.send_replace(Lifecycle::Stopping);
            signals.recv().await;
        };
        tokio::select! {
            _ = work => tracing::info!("every request is answered"),
            () = life => tracing::warn!("a second signal: requests in flight are cut off"),
            () = tls.keep_fresh(self.poll, &metrics, &health) => {}
        }
        Ok(())
    }
}

fn listen(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServeError> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)
    };
    listen().map_err(|source| ServeError::Listen { flag, address, source })
}

/// The actual address: with port 0 in the flag, the system has chosen the port.
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

fn server_name(text: &str) -> Result<ServerName<'static>, InvalidDnsNameError> {
    ServerName::try_from(text.to_owned())
}

fn address_or_none(text: &str) -> Result<AdminAddress, std::net::AddrParseError> {
    if text == "none" { Ok(AdminAddress(None)) } else { text.parse().map(|address| AdminAddress(Some(address))) }
}
