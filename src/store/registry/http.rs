//! HTTP as registries need it: no redirects on its own, statuses are no errors, no limit on how long a transfer takes but
//! one on how long nothing may happen.

use std::{
    io::{self, Read},
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

use http::{Request, Response, Uri};
use ureq::{
    Agent, AsSendBody, Body, Proxy,
    tls::{RootCerts, TlsConfig},
    unversioned::{
        resolver::DefaultResolver,
        transport::{ConnectProxyConnector, Connector, RustlsConnector, TcpConnector},
    },
};

use super::{
    early::EarlyReplyConnector,
    fault::Fault,
    proxy::{NamedProxy, Proxies},
    trust,
};
use crate::store::StoreError;

/// Limits and trust of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// How long a connection may take to stand, TLS included.
    pub connect_timeout: Duration,
    /// How long nothing may arrive, or nothing may be taken, before the connection counts as broken; and how long an answer may
    /// take that is read into memory, which one that trickles would never end.
    pub stall_timeout: Duration,
    /// Files and folders with certificates of authorities (PEM) that are trusted too.
    pub authorities: Vec<PathBuf>,
}

/// Connections to everywhere, each through the proxy that is meant for it. They are kept and used again as long as a clone
/// of it lives.
#[derive(Clone, Debug)]
pub struct Client {
    direct: Agent,
    https: Option<Agent>,
    http: Option<Agent>,
    proxies: Arc<Proxies>,
    /// For an answer that is read into memory.
    longest: Duration,
}

/// How long a registry that may speak plain HTTP has to show that it speaks HTTPS. A server that waits for the end of what
/// it takes for a line says nothing at all.
const PROBE: Duration = Duration::from_secs(3);

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            // Registries that copy a finished upload to its final place answer only after that.
            stall_timeout: Duration::from_secs(120),
            authorities: Vec::new(),
        }
    }
}

impl Client {
    /// With the usual limits all stores of a process share connections.
    pub fn new(options: &HttpOptions) -> Result<Self, StoreError> {
        static COMMON: LazyLock<Result<Client, StoreError>> = LazyLock::new(|| Client::make(&HttpOptions::default()));
        match (&*COMMON, *options == HttpOptions::default()) {
            (Ok(client), true) => Ok(client.clone()),
            _ => Self::make(options),
        }
    }

    fn make(options: &HttpOptions) -> Result<Self, StoreError> {
        let roots = RootCerts::from(trust::roots(&options.authorities)?);
        let proxies = Proxies::from_env();
        let through = |named: &Option<NamedProxy>| {
            let proxy = named.as_ref()?.proxy.as_ref().ok()?;
            Some(agent(options, &roots, Some(proxy.clone())))
        };
        Ok(Self {
            direct: agent(options, &roots, None),
            https: through(&proxies.https),
            http: through(&proxies.http),
            proxies: Arc::new(proxies),
            longest: options.stall_timeout,
        })
    }

    /// At most the first `most` bytes of a body that is held in memory.
    pub fn read(&self, body: Body, most: u64) -> io::Result<Vec<u8>> {
        read_within(body, most, self.longest)
    }

    /// Sends the request. An answer with any status is an answer.
    pub fn run<S: AsSendBody>(&self, request: Request<S>) -> Result<Response<Body>, Fault> {
        let (url, agent) = (request.uri().clone(), self.agent(request.uri())?);
        agent.run(request).map_err(|error| self.fault(&url, &error))
    }

    /// Whether anything that speaks the protocol of `url` answers there, and what.
    pub fn probe(&self, url: &Uri) -> Result<Response<Body>, Fault> {
        let agent = self.agent(url)?;
        let limit = PROBE.min(agent.config().timeouts().connect.unwrap_or(PROBE));
        let request = Request::get(url).body(()).map_err(|error| self.fault(url, &error.into()))?;
        let request = agent.configure_request(request).timeout_connect(Some(limit)).timeout_recv_response(Some(PROBE));
        agent.run(request.build()).map_err(|error| self.fault(url, &error))
    }

    /// What a failure on the way to `url` means.
    pub fn fault(&self, url: &Uri, error: &ureq::Error) -> Fault {
        let fault = Fault::of(error);
        match self.proxies.for_url(url) {
            Some(NamedProxy { variable, proxy: Ok(proxy) }) => fault.through(variable, proxy),
            _ => fault,
        }
    }

    fn agent(&self, url: &Uri) -> Result<&Agent, Fault> {
        let Some(named) = self.proxies.for_url(url) else { return Ok(&self.direct) };
        if let Err(problem) = &named.proxy {
            return Err(Fault::lasting(format!(
                "can't be asked: the proxy in {} can't be used: {problem}",
                named.variable
            )));
        }
        let agent = if url.scheme_str() == Some("https") { &self.https } else { &self.http };
        Ok(agent.as_ref().unwrap_or(&self.direct))
    }
}

fn agent(options: &HttpOptions, roots: &RootCerts, proxy: Option<Proxy>) -> Agent {
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .root_certs(roots.clone())
        .build();
    let config = Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .timeout_connect(Some(options.connect_timeout))
        .timeout_per_read(Some(options.stall_timeout))
        .timeout_per_write(Some(options.stall_timeout))
        .max_idle_connections(32)
        .max_idle_connections_per_host(16)
        .user_agent(concat!("tekton-wrap/", env!("CARGO_PKG_VERSION")))
        .proxy(proxy)
        .tls_config(tls)
        .build();
    let connector =
        ().chain(ConnectProxyConnector::default())
            .chain(TcpConnector::default())
            .chain(EarlyReplyConnector)
            .chain(RustlsConnector::default());
    Agent::with_parts(config, connector, DefaultResolver::default())
}

/// Reads what is left of a short answer, so that the connection can be used again; one that is not there by now is not worth
/// waiting for.
pub fn drain(body: Body) {
    let _ = read_within(body, 1 << 16, Duration::from_secs(5));
}

fn read_within(body: Body, most: u64, longest: Duration) -> io::Result<Vec<u8>> {
    let (start, mut reader, mut bytes) = (Instant::now(), body.into_reader().take(most), Vec::new());
    let mut buffer = [0; 8 << 10];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(bytes),
            count => bytes.extend_from_slice(buffer.get(..count).unwrap_or_default()),
        }
        if start.elapsed() > longest {
            return Err(io::Error::new(io::ErrorKind::TimedOut, "its answer does not come to an end"));
        }
    }
}
