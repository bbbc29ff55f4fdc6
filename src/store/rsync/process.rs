//! Runs of the program: their arguments, their environment.

use std::{
    env,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use super::{
    login::RsyncLogin,
    run::{self, RunEnd, RunExit, RunInProgress, SharedRun},
};
use crate::{
    store::{
        StoreOptions,
        cloud::{Environment, Problem},
        net::{http::HttpOptions, pressure::Pressure},
    },
    target::{RsyncPlace, RsyncTransport},
};

const PROGRAM: &str = "rsync";

/// So many runs to one machine at a time: sshd takes ten connections that have not said yet who they are (sshd_config(5),
/// MaxStartups).
const RUNS: usize = 6;

/// With this library ssh finds the user that it runs as although no file of the image names it (nss_wrapper(1)).
const NSS_WRAPPER: &str = "/tekton-wrap/lib/libnss_wrapper.so";

/// Runs rsync between this machine and a place.
pub struct RsyncProcess {
    place: RsyncPlace,
    environment: Environment,
    limits: HttpOptions,
    pressure: Arc<Pressure>,
    /// Files that only it reads.
    folder: PathBuf,
    login: Mutex<Option<Arc<RsyncLogin>>>,
}

/// Whether the program is here.
pub fn is_installed() -> bool {
    let folders = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&folders).any(|folder| folder.join(PROGRAM).is_file())
}

impl RsyncProcess {
    /// `folder` is for files that only the runs read.
    pub fn new(place: &RsyncPlace, options: &StoreOptions, folder: &Path) -> Self {
        let pressure = Pressure::of(&format!("{}://{}", place.transport.scheme(), place.server()));
        pressure.limit_requests(RUNS);
        Self {
            place: place.clone(),
            environment: options.cloud.clone(),
            limits: options.http.clone().unwrap_or_default(),
            pressure,
            folder: folder.to_owned(),
            login: Mutex::new(None),
        }
    }

    /// How much runs there at a time.
    pub fn pressure(&self) -> &Pressure {
        &self.pressure
    }

    /// What brings, or lists, `paths` below the place; into `to`.
    pub fn pull(&self, options: &[&str], paths: &[String], to: &Path) -> RunEnd {
        let paths = paths.iter().map(|path| self.remote(path).into());
        self.run(options, &paths.chain([to.into()]).collect::<Vec<_>>())
    }

    /// What sends the files of the folder `from` to `path` below the place.
    pub fn push(&self, options: &[&str], from: &Path, path: &str) -> RunEnd {
        // With a slash at its end it is what is in the folder.
        self.run(options, &[from.join("").into(), self.remote(path).into()])
    }

    /// As [`Self::pull`], but does not wait for the end.
    pub fn begin_pull(self: &Arc<Self>, options: &'static [&str], path: &str, to: &Path) -> RunInProgress {
        let (process, state) = (self.clone(), Arc::new(SharedRun::default()));
        let (paths, begun) = ([self.remote(path).into(), to.into()], state.clone());
        thread::spawn(move || {
            let ended = process.run_followed(options, &paths, &begun);
            // Whoever waits for the end may remove what the process needs.
            drop(process);
            begun.end(ended);
        });
        RunInProgress(state)
    }

    fn run(&self, options: &[&str], paths: &[OsString]) -> RunEnd {
        self.run_followed(options, paths, &SharedRun::default())
    }

    fn run_followed(&self, options: &[&str], paths: &[OsString], state: &SharedRun) -> RunEnd {
        let login = match self.login() {
            Ok(login) => login,
            Err(problem) => return RunEnd::not_begun(RunExit::NoLogin(problem.clause)),
        };
        let _running = self.pressure.request();
        let mut command = Command::new(PROGRAM);
        for (name, _) in env::vars_os().filter(|(name, _)| is_unwanted(&name.to_string_lossy())) {
            command.env_remove(name);
        }
        // Where one was wanted and there is none it would ask the terminal.
        command.env("RSYNC_PASSWORD", login.password.as_deref().unwrap_or_default());
        command.env("LC_ALL", "C").env("TZ", "UTC0");
        command.args(["--no-motd", "--no-human-readable", "--protect-args"]);
        command.arg(format!("--timeout={}", self.limits.stall_timeout.as_secs().max(1)));
        let connect = self.limits.connect_timeout.as_secs().max(1);
        match self.place.transport {
            RsyncTransport::Daemon => {
                // Or what it says to the daemon waits for an answer to what it said before, several times in each run.
                command.args([format!("--contimeout={connect}"), "--sockopts=TCP_NODELAY".to_owned()]);
            }
            RsyncTransport::Ssh => {
                command.arg(format!("--rsh={}", login.ssh(self.place.port, connect, &self.socket())));
                self.name_user(&mut command);
            }
        }
        command.args(options).args(paths);
        let ended = run::run(&mut command, state).unwrap_or_else(|error| {
            RunEnd::not_begun(RunExit::NotStarted(match error.kind() {
                io::ErrorKind::NotFound => "is not on the PATH".to_owned(),
                _ => format!("can't be started: {error}"),
            }))
        });
        tracing::debug!("{}: {:?} {}", words(&command), ended.how, ended.stderr);
        RunEnd { searched: login.searched.clone(), ..ended }
    }

    /// Where runs meet that share a connection of ssh.
    fn socket(&self) -> PathBuf {
        self.folder.join("ssh")
    }

    fn remote(&self, path: &str) -> String {
        let RsyncPlace { transport, user, host, port, path: folder, .. } = &self.place;
        let user = user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        match transport {
            RsyncTransport::Daemon => format!("rsync://{user}{host}{port}/{folder}/{path}"),
            RsyncTransport::Ssh => format!("{user}{host}:{folder}/{path}"),
        }
    }

    fn login(&self) -> Result<Arc<RsyncLogin>, Problem> {
        let mut login = self.login.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(login) = &*login {
            return Ok(login.clone());
        }
        let found = Arc::new(RsyncLogin::of(&self.place, &self.environment, &self.folder)?);
        Ok(login.insert(found).clone())
    }

    /// ssh does not run for a user without a name: a step runs as whoever the task's steps run as.
    fn name_user(&self, command: &mut Command) {
        let (id, group) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let is_known = users.lines().any(|line| line.split(':').nth(2) == Some(&id.to_string()));
        if is_known || !Path::new(NSS_WRAPPER).exists() {
            return;
        }
        let (passwd, groups) = (self.folder.join("passwd"), self.folder.join("group"));
        let written = fs::write(&passwd, format!("{users}\nstep:x:{id}:{group}::/:/\n"))
            .and_then(|()| fs::write(&groups, format!("step:x:{group}:\n")));
        if written.is_ok() {
            command.env("LD_PRELOAD", NSS_WRAPPER).env("NSS_WRAPPER_PASSWD", passwd).env("NSS_WRAPPER_GROUP", groups);
        }
    }
}

impl Drop for RsyncProcess {
    fn drop(&mut self) {
        if self.socket().exists() {
            let mut end = Command::new("ssh");
            end.arg("-S").arg(self.socket()).args(["-O", "exit", &self.place.host]);
            // The connection ends by itself too, only later.
            let _ = end.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        }
    }
}

/// What changes the meaning of our arguments, or has a shell run something (rsync(1), "ENVIRONMENT VARIABLES").
fn is_unwanted(variable: &str) -> bool {
    variable.starts_with("RSYNC_") && variable != "RSYNC_PROXY"
}

/// What is run, without its environment, which has the password.
fn words(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" ")
}
