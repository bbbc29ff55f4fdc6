//! Token requests of a session.

use http::{Method, Request, Response, StatusCode, Uri, header};
use ureq::Body;

use super::{Session, failures::failure};
use crate::store::{
    StoreError,
    net::{fault::Fault, origin::RegistryOrigin, read_up_to, retry::Failure},
    registry::{
        operation::Operation,
        realm::may_get_credentials,
        token::{TokenFailure, TokenRequest, TokenResponse},
    },
};

/// A longer response is no token.
const MAX_RESPONSE: u64 = 1 << 20;

impl Session {
    /// Requests a token, if its server may get what the request holds.
    pub(super) fn token(&self, origin: &RegistryOrigin, request: TokenRequest) -> Result<TokenResponse, TokenFailure> {
        let place = self.image.to_string();
        let url = self.checked_token_url(origin, &request).map_err(TokenFailure::Other)?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        let fails = |fault: &Fault| TokenFailure::Other(failure(host, &place, fault));
        let response = self.send_token_request(&url, &request).map_err(|fault| fails(&fault))?;
        if response.status() != StatusCode::OK {
            return Err(self.token_refused(response));
        }
        let text = read_up_to(response.into_body(), MAX_RESPONSE);
        let text = text.map_err(|error| fails(&Fault::of(&ureq::Error::from(error))))?;
        match serde_json::from_slice::<TokenResponse>(&text) {
            Ok(response) if response.token().is_some() => Ok(response),
            _ => {
                let problem = format!("gave an unexpected response: no token in what {host} answered");
                Err(TokenFailure::Other(self.unusable_token_server(&problem)))
            }
        }
    }

    fn checked_token_url(&self, origin: &RegistryOrigin, request: &TokenRequest) -> Result<Uri, Failure> {
        let unusable = |problem: &str| self.unusable_token_server(problem);
        let url: Uri = request.url.parse().map_err(|_| unusable("has no valid address"))?;
        let host = url.authority().map_or("", |authority| authority.as_str());
        if host.contains('@') {
            return Err(unusable("has an address with a user in it; nothing is sent there"));
        }
        let safe = url.scheme_str() == Some("https") || (origin.scheme == "http" && self.options.plain.allow(host));
        if !safe {
            return Err(unusable(&format!("is {host:?} without HTTPS; credentials are not sent there")));
        }
        if request.has_credentials() && !may_get_credentials(&self.image.registry, host, &self.options.token_hosts) {
            return Err(unusable(&format!(
                "is {host:?}, which belongs to another site, so that credentials are not sent there; if that is right, list it in TEKTON_WRAP_TOKEN_HOSTS or --token-hosts"
            )));
        }
        Ok(url)
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

    fn token_refused(&self, response: Response<Body>) -> TokenFailure {
        let is_client_error = response.status().is_client_error();
        match self.refused_to(Operation::GetToken, &self.image.to_string(), response) {
            // Token servers report a wrong password with several statuses.
            Failure::Final(StoreError::Registry { place, problem }) => {
                let problem = format!("{problem}; {}", self.options.auth.candidates.searched());
                TokenFailure::Refused(Failure::Final(StoreError::Denied { place, problem }))
            }
            failure @ Failure::Final(_) if is_client_error => TokenFailure::Refused(failure),
            failure => TokenFailure::Other(failure),
        }
    }

    fn unusable_token_server(&self, problem: &str) -> Failure {
        let problem = format!("the token server of {} {problem}", self.image.registry);
        Failure::Final(StoreError::Registry { place: self.image.to_string(), problem })
    }
}
