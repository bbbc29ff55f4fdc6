//! A run that failed, as one sentence: what rsync and ssh say and their exit codes (rsync(1), "EXIT VALUES"; ssh(1), "EXIT STATUS").

use std::{fmt::Display, path::Path};

use super::{
    login::{KNOWN_HOSTS, PASSWORD},
    run::{RunEnd, RunExit},
};
use crate::{
    redact::redact,
    store::{StoreError, layout::ObjectAction, net::retry::Failure},
    target::RsyncPlace,
};

/// What was asked for, and what came of it.
pub struct FailedRun<'a> {
    /// The object.
    pub place: String,
    pub at: &'a RsyncPlace,
    pub action: ObjectAction,
    /// Where credentials were looked for.
    pub searched: String,
    /// Where files on their way are.
    pub spool: &'a Path,
    pub ended: &'a RunEnd,
}

/// What kind of failure it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prospect {
    /// It may pass.
    Waits,
    Ends,
    Denied,
}

use Prospect::{Denied, Ends, Waits};

/// What is said, whatever the exit code is, what of it, and what to do; the first that is found counts.
const SAID: &[(&str, Prospect, &str)] = &[
    ("auth failed on module", Denied, "{password}"),
    (
        "Unknown module",
        Ends,
        "there is no module {module}: `rsync rsync://{server}` lists those that are shown, rsyncd.conf has all",
    ),
    (
        "max connections",
        Waits,
        "it has too many connections: raise \"max connections\" of the module, or run fewer tasks at once",
    ),
    ("access denied to", Denied, "\"hosts allow\" and \"hosts deny\" of the module have to let this machine in"),
    (
        "module is read only",
        Denied,
        "the module is read-only: set \"read only = no\" in its part of rsyncd.conf, or name another one",
    ),
    ("module is write only", Denied, "the module is write-only: set \"write only = no\" in its part of rsyncd.conf"),
    ("configured to refuse", Ends, "\"refuse options\" of the module has to allow what is asked for"),
    ("chroot failed", Ends, "the folder of the module can't be used: look at its \"path\" and at the daemon's log"),
    ("chdir failed", Ends, "the folder of the module can't be used: look at its \"path\" and at the daemon's log"),
    ("invalid uid", Ends, "the module's \"uid\" or \"gid\" does not exist there"),
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", Denied, "{changed}"),
    ("host key is known for", Denied, "{unknown}"),
    ("Host key verification failed", Denied, "{unknown}"),
    (
        "Permission denied (publickey",
        Denied,
        "it takes none of {searched}: put the public key into the user's authorized_keys there",
    ),
    (
        "Permission denied, please try again",
        Denied,
        "it takes none of {searched}: put the public key into the user's authorized_keys there",
    ),
    (
        "Too many authentication failures",
        Denied,
        "it takes none of {searched}: put the public key into the user's authorized_keys there",
    ),
    ("error in libcrypto", Denied, "{searched} is no private key, or one with a passphrase: use one without"),
    (
        "No user exists for uid",
        Ends,
        "ssh needs a name for the user that this runs as: use an image made by images/build --with rsync, which has libnss-wrapper",
    ),
    ("Failed to exec ssh", Ends, "the program ssh is not here: use an image made by images/build --with rsync"),
    ("Could not resolve hostname", Ends, "{name}"),
    ("Name or service not known", Ends, "{name}"),
    ("Temporary failure in name resolution", Waits, "{name}"),
    ("Connection refused", Waits, "nothing listens there: is the port right, and the service running?"),
    ("No route to host", Waits, "it can't be reached: look at the network and its policies"),
    ("Network is unreachable", Waits, "it can't be reached: look at the network and its policies"),
    ("Connection timed out", Waits, "it does not answer: look at the network and its policies"),
    ("Operation timed out", Waits, "it does not answer: look at the network and its policies"),
    ("No space left on device", Ends, "{room}"),
    ("Disk quota exceeded", Ends, "{room}"),
    ("Read-only file system", Denied, "the file system there is read-only"),
    ("Permission denied (13)", Denied, "the user that rsync runs as there has to own {path} and what is in it"),
    ("Operation not permitted (1)", Denied, "the user that rsync runs as there has to own {path} and what is in it"),
    ("unknown option", Ends, "its rsync is too old: make the folder {path} there, or take rsync 3.2.3 or later"),
    ("Not a directory (20)", Ends, "a file is where a folder has to be in {path}"),
    ("Is a directory (21)", Ends, "a folder is where a file has to be in {path}"),
];

