//! Requests to one repository, with authorization and redirects.

mod failures;
mod scheme;
mod tokens;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::{Body, SendBody};

use self::{failures::transient, scheme::Scheme};
use super::{
    auth::Auth, error_response::says_expired_token, operation::Operation, referrers::ReferrersApi, upload::Upload,
};
use crate::{
    store::net::{
        blocks::BlockReader,
        drain,
        fault::Fault,
        http::HttpClient,
        origin::{PlainHosts, RegistryOrigin, resolve},
        pressure::Pressure,
        read_reason,
        retry::{Backoff, Failure, RetryPolicy},
    },
    target::ImageReference,
};

/// How many redirects of one request are followed.
const MAX_REDIRECTS: usize = 5;

/// A repository of a registry, and what was learned about its registry.
pub struct Session {
    /// The image that the store was opened for; its tag is only for errors.
    pub image: ImageReference,
    /// How this registry accepts uploads.
    pub upload: Upload,
    /// Limits the concurrent requests and uploads of this process to the registry.
    pub pressure: Arc<Pressure>,
    /// Whether this registry lists referrers.
    pub referrers_api: ReferrersApi,
    options: SessionOptions,
    scheme: Scheme,
}

/// Dependencies of a session.
pub struct SessionOptions {
    /// Connections.
    pub client: HttpClient,
    /// Credentials and tokens.
    pub auth: Auth,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// Hosts that may be accessed over plain HTTP.
    pub plain: PlainHosts,
    /// Token servers that may get credentials although they belong to another site.
    pub token_hosts: Vec<String>,
}

/// One request. Any status is a response, not an error.
pub struct RegistryRequest<'a> {
    /// For errors: the purpose.
    pub operation: Operation,
    /// For errors: the image or blob.
    pub place: &'a str,
    /// HTTP method.
    pub method: Method,
    /// Absolute URL.
    pub url: Uri,
    /// Headers, without `Authorization`.
    pub headers: &'a [(HeaderName, &'a str)],
    /// Body.
    pub body: Payload<'a>,
    /// The scope that a token needs (distribution, "Token Scope Documentation").
    pub scope: &'a str,
}

