//! The entries of param `cache` as they are written: YAML, or in short.

use serde_json::Value;

use crate::{
    limits::MAX_VALUES,
    wrap::{refusal::Refusal, request::values::Values},
};

/// The fields of an entry.
const FIELDS: [&str; 10] =
    ["path", "key", "files", "restore-keys", "scope", "default-scope", "target", "task", "mtime", "expires"];

/// The fields of one entry, variables resolved.
#[derive(Default)]
pub struct CacheEntry(Vec<(&'static str, Vec<String>)>);

impl CacheEntry {
    /// The strings of `field`; none if it is absent.
    pub fn list(&self, field: &str) -> Option<&[String]> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, list)| &list[..])
    }

    /// The only string of `field`, or the first.
    pub fn text(&self, field: &str) -> Option<&str> {
        self.list(field)?.first().map(String::as_str)
    }

    fn set(&mut self, field: &'static str, list: Vec<String>) {
        self.0.push((field, list));
    }
}

/// All entries of the param.
pub fn all(values: &Values<'_>) -> Result<Vec<CacheEntry>, Refusal> {
    let text = match values.value("cache") {
        Some(Value::String(text)) => text,
        _ => return short(values),
    };
    values.check_length("cache", text.len())?;
    // Variables are resolved after parsing, so that no value can become YAML.
    match crate::yaml::parse_within(text, MAX_VALUES) {
        Ok(documents) => match &documents[..] {
            [Value::Array(entries)] => entries.iter().map(|entry| parsed(values, entry)).collect(),
            [entry @ Value::Object(_)] => Ok(vec![parsed(values, entry)?]),
            [] | [Value::Null | Value::String(_)] => short(values),
            _ => Err(invalid(values, "it is neither a list of caches in YAML nor of the form PATH=FILES")),
        },
        Err(error) if text.contains('\n') || text.trim_start().starts_with(['[', '{', '-']) => {
            Err(invalid(values, format!("it is not YAML: {error}")))
        }
        Err(_) => short(values),
    }
}

/// `PATH=FILES, FILES, PATH=FILES`
fn short(values: &Values<'_>) -> Result<Vec<CacheEntry>, Refusal> {
    let mut entries: Vec<CacheEntry> = Vec::new();
    for part in values.list("cache")? {
        match part.split_once('=') {
            Some((path, files)) => {
                let mut entry = CacheEntry::default();
                entry.set("path", vec![path.trim().to_owned()]);
                entry.set("files", vec![files.trim().to_owned()]);
                entries.push(entry);
            }
            None => match entries.last_mut().and_then(|entry| entry.0.last_mut()) {
                Some((_, files)) => files.push(part),
                None => {
                    let problem = format!(
                        "{part:?} is not of the form PATH=FILES, such as source/node_modules=source/package-lock.json"
                    );
                    return Err(invalid(values, problem));
                }
            },
        }
    }
    Ok(entries)
}

fn parsed(values: &Values<'_>, value: &Value) -> Result<CacheEntry, Refusal> {
    let Some(fields) = value.as_object() else {
        return Err(invalid(values, format!("{value} is not a cache: write its fields, at least path")));
    };
    let mut entry = CacheEntry::default();
    for (name, value) in fields {
        let Some(known) = FIELDS.iter().find(|known| *known == name) else {
            return Err(invalid(values, format!("a cache has no field {name:?}: it has {}", FIELDS.join(", "))));
        };
        let is_list = ["files", "restore-keys", "task"].contains(known);
        let texts: Option<Vec<&str>> = match value {
            Value::String(text) => Some(vec![text]),
            Value::Array(items) if is_list => items.iter().map(Value::as_str).collect(),
            _ => None,
        };
        let Some(texts) = texts else {
            let wanted = if is_list { "a string or a list of strings" } else { "a string" };
            return Err(invalid(values, format!("the field {name:?} of a cache must be {wanted}")));
        };
        let resolved = texts.iter().map(|text| Ok(values.resolve("cache", text)?.trim().to_owned()));
        entry.set(known, resolved.collect::<Result<_, Refusal>>()?);
    }
    Ok(entry)
}

fn invalid(values: &Values<'_>, problem: impl Into<String>) -> Refusal {
    values.invalid("cache", problem)
}
