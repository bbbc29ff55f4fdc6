//! The PipelineRun, made from what the user gave.

#![allow(clippy::indexing_slicing, reason = "a JSON value gives null for what it does not have")]

use serde_json::{Value, json};

use crate::annotations::{BASE, TARGET, WRAP};

/// What the user wants of a run.
pub struct Wanted<'a> {
    /// Values of params.
    pub params: Vec<(String, Value)>,
    /// Workspaces to wrap, or `auto`.
    pub workspaces: Option<&'a str>,
    /// Where they go.
    pub target: Option<&'a str>,
}

/// A run of the Pipeline `name`.
pub fn of_pipeline(name: &str) -> Value {
    json!({"apiVersion": "tekton.dev/v1", "kind": "PipelineRun", "metadata": {"generateName": format!("{name}-")},
        "spec": {"pipelineRef": {"name": name}}})
}

/// Why documents are no run. A clause that fits after a file's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDocuments {
    /// Something else is among them.
    #[error("it has {0} in it: apply that first (kubectl apply -f), and give one PipelineRun or Pipeline")]
    OtherKind(String),
    /// There is none, or there are several.
    #[error("it has {0} documents: give one PipelineRun or one Pipeline")]
    Count(usize),
    /// A field is something else.
    #[error("its {0} is not an object")]
    NoObject(&'static str),
}

/// The run in `documents`, or one of the only Pipeline in them.
pub fn of_documents(documents: Vec<Value>) -> Result<Value, InvalidDocuments> {
    let known = ["PipelineRun", "Pipeline"];
    if let Some(other) = documents.iter().find(|document| !known.iter().any(|kind| document["kind"] == *kind)) {
        let kind = other["kind"].as_str().unwrap_or("a document without a kind");
        return Err(InvalidDocuments::OtherKind(kind.to_owned()));
    }
    let [document] = <[Value; 1]>::try_from(documents).map_err(|all| InvalidDocuments::Count(all.len()))?;
    if let Some(field) = ["metadata", "spec"].into_iter().find(|field| !document[*field].is_object()) {
        return Err(InvalidDocuments::NoObject(field));
    }
    if document["kind"] == "PipelineRun" {
        return Ok(document);
    }
    let name = document["metadata"]["name"].as_str().unwrap_or("run");
    Ok(json!({"apiVersion": document["apiVersion"], "kind": "PipelineRun",
        "metadata": {"generateName": format!("{name}-")}, "spec": {"pipelineSpec": document["spec"]}}))
}

/// Writes into `run` what is `wanted`. A run that asks to be wrapped by itself is asked nothing more than that.
pub fn ask(run: &mut Value, wanted: &Wanted<'_>) {
    let asks = run["spec"]["pipelineRef"]["resolver"].as_str().is_some_and(|resolver| resolver.starts_with("wrap"));
    let says = run["metadata"]["annotations"].get(WRAP).is_some();
    match wanted.workspaces {
        Some(names) if !asks => annotate(run, WRAP, names),
        None if !asks && !says => annotate(run, WRAP, "auto"),
        _ => {}
    }
    if let Some(target) = wanted.target {
        annotate(run, TARGET, target);
    }
    let params = &mut run["spec"]["params"];
    let mut given = params.as_array().cloned().unwrap_or_default();
    for (name, value) in &wanted.params {
        given.retain(|param| param["name"] != *name);
        given.push(json!({"name": name, "value": value}));
    }
    if given.is_empty() {
        if let Some(spec) = run["spec"].as_object_mut() {
            spec.remove("params");
        }
    } else {
        *params = json!(given);
    }
}

/// Gives `run` the name that the API server would generate, so that it is known before it is created.
pub fn name(run: &mut Value) {
    let Some(metadata) = run["metadata"].as_object_mut() else { return };
    if let Some(Value::String(prefix)) = metadata.remove("generateName") {
        metadata.entry("name").or_insert_with(|| json!(format!("{prefix:.58}{}", random_name())));
    }
}

/// Says what the workspaces start with.
pub fn set_base(run: &mut Value, base: &str) {
    annotate(run, BASE, base);
}

