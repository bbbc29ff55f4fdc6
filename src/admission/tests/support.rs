//! A running server, its certificates, a source to read from and a client that sends whatever bytes it is told.

use std::{fs, net::SocketAddr, os::unix::fs::symlink, path::Path, sync::Arc, time::Duration};

use rcgen::{CertificateParams, IsCa, Issuer, KeyPair, SerialNumber};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Barrier, Semaphore, mpsc},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::super::*;
use crate::{
    source::{Creation, Found, Kind, SourceError},
    tekton::reference::Reference,
};

/// Whatever takes longer has gone wrong.
pub const FOREVER: Duration = Duration::from_secs(60);

/// A server on ports of its own.
pub struct Running {
    pub address: SocketAddr,
    pub admin: SocketAddr,
    pub signals: mpsc::Sender<()>,
    pub ended: JoinHandle<Result<(), ServeError>>,
    pub mount: Mount,
    pub authority: Authority,
}

/// Where the server under test finds its one Pipeline `chain`.
pub enum Stage {
    Found,
    /// It can't be asked at the moment.
    Fails,
    Panics,
    Hangs,
    /// Everybody waits until so many have come.
    Meets(Barrier),
    /// Everybody waits for a permit.
    Waits(Arc<Semaphore>),
}

/// A mounted Secret, laid out as kubelet does it (Kubernetes: pkg/volume/util/atomic_writer.go).
pub struct Mount {
    pub dir: TempDir,
}

/// Whom the client trusts.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

/// tls.crt and tls.key.
#[derive(Clone)]
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

pub struct Client<S = TlsStream<TcpStream>> {
    pub stream: S,
}

#[derive(Debug)]
pub struct HttpAnswer {
    pub status: u16,
    head: String,
    pub body: String,
}

impl Running {
    pub async fn start(stage: Stage) -> Self {
        Self::with(stage, |_| ()).await
    }

    pub async fn with(stage: Stage, change: impl FnOnce(&mut Server<Stage>)) -> Self {
        let authority = Authority::new();
        let mount = Mount::new(&authority.leaf(1));
        let local = || TcpListener::bind("127.0.0.1:0");
        let (listener, admin) = (local().await.unwrap(), local().await.unwrap());
        let (address, admin_address) = (listener.local_addr().unwrap(), admin.local_addr().unwrap());
        let mut server = Server {
            listener,
            admin: Some(admin),
            tls: Tls::load(settings(mount.dir.path())).unwrap(),
            poll: Duration::from_millis(10),
            source: stage,
            metrics: Arc::default(),
            health: Arc::new(healthy()),
            settings: Settings::new("quay.io/tekton-wrap/tekton-wrap:v1"),
            limits: ConnectionLimits::default(),
            capacity: Capacity::new(Work::on_threads(2)),
            shutdown_delay: Duration::ZERO,
        };
        change(&mut server);
        let (signals, receiver) = mpsc::channel(2);
        let ended = tokio::spawn(server.run(receiver));
        Self { address, admin: admin_address, signals, ended, mount, authority }
    }

    pub async fn client(&self) -> Client {
        self.authority.connect(self.address).await.unwrap()
    }

