//! References to images, as in the params `target` and `base`.

mod rsync;

use std::{fmt, path::PathBuf, str::FromStr};

pub use self::rsync::{RsyncPlace, RsyncTransport};
use crate::{digest::Digest, redact};

/// The longest tag and the longest name of a repository (OCI distribution-spec, "Pulling manifests"; the second one is what
/// registries take in practice: distribution/reference, `RepositoryNameTotalLengthMax`).
const MAX_TAG: usize = 128;
const MAX_REPOSITORY: usize = 255;

/// An image in a registry or a folder.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// `[oci://]host[:port]/repository[:tag][@sha256:…]`
    Registry(ImageReference),
    /// `dir:///absolute/path[:tag]`: an OCI image layout in a folder.
    Dir {
        /// The folder that holds `oci-layout`, `index.json` and `blobs/`.
        path: PathBuf,
        /// The image's name in `index.json` (`org.opencontainers.image.ref.name`).
        tag: String,
    },
    /// `s3://bucket[/prefix][:tag]`
    S3(Bucket),
    /// `gs://bucket[/prefix][:tag]`
    Gcs(Bucket),
    /// `rsync://[user@]host[:port]/module[/path][:tag]` or `rsync+ssh://[user@]host[:port]/path[:tag]`
    Rsync(RsyncPlace),
}

/// An image in a bucket.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Bucket {
    /// The bucket's name.
    pub bucket: String,
    /// What the names of all objects begin with; no slash at either end. May be empty.
    pub prefix: String,
    /// The image's tag; `latest` if the string had none.
    pub tag: String,
}

/// An image in a registry (OCI distribution-spec, "Pulling manifests"; defaults as docker and crane have them).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ImageReference {
    /// Host and port, for example `quay.io` or `localhost:5000`; `index.docker.io` if the string named none.
    pub registry: String,
    /// Repository in it, for example `me/build`.
    pub repository: String,
    /// Tag; `latest` if the string had neither tag nor digest. One that was too long is cut and ends with a part of its digest.
    pub tag: String,
    /// `sha256:…` if the string pinned one: it wins over the tag.
    pub digest: Option<Digest>,
}

/// A string that is not a target. The message is a clause that follows "target …:".
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidTarget(String);

impl Target {
    /// From a string, for an image that is to be written.
    pub fn to_write(text: &str) -> Result<Self, InvalidTarget> {
        match text.parse()? {
            Self::Registry(ImageReference { digest: Some(_), .. }) => {
                let shown = redact::reference(text);
                Err(InvalidTarget(format!("{shown} is pinned to a digest, which can't be written to: name a tag")))
            }
            target => Ok(target),
        }
    }

    /// The same place under another tag.
    pub fn with_tag(&self, tag: &str) -> Self {
        let mut other = self.clone();
        match &mut other {
            Self::Registry(image) => {
                image.tag = tag.to_owned();
                image.digest = None;
            }
            Self::Dir { tag: old, .. }
            | Self::S3(Bucket { tag: old, .. })
            | Self::Gcs(Bucket { tag: old, .. })
            | Self::Rsync(RsyncPlace { tag: old, .. }) => *old = tag.to_owned(),
        }
        other
    }

    /// Where it is, without tag and digest.
    pub fn repository(&self) -> String {
        match self {
            Self::Registry(image) => format!("{}/{}", image.registry, image.repository),
            Self::Dir { path, .. } => format!("dir://{}", path.display()),
            Self::S3(bucket) => bucket.url("s3"),
            Self::Gcs(bucket) => bucket.url("gs"),
            Self::Rsync(place) => place.url(),
        }
    }

    /// The reference in its store: the pinned digest, else the tag.
    pub fn reference(&self) -> String {
        match self {
            Self::Registry(ImageReference { digest: Some(digest), .. }) => digest.to_string(),
            Self::Registry(image) => image.tag.clone(),
            Self::Dir { tag, .. }
            | Self::S3(Bucket { tag, .. })
            | Self::Gcs(Bucket { tag, .. })
            | Self::Rsync(RsyncPlace { tag, .. }) => tag.clone(),
        }
    }
}

