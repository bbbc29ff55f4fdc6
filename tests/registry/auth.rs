//! Who may do what, with real registries and a real token server.

use serde_json::{Value, json};
use tekton_wrap::digest::Digest;

use super::*;
use support::{
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

/// The specification lets a server name the token `token`, `access_token` or both; Docker Hub sends both.
#[test]
fn every_form_of_a_token() {
    let Tokens { server, registry } = Tokens::start();
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, user());
    let shapes: [fn(&str) -> Value; 5] = [
        |token| json!({"token": token, "access_token": token, "expires_in": 300, "issued_at": "2026-11-01T00:00:00Z"}),
        |token| json!({"access_token": token, "token": token}),
        |token| json!({"token": "", "access_token": token}),
        |token| json!({"token": token, "access_token": ""}),
        |token| json!({"token": token, "access_token": null, "refresh_token": "r"}),
    ];
    for shape in shapes {
        server.answer_as(shape);
        round_trip(&*open(&registry.address, &repository(), &options_with(&config)));
    }
    server.answer_as(|_| json!({"token": "", "expires_in": 300}));
    let error = open(&registry.address, "test/a", &options_with(&config)).manifest("v1").unwrap_err().to_string();
    assert!(error.contains("gave an unexpected response: no token in what 127.0.0.1:"), "{error}");
}

/// Credentials that a first file has may be for reading only, or out of date.
#[test]
fn each_credential_is_tried() {
    let Tokens { registry, .. } = Tokens::start();
    let (one, two, three) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let files = vec![
        config(one.path(), &registry.address, json!({"username": USER.0, "password": "old"})),
        config(two.path(), &registry.address, json!({"identitytoken": "old"})),
        config(three.path(), &registry.address, user()),
    ];
    let all = StoreOptions { credentials: Credentials::from_files(files), ..options() };
    round_trip(&*open(&registry.address, &repository(), &all));
    let basic = vec![
        config(one.path(), &WITH_USER.address, json!({"username": USER.0, "password": "old"})),
        config(two.path(), &WITH_USER.address, user()),
    ];
    let all = StoreOptions { credentials: Credentials::from_files(basic), ..options() };
    round_trip(&*open(&WITH_USER.address, &repository(), &all));
}

/// A Secret that is mounted, or what a helper gives, may be renewed while a long step runs.
#[test]
fn credentials_that_were_renewed_meanwhile() {
    let folder = tempfile::tempdir().unwrap();
    let old = json!({"username": USER.0, "password": "old"});
    let file = config(folder.path(), &WITH_USER.address, old);
    let store = open(&WITH_USER.address, &repository(), &options_with(&file));
    config(folder.path(), &WITH_USER.address, user());
    round_trip(&*store);
}

/// The public ECR says so with 400, GitLab with 403.
#[test]
fn an_expired_token_that_is_no_401() {
    let Tokens { registry, server } = Tokens::start();
    let faults = Faults::start(&registry.address);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &faults.address, user());
    for (status, code) in [("400 Bad Request", "DENIED"), ("403 Forbidden", "TOKEN_EXPIRED")] {
        let message = "Your authorization token has expired. Reauthenticate and try again.";
        let body = json!({"errors": [{"code": code, "message": message}]}).to_string();
        for method in ["POST", "PATCH", "PUT", "HEAD", "GET"] {
            let before = server.seen().len();
            faults.on(method, "/v2/test/", 1, Fault::Answer(status, Vec::new(), body.clone().into_bytes()));
            round_trip(&*open(&faults.address, &repository(), &options_with(&config)));
            // A broken upload is cancelled, with a token of its own.
            let expected = if method == "PATCH" { 4 } else { 3 };
            assert_eq!(server.seen().len() - before, expected, "{status} {method}: a new token, once");
        }
    }
}

#[test]
fn tokens_that_live_for_a_second() {
    let Tokens { registry, server } = Tokens::start();
    server.live_for(1);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, user());
    let store = open(&registry.address, &repository(), &options_with(&config));
    for _ in 0..3 {
        round_trip(&*store);
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
}

