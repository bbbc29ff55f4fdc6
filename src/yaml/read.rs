//! YAML documents to JSON values.

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::scalar;

/// Nodes that aliases may add, so that a few lines can't become gigabytes.
const MAX_ALIASED_NODES: usize = 100_000;
/// How deep nodes may lie.
const MAX_DEPTH: usize = 200;

/// A text that is not YAML, or not YAML that has a form in JSON.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// The documents of `text`, those without content left out.
pub fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), aliased: 0 };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::DocumentStart(..) => {
                reader.anchors.clear();
                let first = reader.expect()?;
                let value = reader.node(first, 0)?;
                if !value.is_null() {
                    documents.push(value);
                }
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => {}
            _ => return Err(error(span, "content outside a document")),
        }
    }
    Ok(documents)
}

struct Reader<E> {
    events: E,
    /// Values of anchors with their number of nodes.
    anchors: HashMap<usize, (Value, usize)>,
    aliased: usize,
}

impl<'input, E> Reader<E>
where
    E: Iterator<Item = Result<(Event<'input>, Span), granit_parser::ScanError>>,
{
    fn next(&mut self) -> Result<Option<(Event<'input>, Span)>, YamlError> {
        let syntax = |e: granit_parser::ScanError| YamlError { line: e.marker().line(), problem: e.info().to_string() };
        loop {
            match self.events.next().transpose().map_err(syntax)? {
                Some((Event::Comment(..), _)) => {}
                event => return Ok(event),
            }
        }
    }

    fn expect(&mut self) -> Result<(Event<'input>, Span), YamlError> {
        self.next()?.ok_or_else(|| YamlError { line: 1, problem: "the text ends in the middle".to_owned() })
    }

    /// The node that starts with `event`.
    fn node(&mut self, (event, span): (Event<'input>, Span), depth: usize) -> Result<Value, YamlError> {
        if depth > MAX_DEPTH {
            return Err(error(span, &format!("nodes lie deeper than {MAX_DEPTH}")));
        }
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar_value(&text, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span),
            _ => return Err(error(span, "a value is absent")),
        };
        if anchor != 0 {
            let nodes = count(&value);
            self.anchors.insert(anchor, (value.clone(), nodes));
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, span: Span) -> Result<Value, YamlError> {
        let (value, nodes) =
            self.anchors.get(&anchor).ok_or_else(|| error(span, "an alias names no earlier anchor"))?;
        self.aliased += nodes;
        if self.aliased > MAX_ALIASED_NODES {
            return Err(error(span, "the aliases stand for too much"));
        }
        Ok(value.clone())
    }

    fn sequence(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut items = Vec::new();
        loop {
            match self.expect()? {
                (Event::SequenceEnd, _) => return Ok(Value::Array(items)),
                event => items.push(self.node(event, depth + 1)?),
            }
        }
    }

    fn mapping(&mut self, depth: usize) -> Result<Value, YamlError> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.expect()?;
            let is_merge = match &event {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, _, _) => text == "<<",
                _ => false,
            };
            let key = self.node((event, span), depth + 1)?;
            let value_event = self.expect()?;
            let value = self.node(value_event, depth + 1)?;
            if is_merge {
                merged.push((value, span));
                continue;
            }
            let key = match key {
                Value::String(key) => key,
                Value::Bool(_) | Value::Number(_) => key.to_string(),
                _ => return Err(error(span, "a key is no text")),
            };
            if map.contains_key(&key) {
                return Err(error(span, &format!("key {key:?} is there twice")));
            }
            map.insert(key, value);
        }
        for (value, span) in merged {
            merge(&mut map, value, span)?;
        }
        Ok(Value::Object(map))
    }
}

/// `<<`: what the map does not have itself (YAML 1.1, "Merge Key Language-Independent Type").
fn merge(map: &mut Map<String, Value>, value: Value, span: Span) -> Result<(), YamlError> {
    match value {
        Value::Object(other) => {
            for (key, value) in other {
                map.entry(key).or_insert(value);
            }
            Ok(())
        }
        Value::Array(others) => others.into_iter().try_for_each(|other| merge(map, other, span)),
        _ => Err(error(span, "<< needs a map")),
    }
}

fn scalar_value(text: &str, style: ScalarStyle, tag: Option<&Tag>, span: Span) -> Result<Value, YamlError> {
    match tag.and_then(Tag::core_suffix) {
        Some("str") => Ok(Value::String(text.to_owned())),
        Some(kind @ ("int" | "float" | "bool" | "null")) => {
            let value = scalar::resolve(text);
            let fits = match kind {
                "int" => value.is_i64() || value.is_u64(),
                "float" => value.is_number(),
                "bool" => value.is_boolean(),
                _ => value.is_null(),
            };
            if fits { Ok(value) } else { Err(error(span, &format!("{text:?} is no {kind}"))) }
        }
        _ if style == ScalarStyle::Plain => Ok(scalar::resolve(text)),
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn count(value: &Value) -> usize {
    1 + match value {
        Value::Array(items) => items.iter().map(count).sum(),
        Value::Object(map) => map.values().map(count).sum(),
        _ => 0,
    }
}

fn error(span: Span, problem: &str) -> YamlError {
    YamlError { line: span.start.line(), problem: problem.to_owned() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn documents() {
        let text = "a: 1\n---\n# nothing\n---\n- x\n- 'yes'\n- |\n  one\n  two\n...\n";
        assert_eq!(parse(text).unwrap(), [json!({"a": 1}), json!(["x", "yes", "one\ntwo\n"])]);
        assert_eq!(parse("").unwrap(), [json!(null); 0]);
        assert_eq!(parse(r#"{"a": [1, "b", null]}"#).unwrap(), [json!({"a": [1, "b", null]})]);
    }

    #[test]
    fn anchors_merges_tags_and_keys() {
        let text = "a: &a {p: 1, q: 2}\nb: {<<: *a, q: 3}\nc: *a\n1: !!str 5\non: !!int \"7\"\n";
        let expected =
            json!({"a": {"p": 1, "q": 2}, "b": {"q": 3, "p": 1}, "c": {"p": 1, "q": 2}, "1": "5", "true": 7});
        assert_eq!(parse(text).unwrap(), [expected]);
    }

    #[test]
    fn rejects() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..9 {
            let alias = format!("*a{}, ", level - 1).repeat(10);
            bomb += &format!("a{level}: &a{level} [{}]\n", alias.trim_end_matches(", "));
        }
        let deep = "[".repeat(10_000);
        for (text, part) in [
            ("a: 1\na: 2\n", "line 2: key \"a\" is there twice"),
            ("a: [1\n", "line "),
            ("a: *b\n", "line 1"),
            ("a: !!int x\n", "is no int"),
            (bomb.as_str(), "too much"),
            (deep.as_str(), ""),
        ] {
            let message = parse(text).err().map(|error| error.to_string()).expect(text);
            assert!(message.contains(part), "{message}");
        }
    }
}
