//! Requests to one repository: with authorization, across redirects, tried again where that may help.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::{Body, SendBody};

use super::{
    action::Action,
    auth::Auth,
    blocks::BlockReader,
    error_response::{Asked, says_expired_token},
    fault::{Fault, FaultKind},
    http::Client,
    origin::{Origin, PlainHosts, resolve},
    pressure::Pressure,
    realm::may_get_credentials,
    retry::{Backoff, Failure, RetryPolicy},
    token::{TokenAnswer, TokenFailure, TokenRequest},
    upload::Upload,
};
use crate::{store::StoreError, target::ImageReference};

/// A repository of a registry, and all that was learned about how to talk to it.
pub struct Session {
    /// The image that the store was opened for; its tag is only for errors.
    pub image: ImageReference,
    /// How uploads are made.
    pub upload: Upload,
    /// How many requests and uploads this process has under way there.
    pub pressure: Arc<Pressure>,
    options: SessionOptions,
    origin: OnceLock<Origin>,
}

/// What a session needs.
pub struct SessionOptions {
    pub client: Client,
    pub auth: Auth,
    pub retry: RetryPolicy,
    pub plain: PlainHosts,
    /// Token servers that may get credentials wherever they are.
    pub token_hosts: Vec<String>,
}

/// One request. An answer with any status is an answer.
pub struct Call<'a> {
    /// For errors.
    pub action: Action,
    /// For errors: the image or blob.
    pub place: &'a str,
    pub method: Method,
    pub url: Uri,
    pub headers: &'a [(HeaderName, &'a str)],
    pub body: Payload<'a>,
    /// What a token must allow (distribution, "Token Scope Documentation").
    pub scope: &'a str,
}

/// The body of a request.
pub enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// It can be sent once only.
    Stream(&'a mut BlockReader),
}

/// How much of an answer is read to learn what it says.
const ERROR_SIZE: u64 = 1 << 16;

impl Session {
    pub fn new(image: ImageReference, options: SessionOptions) -> Self {
        let pressure = Pressure::of(&image.registry);
        Self { image, upload: Upload::default(), pressure, options, origin: OnceLock::new() }
    }

    /// `<registry>/<repository>:<tag>` or `…@<digest>`, for errors.
    pub fn place(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{reference}", self.image.registry, self.image.repository)
    }