/// A registry names its token server itself: a password goes to none that is elsewhere, unless the user says so.
#[test]
fn a_token_server_of_another_site_gets_no_password() {
    let Tokens { registry, server } = Tokens::start();
    let faults = Faults::start(&registry.address);
    let elsewhere = server.realm.replace("127.0.0.1", "localhost");
    let challenge = format!("Bearer realm=\"{elsewhere}\",service=\"test\"");
    faults.on(
        "GET",
        "",
        1,
        Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge.clone())], Vec::new()),
    );
    let folder = tempfile::tempdir().unwrap();
    let host = elsewhere.split('/').nth(2).unwrap();
    for entry in [user(), json!({"identitytoken": IDENTITY_TOKEN})] {
        let config = config(folder.path(), &faults.address, entry);
        let denied = Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge.clone())], Vec::new());
        faults.on("GET", "", 1, denied.clone());
        let error = open(&faults.address, "test/a", &options_with(&config)).manifest("v1").unwrap_err().to_string();
        assert!(error.contains(&format!("is \"{host}\", which belongs to another site")), "{error}");
        assert!(error.contains("TEKTON_WRAP_TOKEN_HOSTS"), "{error}");
        assert_eq!(server.seen().len(), 0);

        faults.on("GET", "", 1, denied);
        let listed = StoreOptions { token_hosts: vec![host.to_owned()], ..options_with(&config) };
        round_trip(&*open(&faults.address, &repository(), &listed));
        let before = server.seen().len();
        assert!(before > 0);
        server.forget();
    }
}

/// What a registry repeats of what it was shown is not passed on.
#[test]
fn secrets_that_come_back_are_hidden() {
    let registry = Faults::start(&WITH_USER.address);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, json!({"username": USER.0, "password": USER.1}));
    let pair = "dXNlcjpzZWNyZXQ=";
    let store = open(&registry.address, &repository(), &options_with(&config));
    store.put_bytes(b"x").unwrap();
    for body in [
        json!({"errors": [{"code": "X", "message": format!("bad header Authorization: Basic {pair}")}]}).to_string(),
        json!({"errors": [{"code": USER.1, "message": format!("{pair} of {}", USER.1)}]}).to_string(),
        format!("you sent {pair} to http://user:{}@{}/x?token={pair}", USER.1, registry.address),
    ] {
        registry.on("GET", "/manifests/", 1, Fault::Answer("418 I'm a teapot", Vec::new(), body.into_bytes()));
        let error = store.manifest("v1").unwrap_err();
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains(USER.1) && !shown.contains(pair) && shown.contains("***"), "{shown}");
    }
}

/// Whatever the level of the log is.
#[test]
fn no_log_has_credentials() {
    let (tokens, folder) = (Tokens::start(), tempfile::tempdir().unwrap());
    let image = |address: &str| format!("{address}/{}:v1", repository());
    let bucket = format!("s3://{BUCKET}/team:v1");
    let nowhere = format!("http://{}", WITH_USER.address);
    for (target, host) in [
        (image(&WITH_USER.address), &*WITH_USER.address),
        (image(&tokens.registry.address), &tokens.registry.address),
        (bucket, "none"),
    ] {
        config(folder.path(), host, user());
        let folder = folder.path().display().to_string();
        let env = [
            ("RUST_LOG", "trace"),
            ("DOCKER_CONFIG", &folder),
            ("AWS_ACCESS_KEY_ID", "key-of-aws"),
            ("AWS_SECRET_ACCESS_KEY", "secret-of-aws"),
            ("AWS_SESSION_TOKEN", "token-of-aws"),
            ("AWS_ENDPOINT_URL", &nowhere),
        ]
        .map(|(name, value)| (name, value.to_owned()));
        let args = ["inspect", &target, "--retry-for", "0s", "--insecure", host, "--token-hosts", "127.0.0.1"];
        let (_, out, log) = super::prune::run(&args, &env);
        assert!(!log.is_empty(), "{target}");
        for secret in [USER.1, "dXNlcjpzZWNyZXQ=", "Bearer ey", "secret-of-aws", "token-of-aws", "Signature="] {
            assert!(!log.contains(secret) && !out.contains(secret), "{target}: {log}");
        }
    }
}

/// A registry and a token server in one, whose tokens hold a line break: nothing that could be shown, and no reason to ask
/// for ever.
#[test]
fn a_token_that_can_not_be_shown_is_asked_for_once() {
    let count = std::sync::Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let address = support::http::serve(move |head, mut stream| {
        // Whoever asked for ever would get something else some day.
        let status = if counted.fetch_add(1, Ordering::SeqCst) < 50 { "401 Unauthorized" } else { "404 Not Found" };
        if head.target().starts_with("/token") {
            return support::http::answer(&mut stream, "200 OK", &[], br#"{"token":"a\nX-Evil: 1"}"#);
        }
        let bearer = format!("Bearer realm=\"http://{}/token\"", head.header("host").unwrap_or_default());
        support::http::answer(&mut stream, status, &[("WWW-Authenticate", &bearer)], b"")
    });
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.json");
    let error = open(&address, "test/a", &options_with(&absent)).manifest("v1").unwrap_err().to_string();
    assert!(error.contains("no token in what"), "{error}");
    assert!(count.load(Ordering::SeqCst) < 10);
}
