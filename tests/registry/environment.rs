//! What a process takes from its environment: credentials, trust, a proxy. Each case is a process of its own.

use std::{
    env,
    io::Write,
    net::TcpStream,
    process::Command,
    sync::{Arc, Mutex},
};

use serde_json::json;

use super::*;
use crate::support::{
    certificate::{Authority, LOOPBACK},
    http,
    registry::USER,
};

const TARGET: &str = "TEST_TARGET";

/// Stores and reads a blob in a process that has these variables and no others; what became of it.
fn run(target: &str, variables: &[(&str, &Path)]) -> String {
    let output = Command::new(env::current_exe().unwrap())
        .args(["--exact", "environment::child", "--ignored", "--nocapture"])
        .env_clear()
        .env(TARGET, target)
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, result) = text.split_once("RESULT ").unwrap_or_else(|| panic!("no result:\n{text}"));
    result.lines().next().unwrap().to_owned()
}

#[test]
#[ignore = "the other tests here run it"]
fn child() {
    let target: Target = env::var(TARGET).expect("see run").parse().unwrap();
    let content = content(1, 300_000);
    let turn = || -> Result<bool, StoreError> {
        let store = store::open(&target)?;
        let blob = put(&*store, &content)?;
        Ok(get(&*store, &blob).unwrap() == content)
    };
    match turn() {
        Ok(same) => println!("RESULT {same}"),
        Err(error) => println!("RESULT {error}"),
    }
}

#[test]
fn credentials_of_docker_of_tekton_and_of_the_home_folder() {
    let registry = wait_for(Registry::start_with_user());
    let target = format!("{}/test/a", registry.address);
    let (good, bad) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for (folder, password) in [(&good, USER.1), (&bad, "wrong")] {
        let entry = json!({"username": USER.0, "password": password});
        fs::create_dir(folder.path().join(".docker")).unwrap();
        config(&folder.path().join(".docker"), &registry.address, entry.clone());
        config(folder.path(), &registry.address, entry);
    }
    let (good, bad) = (good.path(), bad.path());
    for variables in [
        &[("DOCKER_CONFIG", good), ("TEKTON_WRAP_CREDENTIALS", bad), ("HOME", bad)][..],
        &[("TEKTON_WRAP_CREDENTIALS", good), ("HOME", bad)],
        &[("DOCKER_CONFIG", Path::new("/absent")), ("HOME", good)],
    ] {
        assert_eq!(run(&target, variables), "true", "{variables:?}");
    }
    // What is refused is no reason not to try what else there is.
    assert_eq!(run(&target, &[("DOCKER_CONFIG", bad), ("HOME", good)]), "true");
    let denied = run(&target, &[("DOCKER_CONFIG", bad)]);
    assert!(denied.contains("(401") && denied.ends_with(&bad.join("config.json").display().to_string()), "{denied}");
    assert!(run(&target, &[]).ends_with("neither DOCKER_CONFIG nor HOME is set"));
}

#[test]
fn a_mounted_authority() {
    let authority = Authority::new();
    let registry = wait_for(Registry::start_with_tls(&authority, &LOOPBACK));
    let target = format!("{}/test/a", registry.address);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    fs::write(&file, authority.pem()).unwrap();
    assert_eq!(run(&target, &[("SSL_CERT_FILE", &file)]), "true");
    assert_eq!(run(&target, &[("SSL_CERT_DIR", folder.path())]), "true");
    assert!(run(&target, &[]).contains("unknown authority"));
}

#[test]
fn a_proxy() {
    let authority = Authority::new();
    let registry = wait_for(Registry::start_with_tls(&authority, &["registry.invalid"]));
    let (proxy, asked) = start_proxy(registry.address.clone());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.crt");
    fs::write(&file, authority.pem()).unwrap();
    let (proxy, trust) = (PathBuf::from(format!("http://{proxy}")), ("SSL_CERT_FILE", file.as_path()));
    let target = "registry.invalid/test/a";

    assert_eq!(run(target, &[("HTTPS_PROXY", &proxy), trust]), "true");
    assert!(asked.lock().unwrap().iter().all(|host| host == "registry.invalid:443"));
    let before = asked.lock().unwrap().len();
    assert!(before > 0);

    for exempt in ["a.example, registry.invalid", ".invalid", "invalid"] {
        let result = run(target, &[("HTTPS_PROXY", &proxy), ("NO_PROXY", Path::new(exempt)), trust]);
        assert!(result.contains("unknown host"), "{exempt}: {result}");
    }
    let near = format!("{}/test/a", REGISTRY.address);
    assert_eq!(run(&near, &[("HTTPS_PROXY", &proxy)]), "true");
    assert_eq!(asked.lock().unwrap().len(), before, "none of these went through the proxy");
}

/// A proxy for which every host is the one at `registry`; its address, and the hosts that it was asked for.
fn start_proxy(registry: String) -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let address = {
        let asked = asked.clone();
        http::serve(move |head, client| {
            assert_eq!(head.method(), "CONNECT");
            asked.lock().unwrap().push(head.target().to_owned());
            let mut client = client.into_inner();
            client.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
            // The client waits for that before it goes on, so that nothing of its own was read with the head.
            http::tunnel(client, TcpStream::connect(&registry)?)
        })
    };
    (address, asked)
}
