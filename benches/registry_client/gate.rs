//! A server in front of another one that looks at the head of each request, and passes the rest on as it is.

use std::{
    io::Write,
    net::TcpStream,
    sync::{Arc, Mutex},
};

use support::http::{self, Head};

/// See the module.
pub struct Gate {
    /// Host and port.
    pub address: String,
    seen: Arc<Mutex<Vec<Head>>>,
}

/// Status and headers of an answer that the gate gives itself.
pub type Answer = (&'static str, Vec<(&'static str, &'static str)>);

impl Gate {
    /// `look` may change the head, or answer in place of the server at `server`.
    pub fn start(server: &str, look: impl Fn(&mut Head) -> Option<Answer> + Send + Sync + 'static) -> Self {
        let seen = Arc::<Mutex<Vec<Head>>>::default();
        let (server, notes) = (server.to_owned(), seen.clone());
        let address = http::serve(move |mut head, mut client| {
            notes.lock().expect("no panic").push(head.clone());
            if let Some((status, headers)) = look(&mut head) {
                return http::answer(&mut client, status, &headers, b"");
            }
            let mut server = TcpStream::connect(&server)?;
            head.set("Connection", "close");
            head.write(&mut server)?;
            server.write_all(client.buffer())?;
            http::tunnel(client.into_inner(), server)
        });
        Self { address, seen }
    }

    /// Lets in who shows credentials, whichever these are (basic authentication).
    pub fn with_user(server: &str) -> Self {
        Self::start(server, |head| match head.header("authorization") {
            Some(_) => None,
            None => Some(("401 Unauthorized", vec![("WWW-Authenticate", "Basic realm=\"test\"")])),
        })
    }

    /// The requests so far, as they came, with this method and with `part` in their address.
    pub fn seen(&self, method: &str, part: &str) -> usize {
        let seen = self.seen.lock().expect("no panic");
        seen.iter().filter(|head| head.method() == method && head.target().contains(part)).count()
    }
}
