//! A standard output or error stream that is closed, full, or that nobody reads to its end never makes a command abort.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus, Stdio},
};

/// What becomes of a stream.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is closed: `>&-`.
    Closed,
    /// Each write fails: `/dev/full`.
    Full,
    /// Whoever reads it goes after the first bytes: `| head -1`.
    Abandoned,
}

/// A folder with an image, and commands that write something.
fn commands(dir: &Path) -> Vec<Vec<String>> {
    let file = |name: &str| dir.join(name).display().to_string();
    let image = format!("dir://{}", file("image"));
    std::fs::create_dir(dir.join("tree")).unwrap();
    std::fs::write(dir.join("tree/file"), "text").unwrap();
    let saved = Command::new(env!("CARGO_BIN_EXE_tekton-wrap")).args(["save", &file("tree"), &image]).status().unwrap();
    assert!(saved.success());
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/build-and-test.yaml");
    let lines = [
        "--help".to_owned(),
        "--version".to_owned(),
        "no-such-command".to_owned(),
        format!("render -f {example}"),
        format!("render -f {example} --explain"),
        format!("render -f {example} --explain -o html"),
        "version --client".to_owned(),
        format!("render -f {}", file("absent.yaml")),
        format!("inspect {image}"),
        format!("inspect {image} --tree"),
        format!("inspect dir://{}", file("absent")),
        format!("save {} {image}", file("tree")),
        format!("save {} {image}", file("absent")),
        format!("restore {image} {}", file("restored")),
        "restore".to_owned(),
        "save".to_owned(),
        format!("prune {image}"),
        format!("webhook --image=i --tls-dir={}", file("absent")),
        format!("webhook --image=i --tls-dir={} --log-format=json", file("absent")),
    ];
    lines.iter().map(|line| line.split(' ').map(str::to_owned).collect()).collect()
}

#[test]
fn no_command_aborts() {
    let dir = tempfile::tempdir().unwrap();
    for arguments in commands(dir.path()) {
        for fate in [Fate::Closed, Fate::Full, Fate::Abandoned] {
            for streams in ["1", "2", "1 2"] {
                let status = run(&arguments, fate, streams);
                let what = format!("{arguments:?} with {fate:?} {streams}: {status}");
                assert!(status.signal().is_none() && matches!(status.code(), Some(0..=2)), "{what}");
            }
        }
    }
}

/// What could not be written is not passed over in silence.
#[test]
fn output_that_is_lost_is_a_failure() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/build-and-test.yaml");
    let arguments = ["render", "-f", example].map(str::to_owned);
    assert_eq!(run(&arguments, Fate::Full, "1").code(), Some(1));
    assert_eq!(run(&arguments, Fate::Abandoned, "1").code(), Some(0));
}

fn run(arguments: &[String], fate: Fate, streams: &str) -> ExitStatus {
    let program = env!("CARGO_BIN_EXE_tekton-wrap");
    let mut command = match fate {
        Fate::Closed => {
            let mut command = Command::new("sh");
            let closed: Vec<String> = streams.split(' ').map(|stream| format!("{stream}>&-")).collect();
            command.args(["-c", &format!("exec \"$@\" {}", closed.join(" ")), "sh", program]);
            command
        }
        _ => Command::new(program),
    };
    command.args(arguments).env("RUST_LOG", "trace").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut reader = None;
    let end = match fate {
        Fate::Closed => None,
        Fate::Full => Some(OpenOptions::new().write(true).open("/dev/full").unwrap()),
        Fate::Abandoned => {
            let (read, write) = std::io::pipe().unwrap();
            reader = Some(read);
            Some(File::from(std::os::fd::OwnedFd::from(write)))
        }
    };
    if let Some(end) = end {
        for stream in streams.split(' ') {
            let end = end.try_clone().unwrap();
            if stream == "1" {
                command.stdout(end)
            } else {
                command.stderr(end)
            };
        }
    }
    let mut child = command.spawn().unwrap();
    // The command itself holds the ends to write to.
    drop(command);
    if let Some(mut reader) = reader {
        let _ = reader.read(&mut [0; 1]);
        drop(reader);
    }
    child.wait().unwrap()
}
