//! Pipelines and Tasks out of files, in the place of a cluster.

use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use crate::{
    source::{Creation, Defaults, Found, Kind, Source, SourceError},
    tekton::{
        fields::{field, items, text},
        reference::Reference,
        v1beta1,
    },
    yaml,
};

/// Objects read from files, and what was found in them.
#[derive(Debug, Default)]
pub struct FileObjects {
    objects: Vec<FileObject>,
    lookups: Mutex<Lookups>,
}

/// One object, in its v1 form if it has one.
#[derive(Debug)]
struct FileObject {
    value: Value,
    /// Why it has no v1 form: a clause.
    problem: Option<String>,
}

/// What was asked for since [`FileObjects::take_lookups`].
#[derive(Debug, Default)]
pub struct Lookups {
    /// The objects that were found.
    pub found: Vec<(Kind, Value)>,
    /// What to tell about them, a line each.
    pub notes: Vec<String>,
}

impl FileObjects {
    /// Adds the documents of `text`, YAML or JSON objects one after the other; a List gives its items. Objects of Tekton's
    /// are converted to v1, as the API would.
    pub fn add(&mut self, text: &str) -> Result<(), yaml::YamlError> {
        for document in documents(text)? {
            match document.get("kind").and_then(Value::as_str) {
                Some("List") => items(&document, "items").iter().cloned().for_each(|item| self.push(item)),
                _ => self.push(document),
            }
        }
        Ok(())
    }

    /// All objects, in their order.
    pub fn all(&self) -> impl Iterator<Item = &Value> {
        self.objects.iter().map(|object| &object.value)
    }

    /// The PipelineRuns that have a v1 form, in their order.
    pub fn runs(&self) -> impl Iterator<Item = &Value> {
        self.all_runs().filter_map(Result::ok)
    }

    /// All PipelineRuns, those without a v1 form with the reason.
    pub fn all_runs(&self) -> impl Iterator<Item = Result<&Value, (&Value, &str)>> {
        self.objects.iter().filter(|object| text(&object.value, "kind") == "PipelineRun").map(|object| {
            match &object.problem {
                None => Ok(&object.value),
                Some(problem) => Err((&object.value, problem.as_str())),
            }
        })
    }

