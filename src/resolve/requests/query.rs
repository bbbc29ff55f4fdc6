//! What a resolver is asked for.

use std::fmt;

use serde_json::Value;

use crate::{
    source::{Kind, SourceError},
    tekton::reference::Reference,
};

/// What a resolver is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ResolverQuery {
    /// What it is to bring.
    pub kind: Kind,
    /// The run's: resolvers decide by it what may be read.
    pub namespace: String,
    /// For example `git`.
    pub resolver: String,
    /// Objects with `name` and `value`.
    pub params: Vec<Value>,
}

impl ResolverQuery {
    /// Whether a resolver can have this name: it becomes the value of a label.
    pub fn has_resolver_name(&self) -> bool {
        is_label_value(&self.resolver)
    }

    /// It is not asked for, since answers would not be noticed.
    pub fn unwatched(&self, error: &str) -> SourceError {
        let message = format!("{self} is not asked for, since ResolutionRequests can't be watched: {error}");
        SourceError { reason: SourceError::UNAVAILABLE, message }
    }

    /// It can't be asked for at the moment.
    pub fn unavailable(&self, why: &str) -> SourceError {
        SourceError { reason: SourceError::UNAVAILABLE, ..self.failed(why) }
    }

    /// It can't be asked for in this cluster.
    pub fn misconfigured(&self, why: &str) -> SourceError {
        SourceError { reason: SourceError::MISCONFIGURED, ..self.failed(why) }
    }

    /// It can't be read.
    pub fn failed(&self, why: &str) -> SourceError {
        SourceError { reason: "NotResolved", message: format!("{self} can't be read: {why}") }
    }
}

/// For sentences: `the pipeline through resolver "git" (url=…)`.
impl fmt::Display for ResolverQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = Reference::Remote { resolver: self.resolver.clone(), params: self.params.clone() };
        write!(f, "the {} {reference} in namespace {:?}", self.kind.word(), self.namespace)
    }
}

/// Kubernetes: "Labels and Selectors", the syntax of values.
fn is_label_value(text: &str) -> bool {
    let alnum = |c: char| c.is_ascii_alphanumeric();
    (1..=63).contains(&text.len())
        && text.starts_with(alnum)
        && text.ends_with(alnum)
        && text.chars().all(|c| alnum(c) || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_values() {
        for text in ["git", "my.resolver_1-x", &"a".repeat(63)] {
            assert!(is_label_value(text), "{text}");
        }
        for text in ["", "a b", "-a", "a-", "a/b", "ä", &"a".repeat(64)] {
            assert!(!is_label_value(text), "{text}");
        }
    }
}
