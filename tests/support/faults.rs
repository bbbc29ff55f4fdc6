//! A server between a client and a registry that makes things go wrong.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use super::http::{self, Head};

/// See the module.
pub struct Faults {
    /// Host and port.
    pub address: String,
    state: Arc<State>,
}

/// What goes wrong with one request.
#[derive(Clone)]
pub enum Fault {
    /// It is answered here: status, headers, body. The request's body is not read.
    Answer(&'static str, Vec<(&'static str, String)>, Vec<u8>),
    /// The connection ends when the registry got so many bytes of the request's body.
    CutRequest(usize),
    /// The connection ends when the client got so many bytes of the answer's body.
    CutAnswer(usize),
    /// The registry gets it and does what is asked, but the connection ends without an answer.
    LoseAnswer,
    /// One bit of the answer's body, at this byte, is wrong.
    FlipAnswer(usize),
    /// The registry does not see this header of the request.
    HideHeader(&'static str),
    /// The answer's `Location` names this host and port.
    MoveLocation(String),
    /// The answer has this header, in place of what it was.
    SetHeader(&'static str, String),
    /// The answer comes in pieces of so many bytes, a moment apart.
    Trickle(usize),
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Head>>,
    rules: Mutex<Vec<Rule>>,
}

struct Rule {
    method: &'static str,
    part: String,
    times: usize,
    fault: Fault,
}

impl Faults {
    /// In front of the registry at `registry` (host and port).
    pub fn start(registry: &str) -> Self {
        let state = Arc::new(State::default());
        let address = {
            let (state, registry) = (state.clone(), registry.to_owned());
            http::serve(move |head, client| {
                let fault = state.take(&head);
                pass(&registry, head, client, fault)
            })
        };
        Self { address, state }
    }

    /// From now on the next `times` requests with this method and with `part` in their address go wrong like this.
    pub fn on(&self, method: &'static str, part: &str, times: usize, fault: Fault) -> &Self {
        self.state.rules.lock().unwrap().push(Rule { method, part: part.to_owned(), times, fault });
        self
    }

    /// From now on nothing goes wrong.
    pub fn forget_rules(&self) {
        self.state.rules.lock().unwrap().clear();
    }

    /// The requests so far with this method and with `part` in their address.
    pub fn seen(&self, method: &str, part: &str) -> Vec<Head> {
        let seen = self.state.seen.lock().unwrap();
        seen.iter().filter(|head| head.method() == method && head.target().contains(part)).cloned().collect()
    }

    /// All requests so far.
    pub fn all(&self) -> Vec<Head> {
        self.state.seen.lock().unwrap().clone()
    }
}

impl State {
    fn take(&self, head: &Head) -> Option<Fault> {
        self.seen.lock().unwrap().push(head.clone());
        let mut rules = self.rules.lock().unwrap();
        let matches = |r: &&mut Rule| r.times > 0 && r.method == head.method() && head.target().contains(&r.part);
        let rule = rules.iter_mut().find(matches)?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }
}

fn pass(registry: &str, mut head: Head, mut client: BufReader<TcpStream>, fault: Option<Fault>) -> io::Result<()> {
    let mut cut_request = usize::MAX;
    match &fault {
        Some(Fault::Answer(status, headers, body)) => {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            return http::answer(&mut client, status, &headers, body);
        }
        Some(Fault::CutRequest(limit)) => cut_request = *limit,
        Some(Fault::HideHeader(name)) => head.remove(name),
        _ => {}
    }
    let upstream = TcpStream::connect(registry)?;
    let mut to_client = client.get_ref().try_clone()?;
    head.set("Connection", "close");
    head.write(&mut &upstream)?;
    let sender = {
        let (mut upstream, client_end) = (upstream.try_clone()?, to_client.try_clone()?);
        thread::spawn(move || {
            if http::copy_body(&head, &mut client, &mut upstream, cut_request).is_err() {
                let _ = client_end.shutdown(Shutdown::Both);
                let _ = upstream.shutdown(Shutdown::Both);
            }
        })
    };
    let mut upstream = BufReader::new(upstream);
    if let Some(mut answer) = Head::read(&mut upstream)? {
        answer.set("Connection", "close");
        if let (Some(Fault::MoveLocation(host)), Some(location)) = (&fault, answer.header("location")) {
            let path = location.split_once("://").and_then(|(_, rest)| rest.split_once('/')).expect("a URL").1;
            let moved = format!("http://{host}/{path}");
            answer.set("Location", &moved);
        }
        if let Some(Fault::SetHeader(name, value)) = &fault {
            answer.set(name, value);
        }
        if !matches!(fault, Some(Fault::LoseAnswer)) {
            answer.write(&mut to_client)?;
            copy_answer(&mut upstream, &mut to_client, &fault)?;
        }
    }
    to_client.shutdown(Shutdown::Both)?;
    let _ = sender.join();
    Ok(())
}

fn copy_answer(upstream: &mut impl Read, client: &mut impl Write, fault: &Option<Fault>) -> io::Result<()> {
    match fault {
        Some(Fault::CutAnswer(limit)) => io::copy(&mut upstream.take(*limit as u64), client).map(drop),
        Some(Fault::FlipAnswer(at)) => {
            let mut body = Vec::new();
            upstream.read_to_end(&mut body)?;
            body[*at] ^= 1;
            client.write_all(&body)
        }
        Some(Fault::Trickle(size)) => {
            let mut piece = vec![0; *size];
            loop {
                let count = upstream.read(&mut piece)?;
                if count == 0 {
                    return Ok(());
                }
                client.write_all(&piece[..count])?;
                thread::sleep(Duration::from_millis(2));
            }
        }
        _ => io::copy(upstream, client).map(drop),
    }
}