    /// What was asked for since the last time.
    pub fn take_lookups(&self) -> Lookups {
        std::mem::take(&mut self.lookups.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Pipelines and Tasks without a v1 form, each as a sentence about why it is left out.
    pub fn left_out(&self) -> impl Iterator<Item = (&str, String)> {
        self.objects.iter().filter(|object| text(&object.value, "kind") != "PipelineRun").filter_map(|object| {
            let (kind, name) = (text(&object.value, "kind"), metadata(&object.value, "name"));
            object.problem.as_ref().map(|problem| (name, format!("{kind} {name:?} is left out: {problem}")))
        })
    }

    /// The namespaces in which there is an object of this kind and name.
    pub fn namespaces_of(&self, kind: Kind, name: &str) -> Vec<&str> {
        let named = self.all().filter(|object| text(object, "kind") == kind.name() && metadata(object, "name") == name);
        named.map(|object| metadata(object, "namespace")).filter(|namespace| !namespace.is_empty()).collect()
    }

    fn push(&mut self, value: Value) {
        let ours = ["PipelineRun", Kind::Pipeline.name(), Kind::Task.name()].contains(&text(&value, "kind"));
        let object = match text(&value, "apiVersion") {
            "tekton.dev/v1beta1" if ours => match v1beta1::to_v1(value.clone()) {
                Ok(converted) => FileObject { value: converted, problem: None },
                Err(error) => FileObject { value, problem: Some(error.to_string()) },
            },
            version if ours && version != "tekton.dev/v1" => {
                let problem = format!("its apiVersion is {version:?}: write it as tekton.dev/v1");
                FileObject { value, problem: Some(problem) }
            }
            _ => FileObject { value, problem: None },
        };
        self.objects.push(object);
    }

    fn named(&self, kind: Kind, name: &str, namespace: &str) -> Result<Option<Value>, SourceError> {
        let found = self.objects.iter().find(|FileObject { value, .. }| {
            text(value, "kind") == kind.name()
                && metadata(value, "name") == name
                && ["", namespace].contains(&metadata(value, "namespace"))
        });
        match found {
            Some(FileObject { value, problem: None }) => {
                self.with_lookups(|lookups| lookups.found.push((kind, value.clone())));
                Ok(Some(value.clone()))
            }
            Some(FileObject { problem: Some(problem), .. }) => {
                Err(SourceError::unreadable(format!("{} {name:?}: {problem}", kind.word())))
            }
            None => Ok(None),
        }
    }

    fn with_lookups(&self, change: impl FnOnce(&mut Lookups)) {
        change(&mut self.lookups.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

impl Source for FileObjects {
    async fn get(
        &self,
        kind: Kind,
        reference: &Reference,
        creation: &Creation<'_>,
    ) -> Result<Option<Found>, SourceError> {
        let params = match reference {
            Reference::Name(name) => {
                let object = self.named(kind, name, creation.namespace)?;
                return Ok(object.map(Found::by_name));
            }
            Reference::Remote { params, .. } => params,
        };
        let word = kind.word();
        for name in stand_ins(params) {
            if let Some(object) = self.named(kind, name, creation.namespace)? {
                let note = format!("the {word} {reference} is taken to be the {word} {name:?} in the files");
                self.with_lookups(|lookups| lookups.notes.push(note));
                return Ok(Some(Found::by_name(object)));
            }
        }
        Err(SourceError::unreadable(format!(
            "the {word} {reference} can only be read in a cluster: add it to the files, under the name that the resolver is asked for"
        )))
    }

    async fn defaults(&self, creation: &Creation<'_>) -> Result<Vec<Defaults>, SourceError> {
        let map = |name: &str, namespace: Option<&str>| {
            let maps =
                self.all().filter(|object| text(object, "kind") == "ConfigMap" && metadata(object, "name") == name);
            let mut here = maps.filter(|map| {
                let own = metadata(map, "namespace");
                namespace.is_none_or(|namespace| ["", namespace].contains(&own))
            });
            here.next().map(|map| Defaults::new(map, name, namespace.unwrap_or_else(|| metadata(map, "namespace"))))
        };
        let own = map(Defaults::OF_NAMESPACE, Some(creation.namespace));
        Ok(own.into_iter().chain(map(Defaults::OF_CLUSTER, None)).collect())
    }
}

/// The names under which the files may have what a resolver is asked for: its param `name` (bundles, hub, cluster), or the
/// file's own name in `pathInRepo` or `url` (git, http).
fn stand_ins(params: &[Value]) -> impl Iterator<Item = &str> {
    let param = |wanted: &'static str| params.iter().find(move |param| text(param, "name") == wanted);
    let file = |path: &'static str| {
        let path = text(param(path)?, "value");
        path.rsplit('/').next()?.strip_suffix(".yaml").or_else(|| path.rsplit('/').next()?.strip_suffix(".yml"))
    };
    let name = param("name").map(|param| text(param, "value"));
    [name, file("pathInRepo"), file("url")].into_iter().flatten().filter(|name| !name.is_empty())
}

/// JSON objects one after the other, as `kubectl get -o json` and `jq` write them, or YAML documents.
fn documents(text: &str) -> Result<Vec<Value>, yaml::YamlError> {
    if text.trim_start().starts_with('{') {
        let stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        if let Ok(documents) = stream.collect::<Result<Vec<_>, _>>() {
            return Ok(documents);
        }
    }
    yaml::parse(text)
}

/// A field of an object's metadata; empty where there is none.
pub fn metadata<'a>(object: &'a Value, name: &str) -> &'a str {
    field(object, "metadata").map_or("", |metadata| text(metadata, name))
}
