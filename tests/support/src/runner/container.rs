//! One step's process: a mount namespace with a root of its own, on this machine's programs and its network.
//!
//! util-linux `unshare` makes the namespace, a shell in it makes the mounts and changes its root, and a second shell, in
//! the new root and in the step's working directory, waits on its standard input for the command. So a container has its
//! mounts and its working directory long before its step runs, as in a pod, where all containers start together.

use std::{
    fmt::Write as _,
    fs,
    io::{self, BufRead, BufReader, PipeReader, Write},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::OnceLock,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process_group};

/// What a container sees of this machine, read-only: programs, libraries, settings, devices.
const HOST: [&str; 12] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr", "etc", "nix", "dev", "proc", "sys"];

/// Programs are found as in most images.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the waiting shell says when it is in place.
const READY: &str = "tekton-wrap-container-ready";

/// A folder or file of this machine under a path of the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What is mounted.
    pub host: PathBuf,
    /// Where the container sees it.
    pub path: String,
    /// Whether writing is refused.
    pub read_only: bool,
}

/// A container that waits for its command.
pub struct Container {
    child: Child,
    input: ChildStdin,
    output: BufReader<PipeReader>,
}

/// How a step's process ended.
pub enum Exit {
    /// By itself, or killed by a signal from elsewhere.
    Status(ExitStatus),
    /// Killed because it was over.
    Killed,
}

impl Container {
    /// Starts a container; `root` is a new, empty folder, `mounts` are made in the given order.
    pub fn start(root: &Path, mounts: &[Mount], working_dir: &str) -> io::Result<Self> {
        fs::create_dir_all(root)?;
        let (reader, writer) = io::pipe()?;
        let unshare = isolation().map_err(io::Error::other)?;
        let mut child = Command::new(unshare[0])
            .args(&unshare[1..])
            .args(["/bin/sh", "-c", &setup(root, mounts)])
            .env_clear()
            .env("PATH", PATH)
            .stdin(Stdio::piped())
            .stdout(writer.try_clone()?)
            .stderr(writer)
            .process_group(0)
            .spawn()?;
        let mut input = child.stdin.take().expect("stdin is piped");
        let dir = quote(working_dir);
        // A container that could not start is found out by `ready`.
        let _ = writeln!(input, "mkdir -p {dir} && cd {dir} && echo {READY} || exit 1");
        Ok(Self { child, input, output: BufReader::new(reader) })
    }

    /// Waits until the container has its mounts and its working directory; the error is what its shells printed.
    pub fn ready(&mut self) -> Result<(), String> {
        let mut printed = String::new();
        loop {
            let mut line = String::new();
            match self.output.read_line(&mut line) {
                Ok(0) => return Err(printed.trim_end().to_owned()),
                Ok(_) if line.trim_end() == READY => return Ok(()),
                Ok(_) => printed += &line,
                Err(e) => return Err(e.to_string()),
            }
        }
    }

    /// Runs the command until it ends or is `over`, and hands its lines of log to `print`.
    pub fn run(
        mut self,
        argv: &[String],
        env: &[(String, String)],
        over: impl Fn() -> bool,
        print: impl FnMut(String) + Send,
    ) -> io::Result<Exit> {
        let words = env.iter().map(|(k, v)| quote(&format!("{k}={v}"))).chain(argv.iter().map(|a| quote(a)));
        let words = words.collect::<Vec<_>>().join(" ");
        let defaults = format!("PATH={PATH} HOME=/root");
        // A shell that has died is seen by its exit status.
        let _ = writeln!(self.input, "exec env -i {defaults} {words} </dev/null");
        drop(self.input);
        let output = self.output;
        let mut child = self.child;
        thread::scope(|scope| {
            scope.spawn(move || copy_lines(output, print));
            wait(&mut child, over)
        })
    }

    /// Ends a container whose command will not be run.
    pub fn drop_unused(mut self) {
        drop(self.input);
        let _ = self.child.wait();
    }
}

