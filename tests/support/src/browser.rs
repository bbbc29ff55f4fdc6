//! A headless Chromium, spoken to over two pipes (Chrome DevTools Protocol; `--remote-debugging-pipe`: messages end with a zero
//! byte).

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::Duration,
};

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

/// What Chromium is called.
const NAMES: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];

/// After so long without an answer a test fails instead of waiting on.
const PATIENCE: Duration = Duration::from_secs(90);

/// A browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    last: u64,
    session: Option<String>,
    events: Vec<Value>,
    _profile: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium; none, and a line that says so, if there is none on this machine.
    pub fn start() -> Option<Self> {
        let runs = |name: &&&str| Command::new(name).arg("--version").output().is_ok_and(|done| done.status.success());
        let Some(name) = NAMES.iter().find(runs) else {
            println!("SKIPPED: there is no Chromium (Debian: chromium)");
            return None;
        };
        let profile = tempfile::tempdir().expect("a folder");
        // The pipes are its file descriptors 3 and 4.
        let mut command = Command::new("sh");
        command.args(["-c", "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null", "sh", name]).args([
            "--headless=new",
            "--remote-debugging-pipe",
            // Root can't have its sandbox.
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            "--hide-scrollbars",
        ]);
        command.arg(format!("--user-data-dir={}", profile.path().display()));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("sh starts");
        let (sender, from) = mpsc::channel();
        let output = child.stdout.take().expect("a pipe");
        thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let Ok(message) = serde_json::from_slice(&message) else { return };
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let to = child.stdin.take().expect("a pipe");
        let mut browser = Self { child, to, from, last: 0, session: None, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let target = json!({"targetId": target["targetId"], "flatten": true});
        browser.session = browser.call("Target.attachToTarget", target)["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Network", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// How large the page is shown, in CSS pixels, and whether its reader prefers dark colours.
    pub fn show_as(&mut self, width: u32, height: u32, is_dark: bool) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let scheme = if is_dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features);
    }

    /// Whether scripts of pages run.
    pub fn run_scripts(&mut self, run: bool) {
        self.call("Emulation.setScriptExecutionDisabled", json!({"value": !run}));
    }

    /// Opens a file and waits until it is loaded.
    pub fn open(&mut self, file: &Path) {
        self.events.clear();
        self.call("Page.navigate", json!({"url": format!("file://{}", file.display())}));
        while !self.events.iter().any(|event| event["method"] == "Page.loadEventFired") {
            self.receive();
        }
    }

    /// The value of an expression.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self
            .call("Runtime.evaluate", json!({"expression": expression, "returnByValue": true, "awaitPromise": true}));
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer:#}");
        answer["result"]["value"].clone()
    }

    /// Waits until an expression is true.
    pub fn wait_for(&mut self, expression: &str) {
        let promise = format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20); look(); }})"
        );
        self.evaluate(&promise);
    }

    /// Clicks in the middle of the first element that `selector` names, as a mouse does.
    pub fn click(&mut self, selector: &str) {
        let place = self.evaluate(&format!(
            "(() => {{ const all = Array.from(document.querySelectorAll({selector:?}));
               const seen = all.find((one) => one.getClientRects().length);
               seen.scrollIntoView({{block: 'center', behavior: 'instant'}});
               const at = seen.getBoundingClientRect(); return [at.x + at.width / 2, at.y + at.height / 2]; }})()"
        ));
        for kind in ["mousePressed", "mouseReleased"] {
            let event = json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": 1});
            self.call("Input.dispatchMouseEvent", event);
        }
    }

    /// Presses a key that writes a character.
    pub fn press(&mut self, key: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { key } else { "" };
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "text": text}));
        }
    }

    /// Writes where the focus is.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// The whole page, or what is seen of it, as PNG.
    pub fn screenshot(&mut self, whole: bool) -> Vec<u8> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": whole}));
        BASE64_STANDARD.decode(shot["data"].as_str().expect("an image")).expect("base64")
    }

    /// Whatever the page asked for since it was opened, itself included, and what the browser complained about.
    pub fn asked_for(&mut self) -> (Vec<String>, Vec<String>) {
        // What is under way has been told by the time of an answer.
        self.evaluate("0");
        let of = |method: &str, pointer: &str| -> Vec<String> {
            let events = self.events.iter().filter(|event| event["method"] == method);
            events.filter_map(|event| Some(event.pointer(pointer)?.as_str()?.to_owned())).collect()
        };
        let mut complaints = of("Log.entryAdded", "/params/entry/text");
        complaints.extend(of("Runtime.exceptionThrown", "/params/exceptionDetails/text"));
        (of("Network.requestWillBeSent", "/params/request/url"), complaints)
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.last += 1;
        let (id, mut message) = (self.last, json!({"id": self.last, "method": method, "params": params}));
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.to.write_all(format!("{message}\0").as_bytes()).expect("Chromium runs");
        loop {
            let answer = self.receive();
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer:#}");
                return answer["result"].clone();
            }
        }
    }

    fn receive(&mut self) -> Value {
        let message = self.from.recv_timeout(PATIENCE).expect("Chromium answers");
        if message.get("method").is_some() {
            self.events.push(message.clone());
        }
        message
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
