//! What the tests of both clouds stand on.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
    thread,
};

/// A response to requests whose first line begins with `start`.
pub struct Response {
    pub start: &'static str,
    pub status: u16,
    pub body: String,
}

/// A server that answers each request line that begins so with the text. The address, and the requests with their bodies.
pub fn server(answers: &'static [(&'static str, u16, &'static str)]) -> (String, Receiver<String>) {
    let responses = answers.iter().map(|&(start, status, text)| Response { start, status, body: text.to_owned() });
    let (host, requests) = serve(responses.collect());
    (format!("http://{host}"), requests)
}

/// The same; its host and port, and the requests with their bodies.
pub fn serve(responses: Vec<Response>) -> (String, Receiver<String>) {
    serve_late(0, responses)
}

/// The same, but the first `silent` connections are closed without an answer.
pub fn serve_late(silent: usize, responses: Vec<Response>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let (sender, receiver) = channel();
    thread::spawn(move || {
        for connection in listener.incoming().skip(silent) {
            let mut reader = BufReader::new(connection.unwrap());
            let (mut head, mut length) = (String::new(), 0);
            while reader.read_line(&mut head).unwrap() > 2 {
                let line = head.lines().last().unwrap().to_ascii_lowercase();
                length = line.strip_prefix("content-length:").map_or(length, |l| l.trim().parse().unwrap());
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            let found = responses.iter().find(|response| head.starts_with(response.start));
            let (status, text) = found.map_or((404, ""), |response| (response.status, &response.body));
            let answer =
                format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{text}", text.len());
            let _ = sender.send(head + &String::from_utf8(body).unwrap());
            reader.get_mut().write_all(answer.as_bytes()).unwrap();
        }
    });
    (host, receiver)
}
