//! Which hosts are asked, with what, and which are trusted.

use std::{
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;
use tekton_wrap::store::HttpOptions;

use super::*;
use support::{
    certificate::{Authority, LOOPBACK},
    faults::{Fault, Faults},
    http,
};

/// A store whose credential is a token that is shown with every request.
fn with_token(faults: &Faults) -> (Box<dyn Store>, String) {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &faults.address, json!({"registrytoken": "the-token"}));
    let repository = repository();
    (open(&faults.address, &repository, &options_with(&config)), repository)
}

#[test]
fn a_redirect_to_another_host_gets_no_credentials() {
    let (registry, storage) = (Faults::start(&REGISTRY.address), Faults::start(&REGISTRY.address));
    let (store, repository) = with_token(&registry);
    let content = content(1, 1_000_000);
    let blob = put(&*store, &content).unwrap();
    let host = storage.address.replace("127.0.0.1", "localhost");
    let location = format!("http://{host}/v2/{repository}/blobs/{}?signature=s", blob.digest);
    let moved = |status| Fault::Answer(status, vec![("Location", location.clone())], b"moved".to_vec());
    for status in ["307 Temporary Redirect", "302 Found", "301 Moved Permanently", "308 Permanent Redirect"] {
        registry.on("GET", "/blobs/", 1, moved(status));
        assert!(get(&*store, &blob).unwrap() == content);
    }
    registry.on("GET", "/blobs/", 1, moved("307 Temporary Redirect"));
    assert!(store.blob_range(&blob, 10, 20).unwrap() == content[10..30]);
    assert_eq!(storage.all().len(), 5);
    assert!(storage.all().iter().all(|head| head.header("authorization").is_none()));
    assert_eq!(storage.all()[4].header("range"), Some("bytes=10-29"));
    assert!(registry.seen("GET", "/blobs/").iter().all(|h| h.header("authorization") == Some("Bearer the-token")));
}

#[test]
fn an_upload_to_another_host_gets_no_credentials() {
    let (registry, storage) = (Faults::start(&REGISTRY.address), Faults::start(&REGISTRY.address));
    let (store, _) = with_token(&registry);
    registry.on("POST", "/uploads/", 1, Fault::MoveLocation(storage.address.clone()));
    storage.on("PATCH", "", 1, Fault::MoveLocation(storage.address.clone()));
    put(&*store, &content(2, 1_000_000)).unwrap();
    let methods: Vec<_> = storage.all().iter().map(|head| head.method().to_owned()).collect();
    assert_eq!(methods, ["PATCH", "PUT"]);
    assert!(storage.all().iter().all(|head| head.header("authorization").is_none()));
}

#[test]
fn redirects_without_end_are_refused() {
    let registry = Faults::start(&REGISTRY.address);
    let store = open(&registry.address, &repository(), &options());
    let around = Fault::Answer("307 Temporary Redirect", vec![("Location", "/v2/around".to_owned())], Vec::new());
    registry.on("GET", "", usize::MAX, around);
    let error = store.manifest("v1").unwrap_err().to_string();
    assert!(error.contains("redirect"), "{error}");
}

#[test]
fn a_token_server_that_would_get_the_password_in_the_clear_is_refused() {
    let registry = Faults::start(&REGISTRY.address);
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path(), &registry.address, json!({"username": "u", "password": "p"}));
    let challenge = "Bearer realm=\"http://tokens.example.com/\",service=\"s\"".to_owned();
    registry.on(
        "GET",
        "",
        usize::MAX,
        Fault::Answer("401 Unauthorized", vec![("WWW-Authenticate", challenge)], Vec::new()),
    );
    let error = open(&registry.address, "test/a", &options_with(&config)).manifest("v1").unwrap_err().to_string();
    assert!(error.contains("\"tokens.example.com\" without HTTPS"), "{error}");
}

