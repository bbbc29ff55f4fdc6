//! What a pipelineRef or a taskRef names.

use std::{collections::HashSet, fmt};

use serde_json::{Map, Value, json};

use super::{
    fields::{field, items, text},
    scope::{Scope, VariableError},
};
use crate::{quote::Line, redact::redact};

/// A Pipeline or a Task, by where it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Reference {
    /// One of that name in the run's namespace.
    Name(String),
    /// One that a resolver of the cluster fetches.
    Remote {
        /// The resolver, for example `git`.
        resolver: String,
        /// Its params, in the order given: objects with `name` and `value`, which is a string, an array of strings or an
        /// object of strings.
        params: Vec<Value>,
    },
}

/// Why a reference can't be read, as a clause that fits after "its taskRef" and "it".
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReferenceError {
    /// It is a string, a number or an array.
    #[error("is not an object")]
    NotAnObject,
    /// It names an OCI bundle.
    #[error("has a bundle, which Tekton no longer has: use the resolver \"bundles\"")]
    Bundle,
    /// A field that Tekton would refuse.
    #[error("has a field {0:?}, which Tekton does not know: it takes name, or resolver and params")]
    UnknownField(String),
    /// Neither name nor resolver has a value.
    #[error("names nothing: write name, or resolver and params")]
    Empty,
    /// Params without a resolver.
    #[error("has params but no resolver: name the resolver")]
    NoResolver,
    /// Both ways at once.
    #[error("has a name ({name:?}) beside the resolver {resolver:?}: keep one of them")]
    NameAndResolver {
        /// The name.
        name: String,
        /// The resolver.
        resolver: String,
    },
    /// A param whose name is empty.
    #[error("has a param without a name")]
    UnnamedParam,
    /// A param given twice.
    #[error("has the param {0:?} twice: keep one")]
    DuplicateParam(String),
}

/// How many characters of a param's value a sentence shows.
const SHOWN: usize = 60;

impl Reference {
    /// What `reference`, a pipelineRef or taskRef in its v1 form, names. `fields` are those that it may have
    /// beside `name`, `resolver` and `params`. Variables are not resolved yet.
    pub fn read(reference: &Value, fields: &[&str]) -> Result<Self, ReferenceError> {
        let known = |key: &String| {
            ["name", "resolver", "params"].iter().chain(fields).any(|field| key.eq_ignore_ascii_case(field))
        };
        match reference.as_object().map(|map| map.keys().find(|key| !known(key))) {
            None => return Err(ReferenceError::NotAnObject),
            Some(Some(key)) if key == "bundle" => {
                return Err(ReferenceError::Bundle);
            }
            Some(Some(key)) => {
                return Err(ReferenceError::UnknownField(key.clone()));
            }
            Some(None) => {}
        }
        let params = field(reference, "params");
        match (text(reference, "name"), text(reference, "resolver")) {
            ("", "") => Err(ReferenceError::Empty),
            (name, "") if params.is_none() => Ok(Self::Name(name.to_owned())),
            (_, "") => Err(ReferenceError::NoResolver),
            ("", resolver) => Ok(Self::Remote { resolver: resolver.to_owned(), params: read_params(reference)? }),
            (name, resolver) => {
                Err(ReferenceError::NameAndResolver { name: name.to_owned(), resolver: resolver.to_owned() })
            }
        }
    }

    /// The same with every variable resolved from `scope`.
    pub fn resolved(self, scope: &Scope<'_>) -> Result<Self, VariableError> {
        match self {
            Self::Name(name) => Ok(Self::Name(scope.apply_text(&name)?)),
            Self::Remote { resolver, params } => {
                let apply = |param: Value| -> Result<Value, VariableError> {
                    let value = scope.apply(field(&param, "value").unwrap_or(&Value::Null))?;
                    Ok(json!({"name": text(&param, "name"), "value": value}))
                };
                let params = params.into_iter().map(apply).collect::<Result<_, _>>()?;
                Ok(Self::Remote { resolver, params })
            }
        }
    }

    /// The resolver that fetches it, if one does.
    pub fn resolver(&self) -> Option<&str> {
        match self {
            Self::Name(_) => None,
            Self::Remote { resolver, .. } => Some(resolver),
        }
    }
}

/// For sentences, after `pipeline` or `task`: `"build"`, or `through resolver "git" (url=…, pathInRepo=…)`. Without passwords and
/// tokens in addresses: sentences go to logs, and this one into an annotation.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name:?}"),
            Self::Remote { resolver, params } => {
                write!(f, "through resolver {resolver:?} (")?;
                for (i, param) in params.iter().enumerate() {
                    let separator = if i == 0 { "" } else { ", " };
                    let value = field(param, "value").unwrap_or(&Value::Null);
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let value = shortened(&redact(&value, &[], usize::MAX));
                    write!(f, "{separator}{}={}", Line(text(param, "name")), Line(&value))?;
                }
                f.write_str(")")
            }
        }
    }
}

