//! Requests to one bucket: signed, and sent again where the region or the keys turn out to be others.

use std::{
    io::{self, Read},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use ureq::Body;

use super::{
    address::Endpoint,
    refusal::{Asked, Refusal},
};
use crate::{
    store::{
        StoreError, StoreOptions,
        cloud::{
            Environment, Fetch, Found, Problem,
            aws::{self, Signature, encode, hex_digest},
        },
        layout::Action,
        net::{
            fault::Fault,
            http::HttpClient,
            pressure::Pressure,
            retry::{Backoff, Failure, RetryPolicy},
        },
    },
    target::Bucket,
};

/// Where Amazon's tools look who know of no region.
const REGION: &str = "us-east-1";

/// How often a request is sent that turns out to be meant for another region or to need other keys.
const TURNS: u32 = 3;

/// Each upload holds a part of it in memory.
const UPLOADS: usize = 4;

/// How much of an answer is read to learn what it says.
const REFUSAL_SIZE: u64 = 1 << 16;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A part of a bucket, and all that was learned about how to talk to it.
pub struct Session {
    bucket: Bucket,
    endpoint: Endpoint,
    region: Mutex<String>,
    environment: Environment,
    client: HttpClient,
    fetch: Fetch,
    retry: RetryPolicy,
    /// How many requests and uploads this process has under way there.
    pub pressure: Arc<Pressure>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    pub method: &'a Method,
    /// Relative to our part of the bucket.
    pub key: &'a str,
    /// Whether it is about the bucket; then the key is only for errors.
    pub in_bucket: bool,
    /// Names and values, not encoded yet.
    pub query: &'a [(&'a str, &'a str)],
    pub headers: &'a [(HeaderName, &'a str)],
    pub body: Option<&'a [u8]>,
}

impl Session {
    pub fn new(bucket: &Bucket, options: &StoreOptions) -> Result<Self, StoreError> {
        let environment = options.cloud.clone();
        let endpoint = Endpoint::of(&environment)?;
        let region = aws::region(&environment).unwrap_or_else(|| REGION.to_owned());
        let http = options.http.clone().unwrap_or_default();
        let pressure = Pressure::of(&endpoint.bucket_url(&bucket.bucket, ""));
        pressure.limit_uploads(UPLOADS);
        Ok(Self {
            pressure,
            bucket: bucket.clone(),
            endpoint,
            region: Mutex::new(region),
            environment,
            client: HttpClient::new(&http)?,
            fetch: Fetch::new(&http)?,
            retry: options.retry.clone(),
        })
    }

    /// How errors name an object.
    pub fn place(&self, key: &str) -> String {
        format!("s3://{}/{}", self.bucket.bucket, self.bucket.key(key))
    }

    /// The whole key of an object.
    pub fn key(&self, key: &str) -> String {
        self.bucket.key(key)
    }

    /// The same with the bucket before it, as copies name what they copy.
    pub fn source(&self, key: &str) -> String {
        format!("{}/{}", self.bucket.bucket, self.bucket.key(key))
    }

