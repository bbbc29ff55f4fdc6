//! Runs for each mutant the tests that reach it, the quickest first, until one fails.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// What the tests say about a mutant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Caught,
    /// A test runs much longer than without it.
    TimedOut,
    Missed,
}

/// One test and what is known of it.
pub struct Test {
    program: PathBuf,
    name: String,
    took: Duration,
    reached: BTreeSet<usize>,
}

/// Runs each test of the programs alone, unchanged, to learn what it reaches and how long it takes. Those that fail so are left out,
/// and those of `rooms`.
pub fn tests(programs: &[PathBuf], directory: &Path, rooms: &[String]) -> Vec<Test> {
    let is_left_out = |name: &str| name.split_once("::").is_some_and(|(room, _)| rooms.iter().any(|r| r == room));
    let mut tests = Vec::new();
    for program in programs {
        let list = Command::new(program).args(["--list", "--format=terse"]).output().unwrap();
        let list = String::from_utf8(list.stdout).unwrap();
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        for name in names.filter(|name| !is_left_out(name)) {
            let record = directory.join("../reached");
            let _ = fs::remove_file(&record);
            let start = Instant::now();
            let mut command = command(program, directory);
            command.args(["--exact", name]).env("MUTANTS_REACHED", &record).env("MUTANT", "0");
            if finished(command, Duration::from_secs(300)) != Some(true) {
                eprintln!("mutants: without any mutant {name} fails alone: it is left out");
                continue;
            }
            let reached =
                fs::read_to_string(&record).unwrap_or_default().lines().filter_map(|n| n.parse().ok()).collect();
            tests.push(Test { program: program.clone(), name: name.to_owned(), took: start.elapsed(), reached });
        }
    }
    tests.sort_by_key(|test| test.took);
    for test in tests.iter().rev().take(8) {
        eprintln!("mutants: {} takes {} ms", test.name, test.took.as_millis());
    }
    tests
}

/// Whether a test notices the mutant.
pub fn verdict(mutant: usize, tests: &[Test], directory: &Path) -> Verdict {
    let mut reaching: Vec<_> = tests.iter().filter(|test| test.reached.contains(&mutant)).collect();
    let mut size = 4;
    while !reaching.is_empty() {
        let rest = reaching.split_off(size.min(reaching.len()));
        let mut programs: BTreeMap<&Path, Vec<&Test>> = BTreeMap::new();
        for test in reaching {
            programs.entry(&test.program).or_default().push(test);
        }
        for (program, tests) in programs {
            let mut command = command(program, directory);
            command.arg("--exact").args(tests.iter().map(|test| &test.name)).env("MUTANT", mutant.to_string());
            let usual: Duration = tests.iter().map(|test| test.took).sum();
            match finished(command, usual * 10 + Duration::from_secs(8)) {
                Some(true) => {}
                Some(false) => return Verdict::Caught,
                None => return Verdict::TimedOut,
            }
        }
        (reaching, size) = (rest, size * 4);
    }
    Verdict::Missed
}

fn command(program: &Path, directory: &Path) -> Command {
    // A mutant may ask for memory without an end.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8000000; exec \"$@\"", "sh"]).arg(program).arg("--test-threads=2");
    command.current_dir(directory).envs([("PROPTEST_RNG_SEED", "1"), ("PROPTEST_CASES", "32")]);
    command.env("CARGO_MANIFEST_DIR", directory).env("TMPDIR", temporary(directory));
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
    command
}

/// What an ended test may leave behind.
fn temporary(directory: &Path) -> PathBuf {
    directory.with_extension("tmp")
}

/// Whether it ends well; `None` if it doesn't end in time.
fn finished(mut command: Command, limit: Duration) -> Option<bool> {
    let temporary = temporary(command.get_current_dir().unwrap());
    let _ = fs::remove_dir_all(&temporary);
    fs::create_dir_all(&temporary).unwrap();
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return Some(status.success());
        }
        if Instant::now() > end {
            // What it started goes with it.
            let _ = Command::new("kill").args(["-KILL", "--", &format!("-{}", child.id())]).status();
            let _ = child.wait();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
