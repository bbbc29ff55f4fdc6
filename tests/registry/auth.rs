//! Who may do what, with real registries and a real token server.

use serde_json::{Value, json};
use tekton_wrap::digest::Digest;

use super::*;
use crate::support::{
    certificate::Authority,
    faults::{Fault, Faults},
    registry::USER,
    tokens::{IDENTITY_TOKEN, TokenServer},
};

static WITH_USER: LazyLock<Registry> = LazyLock::new(|| wait_for(Registry::start_with_user()));

/// A token server and a registry that trusts it.
struct Tokens {
    server: TokenServer,
    registry: Registry,
}

impl Tokens {
    fn start() -> Self {
        let authority = Authority::new();
        let server = TokenServer::start(&authority);
        let registry = wait_for(Registry::start_with_tokens(&server.realm, &authority));
        Self { server, registry }
    }
}

fn user() -> Value {
    json!({"username": USER.0, "password": USER.1})
}

/// Stores an image and reads it back.
fn round_trip(store: &dyn Store) {
    let content = content(9, 400_000);
    let layer = put(store, &content).unwrap();
    let config = store.put_bytes(b"{}").unwrap();
    store.put_manifest("v1", MANIFEST, &manifest(&config, &layer)).unwrap();
    assert!(store.manifest("v1").unwrap().is_some());
    assert!(get(store, &layer).unwrap() == content);
}

#[test]
fn a_user_and_a_password() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &WITH_USER.address, user());
    round_trip(&*open(&WITH_USER.address, &repository(), &options_with(&config)));
}

#[test]
fn a_user_for_one_repository_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = format!("{}/test/mine", WITH_USER.address);
    let config = config(folder.path(), &path, user());
    round_trip(&*open(&WITH_USER.address, "test/mine/below", &options_with(&config)));
    let error = open(&WITH_USER.address, "test/mines", &options_with(&config)).put_bytes(b"x").unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[test]
fn a_denial_says_which_credentials_were_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let wrong = json!({"username": USER.0, "password": "hunter2"});
    let config = config(folder.path(), &WITH_USER.address, wrong);
    let absent = folder.path().join("absent.json");
    for (file, says) in [
        (&config, format!("check the credentials for {} in {}", WITH_USER.address, config.display())),
        (
            &absent,
            format!("add credentials for {}: there are none in {} (absent)", WITH_USER.address, absent.display()),
        ),
    ] {
        let store = open(&WITH_USER.address, "test/a", &options_with(file));
        let absent = Blob { digest: Digest::of(b""), size: 0 };
        for error in [
            store.manifest("v1").unwrap_err(),
            store.put_bytes(b"x").unwrap_err(),
            put(&*store, b"x").unwrap_err(),
            store.has_blob(&absent.digest).unwrap_err(),
            store.blob(&absent).err().unwrap(),
        ] {
            assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
            let text = error.to_string();
            assert!(text.contains(&format!("{}/test/a", WITH_USER.address)), "{text}");
            assert!(text.contains("(401") && text.ends_with(&says), "{text}");
            assert!(!text.contains("hunter2") && !text.contains('\n'), "{text}");
        }
    }
}

#[test]
fn tokens_from_a_token_server() {
    let Tokens { server, registry } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    for entry in [user(), json!({"identitytoken": IDENTITY_TOKEN})] {
        let before = server.seen().len();
        let config = config(folder.path(), &registry.address, entry);
        round_trip(&*open(&registry.address, &repository(), &options_with(&config)));
        assert_eq!(server.seen().len() - before, 2, "one token to write and one to read, each used many times");
    }
}

#[test]
fn an_identity_token_travels_in_a_form() {
    let Tokens { server, registry } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, json!({"identitytoken": IDENTITY_TOKEN}));
    open(&registry.address, &repository(), &options_with(&config)).put_bytes(b"x").unwrap();
    for (head, form) in server.seen() {
        assert_eq!((head.method(), head.header("authorization")), ("POST", None));
        assert!(!head.target().contains("identity") && form.contains("refresh_token=identity"), "{head:?} {form}");
    }
}

#[test]
fn anonymous_tokens_read_and_don_t_write() {
    let Tokens { registry, .. } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    let repository = repository();
    let config = config(folder.path(), &registry.address, user());
    round_trip(&*open(&registry.address, &repository, &options_with(&config)));
    let anonymous = open(&registry.address, &repository, &options());
    assert!(anonymous.manifest("v1").unwrap().is_some());
    let error = put(&*anonymous, b"x").unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
}

#[test]
fn a_wrong_password_for_the_token_server() {
    let Tokens { registry, .. } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, json!({"username": "user", "password": "hunter2"}));
    let error = open(&registry.address, "test/a", &options_with(&config)).manifest("v1").unwrap_err();
    assert!(matches!(error, StoreError::Denied { .. }), "{error:?}");
    let text = error.to_string();
    assert!(text.contains("denied getting a token (401") && text.ends_with(&config.display().to_string()), "{text}");
}

#[test]
fn an_expired_token_is_replaced() {
    let Tokens { server, registry } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, user());
    let store = open(&registry.address, &repository(), &options_with(&config));
    server.expire_next(1);
    round_trip(&*store);
    assert_eq!(server.seen().len(), 3);
    // One after the other that is no good is not asked for forever.
    let store = open(&registry.address, &repository(), &options_with(&config));
    server.expire_next(usize::MAX);
    assert!(matches!(store.manifest("v1").unwrap_err(), StoreError::Denied { .. }));
}

#[test]
fn a_token_that_expires_while_a_blob_goes_out() {
    let Tokens { server, registry } = Tokens::start();
    let faults = Faults::start(&registry.address);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &faults.address, user());
    let challenge = format!("Bearer realm=\"{}\",service=\"test\",error=\"invalid_token\"", server.realm);
    let expired = Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge)], Vec::new());
    for method in ["PATCH", "PUT", "HEAD"] {
        faults.on(method, "/blobs/", 1, expired.clone());
        round_trip(&*open(&faults.address, &repository(), &options_with(&config)));
    }
    assert_eq!(faults.seen("PATCH", "").len(), 4, "only the blob itself is sent again");
}

#[test]
fn mounting_asks_for_both_repositories() {
    let Tokens { server, registry } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, user());
    let from = repository();
    let blob = open(&registry.address, &from, &options_with(&config)).put_bytes(b"layer").unwrap();
    let store = open(&registry.address, &repository(), &options_with(&config));
    assert!(store.mount_blob(&blob.digest, &target(&registry.address, &from)).unwrap());
    assert_eq!(get(&*store, &blob).unwrap(), b"layer");
    let scopes = server.seen().iter().filter(|(head, _)| head.target().matches("scope=").count() == 2).count();
    assert_eq!(scopes, 1);
}