/// The body of a request.
pub enum Payload<'a> {
    /// No body.
    None,
    /// Can be sent again.
    Bytes(&'a [u8]),
    /// Can be sent only once.
    Stream(&'a mut BlockReader),
}

/// How many bytes of an error response are read.
const ERROR_SIZE: u64 = 1 << 16;

impl Session {
    /// For the repository of `image`. Nothing is sent yet.
    pub fn new(image: ImageReference, options: SessionOptions) -> Self {
        let pressure = Pressure::of(&image.registry);
        Self {
            image,
            upload: Upload::default(),
            pressure,
            referrers_api: ReferrersApi::default(),
            options,
            scheme: Scheme::default(),
        }
    }

    /// `<registry>/<repository>:<tag>` or `…@<digest>`, for errors.
    pub fn place(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{reference}", self.image.registry, self.image.repository)
    }

    /// A new backoff, for one operation.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(&self.options.retry)
    }

    /// The scope for reading.
    pub fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.image.repository)
    }

    /// The scope for writing.
    pub fn push_scope(&self) -> String {
        format!("repository:{}:pull,push", self.image.repository)
    }

    /// The scope for cancelling an upload, which some registries treat as deleting.
    pub fn cancel_scope(&self) -> String {
        format!("repository:{}:pull,push,delete", self.image.repository)
    }

    /// The scope for deleting.
    pub fn delete_scope(&self) -> String {
        format!("repository:{}:pull,delete", self.image.repository)
    }

    /// The URL of `path` in this repository.
    pub fn url(&self, path: &str) -> Result<Uri, Failure> {
        let url = self.origin()?.url(&format!("/v2/{}/{path}", self.image.repository));
        url.map_err(|e| self.failed(&self.image.to_string(), &Fault::of(&ureq::Error::Http(e))))
    }

    /// The URL in the header `Location` of a response to a request to `base`.
    pub fn resolve(&self, base: &Uri, location: &str) -> Option<Uri> {
        resolve(base, location, &self.options.plain)
    }

    /// Sends the request and follows redirects. `Authorization` is sent to the registry only.
    pub fn call(&self, mut request: RegistryRequest<'_>) -> Result<Response<Body>, Failure> {
        let origin = self.origin()?;
        let _permit = match request.body {
            // An upload holds a permit of its own; and producing its content may take requests.
            Payload::Stream(_) => None,
            _ => Some(self.pressure.request()),
        };
        let (mut redirects, mut candidates_left) = (0, self.options.auth.candidates.count().max(1));
        // A challenge to a request without credentials is answered once.
        let mut was_challenged = false;
        loop {
            let is_own = origin.contains(&request.url);
            let authorization = if is_own { self.authorization(origin, &request)? } else { None };
            let response = self.send(&mut request, authorization.as_ref());
            let response = response.map_err(|fault| self.failed(request.place, &fault))?;
            if matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
                self.pressure.lower();
            }
            let response = if is_own && may_concern_credentials(response.status()) {
                let (response, retry) = self.rejected(&request, response, authorization.as_ref());
                let is_last = match &authorization {
                    Some(_) => candidates_left == 0,
                    None => std::mem::replace(&mut was_challenged, true),
                };
                if !retry || is_last {
                    return Ok(response);
                }
                if matches!(request.body, Payload::Stream(_)) {
                    // An expired token: the caller starts again, with a new one.
                    return Err(transient(self.refused(&request, response)));
                }
                candidates_left = candidates_left.saturating_sub(usize::from(authorization.is_some()));
                drain(response);
                continue;
            } else {
                response
            };
            if redirects >= MAX_REDIRECTS || !may_follow(response.status(), &request) {
                return Ok(response);
            }
            let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            match location.and_then(|location| self.resolve(&request.url, location)) {
                Some(url) => request.url = url,
                None => return Ok(response),
            }
            redirects = redirects.saturating_add(1);
            drain(response);
        }
    }

    fn authorization(
        &self,
        origin: &RegistryOrigin,
        request: &RegistryRequest<'_>,
    ) -> Result<Option<HeaderValue>, Failure> {
        self.options.auth.header(request.scope, |token_request| self.token(origin, token_request))
    }

    /// Whether to send the request again with other credentials or another token. The body of the response may have been
    /// read; the response that is returned has it again.
    fn rejected(
        &self,
        request: &RegistryRequest<'_>,
        response: Response<Body>,
        authorization: Option<&HeaderValue>,
    ) -> (Response<Body>, bool) {
        let auth = &self.options.auth;
        if response.status() == StatusCode::UNAUTHORIZED {
            let retry = auth.challenged(response.headers(), request.scope, authorization);
            return (response, retry);
        }
        let Some(authorization) = authorization else { return (response, false) };
        let (parts, text) = read_reason(response, ERROR_SIZE);
        // A response to HEAD has no body that could give a reason.
        let expired = says_expired_token(parts.status, &text) || request.method == Method::HEAD;
        let is_forbidden = parts.status == StatusCode::FORBIDDEN && !parts.headers.contains_key(header::RETRY_AFTER);
        let may_help = expired || (is_forbidden && auth.candidates.count() > 1);
        let retry = may_help && auth.refused(request.scope, Some(authorization), expired);
        (Response::from_parts(parts, Body::builder().data(text)), retry)
    }

    fn send(
        &self,
        request: &mut RegistryRequest<'_>,
        authorization: Option<&HeaderValue>,
    ) -> Result<Response<Body>, Fault> {
        let mut builder = Request::builder().method(request.method.clone()).uri(request.url.clone());
        for (name, value) in request.headers {
            builder = builder.header(name, *value);
        }
        if let Some(authorization) = authorization {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        let invalid = |error: http::Error| Fault::of(&ureq::Error::Http(error));
        let client = &self.options.client;
        match &mut request.body {
            Payload::None => client.run(builder.body(()).map_err(invalid)?),
            Payload::Bytes(bytes) => client.run(builder.body(*bytes).map_err(invalid)?),
            Payload::Stream(reader) => client.run(builder.body(SendBody::from_reader(reader)).map_err(invalid)?),
        }
    }
}

/// Whether the credentials or the token may be the reason for the status.
fn may_concern_credentials(status: StatusCode) -> bool {
    matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST)
}

/// Redirects keep the method here: one that would turn an upload into a GET is not followed.
fn may_follow(status: StatusCode, request: &RegistryRequest<'_>) -> bool {
    match (status.as_u16(), &request.body) {
        (_, Payload::Stream(_)) => false,
        (307 | 308, _) => true,
        (301..=303, _) => matches!(request.method, Method::GET | Method::HEAD),
        _ => false,
    }
}
