//! Authentication: Basic, and Bearer tokens from a token server.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, header};

use super::{
    candidates::{Candidates, basic, secret_header},
    challenge::Challenge,
    token::{TokenFailure, TokenRequest, TokenResponse},
};
use crate::store::{credentials::Credential, net::retry::Failure};

/// The authentication scheme of a registry, once it has sent a challenge, and the tokens for a repository.
#[derive(Debug)]
pub struct Auth {
    /// The credentials.
    pub candidates: Candidates,
    state: Mutex<AuthState>,
}

#[derive(Debug, Default)]
struct AuthState {
    challenge: Option<Challenge>,
    /// By scope.
    tokens: HashMap<String, Token>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    until: Instant,
}

impl Auth {
    /// Nothing is sent before the registry has sent a challenge.
    pub fn new(candidates: Candidates) -> Self {
        Self { candidates, state: Mutex::default() }
    }

    /// The header `Authorization` for a request that needs `scope`; none without a challenge or credentials. `fetch` requests
    /// a token, once for all threads that need the same one; if the token server refuses a candidate, the next one is tried.
    pub fn header(
        &self,
        scope: &str,
        mut fetch: impl FnMut(TokenRequest) -> Result<TokenResponse, TokenFailure>,
    ) -> Result<Option<HeaderValue>, Failure> {
        let mut state = self.lock();
        loop {
            let candidate = self.candidates.current();
            if let Some(Credential::RegistryToken(token)) = &candidate {
                return Ok(secret_header(format!("Bearer {}", token.expose())));
            }
            let (realm, service) = match &state.challenge {
                None => return Ok(None),
                Some(Challenge::Basic) => return Ok(candidate.as_ref().and_then(basic)),
                Some(Challenge::Bearer { realm, service, .. }) => (realm, service),
            };
            if let Some(token) = state.tokens.get(scope).filter(|token| Instant::now() < token.until) {
                return Ok(Some(token.header.clone()));
            }
            let response = match fetch(TokenRequest::new(candidate.as_ref(), realm, service.as_deref(), scope)) {
                Ok(response) => response,
                Err(TokenFailure::Refused(_)) if self.candidates.next() => continue,
                Err(TokenFailure::Refused(failure) | TokenFailure::Other(failure)) => return Err(failure),
            };
            let token = response.token().unwrap_or_default();
            let Some(header) = secret_header(format!("Bearer {token}")) else { return Ok(None) };
            self.candidates.issued(token);
            let now = Instant::now();
            let until = now.checked_add(response.lifetime()).unwrap_or(now);
            state.tokens.insert(scope.to_owned(), Token { header: header.clone(), until });
            return Ok(Some(header));
        }
    }

    /// Stores the challenge of a response (401) to a request that was sent with the header `sent`. True if another attempt
    /// would send something else.
    pub fn challenged(&self, headers: &HeaderMap, scope: &str, sent: Option<&HeaderValue>) -> bool {
        let Some(challenge) = Challenge::find(headers) else { return false };
        let mut state = self.lock();
        state.forget(scope, sent);
        let is_basic = challenge == Challenge::Basic;
        state.challenge = Some(challenge);
        match self.candidates.current() {
            Some(Credential::RegistryToken(_)) => state.next(&self.candidates),
            Some(candidate) if is_basic => match basic(&candidate) {
                Some(header) if Some(&header) != sent => true,
                _ => state.next(&self.candidates),
            },
            None if is_basic => false,
            // Another candidate may have the right that this one lacks.
            _ if lacks_a_right(headers) && self.candidates.count() > 1 => state.next(&self.candidates),
            _ => true,
        }
    }

    /// The header `sent` has expired, or lacks a right. True if another attempt would send something else.
    pub fn refused(&self, scope: &str, sent: Option<&HeaderValue>, expired: bool) -> bool {
        let mut state = self.lock();
        let is_basic = state.challenge == Some(Challenge::Basic);
        let was_current = match self.candidates.current() {
            Some(Credential::RegistryToken(_)) => true,
            Some(candidate) if is_basic => basic(&candidate).as_ref() == sent,
            _ => state.forget(scope, sent),
        };
        // Another thread has switched to the next candidate already; or a new token suffices.
        !was_current || (expired && !is_basic) || state.next(&self.candidates)
    }

    fn lock(&self) -> MutexGuard<'_, AuthState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AuthState {
    /// Drops the token for `scope` if it is the one in the header `sent`. A token that another thread has fetched since then
    /// stays.
    fn forget(&mut self, scope: &str, sent: Option<&HeaderValue>) -> bool {
        let was_current = self.tokens.get(scope).is_some_and(|token| Some(&token.header) == sent);
        if was_current {
            self.tokens.remove(scope);
        }
        was_current
    }

    fn next(&mut self, candidates: &Candidates) -> bool {
        let more = candidates.next();
        if more {
            self.tokens.clear();
        }
        more
    }
}

/// Whether the token is valid but its scope too small (RFC 6750, 3.1).
fn lacks_a_right(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::WWW_AUTHENTICATE);
    values.iter().any(|value| value.to_str().is_ok_and(|text| text.contains("insufficient_scope")))
}

#[cfg(test)]
mod tests;
