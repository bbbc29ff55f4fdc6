//! Hosts with wildcards, as Kubernetes has them in image pull secrets ("Images", "Interpretation of config.json"): `*` and
//! `?` stand for parts of one label of a name, never for a dot, and a port has to be the same.

/// Whether `pattern`, which may hold wildcards, matches `host` (both `host[:port]` in lower case).
pub fn matches(pattern: &str, host: &str) -> bool {
    if !pattern.contains(['*', '?']) {
        return pattern == host;
    }
    let (pattern, pattern_port) = pattern.split_once(':').map_or((pattern, None), |(name, port)| (name, Some(port)));
    let (host, port) = host.split_once(':').map_or((host, None), |(name, port)| (name, Some(port)));
    let labels = pattern.split('.').count();
    pattern_port == port
        && labels == host.split('.').count()
        && pattern
            .split('.')
            .zip(host.split('.'))
            .all(|(pattern, label)| label_matches(pattern.as_bytes(), label.as_bytes()))
}

fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    match (pattern, label) {
        ([], []) => true,
        ([b'*', rest @ ..], _) => {
            // A label has at most 63 bytes, which bounds the recursion.
            (0..=label.len()).filter_map(|skipped| label.get(skipped..)).any(|label| label_matches(rest, label))
        }
        ([b'?', pattern @ ..], [_, label @ ..]) => label_matches(pattern, label),
        ([p, pattern @ ..], [l, label @ ..]) if p == l => label_matches(pattern, label),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the documentation of Kubernetes among them.
    #[test]
    fn wildcards() {
        for (pattern, host, expected) in [
            ("*.kubernetes.io", "abc.kubernetes.io", true),
            ("*.kubernetes.io", "kubernetes.io", false),
            ("*.*.kubernetes.io", "abc.def.kubernetes.io", true),
            ("*.*.kubernetes.io", "abc.kubernetes.io", false),
            ("prefix.*.io", "prefix.kubernetes.io", true),
            ("*-good.kubernetes.io", "prefix-good.kubernetes.io", true),
            ("*-good.kubernetes.io", "prefix-bad.kubernetes.io", false),
            ("*.dkr.ecr.*.amazonaws.com", "1.dkr.ecr.eu-west-1.amazonaws.com", true),
            ("*.io", "a.b.io", false),
            ("*.io:5000", "a.io:5000", true),
            ("*.io", "a.io:5000", false),
            ("?.io", "a.io", true),
            ("?.io", "ab.io", false),
            ("a*b*c.io", "aXbYc.io", true),
            ("*", "localhost", true),
            ("*", "quay.io", false),
            ("quay.io", "quay.io", true),
            ("quay.io", "quayXio", false),
        ] {
            assert_eq!(matches(pattern, host), expected, "{pattern} {host}");
        }
    }
}
