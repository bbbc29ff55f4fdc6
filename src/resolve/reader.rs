//! Reads objects of the Kubernetes API as JSON, within the budget of a review.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::StatusCode;
use http_body_util::BodyExt;
use hyper::body::{Body as _, Frame};
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::{sync::Semaphore, time::timeout};
use tracing::Instrument;

use super::{api, shared::SharedReads};
use crate::{
    health::Health,
    limits::{Budget, Exceeded, MAX_READ_BYTES, Weight},
    traces,
};

/// Requests to the apiserver at a time. Each has a connection of its own (HTTP/1.1), and a hundred creations at once must
/// not become a thousand TLS handshakes.
const MAX_REQUESTS: usize = 64;

/// The largest object that reviews share a request for, in bytes. A review that waits for its turn has up to sixteen of them in
/// memory. A Task has a few KiB.
const SHARED_BYTES: usize = 32 << 10;

/// Reads objects. Reviews that want the same one at a time share a request, unless the object is a large one.
pub struct ObjectReader {
    client: Client,
    shared: SharedReads<Option<Result<Bytes, Arc<ReadError>>>>,
    turns: Semaphore,
    /// Time for an answer to begin, and to go on.
    timeout: Duration,
    health: Arc<Health>,
}

/// An answer that has begun.
struct Answer {
    status: StatusCode,
    body: Body,
    /// What has arrived.
    data: Vec<u8>,
}

/// What [`ObjectReader::begin`] brings.
enum Begun {
    Small(Bytes),
    /// It has not all arrived.
    Large(Answer),
}

/// Why something could not be read: a clause for sentences.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The API says no, or nothing that can be understood.
    #[error("{}", api::sentence(.0))]
    Api(#[from] kube::Error),
    /// It exceeds the budget.
    #[error(transparent)]
    Limit(#[from] Exceeded),
    /// The API does not answer.
    #[error("the Kubernetes API gave no answer within {} s; create the PipelineRun again", .0.as_secs_f32())]
    Late(Duration),
}

impl ReadError {
    /// The HTTP status that the API answered with, if it did.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            _ => None,
        }
    }

    /// Whether the API says that there is no object of this name.
    pub fn is_absent(&self, name: &str) -> bool {
        match self {
            Self::Api(kube::Error::Api(status)) => {
                status.code == 404 && status.details.as_ref().is_some_and(|details| details.name == name)
            }
            _ => false,
        }
    }

    /// Whether the same request may succeed a moment later: the API does not answer, or is overloaded.
    pub fn is_outage(&self) -> bool {
        match self {
            Self::Api(error) => api::is_outage(error),
            Self::Late(_) => true,
            Self::Limit(_) => false,
        }
    }
}

impl ObjectReader {
    /// One that waits for an answer as long as `timeout`, and records in `health` whether there are any.
    pub fn new(client: Client, timeout: Duration, health: Arc<Health>) -> Self {
        Self { client, shared: SharedReads::default(), turns: Semaphore::new(MAX_REQUESTS), timeout, health }
    }

    /// The object at `path`, as it is at some moment after the call. Its size is taken from `budget` before it is built, and, if it
    /// is more than [`SHARED_BYTES`], before it is read.
    pub async fn read(&self, path: &str, budget: Option<&Budget>) -> Result<Value, Arc<ReadError>> {
        let span = traces::read(path);
        let read = self.read_untraced(path, budget).instrument(span.clone()).await;
        // That something is not there is an answer too.
        if let Some(error) = read.as_ref().err().filter(|error| error.code() != Some(404)) {
            traces::failed(&span, error);
        }
        read
    }

    async fn read_untraced(&self, path: &str, budget: Option<&Budget>) -> Result<Value, Arc<ReadError>> {
        let mut large = None;
        let small = self.shared.get(path, async || match self.recorded(self.begin(path).await) {
            Ok(Begun::Small(data)) => Some(Ok(data)),
            Ok(Begun::Large(answer)) => {
                large = Some(answer);
                None
            }
            Err(error) => Some(Err(Arc::new(error))),
        });
        let small = match timeout(self.timeout, small).await {
            // Whoever sent the request has recorded what came of it.
            Ok(small) => small,
            Err(_) => return Ok(self.recorded(Err(ReadError::Late(self.timeout)))?),
        };
        let read = match small {
            Some(data) => parsed(&data?, budget).await,
            // Each review for itself, as it may have to wait for its turn.
            None => self.read_large(path, large, budget).await,
        };
        Ok(self.recorded(read)?)
    }

