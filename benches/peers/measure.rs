//! What a command takes: time, processor time and memory of all its processes together.

use std::{
    collections::HashMap,
    fs,
    io::{Read, Seek},
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

/// One measurement.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    pub tool: String,
    pub row: String,
    pub seconds: f64,
    pub cpu_seconds: f64,
    /// Sum of the highest resident sizes of its processes, the shell's aside.
    pub peak_kib: u64,
    /// Growth of the registry.
    pub sent: u64,
}

impl Sample {
    pub fn to_json(&self) -> String {
        let Self { tool, row, seconds, cpu_seconds, peak_kib, sent } = self;
        format!(
            r#"{{"tool":"{tool}","row":"{row}","seconds":{seconds:.3},"cpu_seconds":{cpu_seconds:.2},"peak_kib":{peak_kib},"sent":{sent}}}"#
        )
    }
}

/// Runs `command`, which must succeed.
pub fn run(mut command: Command) -> Sample {
    let mut said = tempfile::tempfile().expect("a file");
    command.stdout(Stdio::null()).stderr(said.try_clone().expect("another handle"));
    let before = children_cpu();
    let start = Instant::now();
    let mut child = command.spawn().expect("the command starts");
    let (root, done) = (child.id(), AtomicBool::new(false));
    let (status, seconds, peak_kib) = thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peaks = HashMap::new();
            while !done.load(Ordering::Relaxed) {
                look(root, true, &mut peaks);
                thread::sleep(Duration::from_millis(5));
            }
            peaks.values().sum()
        });
        let status = child.wait().expect("the command ends");
        let seconds = start.elapsed().as_secs_f64();
        done.store(true, Ordering::Relaxed);
        (status, seconds, watch.join().expect("the watch ends"))
    });
    if !status.success() {
        let mut text = String::new();
        said.rewind().and_then(|()| said.read_to_string(&mut text)).expect("what it said");
        panic!("{command:?} failed: {text}");
    }
    Sample { seconds, cpu_seconds: children_cpu() - before, peak_kib, ..Sample::default() }
}

/// Notes the highest resident size up to now of process `id`, unless it is the shell, and of all below it.
fn look(id: u32, is_shell: bool, peaks: &mut HashMap<u32, u64>) {
    let read = |file: &str| fs::read_to_string(format!("/proc/{id}/{file}")).unwrap_or_default();
    let children = read(&format!("task/{id}/children"));
    if !is_shell || children.is_empty() {
        let status = read("status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        if let Some(kib) = line.and_then(|line| line.split_whitespace().next()?.parse().ok()) {
            peaks.insert(id, kib);
        }
    } else {
        peaks.remove(&id);
    }
    for child in children.split_whitespace().filter_map(|child| child.parse().ok()) {
        look(child, false, peaks);
    }
}

/// Processor time of all children that ended (proc_pid_stat(5): cutime, cstime, in hundredths of a second).
fn children_cpu() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks = |i: usize| fields.get(i).and_then(|field| field.parse::<f64>().ok()).unwrap_or(0.0);
    (ticks(13) + ticks(14)) / 100.0
}

/// Where and with what this ran, as one line of JSON.
pub fn machine(quick: bool, rounds: usize) -> String {
    let output = |program: &str, args: &[&str]| {
        let output = Command::new(program).args(args).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&output).trim().to_owned()
    };
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu =
        info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("", |(_, cpu)| cpu);
    let cores = thread::available_parallelism().map_or(0, |n| n.get());
    let (release, commit) = (output("uname", &["-r"]), output("git", &["describe", "--always", "--dirty"]));
    // What distributions add to it says nothing of speed.
    let kernel = release.split('-').next().unwrap_or_default();
    let profile = if cfg!(debug_assertions) { "dev" } else { "release" };
    format!(
        r#"{{"cores":{cores},"cpu":"{cpu}","kernel":"{kernel}","commit":"{commit}","profile":"{profile}","quick":{quick},"rounds":{rounds}}}"#
    )
}