#[test]
fn https_with_an_authority_of_ones_own() {
    let authority = Authority::new();
    let registry = wait_for(Registry::start_with_tls(&authority, &LOOPBACK));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    fs::write(&file, authority.pem()).unwrap();
    let trusting =
        StoreOptions { http: Some(HttpOptions { authorities: vec![file], ..HttpOptions::default() }), ..options() };
    let (address, first_bytes) = watch(registry.address.clone());
    let port = address.split_once(':').unwrap().1;
    for host in [address.clone(), format!("localhost:{port}")] {
        let store = open(&host, &repository(), &trusting);
        let content = content(3, 2_000_000);
        let blob = put(&*store, &content).unwrap();
        assert!(get(&*store, &blob).unwrap() == content);

        let error = open(&host, "test/a", &options()).manifest("v1").unwrap_err().to_string();
        let says = format!("{host}/test/a:v1: {host} has a certificate of an unknown authority; mount");
        assert!(error.starts_with(&says) && error.contains("SSL_CERT_FILE"), "{error}");
    }
    const HANDSHAKE: u8 = 22;
    assert!(first_bytes.lock().unwrap().iter().all(|byte| *byte == HANDSHAKE), "it is not asked again without TLS");

    let elsewhere = wait_for(Registry::start_with_tls(&authority, &["registry.example.com"]));
    let error = open(&elsewhere.address, "test/a", &trusting).manifest("v1").unwrap_err().to_string();
    assert!(error.contains("has a certificate for another name"), "{error}");
}

/// Goes between a client and the registry; its address, and the first byte of each connection.
fn watch(registry: String) -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let first_bytes = Arc::new(Mutex::new(Vec::new()));
    let seen = first_bytes.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let (seen, registry) = (seen.clone(), TcpStream::connect(&registry).unwrap());
            thread::spawn(move || {
                let mut first = [0];
                if client.peek(&mut first).is_ok_and(|count| count == 1) {
                    seen.lock().unwrap().push(first[0]);
                    let _ = http::tunnel(client, registry);
                }
            });
        }
    });
    (address, first_bytes)
}

#[test]
fn unknown_hosts() {
    let error = open("registry.invalid", "me/a", &options()).manifest("v1").unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("registry.invalid/me/a:v1: registry.invalid is an unknown host; check its name"),
        "{text}"
    );
}

#[test]
fn a_host_where_nothing_listens() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    drop(listener);
    let error = open(&host, "me/a", &impatient()).put_bytes(b"x").unwrap_err().to_string();
    assert!(error.contains("nothing listens there") && error.contains("(tried "), "{error}");
}

#[test]
fn a_host_that_never_answers() {
    // It takes connections (the system does) and reads nothing.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap().to_string();
    let short = Duration::from_millis(100);
    let http = HttpOptions { connect_timeout: short, stall_timeout: short, ..HttpOptions::default() };
    let error =
        open(&host, "me/a", &StoreOptions { http: Some(http), ..impatient() }).manifest("v1").unwrap_err().to_string();
    assert!(error.contains("in time") || error.contains("timed out"), "{error}");
}

#[test]
fn something_that_is_no_registry() {
    let registry = Faults::start(&REGISTRY.address);
    let store = open(&registry.address, &repository(), &options());
    let page = Fault::Answer("200 OK", vec![("Content-Type", "text/html".to_owned())], b"<html>hello".to_vec());
    registry.on("GET", "/manifests/", 1, page);
    let error = store.manifest("v1").unwrap_err().to_string();
    assert!(error.contains("no image manifest but text/html"), "{error}");
}

