//! Proxies: the variables `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`, with the meaning
//! that curl and Go give them.

use std::{env, net::IpAddr};

use ureq::{Proxy, ProxyProtocol};

/// The proxies of an environment.
#[derive(Clone, Debug, Default)]
pub struct Proxies {
    /// For HTTPS.
    pub https: Option<NamedProxy>,
    /// For plain HTTP.
    pub http: Option<NamedProxy>,
    exempt: Vec<Exempt>,
}

/// A proxy, and the variable that names it.
#[derive(Clone, Debug)]
pub struct NamedProxy {
    /// For example `HTTPS_PROXY`.
    pub variable: &'static str,
    /// The proxy, or a clause for errors that says why the variable's value is invalid.
    pub proxy: Result<Proxy, UnusableProxy>,
}

/// A variable without a usable proxy. No part of its value is shown, as it may hold a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableProxy {
    /// No address.
    #[error("it has to be http://[user:password@]host[:port]")]
    Malformed,
    /// SOCKS.
    #[error("only http and https proxies are supported")]
    Protocol,
}

/// One entry of `NO_PROXY`.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Exempt {
    All,
    /// A network, by its address and the length of its prefix.
    Network(IpAddr, u8),
    /// A name and all names below it, on every port or on one.
    Name(String, Option<u16>),
}

impl Proxies {
    /// From the environment of this process.
    pub fn from_env() -> Self {
        Self::from_variables(|name| env::var(name).ok())
    }

    fn from_variables(variable: impl Fn(&str) -> Option<String>) -> Self {
        let first = |names: [&'static str; 4]| {
            names.into_iter().find_map(|name| {
                let value = variable(name).filter(|value| !value.trim().is_empty())?;
                Some(NamedProxy { variable: name, proxy: parse(value.trim()) })
            })
        };
        let exempt = variable("NO_PROXY").or_else(|| variable("no_proxy")).unwrap_or_default();
        Self {
            https: first(["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]),
            http: first(["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"]),
            exempt: exempt.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(Exempt::parse).collect(),
        }
    }

    /// The proxy for a request; none for loopback addresses.
    pub fn for_url(&self, url: &http::Uri) -> Option<&NamedProxy> {
        let https = url.scheme_str() == Some("https");
        let proxy = if https { self.https.as_ref() } else { self.http.as_ref() }?;
        let host = url.host()?.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        let own = host == "localhost" || host.ends_with(".localhost") || address.is_some_and(|a| a.is_loopback());
        let port = url.port_u16().unwrap_or(if https { 443 } else { 80 });
        (!own && !self.exempt.iter().any(|exempt| exempt.matches(&host, address, port))).then_some(proxy)
    }
}

impl Exempt {
    fn parse(entry: &str) -> Self {
        if entry == "*" {
            return Self::All;
        }
        let bare = entry.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = bare.parse::<IpAddr>() {
            return Self::Network(address, width(address));
        }
        if let Some((address, length)) = entry.split_once('/')
            && let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u8>())
            && length <= width(address)
        {
            return Self::Network(address, length);
        }
        let (name, port) = match entry.rsplit_once(':') {
            Some((name, port)) if !name.contains(':') => (name, port.parse().ok()),
            _ => (entry, None),
        };
        let name = name.trim_start_matches('*').trim_start_matches('.').trim_end_matches('.');
        match name.parse() {
            // An address with a port: the port is ignored.
            Ok(address) => Self::Network(address, width(address)),
            Err(_) => Self::Name(name.to_ascii_lowercase(), port),
        }
    }

    fn matches(&self, host: &str, address: Option<IpAddr>, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, length) => address.is_some_and(|address| same_network(*network, address, *length)),
            Self::Name(name, only) => {
                let below = host.strip_suffix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
                below && only.is_none_or(|only| only == port)
            }
        }
    }
}

