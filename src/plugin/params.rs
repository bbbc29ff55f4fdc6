//! `-p NAME=VALUE`, as `tkn pipeline start` has it.

use serde_json::{Map, Value, json};

use super::PluginError;
use crate::tekton::fields::{items, text};

/// Parses `given` for a pipeline with this spec: an array is `a,b,c` and an object `key:value,key:value`.
pub fn parse(given: &[String], pipeline: &Value) -> Result<Vec<(String, Value)>, PluginError> {
    let declared = items(pipeline, "params");
    given
        .iter()
        .map(|given| {
            let wrong = |problem: &str| PluginError::Argument(format!("-p {given:?}: {problem}"));
            let (name, value) = given.split_once('=').ok_or_else(|| wrong("write NAME=VALUE"))?;
            let kind = declared.iter().find(|param| text(param, "name") == name).map_or("", kind);
            let value = match kind {
                "array" => Value::from_iter(value.split(',').filter(|_| !value.is_empty())),
                "object" => {
                    let pair = |pair: &str| {
                        let (key, value) = pair.split_once(':')?;
                        Some((key.to_owned(), json!(value)))
                    };
                    let map: Option<Map<String, Value>> = value.split(',').map(pair).collect();
                    Value::Object(map.ok_or_else(|| wrong("it is an object: write KEY:VALUE,KEY:VALUE"))?)
                }
                _ => json!(value),
            };
            Ok((name.to_owned(), value))
        })
        .collect()
}

/// Refuses params that the Pipeline `name` with this spec does not declare: Tekton would take them and nobody would read them.
pub fn check_declared(given: &[(String, Value)], name: &str, pipeline: &Value) -> Result<(), PluginError> {
    let declared: Vec<&str> = items(pipeline, "params").iter().map(|param| text(param, "name")).collect();
    let Some((unknown, _)) = given.iter().find(|(given, _)| !declared.contains(&given.as_str())) else { return Ok(()) };
    let known = match &declared[..] {
        [] => "none".to_owned(),
        known => known.iter().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", "),
    };
    Err(PluginError::Argument(format!("-p: pipeline {name:?} has no param {unknown:?}: it declares {known}")))
}

/// The type of a param, also where only its default says it.
fn kind(param: &Value) -> &str {
    match (text(param, "type"), &param["default"]) {
        ("", Value::Array(_)) => "array",
        ("", Value::Object(_)) => "object",
        ("", _) => "string",
        (kind, _) => kind,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_by_declared_type() {
        let pipeline = json!({"params": [
            {"name": "s"}, {"name": "a", "type": "array"}, {"name": "o", "type": "object"}, {"name": "d", "default": ["x"]},
        ]});
        for (given, value) in [
            ("s=a,b=c", json!("a,b=c")),
            ("a=x,y", json!(["x", "y"])),
            ("a=", json!([])),
            ("o=k:v,l:w:x", json!({"k": "v", "l": "w:x"})),
            ("d=y", json!(["y"])),
            ("unknown=1", json!("1")),
        ] {
            assert_eq!(parse(&[given.to_owned()], &pipeline).unwrap()[0].1, value, "{given}");
        }
        for (given, says) in [("s", "write NAME=VALUE"), ("o=x", "write KEY:VALUE")] {
            assert!(parse(&[given.to_owned()], &pipeline).unwrap_err().to_string().contains(says), "{given}");
        }
        let given = |name: &str| [(name.to_owned(), json!("v"))];
        check_declared(&given("s"), "p", &pipeline).unwrap();
        for (pipeline, says) in [
            (pipeline, r#"-p: pipeline "p" has no param "typo": it declares "s", "a", "o", "d""#),
            (json!({}), r#"-p: pipeline "p" has no param "typo": it declares none"#),
        ] {
            assert_eq!(check_declared(&given("typo"), "p", &pipeline).unwrap_err().to_string(), says);
        }
    }
}
