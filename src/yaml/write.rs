//! JSON values to YAML in block style, as kubectl prints objects.

#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "the indentation of values that are in memory; the end of a text behind what was trimmed"
)]

use serde_json::Value;

use super::scalar;
use crate::quote::is_invisible;

/// One document.
pub fn to_string(value: &Value) -> String {
    let mut out = String::new();
    node(value, 0, &mut out);
    out
}

/// Writes `value` at `indent`, ending its last line.
fn node(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            for (index, (key, value)) in map.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                out.push_str(&inline(key));
                out.push(':');
                child(value, indent, out);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            for (index, item) in items.iter().enumerate() {
                if index > 0 || !out.ends_with("- ") {
                    pad(indent, out);
                }
                out.push_str("- ");
                node(item, indent + 2, out);
            }
        }
        Value::String(text) if is_block(text) => block(text, indent, out),
        Value::String(text) => line(&inline(text), out),
        Value::Object(_) => line("{}", out),
        Value::Array(_) => line("[]", out),
        other => line(&other.to_string(), out),
    }
}

/// What follows `key:`. An array is not indented further, as in kubectl's output.
fn child(value: &Value, indent: usize, out: &mut String) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push('\n');
            node(value, indent + 2, out);
        }
        Value::Array(items) if !items.is_empty() => {
            out.push('\n');
            node(value, indent, out);
        }
        Value::String(text) if is_block(text) => {
            out.push(' ');
            block(text, indent + 2, out);
        }
        _ => {
            out.push(' ');
            node(value, indent, out);
        }
    }
}

/// A string of several lines that a literal block preserves.
fn is_block(text: &str) -> bool {
    let printable = |c: char| c == '\n' || c == '\t' || (!c.is_control() && !is_break(c));
    text.contains('\n') && !text.starts_with(['\n', ' ', '\t']) && text.chars().all(printable)
}

fn block(text: &str, indent: usize, out: &mut String) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for text in body.split('\n').chain(text[body.len()..].matches('\n').skip(1).map(|_| "")) {
        if !text.is_empty() {
            pad(indent, out);
            out.push_str(text);
        }
        out.push('\n');
    }
}

/// A string on one line: plain if that is read as the same string, else in the quotes that need fewer escapes.
fn inline(text: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || "_-./$(){}@+,=%~^ []*:".contains(c);
    let start = |c: char| c.is_ascii_alphanumeric() || "_./$(".contains(c);
    let plain = text.starts_with(start)
        && text.chars().all(word)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(" #")
        && scalar::resolve(text).is_string();
    if plain {
        text.to_owned()
    } else if text.contains('"') && !text.contains(|c: char| c == '\'' || c.is_control() || is_break(c)) {
        format!("'{text}'")
    } else {
        escape(text)
    }
}

/// JSON escapes are YAML escapes; characters that are line breaks only in YAML, and those that change the order of others, are
/// escaped too.
fn escape(text: &str) -> String {
    let mut out = String::new();
    for c in Value::from(text).to_string().chars() {
        match c {
            _ if is_break(c) || (c.is_control() && !c.is_ascii()) || c == '\u{7f}' => {
                out.push_str(&format!("\\u{:04x}", c as u32))
            }
            _ => out.push(c),
        }
    }
    out
}

fn is_break(c: char) -> bool {
    c == '\u{85}' || is_invisible(c)
}

fn line(text: &str, out: &mut String) {
    out.push_str(text);
    out.push('\n');
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Whether `value` survives being written and read: for tests.
#[cfg(test)]
fn survives(value: &Value) -> bool {
    super::read::parse(&to_string(value)).is_ok_and(|documents| documents == [value.clone()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn looks_like_kubectl() {
        let value = json!({
            "a": {"b": [], "c": {}},
            "list": [{"name": "x", "value": "yes"}, ["p", 0], "0644"],
            "script": "#!/bin/sh\necho a: b\n",
            "strip": "a\nb",
            "keep": "a\nb\n\n",
            "odd": ": x",
        });
        let expected = "a:\n  b: []\n  c: {}\nlist:\n- name: x\n  value: \"yes\"\n- - p\n  - 0\n- \"0644\"\nscript: |\n  #!/bin/sh\n  echo a: b\nstrip: |-\n  a\n  b\nkeep: |+\n  a\n  b\n\nodd: \": x\"\n";
        assert_eq!(to_string(&value), expected);
        assert!(survives(&value));
    }

    fn json_value() -> impl Strategy<Value = Value> {
        let text =
            prop_oneof!["[ -~]{0,12}", "[a-z0-9:#\\n \\-\"'|>{}\\[\\],&*!%@`~.]{0,16}", "\\PC{0,6}", any::<String>()];
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            text.clone().prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::vec((text.clone(), inner), 0..4)
                    .prop_map(|entries| Value::Object(entries.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn reads_back_the_same(value in json_value()) {
            prop_assume!(!value.is_null());
            prop_assert!(survives(&value), "{}", to_string(&value));
        }
    }
}