fn parse(value: &str) -> Result<Proxy, UnusableProxy> {
    let proxy = Proxy::new(value).map_err(|_| UnusableProxy::Malformed)?;
    if proxy.host().is_empty() {
        return Err(UnusableProxy::Malformed);
    }
    match proxy.protocol() {
        ProxyProtocol::Http | ProxyProtocol::Https => Ok(proxy),
        _ => Err(UnusableProxy::Protocol),
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn same_network(one: IpAddr, other: IpAddr, length: u8) -> bool {
    let (one, other) = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (u128::from(one.to_bits()) << 96, u128::from(other.to_bits()) << 96),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits(), other.to_bits()),
        _ => return false,
    };
    (one ^ other).leading_zeros() >= u32::from(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(variables: &[(&str, &str)], url: &str) -> Option<&'static str> {
        let find = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        Proxies::from_variables(find).for_url(&url.parse().unwrap()).map(|proxy| proxy.variable)
    }

    #[test]
    fn each_scheme_has_its_variables() {
        let all = [("HTTPS_PROXY", "http://a:1"), ("HTTP_PROXY", "http://b:2"), ("ALL_PROXY", "http://c:3")];
        assert_eq!(used(&all, "https://r.io/"), Some("HTTPS_PROXY"));
        assert_eq!(used(&all, "http://r.io/"), Some("HTTP_PROXY"));
        assert_eq!(used(&all[1..], "https://r.io/"), Some("ALL_PROXY"));
        assert_eq!(used(&[("http_proxy", "b:2")], "https://r.io/"), None);
        assert_eq!(used(&[("HTTPS_PROXY", "")], "https://r.io/"), None);
        for own in ["https://localhost/", "https://a.localhost:5000/", "https://127.0.0.9/", "https://[::1]:5000/"] {
            assert_eq!(used(&all, own), None, "{own}");
        }
    }

    #[test]
    fn exempt_hosts() {
        for (entry, url, exempt) in [
            ("r.io", "https://r.io/", true),
            ("r.io", "https://a.R.io/", true),
            ("r.io", "https://ar.io/", false),
            (".r.io", "https://a.r.io/", true),
            ("*.r.io", "https://a.r.io/", true),
            ("x, r.io ,y", "https://r.io/", true),
            ("r.io:5000", "https://r.io:5000/", true),
            ("r.io:5000", "https://r.io/", false),
            ("*", "https://r.io/", true),
            ("10.0.0.0/8", "https://10.1.2.3:5000/", true),
            ("10.0.0.0/8", "https://11.1.2.3/", false),
            ("10.96.0.0/12", "https://10.111.0.1/", true),
            ("0.0.0.0/0", "https://8.8.8.8/", true),
            ("10.0.0.0/33", "https://10.0.0.0/", false),
            ("10.1.2.3", "https://10.1.2.3/", true),
            ("10.1.2.3:5000", "https://10.1.2.3:5000/", true),
            ("fd00::/8", "https://[fd12::1]/", true),
            ("fd00::/8", "https://[fe80::1]/", false),
            ("::1/128", "https://10.0.0.1/", false),
            ("", "https://r.io/", false),
        ] {
            let proxy = used(&[("HTTPS_PROXY", "http://p:1"), ("NO_PROXY", entry)], url);
            assert_eq!(proxy.is_none(), exempt, "{entry} {url}");
        }
    }

    #[test]
    fn what_is_no_proxy() {
        for (value, expected) in [
            ("http://user:p%40w@proxy.example:3128", None),
            ("proxy.example:3128", None),
            ("http://", Some(UnusableProxy::Malformed)),
            ("http://a b", Some(UnusableProxy::Malformed)),
            ("::::", Some(UnusableProxy::Malformed)),
            ("ftp://proxy.example", Some(UnusableProxy::Malformed)),
            ("socks5://proxy.example", Some(UnusableProxy::Protocol)),
        ] {
            assert_eq!(parse(value).err(), expected, "{value}");
        }
    }
}