impl Bucket {
    /// Where it is, without a tag.
    fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/{}", self.bucket, self.prefix).trim_end_matches('/').to_owned()
    }

    /// The whole name of the object `key`.
    pub fn key(&self, key: &str) -> String {
        match self.prefix.as_str() {
            "" => key.to_owned(),
            prefix => format!("{prefix}/{key}"),
        }
    }
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return parse_image(text).map(Self::Registry);
        };
        match scheme {
            "oci" => parse_image(rest).map(Self::Registry),
            "dir" => parse_dir(rest),
            "s3" => parse_bucket(scheme, rest).map(Self::S3),
            "gs" => parse_bucket(scheme, rest).map(Self::Gcs),
            "rsync" => RsyncPlace::parse(RsyncTransport::Daemon, rest).map(Self::Rsync),
            "rsync+ssh" => RsyncPlace::parse(RsyncTransport::Ssh, rest).map(Self::Rsync),
            _ => Err(InvalidTarget(format!(
                "{} has the scheme {}://, which is not supported; use a registry (quay.io/me/image:tag), s3://bucket/prefix, gs://bucket/prefix, rsync://host/module/path, rsync+ssh://user@host/path or dir:///path",
                redact::reference(text),
                redact::redact(scheme, &[], 20)
            ))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(image) => image.fmt(f),
            Self::Dir { path, tag } => write!(f, "dir://{}:{tag}", path.display()),
            Self::S3(bucket) => write!(f, "s3://{bucket}"),
            Self::Gcs(bucket) => write!(f, "gs://{bucket}"),
            Self::Rsync(place) => place.fmt(f),
        }
    }
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let separator = if self.prefix.is_empty() { "" } else { "/" };
        write!(f, "{}{separator}{}:{}", self.bucket, self.prefix, self.tag)
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.digest {
            Some(digest) => write!(f, "{}/{}@{digest}", self.registry, self.repository),
            None => write!(f, "{}/{}:{}", self.registry, self.repository, self.tag),
        }
    }
}

/// `[host/]repository[:tag][@digest]`; grammar: distribution/reference, "reference.go".
fn parse_image(text: &str) -> Result<ImageReference, InvalidTarget> {
    let invalid = |why: &str| InvalidTarget(format!("{} is not an image reference: {why}", redact::reference(text)));
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => (name, Some(digest.parse().map_err(|e| invalid(&format!("{e}")))?)),
        None => (text, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    };
    let tag = legal_tag(tag).ok_or_else(|| invalid(&illegal_tag(tag)))?;
    if name.is_empty() {
        return Err(invalid("it names no repository; write for example quay.io/me/image:tag"));
    }
    let (registry, repository) = match name.split_once('/') {
        Some((host, path)) if host.contains(['.', ':']) || host == "localhost" => (host, path.to_owned()),
        Some(_) => ("index.docker.io", name.to_owned()),
        None => ("index.docker.io", format!("library/{name}")),
    };
    if !is_host(registry) {
        return Err(invalid(&format!("{registry:?} is not a registry's host name")));
    }
    if repository.len() > MAX_REPOSITORY {
        let length = repository.len();
        return Err(invalid(&format!(
            "the repository's name has {length} characters, more than the {MAX_REPOSITORY} that registries take: put what is long, such as the name of a run, into the tag"
        )));
    }
    if !repository.split('/').all(is_path_component) {
        return Err(invalid(&format!(
            "the repository {:?} may hold only lower-case letters and digits, separated by '.', '_', '-' or '/'",
            // As it was written.
            if name.contains('/') { &repository } else { name }
        )));
    }
    let registry = if registry == "docker.io" { "index.docker.io" } else { registry };
    Ok(ImageReference { registry: registry.to_owned(), repository, tag, digest })
}

/// `/absolute/path[:tag]`
fn parse_dir(rest: &str) -> Result<Target, InvalidTarget> {
    let invalid = |why: &str| InvalidTarget(format!("{:?} is not a folder: {why}", format!("dir://{rest}")));
    if !rest.starts_with('/') {
        return Err(invalid("write dir:/// and an absolute path"));
    }
    let (path, tag) = split_tag(rest).map_err(|why| invalid(&why))?;
    if path.split('/').any(|name| matches!(name, "." | "..")) {
        return Err(invalid("write the path without . and .."));
    }
    Ok(Target::Dir { path: PathBuf::from(path), tag })
}