    /// The waits of a new operation.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(&self.options.retry)
    }

    pub fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.image.repository)
    }

    pub fn push_scope(&self) -> String {
        format!("repository:{}:pull,push", self.image.repository)
    }

    /// Some registries count that as deleting.
    pub fn cancel_scope(&self) -> String {
        format!("repository:{}:pull,push,delete", self.image.repository)
    }

    pub fn delete_scope(&self) -> String {
        format!("repository:{}:pull,delete", self.image.repository)
    }

    /// The address of `path` in this repository.
    pub fn url(&self, path: &str) -> Result<Uri, Failure> {
        let url = self.origin()?.url(&format!("/v2/{}/{path}", self.image.repository));
        url.map_err(|e| self.failed(&self.image.to_string(), &Fault::of(&ureq::Error::Http(e))))
    }

    /// Whether what answers there is a registry: it says so at the address that all registries have.
    pub fn is_registry(&self) -> bool {
        let status = self.origin().ok().and_then(|origin| self.ping(origin).ok());
        status.is_some_and(|status| status == StatusCode::OK || status == StatusCode::UNAUTHORIZED)
    }

    /// The address that an answer names, seen from `base`.
    pub fn resolve(&self, base: &Uri, location: &str) -> Option<Uri> {
        resolve(base, location, &self.options.plain)
    }

    /// Sends the request; goes along with redirects, and shows what the registry wants to be shown, to the registry only.
    pub fn call(&self, mut call: Call<'_>) -> Result<Response<Body>, Failure> {
        const REDIRECTS: usize = 5;
        let origin = self.origin()?;
        let _running = match call.body {
            // An upload has a permit of its own; and what it sends may have to be requested first.
            Payload::Stream(_) => None,
            _ => Some(self.pressure.request()),
        };
        let (mut redirects, mut shows) = (0, self.options.auth.candidates.count().max(1));
        // What a registry wants to be shown it says once.
        let mut asked = false;
        loop {
            let ours = origin.contains(&call.url);
            let shown = match ours {
                true => self.options.auth.header(call.scope, |request| self.token(origin, request))?,
                false => None,
            };
            let answer = self.send(&mut call, shown.as_ref()).map_err(|fault| self.failed(call.place, &fault))?;
            if answer.status() == StatusCode::TOO_MANY_REQUESTS || answer.status() == StatusCode::SERVICE_UNAVAILABLE {
                self.pressure.lower();
            }
            let answer = match answer.status() {
                StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST if ours => {
                    let (answer, again) = self.denied(&call, answer, shown.as_ref());
                    let again = again && if shown.is_some() { shows > 0 } else { !std::mem::replace(&mut asked, true) };
                    match (again, &call.body) {
                        (false, _) => return Ok(answer),
                        // A token that expired: the caller begins again and gets a new one.
                        (true, Payload::Stream(_)) => return Err(transient(self.refused(&call, answer))),
                        (true, _) => {
                            shows = shows.saturating_sub(usize::from(shown.is_some()));
                            drain(answer);
                            continue;
                        }
                    }
                }
                _ => answer,
            };
            if redirects >= REDIRECTS || !may_follow(answer.status(), &call) {
                return Ok(answer);
            }
            let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
            match location.and_then(|location| self.resolve(&call.url, location)) {
                Some(url) => call.url = url,
                None => return Ok(answer),
            }
            redirects = redirects.saturating_add(1);
            drain(answer);
        }
    }

    /// Whether another attempt would show something else. The answer may have been read; what is given back still has
    /// what it said.
    fn denied(&self, call: &Call<'_>, answer: Response<Body>, shown: Option<&HeaderValue>) -> (Response<Body>, bool) {
        let auth = &self.options.auth;
        if answer.status() == StatusCode::UNAUTHORIZED {
            let again = auth.challenged(answer.headers(), call.scope, shown);
            return (answer, again);
        }
        let Some(shown) = shown else { return (answer, false) };
        let (parts, body) = answer.into_parts();
        // What can't be read is not needed: the status says enough.
        let text = self.options.client.read(body, ERROR_SIZE).unwrap_or_default();
        // An answer to HEAD has no room for a reason.
        let expired = says_expired_token(parts.status, &text) || call.method == Method::HEAD;
        let is_forbidden = parts.status == StatusCode::FORBIDDEN && !parts.headers.contains_key(header::RETRY_AFTER);
        let more = expired || (is_forbidden && auth.candidates.count() > 1);
        let again = more && auth.refused(call.scope, Some(shown), expired);
        (Response::from_parts(parts, Body::builder().data(text)), again)
    }

    /// The failure for an answer that `call` can't go on with.
    pub fn refused(&self, call: &Call<'_>, answer: Response<Body>) -> Failure {
        self.refused_to(call.action, call.place, answer)
    }

    /// The same where the request is gone.
    pub fn refused_to(&self, action: Action, place: &str, answer: Response<Body>) -> Failure {
        let (parts, body) = answer.into_parts();
        // What can't be read is not needed: the status says enough.
        let text = self.options.client.read(body, ERROR_SIZE).unwrap_or_default();
        let candidates = &self.options.auth.candidates;
        let asked = Asked {
            place: place.to_owned(),
            registry: &self.image.registry,
            repository: &self.image.repository,
            action,
            searched: candidates.searched(),
            anonymous: candidates.count() == 0,
            secrets: candidates.secrets(),
        };
        asked.failure(parts.status, &parts.headers, &text)
    }

    /// At most the first `most` bytes of an answer that is held in memory.
    pub fn read(&self, body: Body, most: u64) -> io::Result<Vec<u8>> {
        self.options.client.read(body, most)
    }

    /// The failure for a connection that broke while an answer was read.
    pub fn broken_reading(&self, place: &str, error: io::Error) -> Failure {
        self.failed(place, &Fault::of(&ureq::Error::from(error)))
    }

    /// An answer that makes no sense, as `what` says.
    pub fn unexpected(&self, place: &str, what: &str) -> Failure {
        let problem = format!("unexpected response from {}: {what}", self.image.registry);
        Failure::Final(StoreError::Content { place: place.to_owned(), problem })
    }

    fn failed(&self, place: &str, fault: &Fault) -> Failure {
        let advice = match fault.kind {
            FaultKind::NoTls => format!(
                "; where it is meant to be asked over plain HTTP, list it in TEKTON_WRAP_INSECURE or --insecure: {}",
                self.image.registry
            ),
            _ => String::new(),
        };
        failure(&self.image.registry, place, Fault { clause: format!("{}{advice}", fault.clause), ..fault.clone() })
    }

    fn send(&self, call: &mut Call<'_>, authorization: Option<&HeaderValue>) -> Result<Response<Body>, Fault> {
        let mut request = Request::builder().method(call.method.clone()).uri(call.url.clone());
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        if let Some(authorization) = authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let invalid = |error: http::Error| Fault::of(&ureq::Error::Http(error));
        let client = &self.options.client;
        match &mut call.body {
            Payload::None => client.run(request.body(()).map_err(invalid)?),
            Payload::Bytes(bytes) => client.run(request.body(*bytes).map_err(invalid)?),
            Payload::Stream(reader) => client.run(request.body(SendBody::from_reader(reader)).map_err(invalid)?),
        }
    }

    /// The scheme that the registry speaks. Where plain HTTP is allowed it is asked which one it is, HTTPS first; but one
    /// that speaks HTTPS and can't be trusted is not asked again without it.
    fn origin(&self) -> Result<&Origin, Failure> {
        if let Some(origin) = self.origin.get() {
            return Ok(origin);
        }
        let https = Origin { scheme: "https", host: self.image.registry.clone() };
        let found = match self.options.plain.allow(&https.host) {
            false => https,
            true => match self.ping(&https) {
                Ok(_) => https,
                Err(fault) if fault.kind == FaultKind::Untrusted => {
                    return Err(self.failed(&self.image.to_string(), &fault));
                }
                Err(over_tls) => {
                    let http = Origin { scheme: "http", ..https };
                    match self.ping(&http) {
                        // What a server that wants TLS says to one who speaks without it.
                        Ok(StatusCode::BAD_REQUEST) => return Err(self.failed(&self.image.to_string(), &over_tls)),
                        Ok(_) => http,
                        Err(fault) => return Err(self.failed(&self.image.to_string(), &fault)),
                    }
                }
            },
        };
        Ok(self.origin.get_or_init(|| found))
    }

    fn ping(&self, origin: &Origin) -> Result<StatusCode, Fault> {
        let url = origin.url("/v2/").map_err(|error| Fault::of(&ureq::Error::Http(error)))?;
        let answer = self.options.client.probe(&url)?;
        let status = answer.status();
        if status == StatusCode::UNAUTHORIZED {
            self.options.auth.challenged(answer.headers(), "", None);
        }
        drain(answer);
        Ok(status)
    }

    fn token(&self, origin: &Origin, request: TokenRequest) -> Result<TokenAnswer, TokenFailure> {
        let (place, registry) = (self.image.to_string(), &self.image.registry);
        let unusable = |problem: String| {
            let problem = format!("the token server of {registry} {problem}");
            TokenFailure::Other(Failure::Final(StoreError::Registry { place: place.clone(), problem }))
        };
        let url: Uri = request.url.parse().map_err(|_| unusable("has no valid address".to_owned()))?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        if host.contains('@') {
            return Err(unusable("has an address with a user in it; nothing is sent there".to_owned()));
        }
        let safe = url.scheme_str() == Some("https") || (origin.scheme == "http" && self.options.plain.allow(host));
        if !safe {
            return Err(unusable(format!("is {host:?} without HTTPS; credentials are not sent there")));
        }
        if request.has_credentials() && !may_get_credentials(registry, host, &self.options.token_hosts) {
            return Err(unusable(format!(
                "is {host:?}, which belongs to another site, so that credentials are not sent there; if that is right, list it in TEKTON_WRAP_TOKEN_HOSTS or --token-hosts"
            )));
        }
        let answer = self.send_token_request(&url, &request);
        let answer = answer.map_err(|fault| TokenFailure::Other(failure(host, &place, fault)))?;
        if answer.status() != StatusCode::OK {
            let refuses = answer.status().is_client_error();
            return Err(match self.refused_to(Action::GetToken, &place, answer) {
                // A token server says "wrong password" in several ways.
                Failure::Final(StoreError::Registry { place, problem }) => {
                    let problem = format!("{problem}; {}", self.options.auth.candidates.searched());
                    TokenFailure::Refused(Failure::Final(StoreError::Denied { place, problem }))
                }
                failure @ Failure::Final(_) if refuses => TokenFailure::Refused(failure),
                failure => TokenFailure::Other(failure),
            });
        }
        let text = self.options.client.read(answer.into_body(), 1 << 20);
        let text =
            text.map_err(|error| TokenFailure::Other(failure(host, &place, Fault::of(&ureq::Error::from(error)))))?;
        match serde_json::from_slice::<TokenAnswer>(&text) {
            Ok(answer) if answer.token().is_some() => Ok(answer),
            _ => Err(unusable(format!("gave an unexpected response: no token in what {host} answered"))),
        }
    }

    fn send_token_request(&self, url: &Uri, request: &TokenRequest) -> Result<Response<Body>, Fault> {
        let mut builder = Request::builder().uri(url.clone());
        builder = match &request.form {
            Some(_) => builder.method(Method::POST).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
            None => builder.method(Method::GET),
        };
        if let Some(authorization) = &request.authorization {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        let invalid = |error: http::Error| Fault::of(&ureq::Error::Http(error));
        match &request.form {
            Some(form) => self.options.client.run(builder.body(form.as_str()).map_err(invalid)?),
            None => self.options.client.run(builder.body(()).map_err(invalid)?),
        }
    }
}

fn failure(host: &str, place: &str, fault: Fault) -> Failure {
    let error = StoreError::Registry { place: place.to_owned(), problem: format!("{host} {}", fault.clause) };
    match fault.transient {
        true => Failure::transient(error),
        false => Failure::Final(error),
    }
}

fn transient(failure: Failure) -> Failure {
    match failure {
        Failure::Final(error) => Failure::transient(error),
        transient => transient,
    }
}

/// Redirects keep the method here: one that would turn an upload into a GET is not followed.
fn may_follow(status: StatusCode, call: &Call<'_>) -> bool {
    match (status.as_u16(), &call.body) {
        (_, Payload::Stream(_)) => false,
        (307 | 308, _) => true,
        (301..=303, _) => matches!(call.method, Method::GET | Method::HEAD),
        _ => false,
    }
}

/// Reads what is left of a short answer.
pub fn drain(answer: Response<Body>) {
    super::http::drain(answer.into_body());
}
