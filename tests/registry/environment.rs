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
use support::{
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

#[test]
fn credentials_of_a_mounted_secret_and_of_podman() {
    let registry = wait_for(Registry::start_with_user());
    let target = format!("{}/test/a", registry.address);
    let entry = json!({"username": USER.0, "password": USER.1});
    let folder = tempfile::tempdir().unwrap();
    let secret = folder.path().join("secret");
    fs::create_dir_all(&secret).unwrap();
    fs::write(secret.join(".dockercfg"), json!({registry.address.clone(): entry}).to_string()).unwrap();
    let podman = folder.path().join("containers");
    fs::create_dir_all(&podman).unwrap();
    let file = podman.join("auth.json");
    fs::write(&file, json!({"auths": {format!("{}/test", registry.address): entry}}).to_string()).unwrap();
    for variable in [
        ("TEKTON_WRAP_REGISTRY_SECRET", secret.as_path()),
        ("REGISTRY_AUTH_FILE", &file),
        ("XDG_RUNTIME_DIR", folder.path()),
        ("XDG_CONFIG_HOME", folder.path()),
    ] {
        assert_eq!(run(&target, &[variable]), "true", "{variable:?}");
    }
    let absent = run(&target, &[("TEKTON_WRAP_REGISTRY_SECRET", Path::new("/absent"))]);
    assert!(absent.starts_with("/absent: ") && absent.contains("does the Secret exist"), "{absent}");
}

#[test]
fn settings_that_can_t_be_used() {
    for (variable, value, says) in [
        ("TEKTON_WRAP_RETRY_FOR", "soon", "invalid value 'soon' for '--retry-for <TIME>'"),
        ("TEKTON_WRAP_MIRROR", "a b", "invalid value 'a b' for '--mirror <HOST>'"),
        (
            "TEKTON_WRAP_CA",
            "/absent",
            "/absent, named by --ca or TEKTON_WRAP_CA, can't be read: No such file or directory",
        ),
        ("TEKTON_WRAP_CA", "/dev/null", "/dev/null, named by --ca or TEKTON_WRAP_CA, holds no certificate in PEM form"),
        ("TEKTON_WRAP_INSECURE", "a/b", "invalid value 'a/b' for '--insecure <HOST>': it has to be host or host:port"),
        (
            "TEKTON_WRAP_TOKEN_HOSTS",
            "a.io,b c",
            "invalid value 'b c' for '--token-hosts <HOST>': it has to be host or host:port",
        ),
        ("HTTPS_PROXY", "http://", "the proxy in HTTPS_PROXY can't be used: it has to be http://"),
        ("HTTPS_PROXY", "socks5://user:hunter2@a:1", "the proxy in HTTPS_PROXY can't be used: only http and https"),
    ] {
        let error = run("registry.invalid/test/a", &[(variable, Path::new(value))]);
        assert!(error.contains(says) && !error.contains("hunter2"), "{error}");
    }
}

#[test]
fn an_authority_beside_those_of_the_system() {
    let authority = Authority::new();
    let registry = wait_for(Registry::start_with_tls(&authority, &LOOPBACK));
    let target = format!("{}/test/a", registry.address);
    let folder = tempfile::tempdir().unwrap();
    let (file, no_pem) = (folder.path().join("ca.crt"), folder.path().join("no.pem"));
    fs::write(&file, authority.pem()).unwrap();
    fs::write(&no_pem, "hello").unwrap();
    for ca in [file.as_path(), folder.path()] {
        assert_eq!(run(&target, &[("TEKTON_WRAP_CA", ca), ("SSL_CERT_FILE", &no_pem)]), "true");
    }
    let error = run(&target, &[("SSL_CERT_FILE", &no_pem)]);
    let says = format!("({}, which SSL_CERT_FILE names, holds no certificate in PEM form)", no_pem.display());
    assert!(error.contains("unknown authority") && error.contains(&says), "{error}");
}

#[test]
fn proxies_that_don_t_work() {
    let retry = ("TEKTON_WRAP_RETRY_FOR", Path::new("1s"));
    let refuse = |status: &'static str| http::serve(move |_, mut client| http::answer(&mut client, status, &[], b""));
    let dead = format!("127.0.0.1:{}", support::process::free_port());
    for (proxy, says) in [
        (refuse("407 Proxy Authentication Required"), "wants a user and a password (407): write them before the host"),
        (refuse("403 Forbidden"), "refused to connect to it (proxy server responded 403"),
        (dead, "can't be reached: nothing listens there"),
    ] {
        let address = PathBuf::from(format!("http://user:hunter2@{proxy}"));
        let error = run("registry.invalid/test/a", &[("HTTPS_PROXY", &address), retry]);
        let named = format!("registry.invalid can't be reached: the proxy {proxy}, named by HTTPS_PROXY,");
        assert!(error.contains(&named) && error.contains(says) && !error.contains("hunter2"), "{error}");
    }
    // The address of the registry is in an exempt network.
    let unused = PathBuf::from("http://proxy.invalid:3128");
    let exempt = [("HTTP_PROXY", unused.as_path()), ("NO_PROXY", Path::new("10.0.0.0/8,127.0.0.0/8")), retry];
    assert_eq!(run(&format!("{}/test/proxy", REGISTRY.address), &exempt), "true");
}
