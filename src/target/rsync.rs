//! Places that the program `rsync` reaches.

use std::fmt;

use super::{InvalidTarget, is_host, split_tag};
use crate::redact;

/// An image in a folder of another machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RsyncPlace {
    /// What answers there.
    pub transport: RsyncTransport,
    /// The user there, if the string named one.
    pub user: Option<String>,
    /// Name or address of the machine; an IPv6 address in brackets.
    pub host: String,
    /// None: the usual one of the transport.
    pub port: Option<u16>,
    /// Of a daemon its module and a path in it, over ssh an absolute path; no slash at the end.
    pub path: String,
    /// The image's tag; `latest` if the string had none.
    pub tag: String,
}

/// How rsync talks to the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RsyncTransport {
    /// `rsync://`: a daemon (rsyncd.conf(5)).
    Daemon,
    /// `rsync+ssh://`: a program that ssh starts.
    Ssh,
}

impl RsyncTransport {
    /// The scheme of targets.
    pub fn scheme(self) -> &'static str {
        match self {
            Self::Daemon => "rsync",
            Self::Ssh => "rsync+ssh",
        }
    }
}

impl RsyncPlace {
    /// `[user@]host[:port]/path[:tag]`
    pub(super) fn parse(transport: RsyncTransport, rest: &str) -> Result<Self, InvalidTarget> {
        let scheme = transport.scheme();
        let shown = || redact::reference(&format!("{scheme}://{rest}"));
        let invalid = |why: &str| InvalidTarget(format!("{} is not a place for rsync: {why}", shown()));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, host) = match authority.rsplit_once('@') {
            Some((user, host)) => (Some(user), host),
            None => (None, authority),
        };
        if user.is_some_and(|user| user.contains(':')) {
            return Err(invalid(
                "a password has no place in it: it belongs into the Secret of the param \"credentials\"",
            ));
        }
        if user.is_some_and(|user| !is_word(user)) {
            return Err(invalid(
                "the user may hold only letters, digits, '.', '_' and '-', and does not begin with '-'",
            ));
        }
        if !is_host(host) {
            return Err(invalid(&format!("{host:?} is not a host's name")));
        }
        let (path, tag) = split_tag(path).map_err(|why| invalid(&why))?;
        let path = path.trim_end_matches('/');
        if path.is_empty() {
            return Err(invalid(match transport {
                RsyncTransport::Daemon => "it names no module: write rsync://host/module/path:tag",
                RsyncTransport::Ssh => "it names no folder: write rsync+ssh://user@host/folder:tag",
            }));
        }
        if !path.split('/').all(is_part) {
            return Err(invalid(&format!(
                "the path {path:?} may hold only letters, digits and .-_+=,@ in parts that are separated by one '/', do not begin with '-' and are neither '.' nor '..'"
            )));
        }
        if path.len() > 1024 {
            return Err(invalid("the path is longer than 1024 bytes"));
        }
        let (host, port) = match host.rsplit_once(':') {
            // What is no number here is the end of an IPv6 address.
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => (name, port.parse().ok()),
            _ => (host, None),
        };
        let path = match transport {
            RsyncTransport::Daemon => path.to_owned(),
            RsyncTransport::Ssh => format!("/{path}"),
        };
        Ok(Self { transport, user: user.map(str::to_owned), host: host.to_owned(), port, path, tag })
    }

    /// Where it is, without a tag.
    pub fn url(&self) -> String {
        let user = self.user.as_ref().map(|user| format!("{user}@")).unwrap_or_default();
        let path = self.path.trim_start_matches('/');
        format!("{}://{user}{}/{path}", self.transport.scheme(), self.server())
    }

    /// Host and port, as messages name them.
    pub fn server(&self) -> String {
        let port = self.port.map(|port| format!(":{port}")).unwrap_or_default();
        format!("{}{port}", self.host)
    }

    /// The module of a daemon.
    pub fn module(&self) -> Option<&str> {
        match self.transport {
            RsyncTransport::Daemon => self.path.split('/').next(),
            RsyncTransport::Ssh => None,
        }
    }

    /// Whether the same credentials are meant for both.
    pub fn shares_login(&self, other: &Self) -> bool {
        let login = |place: &Self| (place.transport, place.user.clone(), place.host.clone(), place.port);
        login(self) == login(other) && self.module() == other.module()
    }
}

