//! Requests to token servers and their responses (distribution, "Token Authentication Specification" and "OAuth2 Token
//! Authentication").

use std::time::Duration;

use http::HeaderValue;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::candidates::basic;
use crate::store::{credentials::Credential, net::retry::Failure};

/// A request to a token server.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// The token server.
    pub url: String,
    /// The header `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// The body of a POST request (`application/x-www-form-urlencoded`); none: GET.
    pub form: Option<String>,
}

/// A token server's response. The older specification calls the token `token`, OAuth2 `access_token`; some servers send
/// both, one of which may be empty ("Token Authentication Specification", "Token Response
/// Fields").
#[derive(Debug, Default, Deserialize)]
pub struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
    expires_in: Option<u64>,
}

/// Why there is no token.
#[derive(Debug)]
pub enum TokenFailure {
    /// The token server rejected these credentials.
    Refused(Failure),
    /// Anything else.
    Other(Failure),
}

impl TokenRequest {
    /// For a token with `scope`.
    pub fn new(credential: Option<&Credential>, realm: &str, service: Option<&str>, scope: &str) -> Self {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut query = Vec::new();
        query.extend(service.map(|service| format!("service={}", encode(service))));
        if let Some(Credential::IdentityToken(token)) = credential {
            query.push(format!("scope={}", encode(scope)));
            query.push("grant_type=refresh_token&client_id=tekton-wrap".to_owned());
            query.push(format!("refresh_token={}", encode(token.expose())));
            return Self { url: realm.to_owned(), authorization: None, form: Some(query.join("&")) };
        }
        query.extend(scope.split(' ').map(|scope| format!("scope={}", encode(scope))));
        if let Some(Credential::Basic { username, .. }) = credential {
            query.push(format!("account={}", encode(username)));
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{separator}{}", query.join("&"));
        Self { url, authorization: credential.and_then(basic), form: None }
    }

    /// Whether it holds secrets.
    pub fn has_credentials(&self) -> bool {
        self.authorization.is_some() || self.form.is_some()
    }
}

impl TokenResponse {
    /// The token, under either name. A text that can't be part of a header is none: the registry would be asked without it,
    /// again and again.
    pub fn token(&self) -> Option<&str> {
        let is_token = |token: &&str| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic());
        [&self.token, &self.access_token].into_iter().flatten().map(String::as_str).find(is_token)
    }

    /// How long the token is used: a little less than the server grants, and 60 seconds if it does not say ("Token
    /// Authentication Specification").
    pub fn lifetime(&self) -> Duration {
        let granted = Duration::from_secs(self.expires_in.unwrap_or(60).clamp(1, 24 * 3600));
        let margin = granted.checked_div(4).unwrap_or_default().min(Duration::from_secs(15));
        granted.saturating_sub(margin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn asks_token_servers() {
        let identity = Some(Credential::IdentityToken("i d".to_owned().into()));
        let basic = Some(Credential::Basic { username: "me@x".to_owned(), password: "p:w".to_owned().into() });
        let pair = Some(HeaderValue::from_static("Basic bWVAeDpwOnc="));
        let form = "service=r%2Eio&scope=repository%3Aa%3Apull&grant_type=refresh_token&client_id=tekton-wrap&refresh_token=i%20d";
        for (credential, url, authorization, form) in [
            (None, "https://a.io/t?service=r%2Eio&scope=repository%3Aa%3Apull", None, None),
            (basic, "https://a.io/t?service=r%2Eio&scope=repository%3Aa%3Apull&account=me%40x", pair, None),
            (identity, "https://a.io/t", None, Some(form.to_owned())),
        ] {
            let has_credentials = credential.is_some();
            let expected = TokenRequest { url: url.to_owned(), authorization, form };
            let request = TokenRequest::new(credential.as_ref(), "https://a.io/t", Some("r.io"), "repository:a:pull");
            assert_eq!(request, expected);
            assert_eq!(request.has_credentials(), has_credentials);
        }
        let request = TokenRequest::new(None, "https://a.io/t?x=y", None, "a b");
        assert_eq!(request.url, "https://a.io/t?x=y&scope=a&scope=b");
    }

    /// Docker Hub and docker_auth send both names; an empty one is none.
    #[test]
    fn takes_a_token_by_either_name() {
        for (response, token) in [
            (r#"{"token":"t"}"#, Some("t")),
            (r#"{"access_token":"a"}"#, Some("a")),
            (r#"{"token":"t","access_token":"t","expires_in":300,"issued_at":"2026-01-01T00:00:00Z"}"#, Some("t")),
            (r#"{"access_token":"a","token":"t"}"#, Some("t")),
            (r#"{"token":"","access_token":"a"}"#, Some("a")),
            (r#"{"token":"t","access_token":""}"#, Some("t")),
            (r#"{"token":null,"access_token":"a","refresh_token":"r"}"#, Some("a")),
            (r#"{"token":"","access_token":""}"#, None),
            (r#"{"token":"a\nX-Evil: 1","access_token":"a"}"#, Some("a")),
            (r#"{"token":"a\nX-Evil: 1"}"#, None),
            (r#"{"token":"a b"}"#, None),
            (r#"{"token":"\u00e4"}"#, None),
            ("{}", None),
        ] {
            assert_eq!(serde_json::from_str::<TokenResponse>(response).unwrap().token(), token, "{response}");
        }
    }

    #[test]
    fn lifetimes() {
        for (expires_in, used) in [(None, 45), (Some(300), 285), (Some(20), 15), (Some(0), 0), (Some(u64::MAX), 86385)]
        {
            assert_eq!(TokenResponse { expires_in, ..TokenResponse::default() }.lifetime().as_secs(), used);
        }
    }
}
