//! `tekton-wrap webhook` as a process: how it starts, how it refuses to, and how signals end it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

#[test]
fn one_signal_ends_it_after_the_shutdown_delay() {
    for signal in [Signal::TERM, Signal::INT] {
        let dir = files();
        let mut webhook = Webhook::start(&mut command(&dir, &["--shutdown-delay=0"]));
        webhook.send(signal);
        assert!(webhook.end().contains("every request is answered"));
    }
}

#[test]
fn readiness_fails_first_and_a_second_signal_ends_it_at_once() {
    let dir = files();
    let mut webhook = Webhook::start(&mut command(&dir, &["--shutdown-delay=86400", "--log-format=json"]));
    assert!(get(&webhook.admin, "/readyz").starts_with("HTTP/1.1 200 "));
    webhook.send(Signal::TERM);
    while get(&webhook.admin, "/readyz").starts_with("HTTP/1.1 200 ") {}
    assert!(get(&webhook.admin, "/readyz").starts_with("HTTP/1.1 503 "));
    assert!(get(&webhook.admin, "/livez").starts_with("HTTP/1.1 200 "));
    webhook.send(Signal::TERM);
    assert!(webhook.end().contains("a second signal"));
}

#[test]
fn what_keeps_it_from_starting_is_said_in_one_sentence() {
    let dir = files();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let busy = taken.local_addr().unwrap();
    let file = |name: &str| dir.path().join(name).display().to_string();
    for (flag, sentence) in [
        (format!("--listen={busy}"), format!("--listen {busy}: ")),
        (format!("--admin-listen={busy}"), format!("--admin-listen {busy}: ")),
        ("--tls-dir=/nowhere".to_owned(), "the file /nowhere/tls.crt can't be read: ".to_owned()),
        (format!("--kubeconfig={}", file("absent")), format!("--kubeconfig {}: ", file("absent"))),
    ] {
        let output = command(&dir, &[&flag]).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.starts_with(&format!("tekton-wrap: {sentence}")), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
}

struct Webhook {
    process: Child,
    stderr: BufReader<ChildStderr>,
    admin: String,
}

impl Webhook {
    /// Waits for the line that says where it listens.
    fn start(command: &mut Command) -> Self {
        let mut process = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut stderr = BufReader::new(process.stderr.take().unwrap());
        let mut line = String::new();
        // That its cluster does not answer may be said before.
        while !line.contains("admin_listen") {
            line.clear();
            assert_ne!(stderr.read_line(&mut line).unwrap(), 0, "it ended");
        }
        let quoted = line.replace("\":\"", "=\"");
        let admin = quoted.split_once("admin_listen=\"").unwrap_or_else(|| panic!("{line}")).1;
        let admin = admin.split_once('"').unwrap().0.to_owned();
        Self { process, stderr, admin }
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }

    /// What it printed until its end, which has to be a success.
    fn end(&mut self) -> String {
        let mut log = String::new();
        self.stderr.read_to_string(&mut log).unwrap();
        assert!(self.process.wait().unwrap().success(), "{log}");
        log
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        // It has ended already unless the test failed.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The webhook with whatever its flags need, and with `flags` in place of those of the same name.
fn command(dir: &TempDir, flags: &[&str]) -> Command {
    let path = |name: &str| dir.path().join(name).display().to_string();
    let needed = [
        "--image=quay.io/me/tekton-wrap:v1".to_owned(),
        "--listen=127.0.0.1:0".to_owned(),
        "--admin-listen=127.0.0.1:0".to_owned(),
        format!("--tls-dir={}", path("")),
        format!("--kubeconfig={}", path("kubeconfig")),
    ];
    let name = |flag: &str| flag.split('=').next().map(str::to_owned);
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    command.arg("webhook").args(flags).env_remove("RUST_LOG");
    command.args(needed.iter().filter(|needed| !flags.iter().any(|flag| name(flag) == name(needed))));
    command
}

/// A certificate and the kubeconfig of a cluster that does not run: it is asked only for runs that are to be wrapped.
fn files() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    fs::write(dir.path().join("tls.crt"), cert.pem()).unwrap();
    fs::write(dir.path().join("tls.key"), signing_key.serialize_pem()).unwrap();
    let kubeconfig = r#"{
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c"
    }"#;
    fs::write(dir.path().join("kubeconfig"), kubeconfig).unwrap();
    dir
}

fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
