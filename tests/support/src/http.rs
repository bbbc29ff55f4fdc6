//! HTTP/1.1 by hand, for servers that have to break its rules.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::Arc,
    thread,
};

/// The first lines of a request or an answer.
#[derive(Clone, Debug)]
pub struct Head {
    /// `GET /v2/ HTTP/1.1` or `HTTP/1.1 200 OK`.
    pub first: String,
    /// Name and value.
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// Reads up to the empty line; none at the end of the connection.
    pub fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut line = String::new();
        if from.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        let mut head = Self { first: line.trim_end().to_owned(), headers: Vec::new() };
        loop {
            line.clear();
            from.read_line(&mut line)?;
            match line.trim_end().split_once(':') {
                Some((name, value)) => head.headers.push((name.to_owned(), value.trim().to_owned())),
                None => return Ok(Some(head)),
            }
        }
    }

    /// Writes it, the empty line included.
    pub fn write(&self, to: &mut impl Write) -> io::Result<()> {
        let lines: String = self.headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        to.write_all(format!("{}\r\n{lines}\r\n", self.first).as_bytes())
    }

    /// `GET`
    pub fn method(&self) -> &str {
        self.first.split(' ').next().unwrap_or_default()
    }

    /// `/v2/`
    pub fn target(&self) -> &str {
        self.first.split(' ').nth(1).unwrap_or_default()
    }

    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Sets a header, in place of what it was.
    pub fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.headers.push((name.to_owned(), value.to_owned()));
    }

    /// Removes a header.
    pub fn remove(&mut self, name: &str) {
        self.headers.retain(|(n, _)| !n.eq_ignore_ascii_case(name));
    }
}

/// Copies the body that belongs to `head`, framing included, but no more than `limit` bytes.
pub fn copy_body(head: &Head, from: &mut impl BufRead, to: &mut impl Write, limit: usize) -> io::Result<()> {
    let mut left = limit as u64;
    let mut copy = |from: &mut dyn BufRead, count: u64| -> io::Result<()> {
        let count = count.min(left);
        left -= count;
        io::copy(&mut from.take(count), to)?;
        if left == 0 { Err(io::Error::other("cut")) } else { Ok(()) }
    };
    if head.header("transfer-encoding").is_none() {
        let length = head.header("content-length").map_or(0, |l| l.parse().expect("a length"));
        return copy(from, length);
    }
    loop {
        let mut line = String::new();
        from.read_line(&mut line)?;
        let size = u64::from_str_radix(line.trim_end(), 16).map_err(io::Error::other)?;
        copy(&mut line.as_bytes(), line.len() as u64)?;
        copy(from, size + 2)?;
        if size == 0 {
            return Ok(());
        }
    }
}

/// Serves `handler` on a port of the loopback interface, each connection for one request; the address.
pub fn serve(handler: impl Fn(Head, BufReader<TcpStream>) -> io::Result<()> + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    let address = listener.local_addr().expect("an address").to_string();
    let handler = Arc::new(handler);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let handler = handler.clone();
            thread::spawn(move || {
                let mut stream = BufReader::new(stream);
                // A client that goes away is a part of many tests.
                if let Ok(Some(head)) = Head::read(&mut stream) {
                    let _ = handler(head, stream);
                }
            });
        }
    });
    address
}

/// An answer with a body of known length, after which the connection ends.
pub fn answer(
    stream: &mut BufReader<TcpStream>,
    status: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<()> {
    let mut head = Head { first: format!("HTTP/1.1 {status}"), headers: Vec::new() };
    headers.iter().for_each(|(name, value)| head.set(name, value));
    head.set("Content-Length", &body.len().to_string());
    head.set("Connection", "close");
    let mut all = Vec::new();
    head.write(&mut all)?;
    all.extend_from_slice(body);
    stream.get_mut().write_all(&all)
}

/// Carries bytes both ways until one side ends.
pub fn tunnel(mut client: TcpStream, mut server: TcpStream) -> io::Result<()> {
    let (mut from_server, mut to_client) = (server.try_clone()?, client.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut from_server, &mut to_client);
        let _ = to_client.shutdown(Shutdown::Both);
    });
    io::copy(&mut client, &mut server)?;
    server.shutdown(Shutdown::Both)
}