/// The command that makes a mount namespace here: as root, or as root of a new user namespace.
pub fn isolation() -> Result<&'static [&'static str], String> {
    const WAYS: [&[&str]; 2] = [&["unshare", "--mount"], &["unshare", "--user", "--map-root-user", "--mount"]];
    static FOUND: OnceLock<Option<&[&str]>> = OnceLock::new();
    let works = |way: &&&[&str]| {
        let mut try_it = Command::new(way[0]);
        try_it.args(&way[1..]).args(["sh", "-c", "mount -t tmpfs tmpfs /tmp"]);
        try_it.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|s| s.success())
    };
    FOUND.get_or_init(|| WAYS.iter().find(works).copied()).ok_or_else(|| {
        "no step can be played here: neither `unshare --mount` nor `unshare --user --map-root-user --mount` is allowed; \
         run as root or allow unprivileged user namespaces"
            .to_owned()
    })
}

/// The script that makes the container's root and starts the waiting shell in it.
fn setup(root: &Path, mounts: &[Mount]) -> String {
    let root = root.display().to_string();
    let at = |path: &str| quote(&format!("{root}/{}", path.trim_start_matches('/')));
    let mut script = format!("set -e\nmount -t tmpfs -o mode=755 tmpfs {}\n", quote(&root));
    for name in HOST {
        let host = format!("/{name}");
        match fs::symlink_metadata(&host) {
            Ok(meta) if meta.is_symlink() => {
                let link = fs::read_link(&host).unwrap_or_default();
                writeln!(script, "ln -s {} {}", quote(&link.to_string_lossy()), at(name))
            }
            Ok(meta) if meta.is_dir() => {
                writeln!(script, "mkdir {0}\nmount --rbind {host} {0}", at(name)).unwrap();
                if ["dev", "proc", "sys"].contains(&name) {
                    Ok(())
                } else {
                    writeln!(script, "{}", read_only(&at(name)))
                }
            }
            _ => Ok(()),
        }
        .expect("writing to a string can't fail");
    }
    writeln!(script, "mkdir -m 1777 {}\nmkdir -m 700 {}\nmkdir {}", at("tmp"), at("root"), at("run")).unwrap();
    for mount in mounts {
        let path = at(&mount.path);
        let make = if mount.host.is_dir() { "mkdir -p" } else { "install -D /dev/null" };
        writeln!(script, "[ -e {path} ] || {make} {path}").unwrap();
        writeln!(script, "mount --bind {} {path}", quote(&mount.host.display().to_string())).unwrap();
        if mount.read_only {
            writeln!(script, "{}", read_only(&path)).unwrap();
        }
    }
    format!("{script}exec chroot {} /bin/sh\n", quote(&root))
}

/// In a user namespace a mount keeps the restrictions that it had outside, and they must be named again.
fn read_only(path: &str) -> String {
    let tries = ["ro", "ro,nosuid,nodev", "ro,nosuid,nodev,noexec"];
    let tries = tries.map(|options| format!("mount -o remount,bind,{options} {path} 2>/dev/null"));
    tries.join(" || ")
}

fn wait(child: &mut Child, over: impl Fn() -> bool) -> io::Result<Exit> {
    let group = Pid::from_child(child);
    let mut pause = Duration::from_millis(1);
    let exit = loop {
        if let Some(status) = child.try_wait()? {
            break Exit::Status(status);
        }
        if over() {
            kill_process_group(group, Signal::KILL)?;
            child.wait()?;
            break Exit::Killed;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(10));
    };
    // What the step left running ends with its container.
    let _ = kill_process_group(group, Signal::KILL);
    Ok(exit)
}

fn copy_lines(mut output: impl BufRead, mut print: impl FnMut(String)) {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
        print(String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line)).into_owned());
        line.clear();
    }
}

/// `text` as one word for the shell.
fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}