    /// Sends the request and reads what a small object may have.
    async fn begin(&self, path: &str) -> Result<Begun, ReadError> {
        let mut answer = self.send(path).await?;
        let announced = usize::try_from(answer.body.size_hint().lower()).unwrap_or(usize::MAX);
        while announced <= SHARED_BYTES && answer.data.len() <= SHARED_BYTES {
            let Some(chunk) = self.chunk(&mut answer.body).await? else {
                return Ok(Begun::Small(answer.success()?.into()));
            };
            answer.data.extend_from_slice(&chunk);
        }
        Ok(Begun::Large(answer))
    }

    /// The rest of `answer`, or all of one of its own.
    async fn read_large(
        &self,
        path: &str,
        answer: Option<Answer>,
        budget: Option<&Budget>,
    ) -> Result<Value, ReadError> {
        let mut answer = match answer {
            Some(answer) => answer,
            None => self.send(path).await?,
        };
        let left = budget.map_or(MAX_READ_BYTES, Budget::bytes_left);
        let check = |bytes| Exceeded::check(bytes, left, "bytes", || "an object that the run refers to".to_owned());
        let announced = usize::try_from(answer.body.size_hint().lower()).unwrap_or(usize::MAX);
        check(answer.data.len().saturating_add(announced))?;
        take(budget, Weight { bytes: answer.data.len(), values: 0 }).await?;
        while let Some(chunk) = self.chunk(&mut answer.body).await? {
            check(answer.data.len().saturating_add(chunk.len()))?;
            take(budget, Weight { bytes: chunk.len(), values: 0 }).await?;
            answer.data.extend_from_slice(&chunk);
        }
        take(budget, Weight { bytes: 0, ..Weight::of(&answer.data) }).await?;
        parse(&answer.success()?)
    }

    /// Sends the request and waits for the answer to begin.
    async fn send(&self, path: &str) -> Result<Answer, ReadError> {
        let mut request = http::Request::get(path).body(Body::empty()).map_err(kube::Error::HttpError)?;
        traces::pass_on(&mut request);
        let answer = async {
            // The semaphore is never closed, so there always is a permit.
            let _turn = self.turns.acquire().await.ok();
            self.client.send(request).await
        };
        let answer = timeout(self.timeout, answer).await.map_err(|_| ReadError::Late(self.timeout))??;
        Ok(Answer { status: answer.status(), body: answer.into_body(), data: Vec::new() })
    }

    /// What comes next of `body`; none at its end.
    async fn chunk(&self, body: &mut Body) -> Result<Option<Bytes>, ReadError> {
        loop {
            let frame = timeout(self.timeout, body.frame()).await.map_err(|_| ReadError::Late(self.timeout))?;
            match frame.transpose()?.map(Frame::into_data) {
                None => return Ok(None),
                Some(Ok(data)) => return Ok(Some(data)),
                Some(Err(_trailers)) => {}
            }
        }
    }

    /// `read`, after noting whether the API is there.
    fn recorded<T>(&self, read: Result<T, ReadError>) -> Result<T, ReadError> {
        match &read {
            Err(error) if error.is_outage() || error.code() == Some(401) => self.health.api_failed(error.to_string()),
            Err(ReadError::Limit(_)) => {}
            _ => self.health.api_answered(),
        }
        read
    }
}

impl Answer {
    /// All that has arrived, if it is what was asked for.
    fn success(self) -> Result<Vec<u8>, ReadError> {
        if self.status.is_success() { Ok(self.data) } else { Err(api::refused(self.status, &self.data).into()) }
    }
}

/// What `data` holds, weighed first.
async fn parsed(data: &[u8], budget: Option<&Budget>) -> Result<Value, ReadError> {
    take(budget, Weight::of(data)).await?;
    parse(data)
}

async fn take(budget: Option<&Budget>, weight: Weight) -> Result<(), Exceeded> {
    match budget {
        Some(budget) => budget.take(weight).await,
        None => Ok(()),
    }
}

fn parse(data: &[u8]) -> Result<Value, ReadError> {
    Ok(serde_json::from_slice(data).map_err(kube::Error::SerdeError)?)
}
