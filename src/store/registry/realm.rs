//! Which token servers may get the password of a registry. The registry names its token server in a response, which a
//! man in the middle can forge without TLS, and a compromised registry can forge anyway.

use crate::store::net::origin::without_port;

/// Whether credentials for `registry` may be sent to the token server `realm`: the same host, the same registrable domain,
/// or listed by the user.
pub fn may_get_credentials(registry: &str, realm: &str, listed: &[String]) -> bool {
    let registry = without_port(registry).trim_end_matches('.').to_ascii_lowercase();
    let host = without_port(realm).trim_end_matches('.').to_ascii_lowercase();
    let is_listed =
        listed.iter().any(|l| [realm, host.as_str()].iter().any(|name| l.trim().eq_ignore_ascii_case(name)));
    let same_site = registrable(&registry).is_some_and(|name| registrable(&host) == Some(name));
    host == registry || is_listed || same_site
}

/// The registrable domain of a name, for example `docker.io` of `auth.docker.io`; none if it is unknown, as for IP addresses
/// and names of services in a cluster. The public suffix list is long and changes; below a suffix that is not listed here
/// all names count as one owner's, so the suffixes of hosted registries are listed.
fn registrable(host: &str) -> Option<&str> {
    const SHARED: [&str; 22] = [
        "amazonaws.com",
        "appspot.com",
        "azurecr.io",
        "azurecr.cn",
        "azurecr.us",
        "azure.com",
        "azurewebsites.net",
        "cloudfront.net",
        "fly.dev",
        "github.io",
        "gitlab.io",
        "googleapis.com",
        "herokuapp.com",
        "local",
        "localhost",
        "netlify.app",
        "ngrok.io",
        "pkg.dev",
        "r.appspot.com",
        "run.app",
        "vercel.app",
        "windows.net",
    ];
    if host.parse::<std::net::IpAddr>().is_ok() || SHARED.iter().any(|shared| is_below(host, shared)) {
        return None;
    }
    let mut labels = host.rsplit('.');
    let (top, second) = (labels.next()?, labels.next()?);
    // `example.co.uk`: most countries register below a second level of these names.
    let below_second_level = top.len() == 2
        && (second.len() <= 2 || matches!(second, "com" | "net" | "org" | "gov" | "edu" | "gob" | "nom" | "gouv"));
    let count = if below_second_level { 3 } else { 2 };
    let length =
        host.rsplit('.').take(count).map(|label| label.len().saturating_add(1)).sum::<usize>().saturating_sub(1);
    (host.split('.').count() >= count).then(|| host.get(host.len().saturating_sub(length)..)).flatten()
}

fn is_below(host: &str, suffix: &str) -> bool {
    host.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_token_servers_get_passwords_and_others_don_t() {
        let listed = ["api.scaleway.com".to_owned(), "auth.example.net:5001".to_owned()];
        for (registry, realm, may) in [
            ("quay.io", "quay.io", true),
            ("quay.io", "QUAY.io:443", true),
            ("registry.example.com:5000", "registry.example.com:5001", true),
            ("127.0.0.1:5000", "127.0.0.1:5001", true),
            ("127.0.0.1:5000", "127.0.0.2:5001", false),
            ("index.docker.io", "auth.docker.io", true),
            ("registry.gitlab.com", "gitlab.com", true),
            ("registry.example.co.uk", "auth.example.co.uk", true),
            ("registry.example.co.uk", "auth.other.co.uk", false),
            ("registry.example.com.br", "auth.other.com.br", false),
            ("mine.azurecr.io", "mine.azurecr.io", true),
            ("mine.azurecr.io", "yours.azurecr.io", false),
            ("1.dkr.ecr.eu-west-1.amazonaws.com", "evil.s3.amazonaws.com", false),
            ("registry.a.svc.cluster.local:5000", "auth.b.svc.cluster.local", false),
            ("registry.a.svc.cluster.local:5000", "registry.a.svc.cluster.local:5001", true),
            ("quay.io", "quay.io.evil.com", false),
            ("quay.io", "evilquay.io", false),
            ("quay.io", "evil.io", false),
            ("localhost:5000", "localhost:5001", true),
            ("registry", "auth", false),
            ("rg.fr-par.scw.cloud", "api.scaleway.com", true),
            ("r.example.com", "auth.example.net:5001", true),
            ("r.example.com", "auth.example.net:5002", false),
        ] {
            assert_eq!(may_get_credentials(registry, realm, &listed), may, "{registry} {realm}");
        }
    }
}