    /// The answer of the admin listener.
    pub async fn admin(&self, path: &str) -> HttpAnswer {
        let mut client = Client { stream: TcpStream::connect(self.admin).await.unwrap() };
        client.send(format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n").as_bytes()).await;
        client.answer().await.unwrap()
    }

    pub async fn metric(&self, name: &str) -> Option<String> {
        let metrics = self.admin("/metrics").await.body;
        metrics.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    }

    /// The end of the server, after however many signals it takes.
    pub async fn end(self) {
        tokio::time::timeout(FOREVER, self.ended).await.expect("the server does not end").unwrap().unwrap();
    }
}

/// What the cluster's side of a server would have found out.
fn healthy() -> Health {
    let health = Health::default();
    health.api_answered();
    health.set(Condition::ResolutionRequests, Ok(()));
    health
}

/// TLS with the files in `dir`, for every client.
pub fn settings(dir: &Path) -> TlsSettings {
    TlsSettings { dir: dir.to_owned(), server_name: None, client_ca: None, client_names: Vec::new() }
}

impl Source for Stage {
    async fn get(
        &self,
        kind: Kind,
        reference: &Reference,
        creation: &Creation<'_>,
    ) -> Result<Option<Found>, SourceError> {
        assert_eq!(creation.namespace, "team");
        match self {
            Self::Found => {}
            Self::Fails => {
                return Err(SourceError { reason: SourceError::UNAVAILABLE, message: "it is down".to_owned() });
            }
            Self::Panics => panic!("this test's source panics"),
            Self::Hangs => std::future::pending().await,
            Self::Meets(barrier) => {
                barrier.wait().await;
            }
            Self::Waits(permits) => permits.acquire().await.unwrap().forget(),
        }
        let is_chain = kind == Kind::Pipeline && *reference == Reference::Name("chain".to_owned());
        Ok(is_chain.then(|| {
            let step = |script: &str| json!({"image": "busybox", "script": script});
            let uses = json!([{"name": "sources"}]);
            let object = json!({
                "apiVersion": "tekton.dev/v1",
                "kind": "Pipeline",
                "metadata": {"name": "chain", "namespace": "team"},
                "spec": {
                    "workspaces": [{"name": "sources"}],
                    "tasks": [
                        {"name": "first", "workspaces": uses, "taskSpec": {"workspaces": uses, "steps": [step("date")]}},
                        {"name": "then", "runAfter": ["first"], "workspaces": uses,
                         "taskSpec": {"workspaces": uses, "steps": [step("ls")]}},
                    ],
                },
            });
            Found::by_name(object)
        }))
    }
}

impl Mount {
    pub fn new(pair: &Pair) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for name in ["tls.crt", "tls.key"] {
            symlink(Path::new("..data").join(name), dir.path().join(name)).unwrap();
        }
        let mount = Self { dir };
        mount.swap(pair);
        mount
    }

    /// The new content in place of the old at once.
    pub fn swap(&self, pair: &Pair) {
        let root = self.dir.path();
        let old = fs::read_link(root.join("..data")).ok();
        let new = tempfile::Builder::new().prefix("..2026_").tempdir_in(root).unwrap().keep();
        fs::write(new.join("tls.crt"), &pair.certificate).unwrap();
        fs::write(new.join("tls.key"), &pair.key).unwrap();
        symlink(new.file_name().unwrap(), root.join("..data_tmp")).unwrap();
        fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        if let Some(old) = old {
            fs::remove_dir_all(root.join(old)).unwrap();
        }
    }
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate with this serial number, and its key.
    pub fn leaf(&self, serial: u8) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.serial_number = Some(SerialNumber::from(u64::from(serial)));
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// A certificate for a client of this common name, and its key.
    pub fn client_pair(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        let certificate = params.signed_by(&key, &self.issuer).unwrap().pem();
        Pair { certificate, key: key.serialize_pem() }
    }

    /// The authority's own certificate.
    pub fn pem(&self) -> String {
        let body = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &self.certificate);
        format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
    }

    /// A client that shows the certificate of `pair`.
    pub fn client_config_with(&self, pair: &Pair) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let chain = vec![CertificateDer::from_pem_slice(pair.certificate.as_bytes()).unwrap()];
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap()
    }

    pub fn client_config(&self) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth()
    }

    pub async fn connect(&self, address: SocketAddr) -> io::Result<Client> {
        Self::connect_with(self.client_config(), address).await
    }

    pub async fn connect_with(config: ClientConfig, address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::from(address.ip());
        Ok(Client { stream: TlsConnector::from(Arc::new(config)).connect(name, stream).await? })
    }
}

