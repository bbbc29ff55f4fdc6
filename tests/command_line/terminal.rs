//! What somebody at a terminal sees.

use std::{
    fs::File,
    io::Read,
    net::TcpListener,
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::pty::{OpenptFlags, grantpt, ioctl_tiocgptpeer, openpt, unlockpt};

/// Back to the beginning of the line, of which nothing stays.
const CLEAR_LINE: &str = "\r\u{1b}[K";

/// A save to a registry that never answers, until its terminal has shown `wanted`; what it has shown by then, within a minute.
fn shown(flags: &[&str], wanted: &str) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).and_then(|()| unlockpt(&terminal)).unwrap();
    let stderr = ioctl_tiocgptpeer(&terminal, OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let image = format!("{}/a:b", silent.local_addr().unwrap());
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tekton-wrap"));
    command.args(flags).arg("save").arg(dir.path()).arg(&image);
    let mut child = command.stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
    drop(command);
    let (sender, chunks) = mpsc::channel();
    thread::spawn(move || {
        let (mut terminal, mut chunk) = (File::from(terminal), [0; 4096]);
        // An error is how a terminal says that nobody has it open any more.
        while let Ok(len @ 1..) = terminal.read(&mut chunk) {
            let _ = sender.send(String::from_utf8_lossy(&chunk[..len]).into_owned());
        }
    });
    let mut text = String::new();
    while !text.contains(wanted) {
        let Ok(chunk) = chunks.recv_timeout(Duration::from_secs(60)) else { break };
        text += &chunk;
    }
    child.kill().unwrap();
    child.wait().unwrap();
    text
}

#[test]
fn progress_stands_in_one_line() {
    let text = shown(&[], CLEAR_LINE);
    assert!(text.contains(CLEAR_LINE) && text.contains(": storing the image of the run: "), "{text:?}");
    assert!(!text.contains('\n'), "{text:?}");
}

/// Whoever reads JSON wants lines.
#[test]
fn in_json_it_is_lines() {
    let text = shown(&["--log-format=json"], "\n");
    assert!(text.contains("\"event\":\"progress\"") && !text.contains(CLEAR_LINE), "{text:?}");
}
