//! What kube-proxy does for a Service: each connection goes to one of the replicas, and stays there.

use std::{
    net::Ipv4Addr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
};

/// A port of the loopback interface in front of replicas.
pub struct Balancer {
    /// Where it listens.
    pub port: u16,
    replicas: Arc<Mutex<Replicas>>,
}

#[derive(Default)]
struct Replicas {
    /// Ports that new connections go to.
    ready: Vec<u16>,
    next: usize,
    /// The port of each open connection.
    open: Vec<u16>,
}

impl Balancer {
    /// Starts it, with no replica.
    pub async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let port = listener.local_addr().expect("the port").port();
        let replicas = Arc::<Mutex<Replicas>>::default();
        let shared = replicas.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(carry(client, shared.clone()));
            }
        });
        Self { port, replicas }
    }

    /// New connections go to `port` too.
    pub fn add(&self, port: u16) {
        lock(&self.replicas).ready.push(port);
    }

    /// New connections no longer go to `port`; those that are open stay.
    pub fn remove(&self, port: u16) {
        lock(&self.replicas).ready.retain(|other| *other != port);
    }

    /// How many connections are open to `port`.
    pub fn open(&self, port: u16) -> usize {
        lock(&self.replicas).open.iter().filter(|other| **other == port).count()
    }
}

/// One connection. If its replica is not there, it ends, as it would be refused.
async fn carry(mut client: TcpStream, replicas: Arc<Mutex<Replicas>>) {
    let port = {
        let mut replicas = lock(&replicas);
        replicas.next += 1;
        let Some(&port) = replicas.ready.get(replicas.next % replicas.ready.len().max(1)) else { return };
        replicas.open.push(port);
        port
    };
    if let Ok(mut server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
    let mut replicas = lock(&replicas);
    if let Some(at) = replicas.open.iter().position(|other| *other == port) {
        replicas.open.swap_remove(at);
    }
}

fn lock(replicas: &Mutex<Replicas>) -> MutexGuard<'_, Replicas> {
    replicas.lock().unwrap_or_else(PoisonError::into_inner)
}
