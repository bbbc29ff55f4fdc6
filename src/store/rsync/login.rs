//! Who we are to the machine, and whom we take it for.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use crate::{
    store::cloud::{Environment, Problem},
    target::{RsyncPlace, RsyncTransport},
};

/// The variable of a daemon's password (rsync(1)), and a key of the Secret.
pub const PASSWORD: &str = "RSYNC_PASSWORD";

/// Keys of the Secret that are a private key: that of Kubernetes' type `kubernetes.io/ssh-auth`, then the names that ssh has.
pub const PRIVATE_KEYS: [&str; 4] = ["ssh-privatekey", "id_ed25519", "id_ecdsa", "id_rsa"];

/// The key of the Secret that has the machine's public keys (sshd(8), "SSH_KNOWN_HOSTS FILE FORMAT").
pub const KNOWN_HOSTS: &str = "known_hosts";

/// What a Secret for rsync has, and no other one.
pub const SECRET_KEYS: [&str; 6] =
    [PASSWORD, KNOWN_HOSTS, PRIVATE_KEYS[0], PRIVATE_KEYS[1], PRIVATE_KEYS[2], PRIVATE_KEYS[3]];

/// The longest path of a socket (unix(7)), less what ssh appends while it makes it.
const SOCKET: usize = 85;

/// See the module.
#[derive(Default)]
pub struct RsyncLogin {
    /// For a daemon.
    pub password: Option<String>,
    /// Where they were looked for.
    pub searched: String,
    /// The files of the Secret that ssh uses; none: the user's own.
    files: Option<SshFiles>,
}

struct SshFiles {
    key: PathBuf,
    known_hosts: PathBuf,
}

impl RsyncLogin {
    /// For `place`, by the Secret and the variables of `environment`.
    pub fn of(place: &RsyncPlace, environment: &Environment, folder: &Path) -> Result<Self, Problem> {
        if environment.is_anonymous() {
            return Err(Problem::lasting("no machine is asked without them".to_owned()));
        }
        environment.check_secret()?;
        match place.transport {
            RsyncTransport::Daemon => {
                let (password, searched) = (environment.get(PASSWORD), environment.name_of(PASSWORD));
                Ok(Self { password, searched, files: None })
            }
            RsyncTransport::Ssh => Self::of_ssh(environment, folder),
        }
    }

    fn of_ssh(environment: &Environment, folder: &Path) -> Result<Self, Problem> {
        let Some(secret) = environment.secret() else {
            return Ok(Self { searched: "the keys of ssh's agent and of ~/.ssh".to_owned(), ..Self::default() });
        };
        let Some(key) = PRIVATE_KEYS.iter().find_map(|name| environment.secret_file(name)) else {
            let names = PRIVATE_KEYS.join(", ");
            return Err(Problem::lasting(format!(
                "{}: the Secret has no private key; its name has to be one of {names}",
                secret.display()
            )));
        };
        let known_hosts = environment.secret_file(KNOWN_HOSTS).ok_or_else(|| {
            Problem::lasting(format!(
                "{}: the Secret has no key {KNOWN_HOSTS}, by which the machine is known; make one with ssh-keyscan, and compare it with what the machine's keeper says",
                secret.display()
            ))
        })?;
        let searched = key.display().to_string();
        let copy =
            copy_key(&key, folder).map_err(|error| Problem::lasting(format!("{searched} can't be used: {error}")))?;
        let files = Some(SshFiles { key: copy, known_hosts });
        Ok(Self { searched, files, ..Self::default() })
    }

    /// The command that rsync starts: it splits it at blanks, and knows quotes (rsync(1), `--rsh`). Runs share the connection at
    /// `socket`, which stays for a while after the last one.
    pub fn ssh(&self, port: Option<u16>, connect_seconds: u64, socket: &Path) -> String {
        let mut words: Vec<String> = ["ssh", "-a", "-x", "-T"].map(str::to_owned).into();
        let mut option = |text: String| words.extend(["-o".to_owned(), text]);
        for text in [
            "BatchMode=yes",
            "StrictHostKeyChecking=yes",
            "ClearAllForwardings=yes",
            "LogLevel=ERROR",
            "ServerAliveInterval=15",
            "ServerAliveCountMax=4",
        ] {
            option(text.to_owned());
        }
        option(format!("ConnectTimeout={connect_seconds}"));
        if socket.as_os_str().len() <= SOCKET {
            for text in ["ControlMaster=auto", "ControlPersist=60"] {
                option(text.to_owned());
            }
            option(format!("ControlPath=\"{}\"", socket.display()));
        }
        if let Some(SshFiles { key, known_hosts }) = &self.files {
            for text in ["IdentitiesOnly=yes", "GlobalKnownHostsFile=/dev/null", "UpdateHostKeys=no"] {
                option(text.to_owned());
            }
            option(format!("UserKnownHostsFile=\"{}\"", known_hosts.display()));
            words.extend(["-F".to_owned(), "none".to_owned(), "-i".to_owned(), key.display().to_string()]);
        }
        words.extend(port.into_iter().flat_map(|port| ["-p".to_owned(), port.to_string()]));
        words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
    }
}

