//! The text that a resolver brought to an object, as strictly as Tekton reads it
//! (Tekton: pkg/remote/resolution/resolver.go `ResolvedRequest`).
//!
//! What is inside a spec is left to Tekton's admission, which sees the whole wrapped run in the same request.

use serde_json::Value;

use crate::{
    source::Kind,
    tekton::{
        fields::{field, text},
        reference::Reference,
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

/// The object of kind `kind` in `data`, which `reference` named, in its v1 form. An error is one sentence.
pub fn object(kind: Kind, reference: &Reference, data: &[u8]) -> Result<Value, String> {
    read(kind, data).map_err(|problem| format!("what the {} {reference} is can't be used: {problem}", kind.word()))
}

fn read(kind: Kind, data: &[u8]) -> Result<Value, String> {
    if data.len() > MAX_BYTES {
        return Err(format!("it has {} bytes, more than the {MAX_BYTES} that are read", data.len()));
    }
    let text_of = std::str::from_utf8(data).map_err(|_| "it is not text in UTF-8".to_owned())?;
    let mut documents = yaml::parse(text_of).map_err(|error| format!("it is not YAML: {error}"))?;
    let object = match documents.len() {
        0 => return Err("it is empty".to_owned()),
        1 => documents.remove(0),
        several => return Err(format!("it has {several} YAML documents: there must be one")),
    };
    if !object.is_object() {
        return Err(format!("it is no object, but {}", shown(&object)));
    }
    let (version, found) = (text(&object, "apiVersion"), text(&object, "kind"));
    if found != kind.name() || !version.starts_with("tekton.dev/") {
        return Err(format!("it is a {found:?} of {version:?}, not a {} of tekton.dev", kind.name()));
    }
    let metadata = field(&object, "metadata").unwrap_or(&Value::Null);
    only(&object, &FIELDS, "")?;
    only(metadata, &METADATA, "metadata.")?;
    for name in ["labels", "annotations"] {
        let values = field(metadata, name).and_then(Value::as_object).into_iter().flatten();
        if let Some((key, value)) = values.into_iter().find(|(_, value)| !value.is_string()) {
            return Err(format!("metadata.{name} has {} as the value of {key:?}, which must be a text", shown(value)));
        }
    }
    match version {
        "tekton.dev/v1" => Ok(object),
        "tekton.dev/v1beta1" => v1beta1::to_v1(object).map_err(|error| error.to_string()),
        other => Err(format!("its apiVersion is {other:?}: write it as tekton.dev/v1")),
    }
}

/// That `object` has no other fields than `known`, in any case.
fn only(object: &Value, known: &[&str], place: &str) -> Result<(), String> {
    let unknown = |key: &&String| !known.iter().any(|known| known.eq_ignore_ascii_case(key));
    match object.as_object().and_then(|map| map.keys().find(unknown)) {
        Some(key) => Err(format!("it has the field {:?}, which Tekton does not know", format!("{place}{key}"))),
        None => Ok(()),
    }
}

/// The beginning of `value`.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(40) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(data: &[u8]) -> Result<Value, String> {
        let reference = Reference::Remote { resolver: "git".to_owned(), params: Vec::new() };
        object(Kind::Pipeline, &reference, data)
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
            ("a: [", "it is not YAML: line "),
            ("<html>", r#"it is no object, but "<html>""#),
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
            (
                &pipeline.replace("{name: p}", "{labels: {a: 1}}"),
                r#"metadata.labels has 1 as the value of "a", which must be a text"#,
            ),
            (
                &format!("{pipeline}# {}", "x".repeat(MAX_BYTES)),
                "it has 1048669 bytes, more than the 1048576 that are read",
            ),
        ] {
            let error = decode(data.as_bytes()).unwrap_err();
            let start = format!(r#"what the pipeline through resolver "git" () is can't be used: {why}"#);
            assert!(error.starts_with(&start), "{error}");
        }
        assert!(decode(b"\xff").unwrap_err().ends_with("it is not text in UTF-8"));
    }
}
