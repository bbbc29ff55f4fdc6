//! A server between a client and a registry that makes things go wrong.

use std::{
    io::{self, BufReader, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant, SystemTime},
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
    /// The answer's body comes in pieces of so many bytes, so far apart.
    Trickle(usize, Duration),
    /// The connection ends at once.
    Drop,
}

/// Long enough for an answer to be seen in pieces.
pub const MOMENT: Duration = Duration::from_millis(2);

/// Faults at random.
pub struct Chaos {
    /// The same one gives the same faults, as far as requests come in the same order.
    pub seed: u64,
    /// How many requests of a hundred go wrong.
    pub percent: u64,
    /// What becomes of PATCH requests besides.
    pub patch: Patch,
}

/// How a registry takes uploads of unknown size.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Patch {
    /// As they come.
    Any,
    /// Not at all.
    None,
    /// In numbered pieces of at most 4 MiB.
    Pieces,
}

#[derive(Default)]
struct State {
    seen: Mutex<Vec<Head>>,
    rules: Mutex<Vec<Rule>>,
    chaos: Mutex<Option<Chaos>>,
    down_until: Mutex<Option<Instant>>,
    /// Bytes of requests' bodies that the registry got.
    sent: AtomicU64,
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
                pass(state.clone(), &registry, head, client, fault)
            })
        };
        Self { address, state }
    }

    /// From now on things go wrong at random too.
    pub fn chaos(&self, chaos: Chaos) -> &Self {
        *self.state.chaos.lock().unwrap() = Some(chaos);
        self
    }

    /// For so long every connection ends at once.
    pub fn go_away_for(&self, time: Duration) {
        *self.state.down_until.lock().unwrap() = Some(Instant::now() + time);
    }

    /// Bytes of requests' bodies that the registry got.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
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
        if self.down_until.lock().unwrap().is_some_and(|until| Instant::now() < until) {
            return Some(Fault::Drop);
        }
        if let Some(fault) = self.chaos.lock().unwrap().as_mut().and_then(|chaos| chaos.take(head)) {
            return Some(fault);
        }
        let mut rules = self.rules.lock().unwrap();
        let matches = |r: &&mut Rule| r.times > 0 && r.method == head.method() && head.target().contains(&r.part);
        let rule = rules.iter_mut().find(matches)?;
        rule.times -= 1;
        Some(rule.fault.clone())
    }
}

impl Chaos {
    fn take(&mut self, head: &Head) -> Option<Fault> {
        let answer = |status, headers: Vec<(&'static str, String)>| Some(Fault::Answer(status, headers, Vec::new()));
        let length = head.header("content-length").and_then(|length| length.parse::<u64>().ok());
        let piece = head.header("content-range").is_some() && length.is_some_and(|length| length <= 4 << 20);
        // Small blobs come in one piece without a number, but with a length.
        let small = length.is_some_and(|length| length <= 4 << 20);
        match (head.method(), self.patch) {
            ("PATCH", Patch::None) => return answer("404 Not Found", Vec::new()),
            ("PATCH", Patch::Pieces) if !piece && !small => return answer("416 Range Not Satisfiable", Vec::new()),
            _ => {}
        }
        if self.next() % 100 >= self.percent {
            return None;
        }
        let is_blob = head.method() == "GET" && head.target().contains("/blobs/");
        let size = (self.next() % 200_000) as usize;
        match self.next() % 10 {
            0 => Some(Fault::Drop),
            1 => Some(Fault::CutRequest(size)),
            2 => Some(Fault::CutAnswer(size)),
            3 => Some(Fault::LoseAnswer),
            4 => answer("502 Bad Gateway", Vec::new()),
            5 => answer("429 Too Many Requests", vec![("Retry-After", "1".to_owned())]),
            6 => {
                let soon = SystemTime::now() + Duration::from_secs(1);
                answer("429 Too Many Requests", vec![("Retry-After", httpdate::fmt_http_date(soon))])
            }
            7 if is_blob => Some(Fault::FlipAnswer(0)),
            8 if head.method() == "PATCH" => Some(Fault::SetHeader("Range", "0-1".to_owned())),
            _ => Some(Fault::Trickle(50_000, MOMENT)),
        }
    }

    /// xorshift64*
    fn next(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }
}

/// Counts what is written.
struct Counted<'a, W>(W, &'a AtomicU64);

impl<W: Write> Write for Counted<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.0.write(bytes)?;
        self.1.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

fn pass(
    state: Arc<State>,
    registry: &str,
    mut head: Head,
    mut client: BufReader<TcpStream>,
    fault: Option<Fault>,
) -> io::Result<()> {
    let mut cut_request = usize::MAX;
    match &fault {
        Some(Fault::Answer(status, headers, body)) => {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            return http::answer(&mut client, status, &headers, body);
        }
        Some(Fault::Drop) => return client.get_ref().shutdown(Shutdown::Both),
        Some(Fault::CutRequest(limit)) => cut_request = *limit,
        Some(Fault::HideHeader(name)) => head.remove(name),
        _ => {}
    }
    let upstream = TcpStream::connect(registry)?;
    let mut to_client = client.get_ref().try_clone()?;
    head.set("Connection", "close");
    head.write(&mut &upstream)?;
    let sender = {
        let (upstream, client_end) = (upstream.try_clone()?, to_client.try_clone()?);
        thread::spawn(move || {
            let copied = http::copy_body(&head, &mut client, &mut Counted(&upstream, &state.sent), cut_request);
            if copied.is_err() {
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
            // An answer that is no blob may be shorter.
            body.get_mut(*at).into_iter().for_each(|byte| *byte ^= 1);
            client.write_all(&body)
        }
        Some(Fault::Trickle(size, pause)) => {
            let mut piece = vec![0; *size];
            loop {
                let count = upstream.read(&mut piece)?;
                if count == 0 {
                    return Ok(());
                }
                client.write_all(&piece[..count])?;
                thread::sleep(*pause);
            }
        }
        _ => io::copy(upstream, client).map(drop),
    }
}
