//! Proving who we are: Basic, and Bearer tokens from a token server (distribution, "Token Authentication
//! Specification" and "OAuth2 Token Authentication").

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{challenge::Challenge, retry::Failure};
use crate::store::credentials::{Credential, Found};

/// What a repository's registry wants to be shown, as far as it has told.
#[derive(Debug)]
pub struct Auth {
    found: Found,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    challenge: Option<Challenge>,
    /// By scope.
    tokens: HashMap<String, Token>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

/// A request to a token server.
#[derive(Debug, PartialEq, Eq)]
pub struct TokenRequest {
    /// Where to.
    pub url: String,
    /// The header `Authorization`.
    pub authorization: Option<HeaderValue>,
    /// The body of a POST request (`application/x-www-form-urlencoded`); none: GET.
    pub form: Option<String>,
}

/// A token server's answer.
#[derive(Deserialize)]
pub struct TokenAnswer {
    #[serde(alias = "access_token")]
    token: String,
    expires_in: Option<u64>,
}

impl Auth {
    /// Nothing is sent before the registry has asked for it.
    pub fn new(found: Found) -> Self {
        Self { found, state: Mutex::default() }
    }

    /// Where credentials were looked for: a clause for errors that says what to do.
    pub fn searched(&self) -> &str {
        &self.found.searched
    }

    /// The header `Authorization` for a request that needs `scope`; none where there is nothing to show. `fetch` asks a
    /// token server, at most once for all threads that need the same token.
    pub fn header(
        &self,
        scope: &str,
        fetch: impl FnOnce(TokenRequest) -> Result<TokenAnswer, Failure>,
    ) -> Result<Option<HeaderValue>, Failure> {
        if let Some(Credential::RegistryToken(token)) = &self.found.credential {
            return Ok(secret_header(format!("Bearer {}", token.expose())));
        }
        let mut state = self.lock();
        match &state.challenge {
            None => Ok(None),
            Some(Challenge::Basic) => Ok(self.basic()),
            Some(Challenge::Bearer { realm, service, .. }) => {
                if let Some(token) = state.tokens.get(scope).filter(|token| Instant::now() < token.until) {
                    return Ok(Some(token.header.clone()));
                }
                let answer = fetch(self.request(realm, service.as_deref(), scope))?;
                let Some(header) = secret_header(format!("Bearer {}", answer.token)) else { return Ok(None) };
                let token = Token { header: header.clone(), until: Instant::now() + lifetime(answer.expires_in) };
                state.tokens.insert(scope.to_owned(), token);
                Ok(Some(header))
            }
        }
    }

    /// Takes in the challenge of an answer (401) to a request that showed `shown`. True if another attempt would show
    /// something else.
    pub fn challenged(&self, headers: &HeaderMap, scope: &str, shown: Option<&HeaderValue>) -> bool {
        let Some(challenge) = Challenge::find(headers) else { return false };
        let mut state = self.lock();
        // Another thread may have got a new token meanwhile: that one stays.
        if state.tokens.get(scope).is_some_and(|token| Some(&token.header) == shown) {
            state.tokens.remove(scope);
        }
        let basic = challenge == Challenge::Basic;
        state.challenge = Some(challenge);
        match (&self.found.credential, basic) {
            (Some(Credential::RegistryToken(_)), _) => false,
            (_, true) => self.basic().is_some_and(|basic| Some(&basic) != shown),
            (_, false) => true,
        }
    }

    fn request(&self, realm: &str, service: Option<&str>, scope: &str) -> TokenRequest {
        let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        let mut query = Vec::new();
        query.extend(service.map(|service| format!("service={}", encode(service))));
        if let Some(Credential::IdentityToken(token)) = &self.found.credential {
            query.push(format!("scope={}", encode(scope)));
            query.push("grant_type=refresh_token&client_id=tekton-wrap".to_owned());
            query.push(format!("refresh_token={}", encode(token.expose())));
            return TokenRequest { url: realm.to_owned(), authorization: None, form: Some(query.join("&")) };
        }
        query.extend(scope.split(' ').map(|scope| format!("scope={}", encode(scope))));
        if let Some(Credential::Basic { username, .. }) = &self.found.credential {
            query.push(format!("account={}", encode(username)));
        }
        let separator = if realm.contains('?') { '&' } else { '?' };
        let url = format!("{realm}{separator}{}", query.join("&"));
        TokenRequest { url, authorization: self.basic(), form: None }
    }