/// What an exit code means where nothing that is said is known.
fn of_code(code: i32) -> (Prospect, &'static str) {
    match code {
        1 => (Ends, "its rsync does not understand the request: take rsync 3.1 or later there"),
        2 => (Ends, "is it rsync? A shell there that prints something when it starts has this effect too"),
        3 | 6 => (Ends, "the folder {path} there can't be used: look at it, and at the daemon's log"),
        4 => (Ends, "its rsync can't do what is asked for: take rsync 3.1 or later there"),
        5 => (Ends, "the daemon does not begin: look at its log"),
        10 => (Waits, "the connection could not be made, or broke off"),
        11 => (Ends, "a file can't be read or written in {path}"),
        12 => (Waits, "the connection broke off: look at its log"),
        13 | 14 | 21 => (Ends, "a program could not be started there or here"),
        20 => (Ends, "it was told to end"),
        22 => (Waits, "there is not enough memory there or here"),
        23 => (Ends, "not all of it was transferred: look at the log there"),
        24 => (Waits, "a file vanished meanwhile: somebody else deletes in {path}"),
        30 => (Waits, "no byte came for too long"),
        35 => (Waits, "it does not answer: look at the network and its policies"),
        124..=126 => (Ends, "ssh can't be run"),
        127 => (Ends, "there is no program rsync there: install it"),
        255 => (Waits, "the ssh connection could not be made, or broke off"),
        _ => (Ends, "look at the log there"),
    }
}

/// The failure for what was asked.
pub fn failure(asked: &FailedRun<'_>) -> Failure {
    let ended = asked.ended;
    let code = match &ended.how {
        RunExit::NoSpool(why) => return asked.fail(Ends, no_spool(asked.spool, why)),
        RunExit::NotStarted(why) => {
            return asked.fail(
                Ends,
                format!("the program rsync {why}; install it, or use an image made by images/build --with rsync"),
            );
        }
        RunExit::NoLogin(why) => return asked.fail(Denied, format!("the credentials for rsync can't be had: {why}")),
        RunExit::Signal(signal) => return asked.fail(Ends, format!("rsync was ended by signal {signal}")),
        RunExit::TooMuch => {
            return asked.fail(Ends, "it holds more than can be listed: delete what is not needed".to_owned());
        }
        RunExit::Code(code) => *code,
    };
    let known = SAID.iter().find(|(text, ..)| ended.stderr.contains(text));
    let (prospect, advice) = known.map_or_else(|| of_code(code), |(_, prospect, advice)| (*prospect, *advice));
    let verb = match prospect {
        Waits => "failed",
        Ends => "refused",
        Denied => "denied",
    };
    let line = line_about(ended, known.map(|(text, ..)| *text));
    let said = if line.is_empty() { format!("code {code}") } else { format!("code {code}: {line}") };
    let problem = format!("{} {verb} {} ({said}); {}", asked.at.server(), asked.action.gerund(), asked.fill(advice));
    asked.fail(prospect, problem)
}

/// What to say where a file of this machine can't be used.
pub fn no_spool(folder: &Path, why: impl Display) -> String {
    let folder = folder.display();
    format!("it has to lie in {folder} for a while, which fails: {why}; TMPDIR names another folder")
}

impl FailedRun<'_> {
    fn fail(&self, prospect: Prospect, problem: String) -> Failure {
        let place = self.place.clone();
        match prospect {
            Waits => Failure::transient(StoreError::Registry { place, problem }),
            Ends => Failure::Final(StoreError::Registry { place, problem }),
            Denied => Failure::Final(StoreError::Denied { place, problem }),
        }
    }

    /// An advice with what it is about.
    fn fill(&self, advice: &str) -> String {
        let module = || format!("{:?}", self.at.module().unwrap_or_default());
        match advice {
            "{password}" => format!(
                "the user and the password of {} have to be in \"auth users\" and in the secrets file of the module {}; {PASSWORD} is the password, the user stands before the host: rsync://user@host/…",
                self.searched,
                module()
            ),
            "{changed}" => {
                "its key is not the one of known_hosts: either somebody is in between, or its keeper changed it and known_hosts has to follow".to_owned()
            }
            "{unknown}" => format!(
                "its key is not in known_hosts: put the line of ssh-keyscan there, once you know that it is right (key {KNOWN_HOSTS:?} of the Secret that the param \"credentials\" names)"
            ),
            "{name}" => "check its name, and that the name service of the cluster can resolve it".to_owned(),
            "{room}" if self.is_here() => {
                format!("there is no room left here in {}: TMPDIR names another folder", self.spool.display())
            }
            "{room}" => {
                "there is no room left there: delete images (tekton-wrap prune does it for runs), or make room".to_owned()
            }
            _ => advice
                .replace("{module}", &module())
                .replace("{server}", &self.at.server())
                .replace("{searched}", &self.searched)
                .replace("{path}", &self.at.path),
        }
    }

    /// Whether what can't be written is to be written on this machine.
    fn is_here(&self) -> bool {
        self.action == ObjectAction::Read
    }
}

/// The line that says why, without what stands before each.
fn line_about(ended: &RunEnd, known: Option<&str>) -> String {
    const LENGTH: usize = 200;
    let is_about = |line: &&str| match known {
        Some(text) => line.contains(text),
        None => line.starts_with("rsync: ") || line.starts_with("@ERROR") || line.starts_with("ssh: "),
    };
    let line = ended.complaints().find(is_about).or_else(|| ended.complaints().next()).unwrap_or_default();
    let line = line.strip_prefix("rsync: ").unwrap_or(line);
    let line = match line.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    redact(line.trim_matches(['@', ' ']), &[], LENGTH).trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests;