/// `bucket[/prefix][:tag]`
fn parse_bucket(scheme: &str, rest: &str) -> Result<Bucket, InvalidTarget> {
    let shown = || redact::reference(&format!("{scheme}://{rest}"));
    let invalid = |why: &str| InvalidTarget(format!("{} is not a place in a bucket: {why}", shown()));
    if rest.contains('?') {
        return Err(invalid("it has a query; the region and the endpoint are params"));
    }
    let (path, tag) = split_tag(rest).map_err(|why| invalid(&why))?;
    let (bucket, prefix) = path.split_once('/').unwrap_or((path, ""));
    if !is_bucket(bucket) {
        return Err(invalid(&format!(
            "the bucket {} may hold only lower-case letters, digits, '.', '_' and '-', 3 to 63 of them, with a letter or digit at both ends",
            redact::reference(bucket)
        )));
    }
    let prefix = prefix.trim_end_matches('/');
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()=+,@".contains(c);
    let is_part = |part: &str| !part.is_empty() && part != "." && part != ".." && part.chars().all(is_plain);
    if !prefix.is_empty() && !prefix.split('/').all(is_part) {
        return Err(invalid(&format!(
            "the prefix {prefix:?} may hold only letters, digits and !-_.*'()=+,@ in parts that are separated by one '/' and are neither '.' nor '..'"
        )));
    }
    // With `manifests/` and a tag it has to stay within 1024 bytes, the limit of both clouds.
    if prefix.len() > 800 {
        return Err(invalid("the prefix is longer than 800 bytes"));
    }
    Ok(Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned(), tag })
}

/// What precedes a colon, and the tag that follows it; or what is wrong with the tag.
fn split_tag(text: &str) -> Result<(&str, String), String> {
    let (rest, tag) = match text.rsplit_once(':') {
        Some((rest, tag)) if !tag.contains('/') => (rest, tag),
        _ => (text, "latest"),
    };
    legal_tag(tag).map(|tag| (rest, tag)).ok_or_else(|| illegal_tag(tag))
}

/// The rules of Amazon, and what Google allows besides.
fn is_bucket(name: &str) -> bool {
    let end = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&name.len())
        && name.starts_with(end)
        && name.ends_with(end)
        && name.chars().all(|c| end(c) || ".-_".contains(c))
        && !name.contains("..")
        && name.parse::<std::net::Ipv4Addr>().is_err()
}

/// Whether it may be a tag (OCI distribution-spec: `[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}`).
pub fn is_tag(text: &str) -> bool {
    text.len() <= MAX_TAG && has_letters_of_a_tag(text)
}

fn has_letters_of_a_tag(text: &str) -> bool {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    text.starts_with(word) && text.chars().all(|c| word(c) || c == '.' || c == '-')
}

/// What is wrong with the name of a region, which becomes a part of a host's name: a clause that begins with it.
pub fn region_problem(text: &str) -> Option<String> {
    (!is_region(text)).then(|| format!("{text:?} is not a region such as eu-west-1"))
}

/// Whether it may be a region's name.
pub fn is_region(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
}

/// `tag`; if it is too long, as one with the names of a run and a workspace may be, its beginning and a part of its digest. None
/// if it has characters that no tag has.
fn legal_tag(tag: &str) -> Option<String> {
    const DIGITS: usize = 16;
    if !has_letters_of_a_tag(tag) {
        return None;
    }
    if tag.len() <= MAX_TAG {
        return Some(tag.to_owned());
    }
    let digest = Digest::of(tag.as_bytes()).hex();
    Some(format!("{}-{}", tag.get(..MAX_TAG - DIGITS - 1)?, digest.get(..DIGITS)?))
}

fn illegal_tag(tag: &str) -> String {
    format!("the tag {tag:?} may hold only letters, digits, '_', '.' and '-', the first two of them in front")
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let v6 = |inner: &str| inner.parse::<std::net::Ipv6Addr>().is_ok();
    let label = |l: &str| {
        !l.is_empty()
            && l.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            && !l.starts_with('-')
            && !l.ends_with('-')
    };
    let name_ok = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(inner) => v6(inner),
        None => name.split('.').all(label),
    };
    name_ok && port.is_none_or(|p| p.parse::<u16>().is_ok())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*` (OCI distribution-spec).
fn is_path_component(component: &str) -> bool {
    let alnum = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let separator = |s: &str| matches!(s, "." | "_" | "__") || (!s.is_empty() && s.chars().all(|c| c == '-'));
    component.starts_with(alnum)
        && component.ends_with(alnum)
        && component.split(alnum).filter(|s| !s.is_empty()).all(separator)
}

#[cfg(test)]
mod tests;
