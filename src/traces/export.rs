//! Spans on their way to the collector: in batches, on a thread of their own. What does not fit into the queue while the collector is
//! away is dropped: no review waits for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    },
    thread,
    time::{Duration, Instant},
};

use http::{Request, StatusCode, Uri, header};

use super::{
    layer::EndedSpan,
    losses::{Losses, Notice},
    otlp,
};
use crate::store::{HttpClient, RegistrySettings, StoreError, StoreOptions, drain};

/// Spans that may wait.
const MAX_WAITING: usize = 2048;

/// Spans that are sent at once.
const MAX_BATCH: usize = 512;

/// The longest that a span waits for others to go with.
const COLLECT: Duration = Duration::from_secs(1);

/// Time for one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Pauses before the collector is asked again.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

/// Time for the last batch, and for room in the queue to say that it is the last.
const LAST: Duration = Duration::from_secs(2);

/// The pause before there may be room.
const FULL: Duration = Duration::from_millis(10);

/// Where spans wait.
#[derive(Clone)]
pub struct Queue {
    sender: SyncSender<Parcel>,
    lost: Arc<AtomicU64>,
}

enum Parcel {
    Span(Box<EndedSpan>),
    /// There are no more; whoever drops the receiver is done.
    End(SyncSender<()>),
}

/// Sends spans.
pub struct Exporter {
    queue: Queue,
}

/// What a batch met.
enum Delivery {
    Taken,
    /// And why, a clause after the collector's name; the same may succeed later.
    Delayed(String),
    /// And why.
    Refused(String),
}

impl Queue {
    /// Takes `span`, if there is room.
    pub fn push(&self, span: EndedSpan) {
        if self.sender.try_send(Parcel::Span(Box::new(span))).is_err() {
            self.lost.fetch_add(1, Relaxed);
        }
    }
}

impl Exporter {
    /// Sends to `address`. If there can be no thread, spans are dropped.
    pub fn start(address: Uri, instance: &str) -> Self {
        let (sender, receiver) = sync_channel(MAX_WAITING);
        let lost = Arc::<AtomicU64>::default();
        let losses = Losses::of_queue(lost.clone());
        let courier = Courier { address, instance: instance.to_owned(), losses };
        let _ = thread::Builder::new().name("traces".to_owned()).spawn(move || courier.run(&receiver));
        Self { queue: Queue { sender, lost } }
    }

    /// Where spans go.
    pub fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Waits a moment for all spans to be sent.
    pub fn finish(self) {
        #[allow(clippy::arithmetic_side_effects, reason = "a few seconds from now is a time")]
        let (until, (done, end)) = (Instant::now() + LAST, sync_channel(0));
        let mut parcel = Parcel::End(done);
        while let Err(TrySendError::Full(unsent)) = self.queue.sender.try_send(parcel) {
            if Instant::now() >= until {
                return;
            }
            parcel = unsent;
            thread::sleep(FULL);
        }
        // Either way this process ends.
        let _ = end.recv_timeout(until.saturating_duration_since(Instant::now()));
    }
}

/// What the thread has.
struct Courier {
    address: Uri,
    instance: String,
    losses: Losses,
}

impl Courier {
    fn run(mut self, receiver: &Receiver<Parcel>) {
        // Certificates of authorities may be wrong: it is said once the log is there.
        let mut client = None;
        let mut end = None;
        while end.is_none() {
            let mut batch = Vec::new();
            end = collect(receiver, &mut batch);
            if batch.is_empty() {
                continue;
            }
            let spans = batch.len() as u64;
            let client = client.get_or_insert_with(client_of_process).as_ref();
            let delivered = match client {
                Ok(client) => self.deliver(client, &batch, end.is_some()),
                Err(error) => Err(error.clone()),
            };
            let notice = self.losses.note(delivered, spans, Instant::now());
            self.log(notice);
        }
    }

    /// Sends `batch`, several times if need be.
    fn deliver(&self, client: &HttpClient, batch: &[EndedSpan], is_last: bool) -> Result<(), String> {
        let body = otlp::request(&self.instance, batch).to_string();
        let mut pauses = PAUSES.iter().filter(|_| !is_last);
        loop {
            match self.post(client, body.as_bytes()) {
                Delivery::Taken => return Ok(()),
                Delivery::Refused(why) => return Err(why),
                Delivery::Delayed(why) => match pauses.next() {
                    Some(pause) => thread::sleep(*pause),
                    None => return Err(why),
                },
            }
        }
    }

    fn post(&self, client: &HttpClient, body: &[u8]) -> Delivery {
        let request = Request::post(&self.address).header(header::CONTENT_TYPE, "application/json");
        let request = match request.body(body) {
            Ok(request) => request,
            Err(error) => return Delivery::Refused(format!("can't be asked: {error}")),
        };
        let answer = match client.run_within(request, REQUEST_TIMEOUT) {
            Ok(answer) => answer,
            Err(fault) => return Delivery::Delayed(fault.clause),
        };
        let status = answer.status();
        drain(answer);
        match status.as_u16() {
            200..=299 => Delivery::Taken,
            // OTLP: docs/specification.md, "Retryable Response Codes".
            429 | 502..=504 => Delivery::Delayed(said(status)),
            _ => Delivery::Refused(said(status)),
        }
    }

    fn log(&self, notice: Option<Notice>) {
        match notice {
            Some(Notice::Fails(why)) => {
                tracing::warn!("spans are dropped: the collector at {} {why}", self.address);
            }
            Some(Notice::Recovered { lost }) => tracing::info!(lost, "spans are sent again"),
            Some(Notice::Overflows { lost }) => {
                tracing::warn!(lost, "spans are dropped: the collector takes them more slowly than they come");
            }
            None => {}
        }
    }
}

/// Waits for a span, and a moment for more of them. Returns whom to tell the end, if there are no more.
fn collect(receiver: &Receiver<Parcel>, batch: &mut Vec<EndedSpan>) -> Option<SyncSender<()>> {
    let (closed, _) = sync_channel(0);
    let mut until = None;
    while batch.len() < MAX_BATCH {
        let message = match until {
            None => receiver.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => receiver.recv_timeout(Instant::saturating_duration_since(&until, Instant::now())),
        };
        match message {
            Ok(Parcel::Span(span)) => batch.push(*span),
            Ok(Parcel::End(done)) => return Some(done),
            Err(RecvTimeoutError::Timeout) => break,
            Err(RecvTimeoutError::Disconnected) => return Some(closed),
        }
        #[allow(clippy::arithmetic_side_effects, reason = "a few seconds from now is a time")]
        until.get_or_insert_with(|| Instant::now() + COLLECT);
    }
    None
}

/// Trusts whom the process trusts, and takes its proxies.
fn client_of_process() -> Result<HttpClient, String> {
    let unusable = |error: StoreError| format!("can't be asked: {error}");
    let options = StoreOptions::new(&RegistrySettings::of_process().map_err(unusable)?);
    HttpClient::new(&options.http.unwrap_or_default()).map_err(unusable)
}

fn said(status: StatusCode) -> String {
    format!("answered {status}")
}