/// Whether an object can have this name: a DNS subdomain (Kubernetes: "Object Names and IDs").
pub fn is_object_name(name: &str) -> bool {
    let alnum = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit();
    let label = |label: &str| match label.as_bytes() {
        [first, .., last] => alnum(*first) && alnum(*last) && label.bytes().all(|c| alnum(c) || c == b'-'),
        [only] => alnum(*only),
        [] => false,
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// The params in the form that Tekton converts them to (Tekton: param_types.go `UnmarshalJSON`).
fn read_params(reference: &Value) -> Result<Vec<Value>, ReferenceError> {
    let mut params: Vec<Value> = Vec::new();
    let mut names = HashSet::new();
    for param in items(reference, "params") {
        let name = text(param, "name");
        if name.is_empty() {
            return Err(ReferenceError::UnnamedParam);
        }
        if !names.insert(name) {
            return Err(ReferenceError::DuplicateParam(name.to_owned()));
        }
        params.push(json!({"name": name, "value": param_value(field(param, "value").unwrap_or(&Value::Null))}));
    }
    Ok(params)
}

fn param_value(value: &Value) -> Value {
    match value {
        Value::Null => json!(""),
        Value::String(_) => value.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => value.clone(),
        Value::Object(map) if map.values().all(Value::is_string) => value.clone(),
        other => json!(other.to_string()),
    }
}

fn shortened(value: &str) -> String {
    let mut line: String = value.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN).collect();
    if value.chars().nth(SHOWN).is_some() {
        line.push('…');
    }
    line
}

/// The `refSource` that a resolver gave, as one compact string for an annotation: uri, digest and entryPoint
/// (Tekton: refsource.go).
pub fn source_text(source: &Value) -> String {
    let shown =
        |value: &Value| value.as_str().map_or_else(|| value.clone(), |text| json!(redact(text, &[], usize::MAX)));
    let keep = |key: &str| field(source, key).map(|value| (key.to_owned(), shown(value)));
    Value::Object(["uri", "digest", "entryPoint"].into_iter().filter_map(keep).collect::<Map<_, _>>()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sentences_show_no_secrets_and_move_no_cursor() {
        let param = |name: &str, value: Value| json!({"name": name, "value": value});
        let url = "https://user:pa55@git.example/x?token=t0ken";
        let params =
            vec![param("url", json!(url)), param("a\u{1b}[2J\n", json!("\u{202e}x\n")), param("l", json!([url]))];
        let shown = Reference::Remote { resolver: "git".to_owned(), params }.to_string();
        assert_eq!(
            shown,
            "through resolver \"git\" (url=https://***@git.example/x?***, a\\033[2J\\n=\\342\\200\\256x, l=[\"https://***@git.example/x?***\"])"
        );
        let source = json!({"uri": url, "digest": {"sha1": "abc"}, "entryPoint": "a.yaml"});
        assert_eq!(
            source_text(&source),
            r#"{"uri":"https://***@git.example/x?***","digest":{"sha1":"abc"},"entryPoint":"a.yaml"}"#
        );
    }

    #[test]
    fn read() {
        let git = json!({"resolver": "git", "params": [{"name": "url", "value": "u"}, {"name": "depth", "value": 1}]});
        let read = |value: &Value| Reference::read(value, &["apiVersion"]);
        assert_eq!(read(&json!({"name": "p", "apiVersion": "tekton.dev/v1"})), Ok(Reference::Name("p".to_owned())));
        assert_eq!(
            read(&git),
            Ok(Reference::Remote {
                resolver: "git".to_owned(),
                params: vec![json!({"name": "url", "value": "u"}), json!({"name": "depth", "value": "1"})]
            })
        );
        // Strings, and arrays and objects of them, stay; an absent value is an empty string, any other its JSON.
        for (value, expected) in [
            (json!(null), json!("")),
            (json!(["a", "b"]), json!(["a", "b"])),
            (json!({"k": "v"}), json!({"k": "v"})),
            (json!(["a", 1]), json!("[\"a\",1]")),
            (json!({"k": true}), json!("{\"k\":true}")),
            (json!(false), json!("false")),
        ] {
            let remote = read(&json!({"resolver": "r", "params": [{"name": "p", "value": value}]}));
            let params = vec![json!({"name": "p", "value": expected})];
            assert_eq!(remote, Ok(Reference::Remote { resolver: "r".to_owned(), params }), "{value}");
        }
        for (value, why) in [
            (json!("p"), "is not an object"),
            (json!({}), "names nothing: write name, or resolver and params"),
            (json!({"name": "p", "params": []}), "has params but no resolver: name the resolver"),
            (
                json!({"name": "p", "resolver": "git"}),
                r#"has a name ("p") beside the resolver "git": keep one of them"#,
            ),
            (
                json!({"name": "p", "bundle": "b"}),
                r#"has a bundle, which Tekton no longer has: use the resolver "bundles""#,
            ),
            (
                json!({"name": "p", "kind": "x"}),
                r#"has a field "kind", which Tekton does not know: it takes name, or resolver and params"#,
            ),
            (json!({"resolver": "git", "params": [{"value": "u"}]}), "has a param without a name"),
            (
                json!({"resolver": "git", "params": [{"name": "a"}, {"name": "a"}]}),
                r#"has the param "a" twice: keep one"#,
            ),
        ] {
            assert_eq!(read(&value).unwrap_err().to_string(), why, "{value}");
        }
    }

    #[test]
    fn shown() {
        let long = "x".repeat(100);
        let value =
            json!({"resolver": "git", "params": [{"name": "url", "value": long}, {"name": "l", "value": ["a", "b"]}]});
        let shown = Reference::read(&value, &[]).unwrap().to_string();
        assert_eq!(shown, format!("through resolver \"git\" (url={}…, l=[\"a\",\"b\"])", "x".repeat(60)));
    }

    #[test]
    fn object_names() {
        for name in ["a", "build", "my-pipeline.v1", "0", &"a".repeat(253)] {
            assert!(is_object_name(name), "{name}");
        }
        for name in ["", ".", "..", "a/b", "../../x/pipelines/y", "a?b", "A", "a b", "-a", "a-", "a..b", "a%2fb", "ä"]
        {
            assert!(!is_object_name(name), "{name}");
        }
        assert!(!is_object_name(&"a".repeat(254)));
    }
}