/// Metadata and spec are objects: [`of_documents`] looks.
fn annotate(run: &mut Value, name: &str, value: &str) {
    let annotations = &mut run["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[name] = json!(value);
}

/// Five letters and digits, those that Kubernetes takes (apimachinery: util/rand).
fn random_name() -> String {
    const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let mut bytes = [0_u8; 5];
    // Without random numbers there is no TLS either: that fails with a sentence.
    let _ = ring::rand::SecureRandom::fill(&ring::rand::SystemRandom::new(), &mut bytes);
    #[allow(clippy::arithmetic_side_effects, reason = "there are letters")]
    let letter = |byte: &u8| char::from(LETTERS[usize::from(*byte) % LETTERS.len()]);
    bytes.iter().map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted<'a>(workspaces: Option<&'a str>, target: Option<&'a str>) -> Wanted<'a> {
        Wanted { params: vec![("p".to_owned(), json!(["v"]))], workspaces, target }
    }

    #[test]
    fn runs_that_ask() {
        let mut run = of_pipeline("build");
        ask(&mut run, &wanted(None, Some("quay.io/x")));
        assert_eq!(
            run["metadata"],
            json!({"generateName": "build-",
            "annotations": {"tekton-wrap.dev/wrap": "auto", "tekton-wrap.dev/target": "quay.io/x"}})
        );
        assert_eq!(run["spec"], json!({"pipelineRef": {"name": "build"}, "params": [{"name": "p", "value": ["v"]}]}));
        set_base(&mut run, "quay.io/b");
        name(&mut run);
        let chosen = run["metadata"]["name"].as_str().unwrap().to_owned();
        assert!(chosen.starts_with("build-") && chosen.len() == 11 && run["metadata"].get("generateName").is_none());
        assert_eq!(run["metadata"]["annotations"]["tekton-wrap.dev/base"], "quay.io/b");

        // What a run says by itself stays.
        let resolver = json!({"resolver": "wrap", "params": []});
        let mut run = json!({"kind": "PipelineRun", "metadata": {"name": "r"}, "spec": {"pipelineRef": resolver,
            "params": [{"name": "p", "value": "old"}, {"name": "q", "value": "w"}]}});
        ask(&mut run, &wanted(None, None));
        name(&mut run);
        assert_eq!(run["metadata"], json!({"name": "r"}));
        assert_eq!(run["spec"]["params"], json!([{"name": "q", "value": "w"}, {"name": "p", "value": ["v"]}]));
        let mut run =
            json!({"metadata": {"annotations": {"tekton-wrap.dev/wrap": "a"}}, "spec": {"pipelineRef": {"name": "x"}}});
        ask(&mut run, &Wanted { params: Vec::new(), workspaces: None, target: None });
        assert_eq!(run["metadata"]["annotations"]["tekton-wrap.dev/wrap"], "a");
        assert_eq!(run["spec"].get("params"), None);
    }

    #[test]
    fn documents() {
        let pipeline = json!({"apiVersion": "tekton.dev/v1", "kind": "Pipeline", "metadata": {"name": "p"}, "spec": {"tasks": []}});
        let run = of_documents(vec![pipeline.clone()]).unwrap();
        assert_eq!(
            (&run["metadata"]["generateName"], &run["spec"]),
            (&json!("p-"), &json!({"pipelineSpec": {"tasks": []}}))
        );
        for (documents, says) in [
            (vec![json!({"kind": "PipelineRun", "metadata": "r"})], "its metadata is not an object"),
            (vec![], "it has 0 documents"),
            (vec![pipeline.clone(), pipeline.clone()], "it has 2 documents: give one PipelineRun or one Pipeline"),
            (vec![json!({"kind": "PipelineRun", "metadata": "r"})], "its metadata is not an object"),
            (vec![pipeline, json!({"kind": "Task"})], "it has Task in it: apply that first"),
        ] {
            let error = of_documents(documents).unwrap_err().to_string();
            assert!(error.starts_with(says), "{error}");
        }
    }
}
