//! Requests to one repository: with authorization, across redirects, tried again where that may help.

use std::{
    io::{self, Read},
    sync::OnceLock,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use ureq::{Agent, Body, SendBody};

use super::{
    auth::{Auth, TokenAnswer, TokenRequest},
    http::Fault,
    origin::{Origin, may_be_plain, resolve},
    refusal::Asked,
    retry::{Backoff, Failure, RetryPolicy},
};
use crate::{store::StoreError, target::ImageReference};

/// A repository of a registry, and all that was learned about how to talk to it.
pub struct Session {
    /// The image that the store was opened for; its tag is only for errors.
    pub image: ImageReference,
    agent: Agent,
    auth: Auth,
    retry: RetryPolicy,
    origin: OnceLock<Origin>,
}

/// One request. An answer with any status is an answer.
pub struct Call<'a> {
    /// For errors: fits after "to", for example `read the manifest`.
    pub action: &'a str,
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
    Stream(&'a mut dyn Read),
}

impl Session {
    pub fn new(image: ImageReference, agent: Agent, auth: Auth, retry: RetryPolicy) -> Self {
        Self { image, agent, auth, retry, origin: OnceLock::new() }
    }

    /// `<registry>/<repository>:<tag>` or `…@<digest>`, for errors.
    pub fn place(&self, reference: &str) -> String {
        let separator = if reference.contains(':') { '@' } else { ':' };
        format!("{}/{}{separator}{reference}", self.image.registry, self.image.repository)
    }

    /// The waits of a new operation.
    pub fn backoff(&self) -> Backoff {
        Backoff::new(&self.retry)
    }

    pub fn pull_scope(&self) -> String {
        format!("repository:{}:pull", self.image.repository)
    }

    pub fn push_scope(&self) -> String {
        format!("repository:{}:pull,push", self.image.repository)
    }

    pub fn delete_scope(&self) -> String {
        format!("repository:{}:pull,delete", self.image.repository)
    }

    /// The address of `path` in this repository.
    pub fn url(&self, path: &str) -> Result<Uri, Failure> {
        let url = self.origin()?.url(&format!("/v2/{}/{path}", self.image.repository));
        url.map_err(|e| self.broken(&self.image.to_string(), &ureq::Error::Http(e)))
    }

    /// Sends the request; goes along with redirects, and shows what the registry wants to be shown, to the registry only.
    pub fn call(&self, mut call: Call<'_>) -> Result<Response<Body>, Failure> {
        const REDIRECTS: usize = 5;
        let origin = self.origin()?;
        let (mut redirects, mut asked_again) = (0, false);
        loop {
            let ours = origin.contains(&call.url);
            let shown = match ours {
                true => self.auth.header(call.scope, |request| self.token(origin, request))?,
                false => None,
            };
            let answer = self.send(&mut call, shown.as_ref()).map_err(|e| self.broken(call.place, &e))?;
            match answer.status() {
                StatusCode::UNAUTHORIZED if ours && !asked_again => {
                    if !self.auth.challenged(answer.headers(), call.scope, shown.as_ref()) {
                        return Ok(answer);
                    }
                    if matches!(call.body, Payload::Stream(_)) {
                        // A token that expired: the caller begins again and gets a new one.
                        return Err(match self.refused(&call, answer) {
                            Failure::Final(error) => Failure::Transient { error, after: None },
                            transient => transient,
                        });
                    }
                    asked_again = true;
                    drain(answer);
                }
                status if redirects < REDIRECTS && may_follow(status, &call) => {
                    let location = answer.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
                    match location.and_then(|location| resolve(&call.url, location)) {
                        Some(url) => call.url = url,
                        None => return Ok(answer),
                    }
                    redirects += 1;
                    drain(answer);
                }
                _ => return Ok(answer),
            }
        }
    }

    /// The failure for an answer that `call` can't go on with.
    pub fn refused(&self, call: &Call<'_>, answer: Response<Body>) -> Failure {
        self.refused_to(call.action, call.place, answer)
    }

    /// The same where the request is gone.
    pub fn refused_to(&self, action: &str, place: &str, answer: Response<Body>) -> Failure {
        let (parts, body) = answer.into_parts();
        // What can't be read is not needed: the status says enough.
        let mut text = Vec::new();
        let _ = body.into_reader().take(1 << 16).read_to_end(&mut text);
        let asked =
            Asked { place: place.to_owned(), host: &self.image.registry, action, searched: self.auth.searched() };
        asked.refused(parts.status, &parts.headers, &text)
    }

    /// The failure for a connection that broke.
    pub fn broken(&self, place: &str, error: &ureq::Error) -> Failure {
        fault(&self.image.registry, place, &Fault::of(error))
    }

    /// The same while an answer was read.
    pub fn broken_reading(&self, place: &str, error: io::Error) -> Failure {
        self.broken(place, &ureq::Error::from(error))
    }

    fn send(&self, call: &mut Call<'_>, shown: Option<&HeaderValue>) -> Result<Response<Body>, ureq::Error> {
        let mut request = Request::builder().method(call.method.clone()).uri(call.url.clone());
        for (name, value) in call.headers {
            request = request.header(name, *value);
        }
        if let Some(shown) = shown {
            request = request.header(header::AUTHORIZATION, shown);
        }
        match &mut call.body {
            Payload::None => self.agent.run(request.body(())?),
            Payload::Bytes(bytes) => self.agent.run(request.body(*bytes)?),
            Payload::Stream(reader) => self.agent.run(request.body(SendBody::from_reader(reader))?),
        }
    }

    /// The scheme that the registry speaks. Where plain HTTP is allowed it is asked which one it is, HTTPS first; but one
    /// that speaks HTTPS and can't be trusted is not asked again without it.
    fn origin(&self) -> Result<&Origin, Failure> {
        if let Some(origin) = self.origin.get() {
            return Ok(origin);
        }
        let https = Origin { scheme: "https", host: self.image.registry.clone() };
        let found = match may_be_plain(&https.host) {
            false => https,
            true => match self.ping(&https) {
                Ok(()) => https,
                Err(error) if Fault::of(&error).untrusted => return Err(self.broken(&self.image.to_string(), &error)),
                Err(_) => {
                    let http = Origin { scheme: "http", ..https };
                    self.ping(&http).map_err(|error| self.broken(&self.image.to_string(), &error))?;
                    http
                }
            },
        };
        Ok(self.origin.get_or_init(|| found))
    }

    fn ping(&self, origin: &Origin) -> Result<(), ureq::Error> {
        let answer = self.agent.run(Request::get(origin.url("/v2/")?).body(())?)?;
        if answer.status() == StatusCode::UNAUTHORIZED {
            self.auth.challenged(answer.headers(), "", None);
        }
        drain(answer);
        Ok(())
    }

    fn token(&self, origin: &Origin, request: TokenRequest) -> Result<TokenAnswer, Failure> {
        let place = self.image.to_string();
        let unusable = |problem: String| {
            Failure::Final(StoreError::Registry {
                place: place.clone(),
                problem: format!("the token server of {} {problem}", self.image.registry),
            })
        };
        let url: Uri = request.url.parse().map_err(|_| unusable("has no valid address".to_owned()))?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        let safe = url.scheme_str() == Some("https") || (origin.scheme == "http" && may_be_plain(host));
        if !safe || host.contains('@') {
            return Err(unusable(format!("is {host:?} without HTTPS; credentials are not sent there")));
        }
        let mut builder = Request::builder().uri(url.clone());
        builder = match &request.form {
            Some(_) => builder.method(Method::POST).header(header::CONTENT_TYPE, "application/x-www-form-urlencoded"),
            None => builder.method(Method::GET),
        };
        if let Some(authorization) = &request.authorization {
            builder = builder.header(header::AUTHORIZATION, authorization);
        }
        let answer = match &request.form {
            Some(form) => builder.body(form.as_str()).map_err(ureq::Error::from).and_then(|r| self.agent.run(r)),
            None => builder.body(()).map_err(ureq::Error::from).and_then(|r| self.agent.run(r)),
        };
        let answer = answer.map_err(|error| fault(host, &place, &Fault::of(&error)))?;
        if answer.status() != StatusCode::OK {
            return Err(match self.refused_to("get a token", &place, answer) {
                // A token server says "wrong password" in several ways.
                Failure::Final(StoreError::Registry { place, problem }) => Failure::Final(StoreError::Denied {
                    place,
                    problem: format!("{problem}; {}", self.auth.searched()),
                }),
                failure => failure,
            });
        }
        let mut text = Vec::new();
        let read = answer.into_body().into_reader().take(1 << 20).read_to_end(&mut text);
        read.map_err(|error| fault(host, &place, &Fault::of(&ureq::Error::from(error))))?;
        serde_json::from_slice(&text).map_err(|_| unusable("gave no token".to_owned()))
    }
}

fn fault(host: &str, place: &str, fault: &Fault) -> Failure {
    let error = StoreError::Registry { place: place.to_owned(), problem: format!("{host} {}", fault.clause) };
    match fault.transient {
        true => Failure::Transient { error, after: None },
        false => Failure::Final(error),
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

/// Reads what is left of a short answer, so that the connection can be used again.
pub fn drain(answer: Response<Body>) {
    let _ = io::copy(&mut answer.into_body().into_reader().take(1 << 16), &mut io::sink());
}
