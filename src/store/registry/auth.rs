//! Proving who we are: Basic, and Bearer tokens from a token server.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use http::{HeaderMap, HeaderValue, header};

use super::{
    candidates::{Candidates, basic, secret_header},
    challenge::Challenge,
    retry::Failure,
    token::{TokenAnswer, TokenFailure, TokenRequest},
};
use crate::store::credentials::Credential;

/// What a repository's registry wants to be shown, as far as it has told.
#[derive(Debug)]
pub struct Auth {
    /// What there is to show.
    pub candidates: Candidates,
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

impl Auth {
    /// Nothing is sent before the registry has asked for it.
    pub fn new(candidates: Candidates) -> Self {
        Self { candidates, state: Mutex::default() }
    }

    /// The header `Authorization` for a request that needs `scope`; none where there is nothing to show. `fetch` asks a
    /// token server, at most once for all threads that need the same token; where it refuses a candidate, the next one is
    /// tried.
    pub fn header(
        &self,
        scope: &str,
        mut fetch: impl FnMut(TokenRequest) -> Result<TokenAnswer, TokenFailure>,
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
            let answer = match fetch(TokenRequest::new(candidate.as_ref(), realm, service.as_deref(), scope)) {
                Ok(answer) => answer,
                Err(TokenFailure::Refused(_)) if self.candidates.next() => continue,
                Err(TokenFailure::Refused(failure) | TokenFailure::Other(failure)) => return Err(failure),
            };
            let token = answer.token().unwrap_or_default();
            let Some(header) = secret_header(format!("Bearer {token}")) else { return Ok(None) };
            self.candidates.issued(token);
            let now = Instant::now();
            let until = now.checked_add(answer.lifetime()).unwrap_or(now);
            state.tokens.insert(scope.to_owned(), Token { header: header.clone(), until });
            return Ok(Some(header));
        }
    }

    /// Takes in the challenge of an answer (401) to a request that showed `shown`. True if another attempt would show
    /// something else.
    pub fn challenged(&self, headers: &HeaderMap, scope: &str, shown: Option<&HeaderValue>) -> bool {
        let Some(challenge) = Challenge::find(headers) else { return false };
        let mut state = self.lock();
        state.forget(scope, shown);
        let is_basic = challenge == Challenge::Basic;
        state.challenge = Some(challenge);
        match self.candidates.current() {
            Some(Credential::RegistryToken(_)) => state.next(&self.candidates),
            Some(candidate) if is_basic => match basic(&candidate) {
                Some(header) if Some(&header) != shown => true,
                _ => state.next(&self.candidates),
            },
            None if is_basic => false,
            // Another candidate may have the right that this one lacks.
            _ if lacks_a_right(headers) && self.candidates.count() > 1 => state.next(&self.candidates),
            _ => true,
        }
    }

    /// What was shown has expired, or lacks a right. True if another attempt would show something else.
    pub fn refused(&self, scope: &str, shown: Option<&HeaderValue>, expired: bool) -> bool {
        let mut state = self.lock();
        let is_basic = state.challenge == Some(Challenge::Basic);
        let was_current = match self.candidates.current() {
            Some(Credential::RegistryToken(_)) => true,
            Some(candidate) if is_basic => basic(&candidate).as_ref() == shown,
            _ => state.forget(scope, shown),
        };
        // Another thread has gone on meanwhile; or a new token will do.
        !was_current || (expired && !is_basic) || state.next(&self.candidates)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Drops the token for `scope` if it is the one that was shown. Another thread may have got a new token meanwhile:
    /// that one stays.
    fn forget(&mut self, scope: &str, shown: Option<&HeaderValue>) -> bool {
        let was_current = self.tokens.get(scope).is_some_and(|token| Some(&token.header) == shown);
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

/// Whether the registry knew the token, and it allows too little (RFC 6750, 3.1).
fn lacks_a_right(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::WWW_AUTHENTICATE);
    values.iter().any(|value| value.to_str().is_ok_and(|text| text.contains("insufficient_scope")))
}

#[cfg(test)]
mod tests;
