//! Programs that run beside a test and never longer than it.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

/// Runs the program and ends it, by its process id, when standard input ends. That happens on [`Program`]'s drop and also
/// when the test program ends in any other way (a panic, a signal, with a [`Program`] in a static). SIGKILL, because what
/// these programs write is in the folder that goes with them.
const GUARD: &str = r#"
dir=$1; shift
exec 3<&0 2>"$dir/guard" # it would report the kill
"$@" </dev/null 3<&- >"$dir/log" 2>&1 & program=$!
echo $program >"$dir/pid"
{ read -r _ <&3; [ -e "$dir/exited" ] || kill -9 $program; } &
wait $program; echo $? >"$dir/exited"
wait
rm -rf "$dir"
"#;

/// How long a program may take until it is ready.
const READY: Duration = Duration::from_secs(120);

/// A running program with a folder of its own.
pub struct Program {
    guard: Child,
    dir: PathBuf,
}

/// A new folder for a program; [`Program::start`] takes it over.
pub fn folder(name: &str) -> PathBuf {
    tempfile::Builder::new().prefix(&format!("tekton-wrap-{name}-")).tempdir().expect("a temporary folder").keep()
}

/// A port of the loopback interface that is free now.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
    listener.local_addr().expect("the port").port()
}

impl Program {
    /// Starts `program`; its output goes to `log` in `dir`, which is deleted with it.
    pub fn start(dir: PathBuf, program: &Path, args: &[String], env: &[(&str, &str)]) -> Self {
        let guard = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .arg(&dir)
            .arg(program)
            .args(args)
            .envs(env.iter().copied())
            .stdin(Stdio::piped())
            // Ctrl-C in a terminal reaches a whole process group: the guard has to outlive the test program.
            .process_group(0)
            .spawn()
            .expect("sh starts");
        Self { guard, dir }
    }

    /// The program's own folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// What the program printed so far.
    pub fn log(&self) -> String {
        let bytes = fs::read(self.dir.join("log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        let text = fs::read_to_string(self.dir.join("pid")).expect("it was started");
        text.trim().parse().expect("a number")
    }

    /// Whether it has not ended.
    pub fn is_running(&self) -> bool {
        !self.dir.join("exited").exists()
    }

    /// Waits for it to end by itself.
    pub async fn ended(&self) {
        while self.is_running() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits until `ready`; panics with the program's output if it ends before or takes too long.
    pub async fn wait_until(&self, what: &str, ready: impl AsyncFn() -> bool) {
        let start = Instant::now();
        while !ready().await {
            let exited = fs::read_to_string(self.dir.join("exited"));
            assert!(exited.is_err(), "{what}: the program ended with {}:\n{}", exited.unwrap().trim(), self.log());
            assert!(start.elapsed() < READY, "{what}: not ready after {READY:?}:\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.guard.stdin.take());
        // Nothing to do about a failure, and a second panic would abort.
        let _ = self.guard.wait();
    }
}