    fn basic(&self) -> Option<HeaderValue> {
        match &self.found.credential {
            Some(Credential::Basic { username, password }) => {
                let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
                secret_header(format!("Basic {pair}"))
            }
            _ => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long to use a token: a little less than the server grants, and 60 seconds if it does not say ("Token
/// Authentication Specification").
fn lifetime(expires_in: Option<u64>) -> Duration {
    let granted = Duration::from_secs(expires_in.unwrap_or(60).clamp(1, 24 * 3600));
    granted - (granted / 4).min(Duration::from_secs(15))
}

/// None if the text can't stand in a header. `Debug` output does not show it.
fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use http::header;

    use super::*;

    fn auth(credential: Option<Credential>) -> Auth {
        Auth::new(Found { credential, searched: String::new() })
    }

    fn basic() -> Option<Credential> {
        Some(Credential::Basic { username: "me@x".to_owned(), password: "p:w".to_owned().into() })
    }

    fn challenge(text: &str) -> HeaderMap {
        HeaderMap::from_iter([(header::WWW_AUTHENTICATE, text.parse().unwrap())])
    }

    const BEARER: &str = r#"Bearer realm="https://a.io/t",service="r.io""#;

    #[test]
    fn asks_token_servers() {
        let identity = Some(Credential::IdentityToken("i d".to_owned().into()));
        let pair = Some(HeaderValue::from_static("Basic bWVAeDpwOnc="));
        let form = "service=r%2Eio&scope=repository%3Aa%3Apull&grant_type=refresh_token&client_id=tekton%2Dwrap&refresh_token=i%20d";
        for (credential, url, authorization, form) in [
            (None, "https://a.io/t?service=r%2Eio&scope=repository%3Aa%3Apull", None, None),
            (basic(), "https://a.io/t?service=r%2Eio&scope=repository%3Aa%3Apull&account=me%40x", pair, None),
            (identity, "https://a.io/t", None, Some(form.replace("%2Dwrap", "-wrap"))),
        ] {
            let expected = TokenRequest { url: url.to_owned(), authorization, form };
            let request = auth(credential).request("https://a.io/t", Some("r.io"), "repository:a:pull");
            assert_eq!(request, expected);
        }
        let request = auth(None).request("https://a.io/t?x=y", None, "a b");
        assert_eq!(request.url, "https://a.io/t?x=y&scope=a&scope=b");
    }

    #[test]
    fn tokens_are_kept_until_they_are_refused_or_expire() {
        let auth = auth(None);
        let count = std::cell::Cell::new(0);
        let header = |scope: &str, expires_in| {
            let fetch = |_| {
                count.set(count.get() + 1);
                Ok(TokenAnswer { token: format!("t{}", count.get()), expires_in })
            };
            auth.header(scope, fetch).unwrap()
        };
        assert_eq!(header("a", None), None);
        assert!(auth.challenged(&challenge(BEARER), "a", None));
        let first = header("a", None);
        assert_eq!(first, Some(HeaderValue::from_static("Bearer t1")));
        assert_eq!(header("a", None), first);
        assert_eq!(header("b", None), Some(HeaderValue::from_static("Bearer t2")));
        assert!(auth.challenged(&challenge(BEARER), "a", first.as_ref()));
        let second = header("a", None);
        assert_eq!(second, Some(HeaderValue::from_static("Bearer t3")));
        // A late refusal of the first token does not cost the second one.
        auth.challenged(&challenge(BEARER), "a", first.as_ref());
        assert_eq!(header("a", None), second);
    }

    #[test]
    fn answers_basic_challenges_once() {
        let auth = auth(basic());
        let fetch = |_| unreachable!();
        assert!(auth.challenged(&challenge("Basic realm=x"), "a", None));
        let shown = auth.header("a", fetch).unwrap();
        assert_eq!(shown, Some(HeaderValue::from_static("Basic bWVAeDpwOnc=")));
        assert!(!auth.challenged(&challenge("Basic realm=x"), "a", shown.as_ref()));
        assert!(!format!("{auth:?} {shown:?}").contains("bWVAeD"));
        assert!(!super::tests::auth(None).challenged(&challenge("Basic realm=x"), "a", None));
        assert!(!super::tests::auth(None).challenged(&HeaderMap::new(), "a", None));
    }

    #[test]
    fn a_registry_token_is_shown_as_it_is() {
        let auth = auth(Some(Credential::RegistryToken("r".to_owned().into())));
        let shown = auth.header("a", |_| unreachable!()).unwrap();
        assert_eq!(shown, Some(HeaderValue::from_static("Bearer r")));
        assert!(!auth.challenged(&challenge(BEARER), "a", shown.as_ref()));
    }

    #[test]
    fn lifetimes() {
        for (granted, used) in [(None, 45), (Some(300), 285), (Some(20), 15), (Some(0), 0), (Some(u64::MAX), 86385)] {
            assert_eq!(lifetime(granted).as_secs(), used);
        }
    }
}
