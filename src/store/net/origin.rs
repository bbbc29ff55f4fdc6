//! The origin of a registry, and which URLs belong to it.

use std::net::IpAddr;

use http::{Uri, uri::PathAndQuery};

/// Scheme, host and port of a registry: its credentials and tokens are sent nowhere else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RegistryOrigin {
    /// `https` or `http`.
    pub scheme: &'static str,
    /// `host[:port]` as in the image reference.
    pub host: String,
}

impl RegistryOrigin {
    /// The URL of `path`, which begins with a slash.
    pub fn url(&self, path: &str) -> Result<Uri, http::Error> {
        Uri::builder().scheme(self.scheme).authority(self.host.as_str()).path_and_query(path).build()
    }

    /// Whether a URL has this origin.
    pub fn contains(&self, url: &Uri) -> bool {
        key(url).is_some_and(|key| self.url("/").is_ok_and(|own| Some(key) == self::key(&own)))
    }
}

/// Hosts that may be accessed over plain HTTP if they don't speak HTTPS: loopback, names that end in `.local`, as in
/// `registry.tools.svc.cluster.local`, and hosts that the user lists.
#[derive(Clone, Debug, Default)]
pub struct PlainHosts {
    listed: Vec<String>,
}

impl PlainHosts {
    /// `listed` are `host`, for every port, or `host:port`.
    pub fn new(listed: &[String]) -> Self {
        Self { listed: listed.iter().map(|host| host.trim().to_ascii_lowercase()).collect() }
    }

    /// Whether `host[:port]` is one of them.
    pub fn allow(&self, host: &str) -> bool {
        let (full, host) = (host.to_ascii_lowercase(), without_port(host).to_ascii_lowercase());
        if self.listed.contains(&full)
            || self.listed.iter().any(|listed| without_port(listed) == host && !has_port(listed))
        {
            return true;
        }
        if let Ok(address) = host.parse::<IpAddr>() {
            return address.is_loopback();
        }
        let host = host.trim_end_matches('.');
        host == "localhost" || host.ends_with(".localhost") || host.ends_with(".local")
    }
}

/// Resolves the header `Location` of a response from `base` (RFC 9110, 10.2.2). A registry behind a proxy that ends TLS
/// often returns URLs with `http:`, which are changed to `https:`. Any other URL without TLS is accepted only for hosts that
/// may be accessed over plain HTTP.
pub fn resolve(base: &Uri, location: &str, plain: &PlainHosts) -> Option<Uri> {
    let scheme = base.scheme_str()?;
    let authority = base.authority()?.as_str();
    let absolute = match location.as_bytes() {
        [b'/', b'/', ..] => format!("{scheme}:{location}"),
        [b'/', ..] => format!("{scheme}://{authority}{location}"),
        [b'?', ..] => format!("{scheme}://{authority}{}{location}", base.path()),
        _ if location.contains("://") => location.to_owned(),
        _ => {
            let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
            format!("{scheme}://{authority}{folder}/{location}")
        }
    };
    let url: Uri = absolute.split('#').next()?.parse().ok()?;
    match (scheme, url.scheme_str()?) {
        ("https", "http") if url.authority()?.as_str().eq_ignore_ascii_case(authority) => {
            let mut parts = url.into_parts();
            parts.scheme = Some(http::uri::Scheme::HTTPS);
            Uri::from_parts(parts).ok()
        }
        _ if url.authority()?.as_str().contains('@') => None,
        (_, "https") | ("http", "http") => Some(url),
        ("https", "http") if plain.allow(url.authority()?.as_str()) => Some(url),
        _ => None,
    }
}

/// The URL with `name=value` added to its query. `value` needs no escapes.
pub fn with_query(url: &Uri, name: &str, value: &str) -> Option<Uri> {
    let separator = if url.query().is_some() { '&' } else { '?' };
    let text = format!("{}{separator}{name}={value}", url.path_and_query().map_or("/", PathAndQuery::as_str));
    let mut parts = url.clone().into_parts();
    parts.path_and_query = Some(text.parse().ok()?);
    Uri::from_parts(parts).ok()
}

