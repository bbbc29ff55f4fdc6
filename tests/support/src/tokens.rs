//! A token server for a registry (distribution, "Token Authentication Specification").

use std::{
    io::Read,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD, Engine};
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair},
};
use serde_json::{Value, json};

use super::{
    certificate::Authority,
    http::{self, Head},
    registry::USER,
};

/// The identity token that the server takes in place of [`USER`].
pub const IDENTITY_TOKEN: &str = "identity of the user";

/// Gives tokens for everything to the user, and for reading to everybody.
pub struct TokenServer {
    /// Its address.
    pub realm: String,
    state: Arc<State>,
}

/// Turns a token into the text of an answer.
type Shape = fn(&str) -> Value;

struct State {
    key: EcdsaKeyPair,
    certificate: Vec<u8>,
    expired: AtomicUsize,
    /// Seconds that tokens live.
    life: AtomicU64,
    shape: Mutex<Shape>,
    seen: Mutex<Vec<(Head, String)>>,
}

impl TokenServer {
    /// Signs with a key that `authority` vouches for.
    pub fn start(authority: &Authority) -> Self {
        let (key, certificate) = authority.issue_signer();
        let key =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &key, &SystemRandom::new()).expect("a key");
        let state = Arc::new(State {
            key,
            certificate,
            expired: AtomicUsize::new(0),
            life: AtomicU64::new(3600),
            // It lies about how long an expired token lasts: the registry has to refuse it.
            shape: Mutex::new(|token| json!({"access_token": token, "expires_in": 3600})),
            seen: Mutex::default(),
        });
        let address = {
            let state = state.clone();
            http::serve(move |head, mut client| {
                let length = head.header("content-length").map_or(0, |l| l.parse().expect("a length"));
                let mut form = String::new();
                client.by_ref().take(length).read_to_string(&mut form)?;
                state.seen.lock().unwrap().push((head.clone(), form.clone()));
                match state.answer(&head, &form) {
                    Some(token) => {
                        let shape = *state.shape.lock().unwrap();
                        let body = shape(&token).to_string();
                        http::answer(&mut client, "200 OK", &[("Content-Type", "application/json")], body.as_bytes())
                    }
                    None => http::answer(&mut client, "401 Unauthorized", &[], b"{\"details\":\"incorrect password\"}"),
                }
            })
        };
        Self { realm: format!("http://{address}/token"), state }
    }

    /// The next `count` tokens will have expired when they are given.
    pub fn expire_next(&self, count: usize) {
        self.state.expired.store(count, Ordering::SeqCst);
    }

    /// From now on tokens live for so many seconds.
    pub fn live_for(&self, seconds: u64) {
        self.state.life.store(seconds, Ordering::SeqCst);
    }

    /// From now on answers look like this.
    pub fn answer_as(&self, shape: Shape) {
        *self.state.shape.lock().unwrap() = shape;
    }

    /// Forgets the requests so far.
    pub fn forget(&self) {
        self.state.seen.lock().unwrap().clear();
    }

    /// The requests so far, with their forms.
    pub fn seen(&self) -> Vec<(Head, String)> {
        self.state.seen.lock().unwrap().clone()
    }
}

impl State {
    /// A token, or none for a wrong password.
    fn answer(&self, head: &Head, form: &str) -> Option<String> {
        let query = head.target().split_once('?').map_or("", |(_, query)| query);
        let parameters: Vec<(String, String)> = query.split('&').chain(form.split('&')).filter_map(decode).collect();
        let values = |name: &str| -> Vec<&str> {
            parameters.iter().filter(|(n, _)| n == name).flat_map(|(_, value)| value.split(' ')).collect()
        };
        let pair = format!("Basic {}", BASE64_STANDARD.encode(format!("{}:{}", USER.0, USER.1)));
        let user = match (head.header("authorization"), values("refresh_token").join(" ")) {
            (Some(shown), _) if shown == pair => true,
            (Some(_), _) => return None,
            (None, token) if token == IDENTITY_TOKEN => true,
            (None, token) if token.is_empty() => false,
            _ => return None,
        };
        let access: Vec<Value> = values("scope").into_iter().filter_map(|scope| grant(scope, user)).collect();
        let expired = self.expired.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1)).is_ok();
        Some(self.token(access, expired))
    }

    fn token(&self, access: Vec<Value>, expired: bool) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs();
        let begin = now - 7200;
        let end = if expired { now - 3600 } else { now + self.life.load(Ordering::SeqCst) };
        let header = json!({"typ": "JWT", "alg": "ES256", "x5c": [BASE64_STANDARD.encode(&self.certificate)]});
        let claims = json!({
            "iss": "test", "sub": "", "aud": "test", "exp": end, "nbf": begin, "iat": begin, "jti": "1", "access": access,
        });
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", part(&header), part(&claims));
        let signature = self.key.sign(&SystemRandom::new(), text.as_bytes()).expect("a signature");
        format!("{text}.{}", BASE64_URL_SAFE_NO_PAD.encode(signature))
    }
}

/// `repository:name:pull,push`
fn grant(scope: &str, user: bool) -> Option<Value> {
    let mut parts = scope.splitn(3, ':');
    let (kind, name, actions) = (parts.next()?, parts.next()?, parts.next()?);
    let actions: Vec<&str> = actions.split(',').filter(|action| user || *action == "pull").collect();
    Some(json!({"type": kind, "name": name, "actions": actions}))
}

fn decode(pair: &str) -> Option<(String, String)> {
    let (name, value) = pair.split_once('=')?;
    Some((name.to_owned(), percent_encoding::percent_decode_str(value).decode_utf8().ok()?.into_owned()))
}