    /// The waits of a new operation.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
    }

    /// Sends the request: a good answer, or what was said instead.
    pub fn call(&self, call: &Call<'_>) -> Result<Result<Response<Body>, Refusal>, Failure> {
        let _running = self.pressure.request();
        let mut turn = 1_u32;
        loop {
            let keys = self.keys().map_err(|problem| self.without_keys(call.key, problem))?;
            let region = self.region();
            let answer = self.send(call, &region, keys.keys.as_ref()).map_err(|fault| self.failed(call.key, fault))?;
            if answer.status().is_success() {
                return Ok(Ok(answer));
            }
            let refusal = Refusal::read(answer, REFUSAL_SIZE);
            if matches!(refusal.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                self.pressure.lower();
            }
            let again = match &refusal.region {
                Some(other) if *other != region && refusal.is_other_region() => {
                    *self.region.lock().unwrap_or_else(PoisonError::into_inner) = other.clone();
                    true
                }
                _ => refusal.is_expired() && self.environment.aws_cache().expired(&keys),
            };
            if !again || turn >= TURNS {
                return Ok(Err(refusal));
            }
            turn = turn.saturating_add(1);
        }
    }

    /// The failure for what was said instead of a good answer.
    pub fn failure(&self, action: Action, key: &str, refusal: &Refusal) -> Failure {
        // They were there a moment ago.
        let found = self.keys().ok();
        let asked = Asked {
            place: self.place(key),
            server: self.endpoint.name(&self.region()),
            bucket: &self.bucket,
            region: self.region(),
            action,
            searched: found.as_ref().map(|found| found.searched.clone()).unwrap_or_default(),
            anonymous: found.as_ref().is_none_or(|found| found.keys.is_none()),
            secrets: found.map(|found| found.secrets.clone()).unwrap_or_default(),
        };
        asked.failure(refusal)
    }

    /// The failure for a connection that broke while an answer was read.
    pub fn broken(&self, key: &str, error: io::Error) -> Failure {
        self.failed(key, Fault::of(&ureq::Error::from(error)))
    }

    /// An answer that makes no sense, as `what` says.
    pub fn unexpected(&self, key: &str, what: &str) -> Failure {
        let problem = format!("unexpected response from {}: {what}", self.endpoint.name(&self.region()));
        Failure::transient(StoreError::Content { place: self.place(key), problem })
    }

    fn send(&self, call: &Call<'_>, region: &str, keys: Option<&aws::Keys>) -> Result<Response<Body>, Fault> {
        let url = self.url(call, region)?;
        let digest = hex_digest(call.body.unwrap_or_default());
        let mut headers = HeaderMap::new();
        for (name, value) in call.headers {
            let value = HeaderValue::from_str(value).map_err(|error| Fault::of(&ureq::Error::Http(error.into())))?;
            headers.insert(name, value);
        }
        if let Some(keys) = keys {
            headers.insert(
                CONTENT_DIGEST,
                HeaderValue::from_str(&digest).unwrap_or_else(|_| HeaderValue::from_static("")),
            );
            let signature = Signature { keys, region, service: "s3", time: SystemTime::now() };
            signature.sign(call.method, &url, &mut headers, &digest);
        }
        let mut request = Request::builder().method(call.method).uri(url);
        if let Some(all) = request.headers_mut() {
            all.extend(headers);
        }
        let invalid = |error: http::Error| Fault::of(&ureq::Error::Http(error));
        match call.body {
            None => self.client.run(request.body(()).map_err(invalid)?),
            Some(body) => self.client.run(request.body(body).map_err(invalid)?),
        }
    }

    fn url(&self, call: &Call<'_>, region: &str) -> Result<Uri, Fault> {
        let bucket = self.endpoint.bucket_url(&self.bucket.bucket, region);
        let path = if call.in_bucket { String::new() } else { encode(&self.bucket.key(call.key), true) };
        let pairs = call.query.iter().map(|(name, value)| format!("{name}={}", encode(value, false)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let separator = if query.is_empty() { "" } else { "?" };
        let url = format!("{bucket}/{path}{separator}{query}").parse::<Uri>();
        url.map_err(|error| Fault::of(&ureq::Error::Http(error.into())))
    }

    fn keys(&self) -> Result<Arc<Found<aws::Keys>>, Problem> {
        aws::keys(&self.environment, &self.fetch)
    }

    fn without_keys(&self, key: &str, problem: Problem) -> Failure {
        let sentence = format!("the credentials for S3 can't be had: {}", problem.clause);
        let error = StoreError::Denied { place: self.place(key), problem: sentence };
        if problem.transient { Failure::transient(error) } else { Failure::Final(error) }
    }

    fn failed(&self, key: &str, fault: Fault) -> Failure {
        let problem = format!("{} {}", self.endpoint.name(&self.region()), fault.clause);
        let error = StoreError::Registry { place: self.place(key), problem };
        if fault.transient { Failure::transient(error) } else { Failure::Final(error) }
    }

    fn region(&self) -> String {
        self.region.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl<'a> Call<'a> {
    /// A request without anything that is particular to it.
    pub fn of(method: &'a Method, key: &'a str) -> Self {
        Self { method, key, in_bucket: false, query: &[], headers: &[], body: None }
    }
}

impl Refusal {
    fn read(answer: Response<Body>, most: u64) -> Self {
        let (parts, body) = answer.into_parts();
        let mut text = Vec::new();
        // What can't be read is not needed: the status says enough.
        let _ = body.into_reader().take(most).read_to_end(&mut text);
        Self::new(parts.status, &parts.headers, &text)
    }
}
