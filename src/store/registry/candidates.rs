//! The credentials for a repository, tried one after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;

use super::ambient::Ambient;
use crate::store::{
    StoreError,
    credentials::{Credential, Credentials, FoundCredentials},
};

/// How many tokens are kept, to redact them.
const REMEMBERED: usize = 16;

/// See the module. When all were refused, the files are read once more: a mounted Secret, or the result of a helper, may
/// have changed.
#[derive(Debug)]
pub struct Candidates {
    credentials: Credentials,
    ambient: Option<Ambient>,
    registry: String,
    repository: String,
    state: Mutex<CandidateState>,
}

#[derive(Debug)]
struct CandidateState {
    found: FoundCredentials,
    turn: usize,
    /// Whether the files were read again since a credential was accepted.
    renewed: bool,
    /// Tokens from a token server.
    issued: Vec<String>,
}

impl Candidates {
    /// Finds those for `repository` in `registry`: of files, or else of the identity that a cloud gives.
    pub fn find(
        credentials: &Credentials,
        ambient: Option<Ambient>,
        registry: &str,
        repository: &str,
    ) -> Result<Self, StoreError> {
        let found = search(credentials, ambient.as_ref(), registry, repository)?;
        Ok(Self {
            credentials: credentials.clone(),
            ambient,
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            state: Mutex::new(CandidateState { found, turn: 0, renewed: false, issued: Vec::new() }),
        })
    }

    /// The one in use; none: anonymous.
    pub fn current(&self) -> Option<Credential> {
        let state = self.lock();
        state.found.candidates.get(state.turn).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().found.candidates.len()
    }

    /// Switches to the next one. False if none is left.
    pub fn next(&self) -> bool {
        let mut state = self.lock();
        let next = state.turn.saturating_add(1);
        if next < state.found.candidates.len() {
            state.turn = next;
            return true;
        }
        if state.renewed {
            return false;
        }
        state.renewed = true;
        if let Some(ambient) = &self.ambient {
            ambient.refused(&self.registry, &state.found.candidates);
        }
        match search(&self.credentials, self.ambient.as_ref(), &self.registry, &self.repository) {
            Ok(found) if !found.candidates.is_empty() && found.candidates != state.found.candidates => {
                (state.found, state.turn) = (found, 0);
                true
            }
            _ => false,
        }
    }

    /// The current one was accepted by a token server, which issued this token.
    pub fn issued(&self, token: &str) {
        let mut state = self.lock();
        state.renewed = false;
        state.issued.push(token.to_owned());
        let surplus = state.issued.len().saturating_sub(REMEMBERED);
        state.issued.drain(..surplus);
    }

    /// A clause for errors that says what to do: see [`FoundCredentials::searched`].
    pub fn searched(&self) -> String {
        self.lock().found.searched.clone()
    }

    /// All secrets to redact, in every form in which they are sent.
    pub fn secrets(&self) -> Vec<String> {
        let state = self.lock();
        let mut secrets = state.issued.clone();
        for candidate in &state.found.candidates {
            match candidate {
                Credential::Basic { username, password } => {
                    secrets.push(BASE64_STANDARD.encode(format!("{username}:{}", password.expose())));
                    secrets.push(password.expose().to_owned());
                }
                Credential::IdentityToken(token) | Credential::RegistryToken(token) => {
                    secrets.push(token.expose().to_owned());
                }
            }
        }
        secrets
    }

    fn lock(&self) -> MutexGuard<'_, CandidateState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn search(
    credentials: &Credentials,
    ambient: Option<&Ambient>,
    registry: &str,
    repository: &str,
) -> Result<FoundCredentials, StoreError> {
    let found = credentials.find(registry, repository)?;
    Ok(match ambient {
        Some(ambient) => ambient.complete(registry, found),
        None => found,
    })
}

/// The header `Authorization` of the scheme Basic; none for credentials of another kind.
pub fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Basic { username, password } = credential else { return None };
    let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    secret_header(format!("Basic {pair}"))
}

/// A header value that `Debug` does not show. None if the text is not valid in a header.
pub fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