impl<S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin> Client<S> {
    pub async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
        self.stream.flush().await.unwrap();
    }

    pub async fn review(&mut self, review: &str) -> io::Result<HttpAnswer> {
        self.post("/wrap?timeout=30s", review).await
    }

    pub async fn post(&mut self, path: &str, body: &str) -> io::Result<HttpAnswer> {
        let head = head("POST", path, "application/json", body.len());
        self.stream.write_all((head + body).as_bytes()).await?;
        self.stream.flush().await?;
        self.answer().await
    }

    pub async fn answer(&mut self) -> io::Result<HttpAnswer> {
        tokio::time::timeout(FOREVER, self.read_answer()).await.expect("no answer")
    }

    /// Whether the server closes the connection without a word.
    pub async fn is_cut(&mut self) -> bool {
        let read = tokio::time::timeout(FOREVER, self.stream.read(&mut [0; 1])).await.expect("the connection stays");
        !matches!(read, Ok(1))
    }

    async fn read_answer(&mut self) -> io::Result<HttpAnswer> {
        let mut bytes = Vec::new();
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
                break end + 4;
            }
            self.read_more(&mut bytes).await?;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        let mut answer = HttpAnswer { status, head, body: String::new() };
        let length: usize = answer.header("content-length").unwrap().parse().unwrap();
        while bytes.len() < end + length {
            self.read_more(&mut bytes).await?;
        }
        answer.body = String::from_utf8(bytes[end..].to_vec()).unwrap();
        Ok(answer)
    }

    async fn read_more(&mut self, bytes: &mut Vec<u8>) -> io::Result<()> {
        if self.stream.read_buf(bytes).await? == 0 { Err(io::ErrorKind::UnexpectedEof.into()) } else { Ok(()) }
    }
}

impl Client {
    /// Serial number of the server's certificate.
    pub fn serial(&self) -> u8 {
        let certificate = self.stream.get_ref().1.peer_certificates().unwrap()[0].as_ref();
        // Certificate, TBSCertificate and version come first (RFC 5280), then `INTEGER, 1 byte`.
        let serial = certificate.windows(8).position(|w| w[..7] == [0xa0, 3, 2, 1, 2, 2, 1]).unwrap();
        certificate[serial + 7]
    }
}

impl HttpAnswer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    /// The response of the review in it.
    pub fn response(&self) -> Value {
        assert_eq!((self.status, self.header("content-type")), (200, Some("application/json")), "{}", self.body);
        let review: Value = serde_json::from_str(&self.body).unwrap();
        review["response"].clone()
    }

    pub fn closes(&self) -> bool {
        self.header("connection") == Some("close")
    }
}

/// Everything before the body.
pub fn head(method: &str, path: &str, content_type: &str, length: usize) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: a\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n")
}

/// A run of the Pipeline `pipeline` that asks to be wrapped.
pub fn run(pipeline: &str) -> Value {
    let params = json!([
        {"name": "pipelineref", "value": pipeline},
        {"name": "workspaces", "value": "sources"},
        {"name": "target", "value": "quay.io/me/build-{{workspace}}"},
    ]);
    json!({
        "apiVersion": "tekton.dev/v1",
        "kind": "PipelineRun",
        "metadata": {"generateName": "build-"},
        "spec": {"pipelineRef": {"resolver": "wrap", "params": params}},
    })
}

/// The review of the creation of `object`.
pub fn creation(object: &Value) -> Value {
    json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "tekton.dev", "version": "v1", "kind": "PipelineRun"},
            "resource": {"group": "tekton.dev", "version": "v1", "resource": "pipelineruns"},
            "namespace": "team",
            "operation": "CREATE",
            "userInfo": {"username": "jane"},
            "object": object,
            "oldObject": null,
            "dryRun": false,
            "options": {"apiVersion": "meta.k8s.io/v1", "kind": "CreateOptions"},
        },
    })
}
