//! `tekton-wrap webhook` as a process: how it starts, how it refuses to, and how signals end it.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStderr, Command, Stdio},
    time::{Duration, Instant, SystemTime},
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
    answer_when(&webhook.admin, "/readyz", |answer| answer.starts_with("HTTP/1.1 200 "));
    webhook.send(Signal::TERM);
    answer_when(&webhook.admin, "/readyz", |answer| !answer.starts_with("HTTP/1.1 200 "));
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
        // That its cluster did not answer in time may be logged before.
        let mut said = stderr.lines().skip_while(|line| line.contains(" WARN "));
        assert!(said.next().unwrap().starts_with(&format!("tekton-wrap: {sentence}")), "{stderr}");
        assert_eq!(said.next(), None, "{stderr}");
    }
}

/// Variables of OpenTelemetry that are meant for other programs of the namespace.
#[test]
fn no_variable_of_traces_keeps_it_from_starting() {
    let dir = files();
    for (endpoint, fraction) in [("otel:4317", "endpoint=http://x:1"), ("", "")] {
        let mut command = command(&dir, &["--shutdown-delay=0"]);
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint).env("OTEL_TRACES_SAMPLER_ARG", fraction);
        let mut webhook = Webhook::start(&mut command);
        webhook.send(Signal::TERM);
        webhook.end();
    }
}

#[test]
fn values_that_can_not_be_are_refused() {
    let dir = files();
    for (flags, log, sentence) in [
        (&["--image="][..], "info", "invalid value '' for '--image <REF>': "),
        (&["--image=quay.io/Me/x"], "info", "invalid value 'quay.io/Me/x' for '--image <REF>': "),
        (&["--tekton-namespace="], "info", "invalid value '' for '--tekton-namespace <NAME>': "),
        (&["--tekton-namespace=../x"], "info", "invalid value '../x' for '--tekton-namespace <NAME>': "),
        (&["--otlp-endpoint=otel:4317"], "info", "invalid value 'otel:4317' for '--otlp-endpoint <URL>': "),
        (&["--trace-fraction="], "info", "invalid value '' for '--trace-fraction <FRACTION>': "),
        (&["--server-name="], "info", "invalid value '' for '--server-name <NAME>': "),
        (&[], "tekton_wrap=loud", "the environment variable RUST_LOG=\"tekton_wrap=loud\" is not a filter of the log "),
    ] {
        let output = command(&dir, flags).env("RUST_LOG", log).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(sentence), "{stderr}");
    }
}

/// Each condition of readiness, by what makes it fail.
#[test]
fn not_ready_and_why() {
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    let (down, good) = ("http://127.0.0.1:1".to_owned(), (now - day, now + day));
    for ((not_before, not_after), server, flag, line) in [
        (good, api(""), "--server-name=localhost", "[+]certificate ok"),
        (
            (now - 2 * day, now - day),
            api(""),
            "--log-format=text",
            "[-]certificate failed: the serving certificate expired at ",
        ),
        (
            (now + day, now + 2 * day),
            api(""),
            "--log-format=text",
            "[-]certificate failed: the serving certificate is not valid before ",
        ),
        (
            good,
            api(""),
            "--server-name=other.ns.svc",
            "[-]certificate failed: the serving certificate is not for \"other.ns.svc\": ",
        ),
        (good, down, "--log-format=text", "[-]kubernetes-api failed: the Kubernetes API can't be used: "),
        (good, api("/version"), "--log-format=text", "[-]kubernetes-api failed: the Kubernetes API answered 500 "),
        (
            good,
            api("watch=true"),
            "--log-format=text",
            "[-]resolution-requests failed: ResolutionRequests can't be watched: the Kubernetes API answered 500 ",
        ),
    ] {
        let dir = files_for(not_before, not_after, &server);
        let webhook = Webhook::start(&mut command(&dir, &[flag]));
        let is_known = |answer: &str| answer.contains(line) && !answer.contains("not known yet");
        let answer = answer_when(&webhook.admin, "/readyz?verbose", is_known);
        let is_good = line.starts_with("[+]");
        // A cluster that is down keeps ResolutionRequests from being watched too.
        let failing = if server.ends_with(":1") { 2 } else { usize::from(!is_good) };
        assert_eq!(answer.starts_with("HTTP/1.1 200 "), is_good, "{answer}");
        assert_eq!(answer.lines().filter(|line| line.starts_with("[-]")).count(), failing, "{answer}");
        assert_eq!(get(&webhook.admin, "/readyz").starts_with("HTTP/1.1 200 "), is_good);
    }
}