impl fmt::Display for RsyncPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.url(), self.tag)
    }
}

/// Nothing that a shell, a pattern or an option could be made of.
fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.starts_with('-') && text.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))
}

fn is_part(part: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_+=,@".contains(c);
    !part.is_empty() && part != "." && part != ".." && !part.starts_with('-') && part.chars().all(is_plain)
}

#[cfg(test)]
mod tests {
    use crate::target::Target;

    #[test]
    fn accepts() {
        for (text, shown) in [
            ("rsync://host/module", "rsync://host/module:latest"),
            ("rsync://host/module/", "rsync://host/module:latest"),
            ("rsync://host:8730/ci/team-a/x:v1", "rsync://host:8730/ci/team-a/x:v1"),
            ("rsync://me@10.0.0.1/ci:v1", "rsync://me@10.0.0.1/ci:v1"),
            ("rsync://[::1]:873/ci:v1", "rsync://[::1]:873/ci:v1"),
            ("rsync://[::1]/ci:v1", "rsync://[::1]/ci:v1"),
            ("rsync+ssh://host/srv/ci", "rsync+ssh://host/srv/ci:latest"),
            ("rsync+ssh://me@host:2222/srv/a+b:v1", "rsync+ssh://me@host:2222/srv/a+b:v1"),
        ] {
            let target: Target = text.parse().unwrap();
            assert_eq!(target.to_string(), shown);
            assert_eq!(target.to_string().parse::<Target>().unwrap(), target);
        }
    }

    #[test]
    fn rejects() {
        for (text, why) in [
            ("rsync://host", "it names no module: write rsync://host/module/path:tag"),
            ("rsync://host:873", "it names no module: write rsync://host/module/path:tag"),
            ("rsync+ssh://me@host/", "it names no folder: write rsync+ssh://user@host/folder:tag"),
            ("rsync:///module", "\"\" is not a host's name"),
            ("rsync://-oProxyCommand=x/module", "\"-oProxyCommand=x\" is not a host's name"),
            ("rsync+ssh://-v@host/a", "the user may hold only letters"),
            ("rsync+ssh://me;id@host/a", "the user may hold only letters"),
            ("rsync://me:secret@host/a", "a password has no place in it"),
            ("rsync://host:port/a", "\"host:port\" is not a host's name"),
            ("rsync://host:99999/a", "\"host:99999\" is not a host's name"),
            ("rsync://host/-a", "the path \"-a\" may hold only"),
            ("rsync://host/a//b", "the path \"a//b\" may hold only"),
            ("rsync://host/a/../b", "the path \"a/../b\" may hold only"),
            ("rsync://host/a/$(id)", "the path \"a/$(id)\" may hold only"),
            ("rsync://host/a*b", "the path \"a*b\" may hold only"),
            ("rsync://host/a\nb", "the path \"a\\nb\" may hold only"),
            ("rsync://ho\nst/a", "\"ho\\nst\" is not a host's name"),
            ("rsync://host/a?b", "the path \"a?b\" may hold only"),
            ("rsync://host/a:b c", "the tag \"b c\" may hold only"),
            ("rsync://host/a:", "the tag \"\" may hold only"),
        ] {
            let error = text.parse::<Target>().unwrap_err().to_string();
            assert!(error.contains(" is not a place for rsync: ") && error.contains(why), "{text:?}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn logins() {
        let place = |text: &str| match text.parse::<Target>().unwrap() {
            Target::Rsync(place) => place,
            other => panic!("{other}"),
        };
        let one = place("rsync://me@host/ci/a:v1");
        for (other, same) in [
            ("rsync://me@host/ci/b:v2", true),
            ("rsync://me@host/other/a:v1", false),
            ("rsync://host/ci/a:v1", false),
            ("rsync://me@host:8730/ci/a:v1", false),
            ("rsync+ssh://me@host/ci/a:v1", false),
        ] {
            assert_eq!(one.shares_login(&place(other)), same, "{other}");
        }
        assert!(place("rsync+ssh://me@host/a:v1").shares_login(&place("rsync+ssh://me@host/b:v1")));
    }
}
