//! Reads objects of the Kubernetes API as JSON, within the budget of a review.

use std::{sync::Arc, time::Duration};

use http_body_util::BodyExt;
use hyper::body::Body as _;
use kube::{Client, client::Body};
use serde_json::Value;
use tokio::{
    sync::Semaphore,
    time::{error::Elapsed, timeout},
};
use tracing::Instrument;

use super::api;
use crate::{
    health::Health,
    limits::{Budget, Exceeded, MAX_READ_BYTES, Weight},
    traces,
};

/// Requests to the apiserver at a time. Each has a connection of its own (HTTP/1.1), and a hundred creations at once must
/// not become a thousand TLS handshakes.
const MAX_REQUESTS: usize = 64;

/// Reads objects.
pub struct ObjectReader {
    client: Client,
    turns: Semaphore,
    /// Time for an answer to begin, and to go on.
    timeout: Duration,
    health: Arc<Health>,
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
        Self { client, turns: Semaphore::new(MAX_REQUESTS), timeout, health }
    }

    /// The object at `path`. Its size is taken from `budget`.
    pub async fn read(&self, path: String, budget: Option<&Budget>) -> Result<Value, ReadError> {
        let span = traces::read(&path);
        let read = self.read_unrecorded(path, budget).instrument(span.clone()).await;
        // That something is not there is an answer too.
        if let Some(error) = read.as_ref().err().filter(|error| error.code() != Some(404)) {
            traces::failed(&span, error);
        }
        match &read {
            Err(error) if error.is_outage() || error.code() == Some(401) => self.health.api_failed(error.to_string()),
            Err(ReadError::Limit(_)) => {}
            _ => self.health.api_answered(),
        }
        read
    }

    async fn read_unrecorded(&self, path: String, budget: Option<&Budget>) -> Result<Value, ReadError> {
        let mut request = http::Request::get(path).body(Body::empty()).map_err(kube::Error::HttpError)?;
        traces::pass_on(&mut request);
        let answer = async {
            // The semaphore is never closed, so there always is a permit.
            let _turn = self.turns.acquire().await.ok();
            self.client.send(request).await
        };
        let answer = timeout(self.timeout, answer).await.map_err(|_| ReadError::Late(self.timeout))??;
        let status = answer.status();
        let data = self.collect(answer.into_body(), budget).await?;
        if !status.is_success() {
            return Err(api::refused(status, &data).into());
        }
        if let Some(budget) = budget {
            budget.take(Weight { bytes: 0, ..Weight::of(&data) }).await?;
        }
        Ok(serde_json::from_slice(&data).map_err(kube::Error::SerdeError)?)
    }

    async fn collect(&self, mut body: Body, budget: Option<&Budget>) -> Result<Vec<u8>, ReadError> {
        let left = budget.map_or(MAX_READ_BYTES, Budget::bytes_left);
        let check = |bytes| Exceeded::check(bytes, left, "bytes", || "an object that the run refers to".to_owned());
        check(usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX))?;
        let mut data = Vec::new();
        let late = |_: Elapsed| ReadError::Late(self.timeout);
        while let Some(frame) = timeout(self.timeout, body.frame()).await.map_err(late)?.transpose()? {
            let Ok(chunk) = frame.into_data() else { continue };
            match budget {
                Some(budget) => budget.take(Weight { bytes: chunk.len(), values: 0 }).await?,
                None => check(data.len().saturating_add(chunk.len()))?,
            }
            data.extend_from_slice(&chunk);
        }
        Ok(data)
    }
}
