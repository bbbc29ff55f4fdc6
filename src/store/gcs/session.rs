//! Requests to one bucket, with an access token.

use std::{
    io::{self, Read},
    sync::Arc,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::Body;

use super::refusal::{Asked, Refusal};
use crate::{
    store::{
        StoreError, StoreOptions,
        cloud::{Environment, Fetch, Found, Problem, aws::encode, google},
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

/// Each upload holds two parts of it in memory.
const UPLOADS: usize = 3;

/// How much of an answer is read to learn what it says.
const REFUSAL_SIZE: u64 = 1 << 16;

/// A part of a bucket.
pub struct Session {
    bucket: Bucket,
    /// The address of the service, without a slash at the end.
    service: String,
    environment: Environment,
    client: HttpClient,
    fetch: Fetch,
    retry: RetryPolicy,
    /// How many requests and uploads this process has under way there.
    pub pressure: Arc<Pressure>,
}

/// One request.
#[derive(Clone, Debug)]
pub struct Call<'a> {
    pub method: &'a Method,
    /// For errors.
    pub key: &'a str,
    pub url: Uri,
    pub headers: &'a [(HeaderName, &'a str)],
    pub body: Option<&'a [u8]>,
}

impl Session {
    pub fn new(bucket: &Bucket, options: &StoreOptions) -> Result<Self, StoreError> {
        let emulator = options.cloud.get("STORAGE_EMULATOR_HOST");
        // An emulator knows no users, and must not get a token.
        let environment = if emulator.is_some() { options.cloud.anonymous() } else { options.cloud.clone() };
        let service = match emulator {
            Some(address) if address.contains("://") => address.trim_end_matches('/').to_owned(),
            Some(host) => format!("http://{host}"),
            None => "https://storage.googleapis.com".to_owned(),
        };
        let http = options.http.clone().unwrap_or_default();
        let pressure = Pressure::of(&format!("{service}/{}", bucket.bucket));
        pressure.limit_uploads(UPLOADS);
        Ok(Self {
            pressure,
            bucket: bucket.clone(),
            service,
            environment,
            client: HttpClient::new(&http)?,
            fetch: Fetch::new(&http)?,
            retry: options.retry.clone(),
        })
    }

    /// How errors name an object.
    pub fn place(&self, key: &str) -> String {
        format!("gs://{}/{}", self.bucket.bucket, self.bucket.key(key))
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.bucket.bucket
    }

    /// The whole key of an object.
    pub fn key(&self, key: &str) -> String {
        self.bucket.key(key)
    }

    /// The address of an object, with a query that is encoded already.
    pub fn object_url(&self, key: &str, query: &str) -> Result<Uri, Failure> {
        let separator = if query.is_empty() { "" } else { "?" };
        self.url(&format!("/storage/v1/b/{}/o/{}{separator}{query}", self.bucket(), encode(&self.key(key), false)))
    }

    /// The address of `path` of the service.
    pub fn url(&self, path: &str) -> Result<Uri, Failure> {
        let url = format!("{}{path}", self.service).parse::<Uri>();
        url.map_err(|error| self.failed("", Fault::of(&ureq::Error::Http(error.into()))))
    }

    /// Whether an address is the service's own: only there tokens go.
    pub fn is_own(&self, url: &Uri) -> bool {
        let own = self.service.parse::<Uri>();
        own.is_ok_and(|own| (own.scheme(), own.authority()) == (url.scheme(), url.authority()))
    }

    /// The waits of a new operation.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
    }

    /// Sends the request: a good answer (308 is one, to a part of an upload), or what was said instead.
    pub fn call(&self, call: &Call<'_>) -> Result<Result<Response<Body>, Refusal>, Failure> {
        let _running = self.pressure.request();
        let mut again = true;
        loop {
            let token = self.token().map_err(|problem| self.without_token(call.key, problem))?;
            let answer = self.send(call, token.keys.as_ref()).map_err(|fault| self.failed(call.key, fault))?;
            if answer.status().is_success() || answer.status() == StatusCode::PERMANENT_REDIRECT {
                return Ok(Ok(answer));
            }
            let refusal = read(answer);
            if matches!(refusal.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                self.pressure.lower();
            }
            let expired = refusal.status == StatusCode::UNAUTHORIZED && self.environment.google_cache().expired(&token);
            if !expired || !std::mem::take(&mut again) {
                return Ok(Err(refusal));
            }
        }
    }

    /// The failure for what was said instead of a good answer.
    pub fn failure(&self, action: Action, key: &str, refusal: &Refusal) -> Failure {
        // It was there a moment ago.
        let found = self.token().ok();
        let asked = Asked {
            place: self.place(key),
            server: self.name().to_owned(),
            bucket: &self.bucket,
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
        let problem = format!("unexpected response from {}: {what}", self.name());
        Failure::transient(StoreError::Content { place: self.place(key), problem })
    }

    fn send(&self, call: &Call<'_>, token: Option<&google::Token>) -> Result<Response<Body>, Fault> {
        let invalid = |error: http::Error| Fault::of(&ureq::Error::Http(error));
        let mut request = Request::builder().method(call.method).uri(call.url.clone());
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        if let Some(token) = token {
            let mut value =
                HeaderValue::from_str(&format!("Bearer {}", token.secret.expose())).map_err(|e| invalid(e.into()))?;
            value.set_sensitive(true);
            request = request.header(header::AUTHORIZATION, value);
        }
        match call.body {
            None => self.client.run(request.body(()).map_err(invalid)?),
            Some(body) => self.client.run(request.body(body).map_err(invalid)?),
        }
    }

    fn token(&self) -> Result<Arc<Found<google::Token>>, Problem> {
        google::token(&self.environment, &self.fetch)
    }

    fn without_token(&self, key: &str, problem: Problem) -> Failure {
        let sentence = format!("the credentials for Google Cloud Storage can't be had: {}", problem.clause);
        let error = StoreError::Denied { place: self.place(key), problem: sentence };
        if problem.transient { Failure::transient(error) } else { Failure::Final(error) }
    }

    fn failed(&self, key: &str, fault: Fault) -> Failure {
        let problem = format!("{} {}", self.name(), fault.clause);
        let error = StoreError::Registry { place: self.place(key), problem };
        if fault.transient { Failure::transient(error) } else { Failure::Final(error) }
    }

    fn name(&self) -> &str {
        self.service.split_once("://").map_or(&self.service, |(_, host)| host)
    }
}

impl<'a> Call<'a> {
    /// A request without anything that is particular to it.
    pub fn of(method: &'a Method, key: &'a str, url: Uri) -> Self {
        Self { method, key, url, headers: &[], body: None }
    }
}

fn read(answer: Response<Body>) -> Refusal {
    let (parts, body) = answer.into_parts();
    let mut text = Vec::new();
    // What can't be read is not needed: the status says enough.
    let _ = body.into_reader().take(REFUSAL_SIZE).read_to_end(&mut text);
    Refusal::new(parts.status, &parts.headers, &text)
}