/// In both text formats, and as Prometheus' own linter wants them, if it has been built (tests/assets/build promtool).
#[test]
fn metrics_are_what_collectors_read() {
    let dir = files();
    let webhook = Webhook::start(&mut command(&dir, &[]));
    let body = |accept: &str| {
        let answer = get_accepting(&webhook.admin, "/metrics", accept);
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.to_owned(), body.to_owned())
    };
    let (head, open_metrics) = body("application/openmetrics-text; version=1.0.0; charset=utf-8");
    assert!(head.contains("application/openmetrics-text") && open_metrics.ends_with("# EOF\n"), "{head}");
    let (head, prometheus) = body("*/*");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for name in [
        "process_resident_memory_bytes ",
        "tekton_wrap_tls_certificate_not_after_timestamp_seconds 1",
        "tekton_wrap_connections{listener=\"admin\"} 1",
    ] {
        assert!(prometheus.lines().any(|line| line.starts_with(name)), "{name}\n{prometheus}");
    }
    let Some(promtool) = support::assets::built("promtool") else {
        eprintln!("skipped: promtool is not built: tests/assets/build promtool");
        return;
    };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(prometheus.as_bytes()).unwrap();
    let output = check.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
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

/// A certificate that is valid today, and the kubeconfig of a stand-in for a cluster.
fn files() -> TempDir {
    let (now, day) = (SystemTime::now(), Duration::from_secs(24 * 3600));
    files_for(now - day, now + day, &api(""))
}

fn files_for(not_before: SystemTime, not_after: SystemTime, server: &str) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let mut params = rcgen::CertificateParams::new(["localhost".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (not_before.into(), not_after.into());
    let key = rcgen::KeyPair::generate().unwrap();
    fs::write(dir.path().join("tls.crt"), params.self_signed(&key).unwrap().pem()).unwrap();
    fs::write(dir.path().join("tls.key"), key.serialize_pem()).unwrap();
    let kubeconfig = serde_json::json!({
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {}}],
        "current-context": "c",
    });
    fs::write(dir.path().join("kubeconfig"), kubeconfig.to_string()).unwrap();
    dir
}

/// A stand-in for the Kubernetes API that says yes to everything, but 500 to paths with `broken` in them; its address. It is
/// there as long as the test program.
fn api(broken: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream, broken));
        }
    });
    format!("http://{address}")
}

fn answer(mut stream: TcpStream, broken: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap());
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if !matches!(lines.read_line(&mut head), Ok(1..)) {
                return;
            }
        }
        let path = head.split(' ').nth(1).unwrap_or_default();
        let answered = if !broken.is_empty() && path.contains(broken) {
            stream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 4\r\n\r\noops")
        } else if path.contains("watch=true") {
            // A watch without events, until the client goes.
            stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        } else {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
        };
        if answered.is_err() {
            return;
        }
    }
}

/// Asks again and again until the answer `is_right`, which it has to be within a minute.
fn answer_when(address: &str, path: &str, is_right: impl Fn(&str) -> bool) -> String {
    let start = Instant::now();
    loop {
        let answer = get(address, path);
        if is_right(&answer) {
            return answer;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "{answer}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn get(address: &str, path: &str) -> String {
    get_accepting(address, path, "*/*")
}

fn get_accepting(address: &str, path: &str, accept: &str) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\naccept: {accept}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
