//! What is shown to a registry, and when.

use super::*;
use crate::store::{StoreError, credentials::Credentials};

/// Credentials for `r.io` in files of these contents.
fn auth(folder: &tempfile::TempDir, entries: &[&str]) -> Auth {
    let files = entries.iter().enumerate().map(|(number, entry)| {
        let file = folder.path().join(format!("{number}.json"));
        std::fs::write(&file, format!(r#"{{"auths":{{"r.io":{entry}}}}}"#)).unwrap();
        file
    });
    Auth::new(Candidates::find(&Credentials::from_files(files.collect()), None, "r.io", "a").unwrap())
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn challenge(text: &str) -> HeaderMap {
    HeaderMap::from_iter([(header::WWW_AUTHENTICATE, text.parse().unwrap())])
}

fn token(text: &str, expires_in: Option<u64>) -> TokenResponse {
    serde_json::from_value(serde_json::json!({"token": text, "expires_in": expires_in})).unwrap()
}

const BEARER: &str = r#"Bearer realm="https://a.io/t",service="r.io""#;
const ME: &str = r#"{"username":"me@x","password":"p:w1"}"#;
const YOU: &str = r#"{"username":"you","password":"pass"}"#;

#[test]
fn tokens_are_kept_until_they_are_refused_or_expire() {
    let (folder, count) = (folder(), std::cell::Cell::new(0));
    let auth = auth(&folder, &[]);
    let header = |scope: &str| {
        let fetch = |_| {
            count.set(count.get() + 1);
            Ok(token(&format!("t{}", count.get()), None))
        };
        auth.header(scope, fetch).unwrap()
    };
    assert_eq!(header("a"), None);
    assert!(auth.challenged(&challenge(BEARER), "a", None));
    let first = header("a");
    assert_eq!(first, Some(HeaderValue::from_static("Bearer t1")));
    assert_eq!(header("a"), first);
    assert_eq!(header("b"), Some(HeaderValue::from_static("Bearer t2")));
    assert!(auth.challenged(&challenge(BEARER), "a", first.as_ref()));
    let second = header("a");
    assert_eq!(second, Some(HeaderValue::from_static("Bearer t3")));
    // A late refusal of the first token does not cost the second one.
    assert!(auth.challenged(&challenge(BEARER), "a", first.as_ref()));
    assert!(auth.refused("a", first.as_ref(), false));
    assert_eq!(header("a"), second);
    assert!(auth.refused("a", second.as_ref(), true));
    assert_eq!(header("a"), Some(HeaderValue::from_static("Bearer t4")));
    assert_eq!(auth.candidates.secrets(), ["t1", "t2", "t3", "t4"]);
}

#[test]
fn answers_basic_challenges_once() {
    let folder = folder();
    let auth = auth(&folder, &[ME]);
    assert!(auth.challenged(&challenge("Basic realm=x"), "a", None));
    let shown = auth.header("a", |_| unreachable!()).unwrap();
    assert_eq!(shown, Some(HeaderValue::from_static("Basic bWVAeDpwOncx")));
    assert!(!auth.challenged(&challenge("Basic realm=x"), "a", shown.as_ref()));
    assert!(!format!("{auth:?} {shown:?}").contains("bWVAeD"));
    let anonymous = super::tests::auth(&folder, &[]);
    assert!(!anonymous.challenged(&challenge("Basic realm=x"), "a", None));
    assert!(!anonymous.challenged(&HeaderMap::new(), "a", None));
}

#[test]
fn candidates_are_tried_in_turn() {
    let folder = folder();
    let auth = auth(&folder, &[ME, YOU]);
    assert!(auth.challenged(&challenge("Basic realm=x"), "a", None));
    let first = auth.header("a", |_| unreachable!()).unwrap();
    assert!(auth.challenged(&challenge("Basic realm=x"), "a", first.as_ref()));
    let second = auth.header("a", |_| unreachable!()).unwrap();
    assert_eq!(second, Some(HeaderValue::from_static("Basic eW91OnBhc3M=")));
    assert!(auth.challenged(&challenge("Basic realm=x"), "a", first.as_ref()), "a late refusal of the first one");
    assert!(!auth.refused("a", second.as_ref(), false));
}

#[test]
fn a_token_server_is_shown_each_candidate() {
    let folder = folder();
    let auth = auth(&folder, &[ME, YOU]);
    auth.challenged(&challenge(BEARER), "a", None);
    let problem = || StoreError::Denied { place: String::new(), problem: String::new() };
    let fetch = |request: TokenRequest| match request.url.contains("account=you") {
        true => Ok(token("t", None)),
        false => Err(TokenFailure::Refused(Failure::Final(problem()))),
    };
    assert_eq!(auth.header("a", fetch).unwrap(), Some(HeaderValue::from_static("Bearer t")));
}

#[test]
fn credentials_are_read_again_when_they_are_refused() {
    let folder = folder();
    let auth = auth(&folder, &[ME]);
    auth.challenged(&challenge("Basic realm=x"), "a", None);
    let old = auth.header("a", |_| unreachable!()).unwrap();
    std::fs::write(folder.path().join("0.json"), format!(r#"{{"auths":{{"r.io":{YOU}}}}}"#)).unwrap();
    assert!(auth.refused("a", old.as_ref(), true));
    let new = auth.header("a", |_| unreachable!()).unwrap();
    assert_ne!(new, old);
    assert!(!auth.refused("a", new.as_ref(), true));
}

#[test]
fn a_registry_token_is_shown_as_it_is() {
    let folder = folder();
    let auth = auth(&folder, &[r#"{"registrytoken":"r"}"#]);
    let shown = auth.header("a", |_| unreachable!()).unwrap();
    assert_eq!(shown, Some(HeaderValue::from_static("Bearer r")));
    assert!(!auth.challenged(&challenge(BEARER), "a", shown.as_ref()));
}
