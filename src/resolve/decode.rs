//! The text that a resolver brought to an object, as strictly as Tekton reads it
//! (Tekton: pkg/remote/resolution/resolver.go `ResolvedRequest`).
//!
//! What is inside a spec is left to Tekton's admission, which sees the whole wrapped run in the same request.

use serde_json::Value;

use crate::{
    source::Kind,
    tekton::{
        fields::{field, text},
        v1beta1,
    },
    yaml,
};

/// A larger text can't be in a ResolutionRequest.
const MAX_BYTES: usize = 1 << 20;

/// The fields of an object (Tekton: pipeline_types.go, task_types.go).
const FIELDS: [&str; 4] = ["apiVersion", "kind", "metadata", "spec"];

/// The fields of its metadata (Kubernetes: apimachinery/pkg/apis/meta/v1/types.go, ObjectMeta).
const METADATA: [&str; 15] = [
    "name",
    "generateName",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
];

/// Why what a resolver brought is no object of the kind that was asked for: a clause that fits behind "is invalid:". It shows
/// nothing of a file that is none, since whoever sees the sentence may not be allowed to read the file.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More than is read.
    #[error("it has {0} bytes, more than the {MAX_BYTES} that are read")]
    TooLarge(usize),
    /// Bytes that are no string.
    #[error("it is not UTF-8")]
    NotUtf8,
    /// Not YAML, or YAML that has no form in JSON, or with more values than a run may have.
    #[error("it is not YAML that can be read: see its line {line}")]
    NotYaml {
        /// Counted from 1.
        line: usize,
    },
    /// No document, or several.
    #[error("{}", match .0 { 0 => "it is empty".to_owned(), count => format!("it has {count} YAML documents: there must be one") })]
    Documents(usize),
    /// A string, a number or a list.
    #[error("expected an object")]
    NotAnObject,
    /// An object of another kind.
    #[error("it is a {kind:?} of {version:?}, not a {expected} of tekton.dev")]
    Kind {
        /// What it says of itself, as far as that looks like a kind.
        kind: String,
        /// Likewise its apiVersion.
        version: String,
        /// What it should be.
        expected: &'static str,
    },
    /// A field that Tekton would refuse.
    #[error("it has the field {0:?}, which Tekton does not know")]
    UnknownField(String),
    /// A label or an annotation that is not a string.
    #[error("metadata.{0} has a value that is not a string")]
    NotAString(&'static str),
    /// A version that is not read.
    #[error("its apiVersion is {0:?}: write it as tekton.dev/v1")]
    Version(String),
    /// What its conversion to v1 would lose or Tekton refuses.
    #[error(transparent)]
    Conversion(#[from] v1beta1::ConversionError),
}

/// The object of kind `kind` in `data`, in its v1 form. It may have at most `values` JSON values.
pub fn object(kind: Kind, data: &[u8], values: usize) -> Result<Value, DecodeError> {
    if data.len() > MAX_BYTES {
        return Err(DecodeError::TooLarge(data.len()));
    }
    let string = std::str::from_utf8(data).map_err(|_| DecodeError::NotUtf8)?;
    let documents = yaml::parse_within(string, values).map_err(|error| DecodeError::NotYaml { line: error.line })?;
    let count = documents.len();
    let [object] = <[Value; 1]>::try_from(documents).map_err(|_| DecodeError::Documents(count))?;
    if !object.is_object() {
        return Err(DecodeError::NotAnObject);
    }
    let (version, found) = (text(&object, "apiVersion"), text(&object, "kind"));
    if found != kind.name() || !version.starts_with("tekton.dev/") {
        let (kind, version, expected) = (shown(found), shown(version), kind.name());
        return Err(DecodeError::Kind { kind, version, expected });
    }
    let metadata = field(&object, "metadata").unwrap_or(&Value::Null);
    check_fields(&object, &FIELDS, "")?;
    check_fields(metadata, &METADATA, "metadata.")?;
    for name in ["labels", "annotations"] {
        let values = field(metadata, name).and_then(Value::as_object);
        if values.is_some_and(|values| !values.values().all(Value::is_string)) {
            return Err(DecodeError::NotAString(name));
        }
    }
    match version {
        "tekton.dev/v1" => Ok(object),
        "tekton.dev/v1beta1" => Ok(v1beta1::to_v1(object)?),
        other => Err(DecodeError::Version(shown(other))),
    }
}

/// Refuses an `object` that has other fields than `known`, in any case.
fn check_fields(object: &Value, known: &[&str], place: &str) -> Result<(), DecodeError> {
    let unknown = |key: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(key));
    match object.as_object().and_then(|map| map.keys().find(unknown)) {
        Some(key) => Err(DecodeError::UnknownField(format!("{place}{key}"))),
        None => Ok(()),
    }
}

