//! Policies of the cluster that wrapping would bypass.
//!
//! Tekton verifies what it fetches through resolvers against the VerificationPolicies of the namespace, and only that
//! (Tekton: pkg/trustedresources/verify.go); it can't verify what is inlined. So where a policy applies to an object that came
//! through a resolver, the run is refused.

use regex::Regex;
use serde_json::Value;

use super::refusal::Refusal;
use crate::{
    source::{Flags, Found},
    tekton::fields::{field, items, text},
};

impl Flags {
    /// Refuses the run if pipelines may not be inlined at all (Tekton: pipelinerun_validation.go, pipeline_validation.go,
    /// taskrun_validation.go; each looks for its own word in the list).
    pub fn allow_inlining(&self) -> Result<(), Refusal> {
        let value = self.value("disable-inline-spec");
        let forbidden = |word: &str| ["pipelinerun", "pipeline", "taskrun"].contains(&word.trim());
        if value.split(',').any(forbidden) {
            return Err(Refusal::InliningForbidden(value.to_owned()));
        }
        Ok(())
    }

    /// Refuses the run if a VerificationPolicy applies to `found`, which came through a resolver and which `what` names.
    /// `policies` are those of the namespace.
    pub fn allow_unverified(&self, what: &str, found: &Found, policies: &[Value]) -> Result<(), Refusal> {
        let uri = found.source.as_ref().map_or("", |source| text(source, "uri"));
        if let Some(policy) = policies.iter().find(|policy| concerns(policy, uri)) {
            let policy = field(policy, "metadata").map_or("", |metadata| text(metadata, "name")).to_owned();
            return Err(Refusal::Verified { what: what.to_owned(), policy });
        }
        match self.value(NO_MATCH) {
            "fail" => Err(Refusal::VerificationRequired { what: what.to_owned() }),
            _ => Ok(()),
        }
    }

    fn value(&self, name: &str) -> &str {
        self.0.as_ref().and_then(|map| field(map, "data")?.get(name)?.as_str()).unwrap_or_default()
    }
}

/// The feature flag that decides about objects that no policy applies to.
const NO_MATCH: &str = "trusted-resources-verification-no-match-policy";

/// Whether `policy` applies to what comes from `uri`. Releases of Tekton differ in how they match a pattern, so it does if the
/// pattern matches any part of the uri, or is invalid.
fn concerns(policy: &Value, uri: &str) -> bool {
    let resources = field(policy, "spec").map_or(&[][..], |spec| items(spec, "resources"));
    resources.iter().any(|resource| Regex::new(text(resource, "pattern")).map_or(true, |pattern| pattern.is_match(uri)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn flags(name: &str, value: &str) -> Flags {
        Flags(Some(json!({"data": {name: value}})))
    }

    #[test]
    fn inlining() {
        let inlining_flag = |value: &str| flags("disable-inline-spec", value);
        for allowed in [Flags(None), Flags(Some(json!({}))), inlining_flag(""), inlining_flag("customrun")] {
            assert!(allowed.allow_inlining().is_ok(), "{allowed:?}");
        }
        for value in ["pipelinerun", "customrun,pipeline", "taskrun, customrun"] {
            let error = inlining_flag(value).allow_inlining().unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "Tekton's feature flag disable-inline-spec is {value:?}: pipelines may not be inlined in this cluster, and wrapping inlines them; run the pipeline unwrapped, or ask for the flag to be changed"
                )
            );
        }
    }

    #[test]
    fn verification() {
        let found = |source: Value| Found { object: json!({}), source: Some(source) };
        let git = found(json!({"uri": "git+https://example.com/repo.git"}));
        let policy =
            |pattern: &str| json!({"metadata": {"name": "signed"}, "spec": {"resources": [{"pattern": pattern}]}});
        let none = Flags::default();
        let what = "the pipeline through resolver \"git\" ()";
        for policies in [vec![], vec![policy("^https://other.example.com/")], vec![json!({"spec": {}})]] {
            assert!(none.allow_unverified(what, &git, &policies).is_ok(), "{policies:?}");
        }
        for pattern in [".*", "https://example.com/repo.git", "^git\\+https://example.com/.*$", "["] {
            let error = none.allow_unverified(what, &git, &[policy(pattern)]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "{what} is subject to VerificationPolicy \"signed\", which wrapping would bypass: run it unwrapped, or put a verified copy into the namespace and refer to it by name"
                ),
                "{pattern}"
            );
        }
        let fail = flags(NO_MATCH, "fail");
        let error = fail.allow_unverified(what, &git, &[]).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{what} would have to be verified")), "{error}");
        assert!(flags(NO_MATCH, "warn").allow_unverified(what, &git, &[]).is_ok());
        assert!(none.allow_unverified(what, &found(json!({})), &[policy("^$")]).is_err());
    }
}
