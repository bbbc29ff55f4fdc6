//! The credentials of a repository, as they are tried one after the other.

use std::sync::{Mutex, MutexGuard, PoisonError};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;

use crate::store::{
    StoreError,
    credentials::{Credential, Credentials, Found},
};

/// How many tokens are remembered so that they are not shown.
const REMEMBERED: usize = 16;

/// See the module. They are looked for once more when none of them was of use: a mounted Secret, or what a helper gives,
/// may be another one by then.
#[derive(Debug)]
pub struct Candidates {
    credentials: Credentials,
    registry: String,
    repository: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    found: Found,
    turn: usize,
    /// Whether they were looked for again since one was of use.
    renewed: bool,
    /// Tokens that a token server gave.
    issued: Vec<String>,
}

impl Candidates {
    /// Those of `repository` in `registry`.
    pub fn find(credentials: &Credentials, registry: &str, repository: &str) -> Result<Self, StoreError> {
        let found = credentials.find(registry, repository)?;
        Ok(Self {
            credentials: credentials.clone(),
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            state: Mutex::new(State { found, turn: 0, renewed: false, issued: Vec::new() }),
        })
    }

    /// The one whose turn it is; none: anonymous.
    pub fn current(&self) -> Option<Credential> {
        let state = self.lock();
        state.found.candidates.get(state.turn).cloned()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().found.candidates.len()
    }

    /// Goes on to the next one. False if none is left.
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
        match self.credentials.find(&self.registry, &self.repository) {
            Ok(found) if !found.candidates.is_empty() && found.candidates != state.found.candidates => {
                (state.found, state.turn) = (found, 0);
                true
            }
            _ => false,
        }
    }

    /// The current one was of use: a token server gave this for it.
    pub fn issued(&self, token: &str) {
        let mut state = self.lock();
        state.renewed = false;
        state.issued.push(token.to_owned());
        let surplus = state.issued.len().saturating_sub(REMEMBERED);
        state.issued.drain(..surplus);
    }

    /// Where they were looked for: a clause for errors that says what to do.
    pub fn searched(&self) -> String {
        self.lock().found.searched.clone()
    }

    /// All that must not be shown, in every form in which it is sent.
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

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The header `Authorization` of the scheme Basic; none for credentials of another kind.
pub fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Basic { username, password } = credential else { return None };
    let pair = BASE64_STANDARD.encode(format!("{username}:{}", password.expose()));
    secret_header(format!("Basic {pair}"))
}

/// None if the text can't stand in a header. `Debug` output does not show it.
pub fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}
