//! YAML documents to JSON values.

#![allow(
    clippy::arithmetic_side_effects,
    reason = "bytes, values and levels of a text that is in memory; what aliases copy is bounded each time"
)]

use std::collections::HashMap;

use granit_parser::{Event, Parser, ScalarStyle, Span, Tag};
use serde_json::{Map, Value};

use super::scalar;

/// Limits on what anchors and aliases may copy, so that a few lines can't expand to gigabytes.
const MAX_COPIED: Size = Size { nodes: 100_000, bytes: 1 << 20, height: 0 };
/// The most levels of nesting, with those behind aliases.
const MAX_DEPTH: usize = 200;

/// Not YAML, or YAML without a JSON equivalent.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct YamlError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub problem: String,
}

/// The documents of `text`, without empty ones.
pub fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    parse_within(text, usize::MAX)
}

/// The same with a limit on the number of nodes.
pub fn parse_within(text: &str, nodes: usize) -> Result<Vec<Value>, YamlError> {
    let events = Parser::new_from_str(text);
    let mut reader = YamlReader { events, anchors: HashMap::new(), copied: Size::default(), left: nodes };
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

struct YamlReader<E> {
    events: E,
    /// Values of anchors, by the parser's number.
    anchors: HashMap<usize, Anchored>,
    copied: Size,
    /// How many more nodes are allowed.
    left: usize,
}

/// The value of an anchor.
struct Anchored {
    value: Value,
    size: Size,
}

/// The size of a value.
#[derive(Clone, Copy, Default)]
struct Size {
    nodes: usize,
    /// Of strings and keys.
    bytes: usize,
    /// Levels of nesting below it.
    height: usize,
}

impl Size {
    fn of(value: &Value) -> Self {
        let mut size = Self { nodes: 1, ..Self::default() };
        match value {
            Value::String(text) => size.bytes = text.len(),
            Value::Array(items) => items.iter().for_each(|item| size.add(Self::of(item))),
            Value::Object(map) => {
                for (key, value) in map {
                    size.bytes += key.len();
                    size.add(Self::of(value));
                }
            }
            _ => {}
        }
        size
    }

    fn add(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.bytes += other.bytes;
        self.height = self.height.max(other.height + 1);
    }
}

impl<'input, E> YamlReader<E>
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
            return Err(too_deep(span));
        }
        self.left = self.left.checked_sub(1).ok_or_else(|| error(span, "it has too many values"))?;
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => (scalar_value(&text, style, tag.as_deref(), span)?, anchor),
            Event::SequenceStart(_, anchor, _) => (self.sequence(depth)?, anchor),
            Event::MappingStart(_, anchor, _) => (self.mapping(depth)?, anchor),
            Event::Alias(anchor) => return self.alias(anchor, span, depth),
            _ => return Err(error(span, "a value is absent")),
        };
        if anchor != 0 {
            let size = Size::of(&value);
            self.copy(size, span)?;
            self.anchors.insert(anchor, Anchored { value: value.clone(), size });
        }
        Ok(value)
    }

    fn alias(&mut self, anchor: usize, span: Span, depth: usize) -> Result<Value, YamlError> {
        let absent = || error(span, "an alias names no earlier anchor");
        let size = self.anchors.get(&anchor).ok_or_else(absent)?.size;
        if depth + size.height > MAX_DEPTH {
            return Err(too_deep(span));
        }
        self.copy(size, span)?;
        self.left = self.left.checked_sub(size.nodes).ok_or_else(|| error(span, "it has too many values"))?;
        self.anchors.get(&anchor).map(|anchored| anchored.value.clone()).ok_or_else(absent)
    }

    /// Counts a copy; an error if all copies together exceed the limits.
    fn copy(&mut self, size: Size, span: Span) -> Result<(), YamlError> {
        self.copied.add(size);
        if self.copied.nodes > MAX_COPIED.nodes || self.copied.bytes > MAX_COPIED.bytes {
            return Err(error(span, "the aliases stand for too much"));
        }
        Ok(())
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
                _ => return Err(error(span, "a key is not a string")),
            };
            if map.contains_key(&key) {
                return Err(error(span, "a key is there twice"));
            }
            map.insert(key, value);
        }
        for (value, span) in merged {
            merge(&mut map, value, span)?;
        }
        Ok(Value::Object(map))
    }
}

/// `<<`: adds keys that the map does not have itself (YAML 1.1, "Merge Key Language-Independent Type").
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
            if fits { Ok(value) } else { Err(error(span, &format!("a value with the tag !!{kind} is none"))) }
        }
        _ if style == ScalarStyle::Plain => Ok(scalar::resolve(text)),
        _ => Ok(Value::String(text.to_owned())),
    }
}

fn too_deep(span: Span) -> YamlError {
    error(span, &format!("nodes lie deeper than {MAX_DEPTH}"))
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

    /// A list of lists a hundred deep with the one before at its bottom, again and again.
    fn towers(levels: usize) -> String {
        let tower = |level: usize| {
            let bottom = level.checked_sub(1).map_or("x".to_owned(), |below| format!("*a{below}"));
            format!("a{level}: &a{level} {}{bottom}{}\n", "[".repeat(100), "]".repeat(100))
        };
        (0..levels).map(tower).collect()
    }

    #[test]
    fn nodes_are_counted_as_they_come() {
        let list = format!("[{}]", vec!["0"; 1000].join(","));
        assert!(parse_within(&list, 1001).is_ok() && parse_within(&list, 1000).is_err());
        let aliases = format!("a: &a {list}\nb: [*a, *a]\n");
        assert!(parse_within(&aliases, 3100).is_ok() && parse_within(&aliases, 3000).is_err());
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
            ("a: 1\na: 2\n", "line 2: a key is there twice"),
            ("a: [1\n", "line "),
            ("a: *b\n", "line 1"),
            ("a: !!int x\n", "!!int is none"),
            (bomb.as_str(), "too much"),
            (deep.as_str(), ""),
            // 113 KB that would be half a gigabyte: few nodes, long ones.
            (&format!("a: &a {}\nb: [{}]\n", "x".repeat(100_000), vec!["*a"; 5000].join(",")), "too much"),
            // Anchors inside of anchors are copied each.
            (&format!("{}{}{}", "[&a ".repeat(150), "x".repeat(100_000), "]".repeat(150)), "too much"),
            // A tower of aliases, which nothing that goes down step by step could climb.
            (&towers(40), "deeper than 200"),
        ] {
            let message = parse(text).err().map(|error| error.to_string()).expect(text);
            assert!(message.contains(part), "{message}");
        }
    }
}