fn key(url: &Uri) -> Option<(String, String, u16)> {
    let scheme = url.scheme_str()?.to_owned();
    let port = url.port_u16().or(match scheme.as_str() {
        "https" => Some(443),
        "http" => Some(80),
        _ => None,
    })?;
    Some((scheme, url.host()?.to_ascii_lowercase(), port))
}

/// The name or address in `host[:port]`, without brackets.
pub fn without_port(host: &str) -> &str {
    match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(rest, |(v6, _)| v6),
        None => host.split_once(':').map_or(host, |(name, _)| name),
    }
}

fn has_port(host: &str) -> bool {
    match host.rsplit_once(']') {
        Some((_, rest)) => rest.starts_with(':'),
        None => host.contains(':'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_only_for_near_and_listed_hosts() {
        let plain =
            PlainHosts::new(&["10.0.0.1:5000".to_owned(), " Registry.tools.svc".to_owned(), "[fd00::1]".to_owned()]);
        for host in [
            "localhost",
            "localhost:5000",
            "a.localhost:5000",
            "127.0.0.1",
            "127.9.9.9:80",
            "[::1]:5000",
            "[::1]",
            "10.0.0.1:5000",
            "registry.tools.svc:5000",
            "REGISTRY.tools.svc",
            "[fd00::1]:5000",
            "registry.tools.svc.cluster.local:5000",
        ] {
            assert!(plain.allow(host), "{host}");
        }
        for host in [
            "quay.io",
            "quay.io:5000",
            "localhost.example.com",
            "notlocalhost",
            "127.0.0.1.example.com",
            "8.8.8.8",
            "10.0.0.1",
            "10.0.0.1:5001",
            "10.0.0.2:5000",
            "192.168.1.1",
            "[2001:db8::1]:5000",
            "local",
            "a.registry.tools.svc",
        ] {
            assert!(!plain.allow(host), "{host}");
        }
    }

    #[test]
    fn resolves_locations() {
        let base = "https://r.io/v2/a/blobs/uploads/?x=y";
        for (location, expected) in [
            ("/v2/a/blobs/uploads/1?s=t%3D", Some("https://r.io/v2/a/blobs/uploads/1?s=t%3D")),
            ("https://r.io/up/1", Some("https://r.io/up/1")),
            ("http://r.io/up/1", Some("https://r.io/up/1")),
            ("http://R.io/up", Some("https://R.io/up")),
            ("http://other.io/up", None),
            ("https://other.io/up", Some("https://other.io/up")),
            ("http://10.0.0.1:9000/up", Some("http://10.0.0.1:9000/up")),
            ("http://10.0.0.2:9000/up", None),
            ("http://169.254.169.254/latest/", None),
            ("//cdn.io/up", Some("https://cdn.io/up")),
            ("1?s", Some("https://r.io/v2/a/blobs/uploads/1?s")),
            ("?s", Some("https://r.io/v2/a/blobs/uploads/?s")),
            ("/x#part", Some("https://r.io/x")),
            ("ftp://r.io/x", None),
            ("https://user:pw@r.io/x", None),
            ("https://", None),
            ("/a b", None),
        ] {
            let plain = PlainHosts::new(&["10.0.0.1".to_owned()]);
            let resolved = resolve(&base.parse().unwrap(), location, &plain).map(|u| u.to_string());
            assert_eq!(resolved.as_deref(), expected, "{location}");
        }
    }

    #[test]
    fn the_registrys_own_addresses() {
        let origin = RegistryOrigin { scheme: "https", host: "r.io".to_owned() };
        for (url, own) in [
            ("https://r.io/v2/", true),
            ("https://R.IO:443/v2/", true),
            ("http://r.io/v2/", false),
            ("https://r.io:8443/", false),
            ("https://cdn.r.io/", false),
            ("https://r.io.evil.com/", false),
        ] {
            assert_eq!(origin.contains(&url.parse().unwrap()), own, "{url}");
        }
    }

    #[test]
    fn adds_to_the_query() {
        for (url, expected) in [
            ("https://r.io/u/1", "https://r.io/u/1?digest=d"),
            ("https://r.io/u/1?a=b", "https://r.io/u/1?a=b&digest=d"),
        ] {
            assert_eq!(with_query(&url.parse().unwrap(), "digest", "d").unwrap(), expected);
        }
    }
}