/// A kind or an apiVersion; what can be neither may be anything.
fn shown(name: &str) -> String {
    let plain = name.len() <= 63 && name.chars().all(|c| c.is_ascii_alphanumeric() || "./-".contains(c));
    if plain { name.to_owned() } else { "(something else)".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(data: &[u8]) -> Result<Value, String> {
        object(Kind::Pipeline, data, 1000).map_err(|error| error.to_string())
    }

    #[test]
    fn strict() {
        let pipeline =
            "apiVersion: tekton.dev/v1\nkind: Pipeline\nmetadata: {name: p}\nspec: {tasks: [], future: on}\n";
        assert_eq!(decode(pipeline.as_bytes()).unwrap()["spec"]["future"], Value::Bool(true));
        assert!(decode(br#"{"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "spec": {}}"#).is_ok());
        for (data, why) in [
            ("", "it is empty"),
            ("# nothing\n", "it is empty"),
            ("a: 1\nb: [", "it is not YAML that can be read: see its line 2"),
            ("<html>", "expected an object"),
            (
                &pipeline.replace("Pipeline", "Task"),
                r#"it is a "Task" of "tekton.dev/v1", not a Pipeline of tekton.dev"#,
            ),
            (&pipeline.replace("tekton.dev", "x"), r#"it is a "Pipeline" of "x/v1", not a Pipeline of tekton.dev"#),
            (
                &pipeline.replace("/v1", "/v1alpha1"),
                r#"its apiVersion is "tekton.dev/v1alpha1": write it as tekton.dev/v1"#,
            ),
            (&format!("{pipeline}---\n{pipeline}"), "it has 2 YAML documents: there must be one"),
            (&format!("{pipeline}status: {{}}\n"), r#"it has the field "status", which Tekton does not know"#),
            (
                &pipeline.replace("{name: p}", "{nane: p}"),
                r#"it has the field "metadata.nane", which Tekton does not know"#,
            ),
            (&pipeline.replace("{name: p}", "{labels: {a: 1}}"), "metadata.labels has a value that is not a string"),
            (
                &format!("{pipeline}# {}", "x".repeat(MAX_BYTES)),
                "it has 1048669 bytes, more than the 1048576 that are read",
            ),
            (
                &pipeline.replace("[]", &format!("[{}]", "0,".repeat(1000))),
                "it is not YAML that can be read: see its line 4",
            ),
        ] {
            assert_eq!(decode(data.as_bytes()).unwrap_err(), why);
        }
        assert_eq!(decode(b"\xff").unwrap_err(), "it is not UTF-8");
    }

    /// Whoever may create runs may not be allowed to read what a resolver can read.
    #[test]
    fn nothing_of_another_file_is_shown() {
        for file in [
            "s3cret-token",
            "[s3cret-token]",
            "kind: s3cret token",
            "kind: &s3cret-token {a: *s3cret-other}",
            "s3cret-token: 1\ns3cret-token: 2",
            "a: !!int s3cret-token",
            "a: \"s3cret-token",
            "apiVersion: v1\nkind: Secret\ndata: {s3cret-token: x}",
            "%s3cret-token",
            "a: @s3cret-token",
        ] {
            let error = decode(file.as_bytes()).unwrap_err();
            assert!(!error.contains("s3cret"), "{error}");
        }
    }
}
