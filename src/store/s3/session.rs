//! Requests to one bucket: signed, and sent again where the region or the keys turn out to be others.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use ureq::Body;

use super::{address::Endpoint, refusal::S3Refusal};
use crate::{
    store::{
        StoreError, StoreOptions,
        bucket::{Access, BucketSession, Cloud, REFUSAL_SIZE},
        cloud::{
            Obtained, Problem,
            aws::{self, Signature, encode, hex_digest},
        },
        layout::ObjectAction,
        net::{fault::Fault, read_reason, retry::Failure},
    },
    target::Bucket,
};

/// Where Amazon's tools look who know of no region.
const REGION: &str = "us-east-1";

/// How often a request is sent that turns out to be meant for another region or to need other keys.
const TURNS: u32 = 3;

/// Each upload holds a part of it in memory.
const UPLOADS: usize = 4;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("x-amz-content-sha256");

/// A part of a bucket, and all that was learned about how to talk to it.
pub struct S3Session {
    access: Access,
    endpoint: Endpoint,
    region: Mutex<String>,
}

/// One request.
#[derive(Clone, Copy, Debug)]
pub struct S3Call<'a> {
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

impl S3Session {
    pub fn new(bucket: &Bucket, options: &StoreOptions) -> Result<Self, StoreError> {
        let environment = options.cloud.clone();
        let endpoint = Endpoint::of(&environment)?;
        let region = aws::region(&environment).map_err(|problem| StoreError::Settings { problem: problem.clause })?;
        let kind = Cloud { scheme: "s3", service: "S3" };
        let address = endpoint.bucket_url(&bucket.bucket, "");
        let access = Access::new(kind, bucket, environment, &address, UPLOADS, options)?;
        let region = Mutex::new(region.unwrap_or_else(|| REGION.to_owned()));
        Ok(Self { access, endpoint, region })
    }

    /// The whole key of an object with the bucket before it, as copies name what they copy.
    pub fn source(&self, key: &str) -> String {
        format!("{}/{}", self.access.bucket.bucket, self.key(key))
    }

    /// Sends the request: a good answer, or what was said instead.
    pub fn call(&self, call: &S3Call<'_>) -> Result<Result<Response<Body>, S3Refusal>, Failure> {
        let _running = self.access.pressure.request();
        let mut turn = 1_u32;
        loop {
            let keys = self.keys().map_err(|problem| self.without_credentials(call.key, problem))?;
            let region = self.region();
            let answer = self.send(call, &region, keys.keys.as_ref()).map_err(|fault| self.failed(call.key, fault))?;
            if answer.status().is_success() {
                return Ok(Ok(answer));
            }
            let (parts, text) = read_reason(answer, REFUSAL_SIZE);
            let refusal = S3Refusal::new(parts.status, &parts.headers, &text);
            if matches!(refusal.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                self.access.pressure.lower();
            }
            let again = match &refusal.region {
                Some(other) if *other != region && refusal.is_other_region() => {
                    *self.region.lock().unwrap_or_else(PoisonError::into_inner) = other.clone();
                    true
                }
                _ => refusal.is_expired() && self.access.environment.aws_cache().expired(&keys),
            };
            if !again || turn >= TURNS {
                return Ok(Err(refusal));
            }
            turn = turn.saturating_add(1);
        }
    }

    /// The failure for what was said instead of a good answer.
    pub fn failure(&self, action: ObjectAction, key: &str, refusal: &S3Refusal) -> Failure {
        // They were there a moment ago.
        let found = self.keys().ok();
        refusal.failure(&self.asked(action, key, found.as_deref()), &self.region())
    }

    fn send(&self, call: &S3Call<'_>, region: &str, keys: Option<&aws::Keys>) -> Result<Response<Body>, Fault> {
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
            None => self.access.client.run(request.body(()).map_err(invalid)?),
            Some(body) => self.access.client.run(request.body(body).map_err(invalid)?),
        }
    }

    fn url(&self, call: &S3Call<'_>, region: &str) -> Result<Uri, Fault> {
        let bucket = self.endpoint.bucket_url(&self.access.bucket.bucket, region);
        let path = if call.in_bucket { String::new() } else { encode(&self.key(call.key), true) };
        let pairs = call.query.iter().map(|(name, value)| format!("{name}={}", encode(value, false)));
        let query = pairs.collect::<Vec<_>>().join("&");
        let separator = if query.is_empty() { "" } else { "?" };
        let url = format!("{bucket}/{path}{separator}{query}").parse::<Uri>();
        url.map_err(|error| Fault::of(&ureq::Error::Http(error.into())))
    }

    fn keys(&self) -> Result<Arc<Obtained<aws::Keys>>, Problem> {
        aws::keys(&self.access.environment, &self.access.fetch)
    }

    fn region(&self) -> String {
        self.region.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl BucketSession for S3Session {
    fn access(&self) -> &Access {
        &self.access
    }

    fn server(&self) -> String {
        self.endpoint.name(&self.region())
    }
}

impl<'a> S3Call<'a> {
    /// A request without anything that is particular to it.
    pub fn of(method: &'a Method, key: &'a str) -> Self {
        Self { method, key, in_bucket: false, query: &[], headers: &[], body: None }
    }
}
