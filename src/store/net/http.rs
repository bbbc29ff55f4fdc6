//! The HTTP client: no automatic redirects, statuses are no errors, an idle timeout in place of a limit on the whole
//! transfer.

use std::{
    path::PathBuf,
    sync::{Arc, LazyLock},
    time::Duration,
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

/// Timeouts and certificate authorities of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpOptions {
    /// Time limit for establishing a connection, TLS included.
    pub connect_timeout: Duration,
    /// Idle timeout: how long no byte may be received or accepted before the connection counts as broken.
    pub stall_timeout: Duration,
    /// Files and folders with certificates of additional trusted authorities (PEM).
    pub authorities: Vec<PathBuf>,
}

/// A connection pool, with a proxy for the hosts that need one. Connections are reused while any clone exists.
#[derive(Clone, Debug)]
pub struct HttpClient {
    direct: Agent,
    https: Option<Agent>,
    http: Option<Agent>,
    proxies: Arc<Proxies>,
}

/// Time limit for the probe whether a registry speaks HTTPS. A plain HTTP server that waits for a line feed never responds
/// to a TLS handshake.
const PROBE: Duration = Duration::from_secs(3);

impl Default for HttpOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(15),
            // Registries that copy a finished upload to its final place respond only after that.
            stall_timeout: Duration::from_secs(120),
            authorities: Vec::new(),
        }
    }
}

impl HttpClient {
    /// With the default options all stores of a process share one pool.
    pub fn new(options: &HttpOptions) -> Result<Self, StoreError> {
        static COMMON: LazyLock<Result<HttpClient, StoreError>> =
            LazyLock::new(|| HttpClient::make(&HttpOptions::default()));
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
        })
    }

    /// Sends the request. Any status is a response, not an error.
    pub fn run<S: AsSendBody>(&self, request: Request<S>) -> Result<Response<Body>, Fault> {
        let (url, agent) = (request.uri().clone(), self.agent(request.uri())?);
        agent.run(request).map_err(|error| self.fault(&url, &error))
    }

    /// The response to `GET url`, with a short time limit.
    pub fn probe(&self, url: &Uri) -> Result<Response<Body>, Fault> {
        let agent = self.agent(url)?;
        let limit = PROBE.min(agent.config().timeouts().connect.unwrap_or(PROBE));
        let request = Request::get(url).body(()).map_err(|error| self.fault(url, &error.into()))?;
        let request = agent.configure_request(request).timeout_connect(Some(limit)).timeout_recv_response(Some(PROBE));
        agent.run(request.build()).map_err(|error| self.fault(url, &error))
    }

    /// The same with a limit on how long all of it may take.
    pub fn run_within<S: AsSendBody>(&self, request: Request<S>, limit: Duration) -> Result<Response<Body>, Fault> {
        let (url, agent) = (request.uri().clone(), self.agent(request.uri())?);
        let request = agent.configure_request(request).timeout_global(Some(limit)).build();
        agent.run(request).map_err(|error| self.fault(&url, &error))
    }

    /// The same for a server beside this machine, which no proxy knows.
    pub fn run_near<S: AsSendBody>(&self, request: Request<S>, limit: Duration) -> Result<Response<Body>, Fault> {
        let request =
            self.direct.configure_request(request).timeout_connect(Some(limit)).timeout_recv_response(Some(limit));
        self.direct.run(request.build()).map_err(|error| Fault::of(&error))
    }

    /// The fault behind an error of a request to `url`.
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
        // A status and headers that trickle are never idle; for bodies, see `pace`.
        .timeout_recv_response(Some(options.stall_timeout))
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
