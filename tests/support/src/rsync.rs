//! A folder that rsync reaches on the loopback interface: from a daemon, and over ssh.

use std::{
    env, fs,
    net::TcpStream,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use super::{
    buckets::all_stores,
    process::{self, Program},
    runner,
};

/// The user of the module `locked`, and the password.
pub const USER: (&str, &str) = ("ci", "not-a-secret");

/// A daemon (rsyncd) with the modules `ci`, `locked` (for [`USER`]), `frozen` (read-only), `refusing` (no deletion), `few` (no
/// connection at a time) and `full` (a megabyte of room).
pub struct Rsyncd {
    /// Host and port.
    pub address: String,
    program: Program,
}

/// A server of ssh that takes one key.
pub struct Sshd {
    /// `user@host:port`.
    pub login: String,
    /// What lies in it is on this machine as it is there.
    pub folder: PathBuf,
    /// Private key and known hosts, by the names that a Secret for them has.
    pub secret: Vec<(&'static str, String)>,
    program: Program,
}

impl Rsyncd {
    /// None where there is no rsync and `TEKTON_WRAP_ALL_STORES` does not ask for it.
    pub async fn start() -> Option<Self> {
        let rsync = installed("rsync", "rsync")?;
        let (dir, port) = (process::folder("rsyncd"), process::free_port());
        ["data", "full"].iter().for_each(|name| fs::create_dir(dir.join(name)).expect("a folder"));
        private(&dir.join("secrets"), &format!("{}:{}\n", USER.0, USER.1));
        fs::write(dir.join("rsyncd.conf"), configuration(&dir)).expect("its configuration");
        let listen = format!(
            "exec '{}' --daemon --no-detach --config='{}/rsyncd.conf' --address=127.0.0.1 --port={port}",
            rsync.display(),
            dir.display()
        );
        // A namespace of its own, so that the small file system ends with it.
        let small = format!("mount -t tmpfs -o size=1m,mode=777 tmpfs '{}/full'; {listen}", dir.display());
        let (unshare, script) = match runner::isolation() {
            Ok(unshare) => (unshare, small),
            Err(_) => (&["env"][..], listen),
        };
        let args = unshare[1..].iter().copied().chain(["sh", "-c", &script]).map(str::to_owned).collect::<Vec<_>>();
        let program = Program::start(dir, Path::new(unshare[0]), &args, &[]);
        let address = format!("127.0.0.1:{port}");
        program.wait_until("rsyncd", async || TcpStream::connect(&address).is_ok()).await;
        Some(Self { address, program })
    }

    /// What the module `ci` has.
    pub fn folder(&self) -> PathBuf {
        self.program.dir().join("data")
    }

    /// How many bytes each run sent that asked for something whose path has `part` in it, in the order of their ends.
    pub fn sent(&self, part: &str) -> Vec<u64> {
        let log = fs::read_to_string(self.program.dir().join("log")).expect("its log");
        let process = |line: &str| Some(line.split_once('[')?.1.split_once(']')?.0.to_owned());
        let ours: Vec<String> = log
            .lines()
            .filter(|line| line.contains("] rsync on ") && line.contains(part))
            .filter_map(process)
            .collect();
        let sent = |line: &str| line.split_once("] sent ")?.1.split(' ').next()?.parse().ok();
        log.lines()
            .filter(|line| process(line).is_some_and(|process| ours.contains(&process)))
            .filter_map(sent)
            .collect()
    }

    /// How many runs of rsync asked for something whose path has `part` in it.
    pub fn runs(&self, part: &str) -> usize {
        let log = fs::read_to_string(self.program.dir().join("log")).expect("its log");
        log.lines()
            .filter(|line| line.contains(part) && ["] rsync to ", "] rsync on "].iter().any(|verb| line.contains(verb)))
            .count()
    }
}

fn configuration(dir: &Path) -> String {
    let modules = [
        ("ci", "data", "read only = no"),
        ("locked", "data", "read only = no\nauth users = ci"),
        ("frozen", "data", "read only = yes"),
        ("refusing", "data", "read only = no\nrefuse options = delete"),
        ("few", "data", "read only = no\nmax connections = -1"),
        ("full", "full", "read only = no"),
    ];
    let dir = dir.display();
    let user = if rustix::process::getuid().is_root() { "uid = 0\ngid = 0\n" } else { "" };
    let mut text = format!(
        "use chroot = no\npid file = {dir}/pid\nlog file = {dir}/log\nlock file = {dir}/lock\nsecrets file = {dir}/secrets\n{user}"
    );
    for (name, path, options) in modules {
        text += &format!("[{name}]\npath = {dir}/{path}\n{options}\n");
    }
    text
}

impl Sshd {
    /// None where there is no rsync or no sshd and `TEKTON_WRAP_ALL_STORES` does not ask for it.
    pub async fn start() -> Option<Self> {
        installed("rsync", "rsync")?;
        let sshd = installed("sshd", "openssh-server")?;
        let (dir, port) = (process::folder("sshd"), process::free_port());
        for name in ["host_key", "key", "other_key"] {
            key(&dir.join(name));
        }
        fs::create_dir(dir.join("data")).expect("a folder");
        fs::copy(dir.join("key.pub"), dir.join("authorized_keys")).expect("the key is authorized");
        let place = dir.display();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {place}/host_key\nAuthorizedKeysFile {place}/authorized_keys\n\
             PidFile none\nStrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        );
        fs::write(dir.join("config"), config).expect("its configuration");
        if rustix::process::getuid().is_root() {
            // sshd(8): "/run/sshd" is where its parts without rights live.
            fs::create_dir_all("/run/sshd").expect("a folder");
        }
        let user = Command::new("id").arg("-un").output().expect("id starts").stdout;
        let login = format!("{}@127.0.0.1:{port}", String::from_utf8(user).expect("a name").trim());
        let read = |name: &str| fs::read_to_string(dir.join(name)).expect("a key");
        let known = |name: &str| format!("[127.0.0.1]:{port} {}", read(name));
        let secret = vec![
            ("ssh-privatekey", read("key")),
            ("known_hosts", known("host_key.pub")),
            ("other-privatekey", read("other_key")),
            ("other_hosts", known("other_key.pub")),
        ];
        let args = ["-D", "-e", "-f", &dir.join("config").display().to_string()].map(str::to_owned);
        let folder = dir.join("data");
        let program = Program::start(dir, &sshd, &args, &[]);
        let address = format!("127.0.0.1:{port}");
        program.wait_until("sshd", async || TcpStream::connect(&address).is_ok()).await;
        Some(Self { login, folder, secret, program })
    }

    /// One of its files.
    pub fn secret(&self, name: &str) -> &str {
        let found = self.secret.iter().find(|(key, _)| *key == name);
        &found.unwrap_or_else(|| panic!("{name}")).1
    }

    /// What it printed so far.
    pub fn log(&self) -> String {
        self.program.log()
    }
}

/// Where the program is; it may be that only root has its folder on the `PATH`.
fn installed(program: &str, package: &str) -> Option<PathBuf> {
    let folders = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&folders).chain(["/usr/sbin", "/usr/bin"].map(PathBuf::from));
    let found = folders.map(|folder| folder.join(program)).find(|path| path.is_file());
    if found.is_none() {
        assert!(!all_stores(), "TEKTON_WRAP_ALL_STORES is set, and there is no {program}: install {package}");
        eprintln!("skipped: rsync, as there is no {program} (package {package})");
    }
    found
}

fn key(path: &Path) {
    let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status();
    assert!(made.expect("ssh-keygen starts").success());
}

fn private(path: &Path, text: &str) {
    fs::write(path, text).expect("a file");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("its mode");
}
