//! What must hold for any answer of a registry, of its token server or of a proxy before them: for [`crate::fuzzing`].

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};

use super::{
    challenge::Challenge,
    error_response::RequestContext,
    operation::Operation,
    realm::may_get_credentials,
    tags::next_target,
    token::{TokenRequest, TokenResponse},
};
use crate::store::net::retry::{Failure, retry_after};

/// What no message may repeat.
const SECRET: &str = "secret-of-the-test";

const REGISTRY: &str = "registry.example.com:5000";

/// Takes `bytes` for an answer: the status, a line for each header up to an empty line, and the body. What is read of it is
/// bounded and plain, passwords go nowhere that they should not, and it makes one sentence. Gives whether it has a challenge,
/// a token or a time to wait.
pub fn check(bytes: &[u8]) -> bool {
    let (status, headers, body) = answer(bytes);
    let challenge = Challenge::find(&headers);
    if let Some(Challenge::Bearer { realm, service, scope }) = &challenge {
        let asked = scope.as_deref().unwrap_or("repository:me/x:pull");
        let request = TokenRequest::new(None, realm, service.as_deref(), asked);
        assert!(request.url.starts_with(realm) && !request.has_credentials());
        check_realm(realm);
    }
    let token = serde_json::from_slice::<TokenResponse>(body).ok();
    if let Some(token) = &token {
        assert!(token.token().is_none_or(|token| !token.is_empty()));
        let lifetime = token.lifetime();
        assert!(lifetime > Duration::ZERO && lifetime <= Duration::from_secs(24 * 3600), "{lifetime:?}");
    }
    let waits = headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
    let waits = waits.and_then(|value| retry_after(value, SystemTime::UNIX_EPOCH));
    for link in headers.get_all(header::LINK).iter().filter_map(|value| value.to_str().ok()) {
        assert!(link.split(',').find_map(next_target).is_none_or(|target| link.contains(&format!("<{target}>"))));
    }
    for operation in [Operation::StoreManifest, Operation::ReadBlob] {
        let place = format!("{REGISTRY}/me/x:tag");
        let (searched, secrets) = ("log in".to_owned(), vec![SECRET.to_owned()]);
        let asked = RequestContext {
            place: place.clone(),
            registry: REGISTRY,
            repository: "me/x",
            operation,
            searched,
            anonymous: true,
            secrets,
        };
        let message = match asked.failure(status, &headers, body) {
            Failure::Transient { error, .. } | Failure::Final(error) => error.to_string(),
        };
        assert!(message.starts_with(&place), "{message:?}");
        assert!(!message.chars().any(char::is_control), "more than one line: {message:?}");
        assert!(!message.contains(SECRET), "{message:?}");
        assert!(message.len() < 4096, "{} bytes", message.len());
    }
    challenge.is_some() || token.is_some_and(|token| token.token().is_some()) || waits.is_some()
}

/// Whoever gets the password of [`REGISTRY`] belongs to it.
fn check_realm(realm: &str) {
    let Ok(uri) = realm.parse::<Uri>() else { return };
    let Some(host) = uri.host() else { return };
    if may_get_credentials(REGISTRY, host, &[]) {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        assert!(host == "example.com" || host.ends_with(".example.com"), "{host:?} gets the password");
    }
}

fn answer(bytes: &[u8]) -> (StatusCode, HeaderMap, &[u8]) {
    let (head, body) = match bytes.windows(2).position(|pair| pair == b"\n\n") {
        Some(end) => (bytes.get(..end).unwrap_or_default(), bytes.get(end.saturating_add(2)..).unwrap_or_default()),
        None => (bytes, &[][..]),
    };
    let mut lines = head.split(|&byte| byte == b'\n');
    let status = lines.next().and_then(|line| StatusCode::from_bytes(line.get(..3)?).ok());
    let mut headers = HeaderMap::new();
    for line in lines.take(64) {
        let Some(colon) = line.iter().position(|&byte| byte == b':') else { continue };
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            headers.append(name, value);
        }
    }
    (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), headers, body)
}
