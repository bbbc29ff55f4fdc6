//! What a kube-apiserver asks for the logs of pods: a kubelet that has nothing but logs, which a test writes
//! (Kubernetes: pkg/kubelet/server/server.go, `/containerLogs`).

use std::{
    collections::BTreeMap,
    io::{self, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex},
    thread,
};

use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use rustls::{
    ServerConfig, ServerConnection, StreamOwned,
    pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
};
use serde_json::json;

use super::{cluster::Namespace, http::Head, manifests};

/// Serves logs.
pub struct Kubelet {
    /// Name of its node.
    pub node: String,
    logs: Arc<Logs>,
}

#[derive(Default)]
struct Logs {
    /// By pod and container.
    all: Mutex<BTreeMap<(String, String), Log>>,
    changed: Condvar,
}

#[derive(Default)]
struct Log {
    text: String,
    has_ended: bool,
}

impl Kubelet {
    /// Starts it and registers its node.
    pub async fn start(namespace: &Namespace) -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .expect("a key that fits");
        let (config, logs) = (Arc::new(config), Arc::new(Logs::default()));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let of_server = logs.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let (config, logs) = (config.clone(), of_server.clone());
                // A client that goes away is no failure.
                thread::spawn(move || serve(stream, config, &logs));
            }
        });
        let node = format!("node-of-{}", namespace.name);
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": node}});
        manifests::create(&namespace.client, None, &object, &PostParams::default()).await.expect("a node");
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(namespace.client.clone());
        let status = json!({"status": {"addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": port}}}});
        nodes.patch_status(&node, &PatchParams::default(), &Patch::Merge(status)).await.expect("its address");
        // No controller makes it here, and pods need it.
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"},
            "automountServiceAccountToken": false});
        namespace.create(&account).await.expect("a service account");
        Self { node, logs }
    }

    /// A pod on its node.
    pub async fn run(&self, namespace: &Namespace, pod: &str, containers: &[&str]) {
        let containers: Vec<_> = containers.iter().map(|name| json!({"name": name, "image": "i"})).collect();
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod},
            "spec": {"nodeName": self.node, "containers": containers}});
        namespace.create(&object).await.expect("a pod");
    }

    /// A container of it writes `text`.
    pub fn write(&self, pod: &str, container: &str, text: &str) {
        self.change(pod, container, |log| log.text += text);
    }

    /// A container of it ends.
    pub fn end(&self, pod: &str, container: &str) {
        self.change(pod, container, |log| log.has_ended = true);
    }

    fn change(&self, pod: &str, container: &str, change: impl FnOnce(&mut Log)) {
        change(self.logs.all.lock().expect("no panic").entry((pod.to_owned(), container.to_owned())).or_default());
        self.logs.changed.notify_all();
    }
}

/// Answers one request, `/containerLogs/NAMESPACE/POD/CONTAINER?follow=true`.
fn serve(stream: TcpStream, config: Arc<ServerConfig>, logs: &Logs) -> io::Result<()> {
    let connection = ServerConnection::new(config).map_err(io::Error::other)?;
    let mut stream = BufReader::new(StreamOwned::new(connection, stream));
    let Some(head) = Head::read(&mut stream)? else { return Ok(()) };
    let (path, query) = head.target().split_once('?').unwrap_or((head.target(), ""));
    let [container, pod] = path.rsplitn(3, '/').take(2).collect::<Vec<_>>()[..] else { return Ok(()) };
    let key = (pod.to_owned(), container.to_owned());
    let stream = stream.get_mut();
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    let mut sent = 0;
    let mut all = logs.all.lock().expect("no panic");
    loop {
        let (text, has_ended) = all.get(&key).map_or((String::new(), false), |log| (log.text.clone(), log.has_ended));
        if sent < text.len() {
            drop(all);
            write!(stream, "{:x}\r\n{}\r\n", text.len() - sent, &text[sent..])?;
            stream.flush()?;
            sent = text.len();
            all = logs.all.lock().expect("no panic");
        } else if has_ended || !query.contains("follow=true") {
            stream.write_all(b"0\r\n\r\n")?;
            return stream.flush();
        } else {
            all = logs.changed.wait(all).expect("no panic");
        }
    }
}