/// It takes the first bytes of a TLS handshake for the beginning of a line, and waits for its end.
#[test]
fn a_plain_registry_that_says_nothing_to_a_tls_hello() {
    let registry = &REGISTRY.address;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                let mut first = [0];
                let _ = client.peek(&mut first);
                match first[0] {
                    b'A'..=b'Z' => drop(http::tunnel(client, TcpStream::connect(registry).unwrap())),
                    _ => thread::sleep(Duration::from_secs(60)),
                }
            });
        }
    });
    let start = Instant::now();
    let store = open(&address, &repository(), &options());
    let blob = put(&*store, b"content").unwrap();
    assert_eq!(get(&*store, &blob).unwrap(), b"content");
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// A service name or a private address is asked over plain HTTP only where that is said.
#[test]
fn plain_http_is_used_for_near_and_listed_hosts_only() {
    let port = REGISTRY.address.split_once(':').unwrap().1;
    // No name of this machine is among those that are always near, but the system answers on all of 127.0.0.0/8; so that a
    // name is needed that resolves to it and ends in another way.
    let host = format!("ip6-localhost:{port}");
    if std::net::ToSocketAddrs::to_socket_addrs(&host).is_err() {
        eprintln!("skipped: ip6-localhost is unknown here");
        return;
    }
    let front = Faults::start(&REGISTRY.address);
    let port = front.address.split_once(':').unwrap().1;
    let Ok(listener) = TcpListener::bind(format!("[::1]:{port}")) else {
        eprintln!("skipped: there is no IPv6 here");
        return;
    };
    let registry = REGISTRY.address.clone();
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let registry = TcpStream::connect(&registry).unwrap();
            thread::spawn(move || http::tunnel(client, registry));
        }
    });
    let host = format!("ip6-localhost:{port}");
    let error = open(&host, "test/a", &options()).manifest("v1").unwrap_err().to_string();
    let says = format!(
        "{host} does not speak HTTPS; where it is meant to be asked over plain HTTP, list it in TEKTON_WRAP_INSECURE or --insecure: {host}"
    );
    assert!(error.contains(&says), "{error}");
    let listed = StoreOptions { insecure: vec![host.clone()], ..options() };
    put(&*open(&host, &repository(), &listed), b"x").unwrap();
}

/// What people type by mistake: an ordinary web server.
#[test]
fn a_web_server() {
    let address = http::serve(|head, mut client| {
        let status = if head.method() == "POST" { "405 Method Not Allowed" } else { "404 Not Found" };
        http::answer(&mut client, status, &[("Content-Type", "text/html; charset=utf-8")], b"<!DOCTYPE html><p>no</p>")
    });
    let store = open(&address, "me/a", &options());
    let error = store.manifest("v1").unwrap_err().to_string();
    assert!(
        error.contains(&format!("unexpected response from {address}")) && error.ends_with("is it a registry?"),
        "{error}"
    );
    let error = put(&*store, b"x").unwrap_err().to_string();
    assert!(error.contains("405") && error.contains("takes no uploads"), "{error}");
}

/// A page for people does not mean that an image is there, nor that it is not.
#[test]
fn a_registry_behind_a_server_with_pages() {
    let registry = Faults::start(&REGISTRY.address);
    let store = open(&registry.address, &repository(), &options());
    let page = Fault::Answer("404 Not Found", vec![("Content-Type", "text/html".to_owned())], b"<html>".to_vec());
    registry.on("GET", "/manifests/", 1, page);
    assert!(store.manifest("v1").unwrap().is_none());
}

/// Bytes come, but so few that it would take for ever: another connection is tried, whatever is read. Takes the minute that
/// they are given.
#[test]
fn answers_that_trickle() {
    const PARTS: [&str; 3] = ["/blobs/", "/manifests/v1", "/tags/list"];
    let registry = Faults::start(&REGISTRY.address);
    let store = open(&registry.address, &repository(), &options());
    let content = content(9, 200_000);
    let blob = put(&*store, &content).unwrap();
    let image = manifest(&store.put_bytes(b"{}").unwrap(), &blob);
    store.put_manifest("v1", MANIFEST, &image).unwrap();
    for part in PARTS {
        registry.on("GET", part, 1, Fault::Trickle(1, Duration::from_secs(3)));
    }
    thread::scope(|scope| {
        scope.spawn(|| assert!(get(&*store, &blob).unwrap() == content));
        scope.spawn(|| assert_eq!(store.manifest("v1").unwrap().unwrap().bytes, image));
        scope.spawn(|| assert_eq!(store.tags().unwrap(), ["v1"]));
    });
    for part in PARTS {
        assert_eq!(registry.seen("GET", part).len(), 2, "{part}");
    }
}
