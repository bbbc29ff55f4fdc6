//! Policies of the cluster that wrapping would bypass.
//!
//! Tekton verifies what it fetches through resolvers against the VerificationPolicies of the namespace, and only that
//! (Tekton: pkg/trustedresources/verify.go); it can't verify what is inlined. So where a policy applies to an object that came
//! through a resolver, the run is refused.

use regex::RegexBuilder;
use serde_json::Value;

use super::refusal::Refusal;
use crate::{
    source::{Flags, Found},
    tekton::fields::{field, items, text},
};

/// A pattern that takes more bytes once it is compiled, and so long to compile, counts as one that applies: whoever may write
/// policies of a namespace must not keep the reviews of all others waiting.
const MAX_PATTERN: usize = 512 << 10;

/// An object that came through a resolver, and that nobody can verify once it is inlined.
#[derive(Clone, Debug)]
pub struct Unverified {
    /// How sentences name it.
    what: String,
    /// Where it came from.
    uri: String,
}

impl Unverified {
    /// `found`, which `what` names.
    pub fn new(what: String, found: &Found) -> Self {
        Self { what, uri: found.source.as_ref().map_or("", |source| text(source, "uri")).to_owned() }
    }
}

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

    /// Refuses the run if a VerificationPolicy applies to one of `remote`, objects that came through resolvers. `policies` are
    /// those of the namespace.
    pub fn allow_unverified(
        &self,
        remote: &[Unverified],
        policies: &[Value],
        is_late: &dyn Fn() -> bool,
    ) -> Result<(), Refusal> {
        for policy in policies {
            for resource in field(policy, "spec").map_or(&[][..], |spec| items(spec, "resources")) {
                if is_late() {
                    return Err(Refusal::Late);
                }
                // Releases of Tekton differ in how they match a pattern, so it applies if it matches any part of the uri.
                let pattern = RegexBuilder::new(text(resource, "pattern")).size_limit(MAX_PATTERN).build();
                let applies =
                    |object: &&Unverified| pattern.as_ref().map_or(true, |pattern| pattern.is_match(&object.uri));
                if let Some(object) = remote.iter().find(applies) {
                    let policy = field(policy, "metadata").map_or("", |metadata| text(metadata, "name")).to_owned();
                    return Err(Refusal::Verified { what: object.what.clone(), policy });
                }
            }
        }
        match (self.value(NO_MATCH), remote.first()) {
            ("fail", Some(object)) => Err(Refusal::VerificationRequired { what: object.what.clone() }),
            _ => Ok(()),
        }
    }

    fn value(&self, name: &str) -> &str {
        self.0.as_ref().and_then(|map| field(map, "data")?.get(name)?.as_str()).unwrap_or_default()
    }
}

/// The feature flag that decides about objects that no policy applies to.
const NO_MATCH: &str = "trusted-resources-verification-no-match-policy";

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
        let found = |source: Value| Found { source: Some(source), ..Found::by_name(json!({})) };
        let what = "the pipeline through resolver \"git\" ()";
        let unverified = |source: Value| [Unverified::new(what.to_owned(), &found(source))];
        let git = unverified(json!({"uri": "git+https://example.com/repo.git"}));
        let policy =
            |pattern: &str| json!({"metadata": {"name": "signed"}, "spec": {"resources": [{"pattern": pattern}]}});
        let none = Flags::default();
        let in_time = || false;
        for policies in [vec![], vec![policy("^https://other.example.com/")], vec![json!({"spec": {}})]] {
            assert!(none.allow_unverified(&git, &policies, &in_time).is_ok(), "{policies:?}");
        }
        // The last one takes megabytes once it is compiled.
        for pattern in [".*", "https://example.com/repo.git", "^git\\+https://example.com/.*$", "[", "(\\pL{9}){9}x"] {
            let error = none.allow_unverified(&git, &[policy(pattern)], &in_time).unwrap_err().to_string();
            assert_eq!(
                error,
                format!(
                    "{what} is subject to VerificationPolicy \"signed\", which wrapping would bypass: run it unwrapped, or put a verified copy into the namespace and refer to it by name"
                ),
                "{pattern}"
            );
        }
        let fail = flags(NO_MATCH, "fail");
        let error = fail.allow_unverified(&git, &[], &in_time).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{what} would have to be verified")), "{error}");
        assert!(fail.allow_unverified(&[], &[], &in_time).is_ok());
        assert!(flags(NO_MATCH, "warn").allow_unverified(&git, &[], &in_time).is_ok());
        let nowhere = unverified(json!({}));
        assert!(none.allow_unverified(&nowhere, &[policy("^$")], &in_time).is_err());
        let late = none.allow_unverified(&git, &[policy("^x")], &|| true).unwrap_err();
        assert!(matches!(late, Refusal::Late), "{late}");
    }
}
