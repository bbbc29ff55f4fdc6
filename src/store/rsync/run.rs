//! One run of the program: how far it is, what it said, and how it ended.

use std::{
    io::{self, BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process};

/// So much of what it says is read; a list of a million objects takes less.
const OUTPUT: u64 = 256 << 20;
const REASONS: u64 = 1 << 20;

/// How a run ended.
#[derive(Debug)]
pub struct RunEnd {
    pub how: RunExit,
    /// What it printed.
    pub stdout: Vec<u8>,
    /// What it complained about.
    pub stderr: String,
    /// Where credentials were looked for.
    pub searched: String,
}

/// See [`RunEnd`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunExit {
    /// Its exit code (rsync(1), "EXIT VALUES").
    Code(i32),
    Signal(i32),
    /// It was not begun: a clause.
    NotStarted(String),
    /// A file on its way can't be written or read here: what the system said.
    NoSpool(String),
    /// There are no credentials to begin with: a clause.
    NoLogin(String),
    /// It printed more than can be.
    TooMuch,
}

/// A run that somebody else waits for. It is ended where this is dropped before.
pub struct RunInProgress(pub Arc<SharedRun>);

/// What is known of a run until it has ended.
#[derive(Default)]
pub struct SharedRun {
    state: Mutex<RunFacts>,
    changed: Condvar,
}

#[derive(Default)]
struct RunFacts {
    child: Option<Child>,
    /// The first line that it printed.
    line: Option<Vec<u8>>,
    /// Nobody wants it any more.
    is_stopped: bool,
    ended: Option<Arc<RunEnd>>,
}

impl RunEnd {
    /// A run that there was not.
    pub fn not_begun(how: RunExit) -> Self {
        Self { how, stdout: Vec::new(), stderr: String::new(), searched: String::new() }
    }

    /// Whether nothing went wrong.
    pub fn is_ok(&self) -> bool {
        self.how == RunExit::Code(0)
    }

    /// What it complained about, a line each.
    pub fn complaints(&self) -> impl Iterator<Item = &str> {
        self.stderr.lines().map(str::trim).filter(|line| !line.is_empty())
    }
}

impl RunInProgress {
    /// How it ended, if it has.
    pub fn ended(&self) -> Option<Arc<RunEnd>> {
        self.0.lock().ended.clone()
    }

    /// Waits so long, or until it has ended.
    pub fn wait(&self, time: Duration) {
        let state = self.0.lock();
        if state.ended.is_none() {
            drop(self.0.changed.wait_timeout(state, time));
        }
    }

    /// Waits for the first line that it prints; or, if it ends without one, for how it ended.
    pub fn first_line(&self) -> Result<Vec<u8>, Arc<RunEnd>> {
        let mut state = self.0.lock();
        loop {
            if let Some(line) = &state.line {
                return Ok(line.clone());
            }
            if let Some(ended) = &state.ended {
                return Err(ended.clone());
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Drop for RunInProgress {
    fn drop(&mut self) {
        self.0.stop();
        let mut state = self.0.lock();
        // What it writes to may go then.
        while state.ended.is_none() {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl SharedRun {
    /// Says how it ended.
    pub fn end(&self, ended: RunEnd) {
        self.lock().ended = Some(ended.into());
        self.changed.notify_all();
    }

    fn follow(&self, child: Child) {
        let mut state = self.lock();
        state.child = Some(child);
        if state.is_stopped {
            kill(&mut state);
        }
    }

    fn say(&self, line: &[u8]) {
        if line.ends_with(b"\n") {
            self.lock().line = Some(line.to_owned());
            self.changed.notify_all();
        }
    }

    fn stop(&self) {
        let mut state = self.lock();
        state.is_stopped = true;
        kill(&mut state);
    }

    /// Waits for a process that has closed its output.
    fn reap(&self) -> io::Result<ExitStatus> {
        let child = self.lock().child.take();
        child.ok_or(io::ErrorKind::NotFound)?.wait()
    }

    fn lock(&self) -> MutexGuard<'_, RunFacts> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kill(state: &mut RunFacts) {
    if let Some(child) = &mut state.child {
        // It ends its other half, which writes the file; SIGKILL would leave that running. It may have ended by itself, but as
        // nobody has waited for it, the number is still its own.
        let _ = kill_process(Pid::from_child(child), Signal::TERM);
    }
}

/// Runs the command to its end.
///
/// # Errors
/// If it can't be begun, or what it prints not be read.
pub fn run(command: &mut Command, run: &SharedRun) -> io::Result<RunEnd> {
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let (out, err) = (child.stdout.take(), child.stderr.take());
    run.follow(child);
    let read = thread::scope(|scope| {
        scope.spawn(|| {
            let Some(mut err) = err else { return };
            // What is beyond it is read too, or the program would wait.
            let _ = err.by_ref().take(REASONS).read_to_end(&mut stderr);
            let _ = io::copy(&mut err, &mut io::sink());
        });
        let mut out = BufReader::new(out.ok_or(io::ErrorKind::BrokenPipe)?.take(OUTPUT));
        out.read_until(b'\n', &mut stdout)?;
        run.say(&stdout);
        out.read_to_end(&mut stdout)
    });
    if stdout.len() as u64 == OUTPUT {
        run.stop();
    }
    let status = run.reap()?;
    read?;
    let how = match (status.code(), status.signal()) {
        _ if stdout.len() as u64 == OUTPUT => RunExit::TooMuch,
        (Some(code), _) => RunExit::Code(code),
        (None, signal) => RunExit::Signal(signal.unwrap_or_default()),
    };
    let stderr = String::from_utf8_lossy(&stderr).into_owned();
    Ok(RunEnd { how, stdout, stderr, searched: String::new() })
}