/// A copy that only we can read, or ssh would refuse it, and that ends with a line's end, which is easily lost on the way into
/// a Secret.
fn copy_key(key: &Path, folder: &Path) -> io::Result<PathBuf> {
    let text = fs::read_to_string(key)?;
    let copy = folder.join("key");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&copy)?;
    file.write_all(format!("{}\n", text.trim_end()).as_bytes())?;
    Ok(copy)
}

/// A word in quotes, if it needs any.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=./,:@+".contains(c);
    if word.chars().all(is_plain) { word.to_owned() } else { format!("'{}'", word.replace('\'', "''")) }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;
    use crate::target::Target;

    fn place(text: &str) -> RsyncPlace {
        match text.parse().unwrap() {
            Target::Rsync(place) => place,
            other => panic!("{other}"),
        }
    }

    fn login(target: &str, secret: &[(&str, &str)], variables: &[(&str, &str)]) -> Result<RsyncLogin, String> {
        let folder = tempfile::tempdir().unwrap();
        let mounted = folder.path().join("secret");
        fs::create_dir(&mounted).unwrap();
        secret.iter().for_each(|(name, value)| fs::write(mounted.join(name), value).unwrap());
        let variables: HashMap<String, String> =
            variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let environment = Environment::new(variables, (!secret.is_empty()).then_some(&*mounted));
        let login = RsyncLogin::of(&place(target), &environment, folder.path());
        login.map_err(|problem| problem.clause.replace(&mounted.display().to_string(), "SECRET"))
    }

    #[test]
    fn of_daemons() {
        for (secret, variables, expected) in [
            (&[][..], &[][..], None),
            (&[], &[("RSYNC_PASSWORD", "p")], Some("p")),
            (&[("RSYNC_PASSWORD", "s\n")], &[("RSYNC_PASSWORD", "p")], Some("s")),
            (&[("known_hosts", "")], &[], None),
        ] {
            let login = login("rsync://me@host/m", secret, variables).unwrap();
            assert_eq!(login.password.as_deref(), expected, "{secret:?}");
        }
    }

    #[test]
    fn of_ssh() {
        let words = login("rsync+ssh://me@host/a", &[("id_rsa", "key"), ("known_hosts", "host x")], &[]).unwrap();
        let words = words.ssh(Some(2222), 15, Path::new("/tmp/s"));
        for part in [
            "ssh -a -x -T -o BatchMode=yes -o StrictHostKeyChecking=yes",
            "-o ConnectTimeout=15",
            "-F none -i ",
            "-o IdentitiesOnly=yes",
            "secret/known_hosts\"'",
            "-o ControlMaster=auto -o ControlPersist=60 -o 'ControlPath=\"/tmp/s\"'",
            " -p 2222",
        ] {
            assert!(words.contains(part), "{words}");
        }
        let own = login("rsync+ssh://me@host/a", &[], &[]).unwrap().ssh(None, 15, Path::new(&"s".repeat(200)));
        assert!(!own.contains("Control"), "no socket can have this path");
        assert!(own.contains("StrictHostKeyChecking=yes") && !own.contains("-F") && !own.contains("-p "), "{own}");
        for (secret, expected) in [
            (
                ("known_hosts", "x"),
                "SECRET: the Secret has no private key; its name has to be one of ssh-privatekey, id_ed25519, id_ecdsa, id_rsa",
            ),
            (
                ("id_ed25519", "x"),
                "SECRET: the Secret has no key known_hosts, by which the machine is known; make one with ssh-keyscan, and compare it with what the machine's keeper says",
            ),
        ] {
            assert_eq!(login("rsync+ssh://me@host/a", &[secret], &[]).err().as_deref(), Some(expected));
        }
    }

    #[test]
    fn a_key_is_copied_for_nobody_else() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("mounted"), "-----END-----").unwrap();
        let copy = copy_key(&folder.path().join("mounted"), folder.path()).unwrap();
        assert_eq!(fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_to_string(copy).unwrap(), "-----END-----\n");
    }

    #[test]
    fn nobody_reads_without_credentials() {
        let environment = Environment::new(HashMap::new(), None).anonymous();
        let login = |target: &str| RsyncLogin::of(&place(target), &environment, Path::new("/absent"));
        assert!(login("rsync://host/m").is_err() && login("rsync+ssh://me@host/a").is_err());
    }

    #[test]
    fn words_are_quoted_as_rsync_reads_them() {
        for (word, expected) in [("-o", "-o"), ("a b", "'a b'"), ("it's", "'it''s'"), ("A=\"b\"", "'A=\"b\"'")] {
            assert_eq!(quoted(word), expected);
        }
    }
}
