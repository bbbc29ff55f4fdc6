//! Requests to one bucket, with an access token.

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::Body;

use super::refusal::GcsRefusal;
use crate::{
    store::{
        StoreError, StoreOptions,
        bucket::{Access, BucketSession, Cloud, REFUSAL_SIZE},
        cloud::{Obtained, Problem, aws::encode, google},
        layout::ObjectAction,
        net::{fault::Fault, read_reason, retry::Failure},
    },
    target::Bucket,
};

/// Each upload holds two parts of it in memory.
const UPLOADS: usize = 3;

/// A part of a bucket.
pub struct GcsSession {
    access: Access,
    /// The address of the service, without a slash at the end.
    service: String,
}

/// One request.
#[derive(Clone, Debug)]
pub struct GcsCall<'a> {
    pub method: &'a Method,
    /// For errors.
    pub key: &'a str,
    pub url: Uri,
    pub headers: &'a [(HeaderName, &'a str)],
    pub body: Option<&'a [u8]>,
}

impl GcsSession {
    pub fn new(bucket: &Bucket, options: &StoreOptions) -> Result<Self, StoreError> {
        let emulator = options.cloud.get("STORAGE_EMULATOR_HOST");
        // An emulator knows no users, and must not get a token.
        let environment = if emulator.is_some() { options.cloud.anonymous() } else { options.cloud.clone() };
        let service = match emulator {
            Some(address) if address.contains("://") => address.trim_end_matches('/').to_owned(),
            Some(host) => format!("http://{host}"),
            None => "https://storage.googleapis.com".to_owned(),
        };
        let kind = Cloud { scheme: "gs", service: "Google Cloud Storage" };
        let address = format!("{service}/{}", bucket.bucket);
        let access = Access::new(kind, bucket, environment, &address, UPLOADS, options)?;
        Ok(Self { access, service })
    }

    /// The bucket's name.
    pub fn bucket(&self) -> &str {
        &self.access.bucket.bucket
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

    /// Sends the request: a good answer (308 is one, to a part of an upload), or what was said instead.
    pub fn call(&self, call: &GcsCall<'_>) -> Result<Result<Response<Body>, GcsRefusal>, Failure> {
        let _running = self.access.pressure.request();
        let mut again = true;
        loop {
            let token = self.token().map_err(|problem| self.without_credentials(call.key, problem))?;
            let answer = self.send(call, token.keys.as_ref()).map_err(|fault| self.failed(call.key, fault))?;
            if answer.status().is_success() || answer.status() == StatusCode::PERMANENT_REDIRECT {
                return Ok(Ok(answer));
            }
            let (parts, text) = read_reason(answer, REFUSAL_SIZE);
            let refusal = GcsRefusal::new(parts.status, &parts.headers, &text);
            if matches!(refusal.status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                self.access.pressure.lower();
            }
            let expired =
                refusal.status == StatusCode::UNAUTHORIZED && self.access.environment.google_cache().expired(&token);
            if !expired || !std::mem::take(&mut again) {
                return Ok(Err(refusal));
            }
        }
    }

    /// The failure for what was said instead of a good answer.
    pub fn failure(&self, action: ObjectAction, key: &str, refusal: &GcsRefusal) -> Failure {
        // It was there a moment ago.
        let found = self.token().ok();
        refusal.failure(&self.asked(action, key, found.as_deref()))
    }

    fn send(&self, call: &GcsCall<'_>, token: Option<&google::AccessToken>) -> Result<Response<Body>, Fault> {
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
            None => self.access.client.run(request.body(()).map_err(invalid)?),
            Some(body) => self.access.client.run(request.body(body).map_err(invalid)?),
        }
    }

    fn token(&self) -> Result<Arc<Obtained<google::AccessToken>>, Problem> {
        google::token(&self.access.environment, &self.access.fetch)
    }
}

impl BucketSession for GcsSession {
    fn access(&self) -> &Access {
        &self.access
    }

    fn server(&self) -> String {
        self.service.split_once("://").map_or(&*self.service, |(_, host)| host).to_owned()
    }
}

impl<'a> GcsCall<'a> {
    /// A request without anything that is particular to it.
    pub fn of(method: &'a Method, key: &'a str, url: Uri) -> Self {
        Self { method, key, url, headers: &[], body: None }
    }
}
