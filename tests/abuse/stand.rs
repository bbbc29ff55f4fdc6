//! The product's webhook as a process, with a stand-in for the Kubernetes API that knows the objects of the corpus, and clients
//! that speak TLS to it. All of it on the loopback interface.

use std::{
    collections::HashMap,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring, pki_types::ServerName};

use super::corpus;

/// A running webhook.
pub struct Stand {
    process: Child,
    _dir: tempfile::TempDir,
    /// Where reviews go.
    pub address: SocketAddr,
    /// Where probes go.
    pub admin: SocketAddr,
    client: Arc<ClientConfig>,
}

impl Stand {
    /// Starts it.
    pub fn start() -> Self {
        let _ = ring::default_provider().install_default();
        let dir = tempfile::tempdir().expect("a temporary folder");
        let api = serve_objects();
        let rcgen::CertifiedKey { cert, signing_key } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("the folder is writable");
        write("tls.crt", &cert.pem());
        write("tls.key", &signing_key.serialize_pem());
        write(
            "kubeconfig",
            &format!(
                r#"{{"clusters": [{{"name": "c", "cluster": {{"server": "http://{api}"}}}}], "users": [{{"name": "u", "user": {{}}}}],
                "contexts": [{{"name": "c", "context": {{"cluster": "c", "user": "u"}}}}], "current-context": "c"}}"#
            ),
        );
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut process = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"))
            .args(["webhook", "--image=i", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--log-format=json"])
            .arg(format!("--tls-dir={}", path("")))
            .arg(format!("--kubeconfig={}", path("kubeconfig")))
            .env_remove("RUST_LOG")
            // As webhook-config has it.
            .env("MALLOC_ARENA_MAX", "1")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the webhook starts");
        let mut log = BufReader::new(process.stderr.take().expect("its log"));
        let mut line = String::new();
        while !line.contains("admin_listen") {
            line.clear();
            assert_ne!(log.read_line(&mut line).expect("its log"), 0, "it ended");
        }
        let started: serde_json::Value = serde_json::from_str(&line).expect("a line of JSON");
        let address = |name: &str| started[name].as_str().expect("an address").parse().expect("an address");
        let (listen, admin) = (address("listen"), address("admin_listen"));
        // What it says further is read and dropped, or it would have to wait.
        thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone()).expect("a root");
        let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { process, _dir: dir, address: listen, admin, client: Arc::new(client) }
    }

    /// A connection.
    pub fn connect(&self) -> std::io::Result<StreamOwned<ClientConnection, TcpStream>> {
        let stream = TcpStream::connect(self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        stream.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        let connection = ClientConnection::new(self.client.clone(), name).map_err(std::io::Error::other)?;
        Ok(StreamOwned::new(connection, stream))
    }

    /// The status and body of the answer to a review.
    pub fn review(&self, review: &str) -> std::io::Result<(u16, String)> {
        let mut stream = self.connect()?;
        let length = review.len();
        let head = format!(
            "POST /wrap?timeout=30s HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
        );
        // It may be refused before all of it is sent.
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(review.as_bytes()));
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        match (status, read) {
            (Some(status), _) => Ok((status, answer)),
            (None, Err(error)) => Err(error),
            (None, Ok(_)) => Err(std::io::ErrorKind::UnexpectedEof.into()),
        }
    }

    /// How long a probe takes.
    pub fn probe(&self) -> std::io::Result<Duration> {
        let start = Instant::now();
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(10)))?;
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        if answer.starts_with("HTTP/1.1 200 ") { Ok(start.elapsed()) } else { Err(std::io::Error::other(answer)) }
    }

    /// The peak of its resident memory so far, and that of now, in KiB.
    pub fn memory(&self) -> (u64, u64) {
        let status = fs::read_to_string(Path::new("/proc").join(self.process.id().to_string()).join("status"));
        let status = status.expect("its status");
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("the field");
            line.split_whitespace().next().and_then(|kib| kib.parse().ok()).expect("a number")
        };
        (field("VmHWM:"), field("VmRSS:"))
    }

    /// Whether it still runs.
    pub fn is_alive(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }
}

impl Drop for Stand {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Answers for the objects of the corpus, and for Tekton's feature flags; gives its address. Bodies are made once.
fn serve_objects() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let bodies: Arc<Mutex<HashMap<String, Option<Arc<String>>>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let bodies = bodies.clone();
            thread::spawn(move || answer(stream, &bodies));
        }
    });
    address
}

/// Answers all requests of a connection.
fn answer(stream: TcpStream, bodies: &Mutex<HashMap<String, Option<Arc<String>>>>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut lines = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(lines.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        if path.contains("watch=true") {
            // A watch that tells nothing, until the client goes.
            let _ = out.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n");
            let _ = lines.read_line(&mut head);
            return;
        }
        let made =
            bodies.lock().expect("no thread panicked in it").entry(path.clone()).or_insert_with(|| made(&path)).clone();
        let name = path.rsplit('/').next().unwrap_or_default();
        let (status, body) = match made {
            Some(body) => ("200 OK", body),
            None => (
                "404 Not Found",
                Arc::new(format!(
                    r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"none","reason":"NotFound","details":{{"name":"{name}"}},"code":404}}"#
                )),
            ),
        };
        let head =
            format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        if out.write_all(head.as_bytes()).and_then(|()| out.write_all(body.as_bytes())).is_err() {
            return;
        }
    }
}

fn made(path: &str) -> Option<Arc<String>> {
    if path.ends_with("/configmaps/feature-flags") {
        return Some(Arc::new(r#"{"kind":"ConfigMap","apiVersion":"v1","metadata":{},"data":{}}"#.to_owned()));
    }
    let mut parts = path.rsplit('/');
    let (name, kind) = (parts.next()?, parts.next()?);
    corpus::object(kind, name).map(|object| Arc::new(object.to_string()))
}
