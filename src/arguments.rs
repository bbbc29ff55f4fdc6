//! Values of flags that more than one command has.

use crate::{
    target::{InvalidTarget, Target},
    tekton::reference::is_object_name,
};

/// A program that an image of the injected steps may have beside ours.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum ImageProgram {
    /// rsync and ssh, for targets rsync:// and rsync+ssh://
    Rsync,
}

/// Why a flag can't have a value: a clause.
#[derive(Debug, thiserror::Error)]
pub enum ArgumentError {
    /// It is no image reference.
    #[error(transparent)]
    Image(#[from] InvalidTarget),
    /// It is a folder, or has a scheme.
    #[error("a node can't pull it: write an image reference such as quay.io/me/tekton-wrap:v1")]
    NotPullable,
    /// Kubernetes: "Object Names and IDs", RFC 1123 label names.
    #[error("a namespace has 1 to 63 lower-case letters, digits and '-', and begins and ends with a letter or digit")]
    Namespace,
}

/// An image as nodes pull it. It stays as it is written.
pub fn image(value: &str) -> Result<String, ArgumentError> {
    match value.parse::<Target>()? {
        Target::Registry(_) if !value.contains("://") => Ok(value.to_owned()),
        _ => Err(ArgumentError::NotPullable),
    }
}

/// The name of a namespace.
pub fn namespace(value: &str) -> Result<String, ArgumentError> {
    let is_label = value.len() <= 63 && !value.contains('.') && is_object_name(value);
    if is_label { Ok(value.to_owned()) } else { Err(ArgumentError::Namespace) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        for good in [
            "tekton-wrap:0.1.0",
            "i",
            "quay.io/me/tekton-wrap@sha256:0000000000000000000000000000000000000000000000000000000000000000",
        ] {
            assert_eq!(image(good).unwrap(), good);
        }
        for bad in ["", " ", "a b", "dir:///tmp/a", "oci://quay.io/me/a", "$(IMAGE)", "quay.io/Me/a"] {
            assert!(image(bad).is_err(), "{bad}");
        }
        for good in ["a", "tekton-pipelines", &"n".repeat(63)] {
            assert_eq!(namespace(good).unwrap(), good);
        }
        for bad in ["", "Bad NS", "a.b", "-a", "a-", "../b", &"n".repeat(64)] {
            assert!(namespace(bad).is_err(), "{bad}");
        }
    }
}
