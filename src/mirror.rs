//! Addresses of mirrors: pull-through registries that blobs are read from first.

use std::str::FromStr;

use crate::target::Target;

/// A mirror, and the prefix of repositories there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MirrorAddress {
    /// Host and port.
    pub host: String,
    /// Empty, or ends with a slash.
    pub prefix: String,
    /// Whether it is accessed over plain HTTP.
    pub plain: bool,
}

/// Not the address of a mirror.
#[derive(Debug, thiserror::Error)]
#[error("it has to be [http://]host[:port][/prefix]")]
pub struct InvalidMirror;

impl FromStr for MirrorAddress {
    type Err = InvalidMirror;

    fn from_str(text: &str) -> Result<Self, InvalidMirror> {
        let (plain, rest) = match text.split_once("://") {
            Some(("http", rest)) => (true, rest),
            Some(("https", rest)) => (false, rest),
            Some(_) => return Err(InvalidMirror),
            None => (false, text),
        };
        let (host, prefix) = rest.trim_end_matches('/').split_once('/').unwrap_or((rest.trim_end_matches('/'), ""));
        // Valid if it is in an image reference.
        let valid = format!("{host}/{prefix}{}x", if prefix.is_empty() { "" } else { "/" });
        let image = match valid.parse() {
            Ok(Target::Registry(image)) if image.registry == host => image,
            _ => return Err(InvalidMirror),
        };
        let prefix = image.repository.strip_suffix('x').ok_or(InvalidMirror)?.to_owned();
        Ok(Self { host: host.to_owned(), prefix, plain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors() {
        let mirror = |host: &str, prefix: &str, plain| {
            Some(MirrorAddress { host: host.to_owned(), prefix: prefix.to_owned(), plain })
        };
        for (text, expected) in [
            ("mirror.local:5000", mirror("mirror.local:5000", "", false)),
            ("http://10.0.0.1:5000/", mirror("10.0.0.1:5000", "", true)),
            ("https://harbor.io/quay", mirror("harbor.io", "quay/", false)),
            ("harbor.io/proxy/quay/", mirror("harbor.io", "proxy/quay/", false)),
            ("", None),
            ("mirror", None),
            ("ftp://a.io", None),
            ("user:pw@a.io", None),
            ("a.io/Upper", None),
            ("a.io/x:tag", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
        }
    }
}
